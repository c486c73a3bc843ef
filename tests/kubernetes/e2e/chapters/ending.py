"""The chart is uninstalled, and nothing is left."""

from ..layout import NODE_NAMES
from ..plugin import DRIVER, NAMESPACE, RELEASE, Plugin
from ..waiting import equal, eventually
from .installing import driver, helm

TITLE = "everything is deleted, and helm uninstall leaves nothing behind"
ALWAYS = True


def run_chapter(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    eventually("every volume is deleted", lambda: not kubernetes.get("pv"), seen=lambda: kubernetes.get("pv"))
    equal(kubernetes.get("volumeattachments"), [], "VolumeAttachments")
    equal(flocker.datasets(), {}, "datasets that are configured")
    eventually("no dataset is backed any more", lambda: not flocker.backed())
    equal(flocker.leases(), {}, "leases")
    for node in cluster.nodes:
        left = [line for line in node.mounts() if "flocker-csi/" in line.rpartition(" - ")[2] or DRIVER in line]
        equal(left, [], f"mounts of volumes on {node.name}")
        records = [path.name for path in (node.directory / "var/lib/flocker-csi/stages").glob("*")]
        equal(records, [], f"records of staged volumes on {node.name}")
    eventually("no loop device is left", lambda: not flocker.loop_devices())
    report.shown("no volume, dataset, lease, VolumeAttachment, mount, record or loop device is left")

    helm(cluster, "uninstall", RELEASE, "--wait", within=120)
    plugin = Plugin(cluster)
    eventually("its pods are gone", lambda: not plugin.pods("node") and not plugin.pods("controller"), within=90)

    def unregistered():
        return not any(driver(kubernetes, name) for name in NODE_NAMES)

    eventually("no CSINode names the driver", unregistered)
    for node in cluster.nodes:
        kubelet = node.directory / "var/lib/kubelet"
        sockets = [str(path) for path in (kubelet / "plugins_registry").glob("*")]
        sockets += [str(path) for path in (kubelet / "plugins" / DRIVER).glob("*.sock")]
        equal(sockets, [], f"sockets on {node.name}")
    left = [
        kind for kind in ("csidriver", "storageclass", "clusterrole", "clusterrolebinding") if _ours(kubernetes, kind)
    ]
    equal(left, [], "kinds of objects of the release that are left")
    kubernetes.remove_namespace(NAMESPACE)
    report.shown("helm uninstall: pods, sockets, CSINodes' entries and every object of the release are gone")


def _ours(kubernetes, kind):
    return kubernetes.get(kind, labels=f"app.kubernetes.io/instance={RELEASE}")
