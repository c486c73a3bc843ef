"""The chart is installed, and both nodes have registered the plugin by themselves."""

import json
import time

from ..layout import CONTROL_SERVICE, ROOT
from ..plugin import DRIVER, NAMESPACE, RELEASE, Plugin, restarts
from ..processes import run
from ..waiting import check, equal, eventually

TITLE = "the chart is installed with helm"
ALWAYS = True

LATE, NOW = "flocker", "flocker-immediate"


def values():
    """The values of this cluster: no network for pods, no registry, and every call in the log."""
    api_server = [
        {"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"},
        {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
    ]
    return {
        "image": {"repository": "registry.invalid/flocker-csi"},
        "provisioner": {"image": {"repository": "registry.invalid/csi-provisioner"}},
        "attacher": {"image": {"repository": "registry.invalid/csi-attacher"}},
        "imagePullPolicy": "Never",
        "flocker": {"controlService": CONTROL_SERVICE},
        "log": "info,flocker_csi=debug",
        "controller": {"hostNetwork": True, "extraEnv": api_server, "tlsSecret": "flocker-tls"},
        # Its certificates are those of the host.
        "node": {"hostNetwork": True},
        "storageClasses": [
            {"name": LATE, "volumeBindingMode": "WaitForFirstConsumer"},
            {"name": NOW, "volumeBindingMode": "Immediate"},
        ],
    }


def helm(cluster, *arguments, **how):
    environment = {"KUBECONFIG": str(cluster.layout.kubeconfig("admin"))}
    return run([cluster.layout.helm, *arguments, f"--namespace={NAMESPACE}"], environment=environment, **how)


def install(cluster, chosen, verb="install"):
    """Installs or upgrades the chart with these values; returns what the reader of helm's output sees."""
    file = cluster.layout.work / "manifests" / "values.json"
    file.write_text(json.dumps(chosen), encoding="utf-8")
    return helm(cluster, verb, RELEASE, ROOT / "charts/flocker-csi", f"--values={file}", within=180)


def run_chapter(cluster, report):
    kubernetes, plugin = cluster.kubernetes, Plugin(cluster)
    kubernetes.namespace(NAMESPACE)
    secret(kubernetes, cluster.flocker)
    began = time.monotonic()
    notes = install(cluster, values())
    check("MISSING" not in notes and "get csinodes" in notes, f"helm says how to go on, and misses nothing: {notes}")
    plugin.until_all_ready()
    report.shown(f"controller and nodes are ready {time.monotonic() - began:.1f} s after helm install")

    def registered():
        return all(driver(kubernetes, node.name) for node in cluster.nodes)

    eventually("both CSINodes name the driver", registered)
    for node in cluster.nodes:
        equal(
            driver(kubernetes, node.name)["nodeID"],
            cluster.flocker.node_id(node.number),
            f"the id of node {node.name} in its CSINode",
        )
        containers = plugin.pod_on(node)["spec"]["containers"]
        equal([one["name"] for one in containers], ["plugin"], "the containers of the node's pod")
        label = kubernetes.get("node", node.name)["metadata"]["labels"].get(f"{DRIVER}/node")
        equal(label, cluster.flocker.node_id(node.number), f"the topology label of node {node.name}")
    # A pod that ends at once is also ready for a moment; the leases show that the sidecars work.
    eventually("the sidecars' leases are held", lambda: len(kubernetes.get("lease", namespace=NAMESPACE)) == 2)
    for pod in plugin.pods("node") + plugin.pods("controller"):
        equal(restarts(pod), {}, f"restarts in {pod['metadata']['name']}")
    report.shown("both CSINodes have the driver with Flocker's ids, without a registrar: one container a node")


def secret(kubernetes, flocker):
    files = [
        f"--from-file={name}={flocker.certificates}/{name}" for name in ("cluster.crt", "plugin.crt", "plugin.key")
    ]
    kubernetes.kubectl("create", "secret", "generic", "flocker-tls", f"--namespace={NAMESPACE}", *files)


def driver(kubernetes, node):
    """The driver's entry in the node's CSINode."""
    found = kubernetes.get("csinode", node) or {"spec": {}}
    return next((one for one in found["spec"].get("drivers") or [] if one["name"] == DRIVER), None)
