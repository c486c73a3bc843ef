"""A volume of the in-tree plugin is brought over, as the guide says."""

import uuid

from .. import manifests
from ..processes import run
from ..waiting import check, equal, eventually
from .volumes import read

TITLE = "a volume of the in-tree plugin is exported, applied, and mounted by a pod"
ALWAYS = False
SPACE = "moving-over"
SIZE = 64 * 1024 * 1024


def _old_volume(name, source, claim):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": {"team": "storage"}},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOnce"],
            # As the old provisioner made them.
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "old",
            "flocker": source,
            "claimRef": {"namespace": SPACE, "name": claim},
        },
    }


def run_chapter(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    kubernetes.namespace(SPACE)
    by_id, by_name = _dataset(flocker, 1, "first"), _dataset(flocker, 2, "second")
    names = {"old-by-id": {"datasetUUID": by_id}, "old-by-name": {"datasetName": "second"}}
    for name, source in names.items():
        kubernetes.apply(_old_volume(name, source, name))
        kubernetes.apply(manifests.claim(SPACE, name, "old", volumeName=name))
        eventually(f"{name} is bound", lambda: kubernetes.get("pvc", name, SPACE)["status"].get("phase") == "Bound")
    report.shown("volumes with a flocker source, by id and by name, are bound to claims on the live API")

    # Steps 2, 3, 5 and 6 of docs/from-kubernetes-in-tree.md.
    patch = '{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'
    kubernetes.kubectl("patch", "pv", *names, f"--patch={patch}")
    old = kubernetes.kubectl("get", "pv", *names, "--output=yaml")
    exported = cluster.layout.work / "manifests" / "new-volumes.yaml"
    exported.write_text(
        run([cluster.layout.program, "export", "--from=kubernetes-pv", "-", "--claims", *_access(flocker)], text=old),
        encoding="utf-8",
    )
    kubernetes.kubectl("patch", "pv", *names, f"--patch={patch}")
    kubernetes.kubectl("delete", "--ignore-not-found", f"--filename={exported}")
    check({by_id, by_name} <= set(flocker.datasets()), "the datasets outlive the objects")
    kubernetes.kubectl("create", f"--filename={exported}")
    for name, dataset in zip(names, (by_id, by_name), strict=True):
        eventually(
            f"the claim {name} is bound again",
            lambda: kubernetes.get("pvc", name, SPACE)["status"].get("phase") == "Bound",
            seen=lambda: kubernetes.events(SPACE, name),
        )
        volume = kubernetes.get("pv", kubernetes.get("pvc", name, SPACE)["spec"]["volumeName"])
        equal(volume["spec"]["csi"]["volumeHandle"], dataset, f"what {name} points at now")
        equal(volume["metadata"]["labels"].get("team"), "storage", "the label that was kept")
        kubernetes.apply(manifests.pod(SPACE, name, name))
        kubernetes.until_running(SPACE, name)
        equal(read(kubernetes, SPACE, name), "from the old days", f"what the pod with {name} reads")
    report.shown("exported, applied and mounted: the pods read what was written before")
    _of_docker(cluster, report)
    kubernetes.remove_namespace(SPACE)
    for volume in kubernetes.get("pv"):
        kubernetes.remove("pv", volume["metadata"]["name"])
    retained = set(flocker.datasets())
    equal(len(retained), 3, f"datasets of volumes that were brought over: {retained}")
    for dataset in retained:
        flocker.delete(dataset)
    eventually("the datasets are gone", lambda: not flocker.backed())
    report.shown("claims and volumes deleted: the datasets are retained")


def _of_docker(cluster, report):
    """A volume that the Docker plugin made, of which Kubernetes knows nothing."""
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    _dataset(flocker, 1, "docker-volume", maximum_size=str(SIZE))
    exported = run(
        [cluster.layout.program, "export", "--from=flocker", "docker-volume", f"--claims={SPACE}", *_access(flocker)]
    )
    kubernetes.kubectl("create", "--filename=-", text=exported)
    kubernetes.apply(manifests.pod(SPACE, "docker", "docker-volume"))
    kubernetes.until_running(SPACE, "docker")
    equal(read(kubernetes, SPACE, "docker"), "from the old days", "what the pod reads of the Docker plugin's volume")
    report.shown("a dataset of the Docker plugin is exported by its name, applied and mounted")


def _dataset(flocker, node, name, **metadata):
    """Makes a dataset on a node, with something in it, as the plugins of old did; returns its id."""
    dataset = str(uuid.uuid4())
    flocker.create(dataset, node, SIZE, name=name, **metadata)
    eventually(f"{name} exists", lambda: flocker.backed().get(dataset, {}).get("path"))
    written = flocker.mount_root(node) / dataset / "written"
    eventually("its file system is complete", lambda: written.parent.stat().st_mode & 0o777 == 0o777)
    written.write_text("from the old days\n", encoding="ascii")
    return dataset


def _access(flocker):
    files = {"cluster-cert": "cluster.crt", "user-cert": "plugin.crt", "user-key": "plugin.key"}
    return ["--control-service=https://127.0.0.1:4523"] + [
        f"--{flag}={flocker.certificates}/{file}" for flag, file in files.items()
    ]
