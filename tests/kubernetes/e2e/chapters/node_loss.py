"""A node is lost: with everything on it, and with a container that goes on writing."""

import os
import signal

from .. import manifests
from ..plugin import Plugin, volume_mounts
from ..waiting import check, equal, eventually, throughout
from .installing import LATE
from .volumes import dataset_of, read

TITLE = "a node is lost, and its pod goes on elsewhere only when nothing writes there any more"
ALWAYS = False
SPACE = "power"
TAINT = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
# How long the other node is watched while the lost node's container still writes.
WATCHED = 40.0


def run_chapter(cluster, report):
    cluster.kubernetes.namespace(SPACE)
    try:
        _power_cut(cluster, report)
        _half_dead(cluster, report)
    finally:
        cluster.flocker.faults()
    cluster.kubernetes.remove_namespace(SPACE)


def _deployment(cluster, name, script):
    """A pod that is recreated elsewhere when its node is lost; it starts on the first node."""
    kubernetes = cluster.kubernetes
    a, b = cluster.nodes
    kubernetes.kubectl("cordon", b.name)
    kubernetes.apply(
        manifests.claim(SPACE, name, LATE),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": SPACE},
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": manifests.pod_spec(name, script)},
            },
        },
    )
    pod = _pod(cluster, name, a)
    kubernetes.kubectl("uncordon", b.name)
    return pod, dataset_of(kubernetes, SPACE, name)


def _pod(cluster, name, node, within=90):
    """Waits until the deployment's pod runs on a node and returns its name."""
    kubernetes = cluster.kubernetes

    def found():
        pods = kubernetes.get("pods", namespace=SPACE, labels=f"app={name}")
        return next((pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == node.name), None)

    pod = eventually(f"{name} has a pod on {node.name}", found, within)
    kubernetes.until_running(SPACE, pod, within)
    return pod


def _lost(cluster, report, node):
    cluster.until_not_ready(node)
    report.say(f"   node {node.name} is not ready, and is tainted out-of-service")
    cluster.kubernetes.kubectl("taint", "node", node.name, TAINT)


def _back(cluster, node):
    """The node starts again with its old directories."""
    cluster.flocker.faults()
    node.switch_on()
    cluster.until_ready(node)
    cluster.kubernetes.kubectl("taint", "node", node.name, f"{TAINT}-")
    Plugin(cluster).until_serving(node, within=120)


def _power_cut(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    a, b = cluster.nodes
    pod, dataset = _deployment(cluster, "cut", "sleep infinity")
    kubernetes.execute(SPACE, pod, "sh", "-c", "echo precious >/data/written && sync")
    uid = kubernetes.get("pod", pod, SPACE)["metadata"]["uid"]
    flocker.faults(nodes={"1": {"machine": "off"}}, dead_nodes_known=True)
    a.power_off()
    _lost(cluster, report, a)
    pod = _pod(cluster, "cut", b, within=240)
    equal(read(kubernetes, SPACE, pod), "precious", "what the pod on the other node reads")
    report.shown("a node is powered off and tainted out-of-service: its pod starts on the other node with the data")

    _back(cluster, a)
    eventually(
        "the directory of the lost pod is cleaned up",
        lambda: not (a.directory / f"var/lib/kubelet/pods/{uid}").exists(),
    )
    kubernetes.execute(SPACE, pod, "sh", "-c", "echo still here >/data/written && sync")
    equal(read(kubernetes, SPACE, pod), "still here", "what the pod reads after the lost node is back")
    equal(volume_mounts(a, dataset), [], "mounts of the volume on the node that is back")
    equal(flocker.datasets()[dataset]["primary"], flocker.node_id(2), "the primary after the lost node is back")
    equal(flocker.leases().get(dataset), flocker.node_id(2), "who holds the lease after the lost node is back")
    report.shown("the lost node is started again with its old directories, and does no harm")
    kubernetes.remove("deployment", "cut", SPACE)


def _half_dead(cluster, report):
    kubernetes, flocker, plugin = cluster.kubernetes, cluster.flocker, Plugin(cluster)
    a, b = cluster.nodes
    script = "n=0; while :; do n=$((n+1)); echo $n >>/data/log; sync; sleep 0.2; done"
    _, dataset = _deployment(cluster, "half", script)
    published = next(line.split()[4] for line in volume_mounts(a, dataset) if "/pods/" in line)
    log = f"/proc/{a.pid}/root{published}/log"

    def lines():
        with open(log, encoding="ascii") as written:
            return len(written.read().splitlines())

    process = plugin.node_process(a)
    flocker.faults(nodes={"1": {"agent": "stopped"}}, dead_nodes_known=True)
    a.kill_kubelet()
    os.kill(process, signal.SIGKILL)
    _lost(cluster, report, a)

    def wanted():
        pods = kubernetes.get("pods", namespace=SPACE, labels="app=half")
        return any(pod["spec"].get("nodeName") == b.name for pod in pods)

    eventually("a pod that needs the volume is scheduled to the other node", wanted, within=120)

    def asked_for():
        leased = flocker.leases().get(dataset) == flocker.node_id(2)
        return leased and flocker.datasets()[dataset]["primary"] == flocker.node_id(2)

    # Otherwise the volume might be kept away only because no caller has requested it yet.
    eventually("the controller has leased the volume to the other node and asked for the move", asked_for, within=120)
    before = lines()

    def kept_away():
        mounted = [line for line in b.mounts() if line.split()[4] == f"/flocker/{dataset}"] + volume_mounts(b, dataset)
        equal(mounted, [], "mounts on the other node while the container still writes")
        equal(len(flocker.loop_devices_of(dataset)), 1, "loop devices of the dataset while the container still writes")
        return True

    throughout("the volume is kept from the other node", kept_away, WATCHED)
    after = lines()
    check(after > before, f"the container went on writing: {before} lines, then {after}")
    report.shown(
        f"kubelet, plugin and agent are dead, the container writes {after - before} lines more in {WATCHED:.0f} s: "
        "the other node does not mount the volume"
    )
    flocker.faults(nodes={"1": {"machine": "off"}}, dead_nodes_known=True)
    a.power_off()
    pod = _pod(cluster, "half", b, within=300)
    kept = kubernetes.execute(SPACE, pod, "cat", "/data/log").splitlines()
    equal(kept[:after], [str(number) for number in range(1, after + 1)], "the lines that the lost container wrote")
    report.shown("when its mounts no longer exist the pod starts on the other node, with every line")
    _back(cluster, a)
    kubernetes.remove("deployment", "half", SPACE)
