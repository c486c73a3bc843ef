"""What restarts while pods use their volumes."""

import os
import signal

from .. import manifests
from ..plugin import Plugin, volume_mounts
from ..waiting import check, equal, eventually
from .installing import LATE, NOW
from .volumes import dataset_of, read

TITLE = "kubelet, node plugin and controller end under running pods, which go on"
ALWAYS = False
SPACE = "restarts"


def run_chapter(cluster, report):
    kubernetes, plugin = cluster.kubernetes, Plugin(cluster)
    node = cluster.nodes[0]
    kubernetes.namespace(SPACE)
    kubernetes.apply(
        manifests.claim(SPACE, "used", LATE),
        manifests.pod(SPACE, "user", "used", "while :; do date >>/data/log; sleep 1; done", node=node.name),
    )
    pod = kubernetes.until_running(SPACE, "user")
    dataset = dataset_of(kubernetes, SPACE, "used")
    container = pod["status"]["containerStatuses"][0]["containerID"]
    mounts = volume_mounts(node, dataset)
    equal(len(mounts), 2, f"mounts of the volume, staged and published: {mounts}")

    def undisturbed():
        now = kubernetes.get("pod", "user", SPACE)
        status = now["status"]["containerStatuses"][0]
        equal((status["containerID"], status["restartCount"]), (container, 0), "the container that runs")
        equal(volume_mounts(node, dataset), mounts, "the mounts of the volume")

    registrations = plugin.registrations(node)
    check(registrations >= 1, "the kubelet has registered the plugin before it is stopped")
    node.stop_kubelet()
    cluster.until_not_ready(node)
    node.start_kubelet()
    cluster.until_ready(node)
    plugin.until_serving(node)
    # The entry in the CSINode outlives a kubelet, so the new one is asked by way of the plugin.
    eventually("the driver is registered again", lambda: plugin.registrations(node) > registrations)
    undisturbed()
    report.shown("a kubelet is stopped and started: the pod runs on, the mounts are the same, the driver is registered")

    process = plugin.node_process(node)
    check(plugin.pins(node, dataset) >= 1, "the volume is pinned before the plugin is killed")
    os.kill(process, signal.SIGKILL)

    def another():
        return plugin.node_process(node) not in (None, process)

    eventually("the node plugin is started again", another, within=60)
    plugin.until_serving(node)
    undisturbed()
    check(plugin.pins(node, dataset) >= 1, "the volume is pinned again by the new process")
    report.shown("the node plugin is killed with SIGKILL: the mounts stay, and the new process pins the volume again")

    kubernetes.remove("pod", "user", SPACE)
    eventually("nothing is mounted any more", lambda: not volume_mounts(node, dataset))
    eventually("the lease is released", lambda: dataset not in cluster.flocker.leases())
    report.shown("the pod is deleted afterwards: nothing stays mounted, and the lease is released")

    _controller(cluster, report)
    kubernetes.remove_namespace(SPACE)


def _controller(cluster, report):
    """Kills all controllers while a volume exists that is not attached to a node."""
    kubernetes, plugin = cluster.kubernetes, Plugin(cluster)
    node = cluster.nodes[1]
    kubernetes.apply(manifests.claim(SPACE, "between", NOW))
    dataset = dataset_of(kubernetes, SPACE, "between")
    check(dataset not in cluster.flocker.leases(), "the volume is not attached yet")
    killed = 0
    for one in cluster.nodes:
        for process in one.processes("/flocker-csi", "serve", "--mode=controller"):
            os.kill(process, signal.SIGKILL)
            killed += 1
    equal(killed, 2, "controllers killed")
    kubernetes.apply(
        manifests.pod(SPACE, "after", "between", "echo here >/data/written; sleep infinity", node=node.name)
    )
    kubernetes.until_running(SPACE, "after", within=180)
    equal(read(kubernetes, SPACE, "after"), "here", "what the pod has written")
    plugin.until_all_ready(within=180)
    report.shown("every controller is killed between create and attach: the pod starts all the same")
    kubernetes.remove("pod", "after", SPACE)
