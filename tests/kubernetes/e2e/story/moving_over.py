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
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "old",
            "flocker": source,
            "claimRef": {"namespace": SPACE, "name": claim},
        },
    }


def tell(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    kubernetes.namespace(SPACE)
    by_id, by_name = str(uuid.uuid4()), str(uuid.uuid4())
    flocker.create(by_id, 1, SIZE, name="first")
    flocker.create(by_name, 2, SIZE, name="second")
    for number, dataset in enumerate((by_id, by_name), start=1):
        eventually(f"{dataset} is there", lambda: dataset in flocker.backed() and flocker.backed()[dataset].get("path"))
        written = flocker.mount_root(number) / dataset / "written"
        eventually("its file system is complete", lambda: written.parent.stat().st_mode & 0o777 == 0o777)
        written.write_text("from the old days\n", encoding="ascii")

    names = {"old-by-id": {"datasetUUID": by_id}, "old-by-name": {"datasetName": "second"}}
    for name, source in names.items():
        kubernetes.apply(_old_volume(name, source, name))
        kubernetes.apply(manifests.claim(SPACE, name, "old", volumeName=name))
        eventually(f"{name} is bound", lambda: kubernetes.get("pvc", name, SPACE)["status"].get("phase") == "Bound")
    report.shown("volumes with a flocker source, by id and by name, are bound to claims on the live API")

    old = kubernetes.kubectl("get", "pv", *names, "--output=yaml")
    exported = run(
        [cluster.layout.program, "export", "--from=kubernetes-pv", "-", "--claims", *_access(flocker)], text=old
    )
    for name in names:
        kubernetes.remove("pvc", name, SPACE)
        kubernetes.remove("pv", name)
    check({by_id, by_name} <= set(flocker.datasets()), "the datasets outlive the objects")
    kubernetes.kubectl("apply", "--filename=-", text=exported)
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
    kubernetes.remove_namespace(SPACE)
    for name in names:
        kubernetes.remove("pv", name)
    check({by_id, by_name} <= set(flocker.datasets()), "volumes that were brought over are retained")
    for dataset in (by_id, by_name):
        flocker.delete(dataset)
    eventually("the datasets are gone", lambda: not {by_id, by_name} & set(flocker.backed()))
    report.shown("claims and volumes deleted: the datasets are retained")


def _access(flocker):
    files = {"cluster-cert": "cluster.crt", "user-cert": "plugin.crt", "user-key": "plugin.key"}
    return ["--control-service=https://127.0.0.1:4523"] + [
        f"--{flag}={flocker.certificates}/{file}" for flag, file in files.items()
    ]
