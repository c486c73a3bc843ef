"""The life of a volume: made, written to, kept, moved, and gone again."""

import os
import signal

from .. import manifests
from ..plugin import volume_mounts
from ..waiting import check, equal, eventually
from .installing import LATE, NOW

TITLE = "a volume is made, keeps its data through a killed container, and moves to another node"
ALWAYS = False
SPACE = "volumes"


def dataset_of(kubernetes, namespace, claim):
    """The dataset behind a claim that is bound."""

    def bound():
        found = kubernetes.get("pvc", claim, namespace)
        return found and found["status"].get("phase") == "Bound" and found["spec"]["volumeName"]

    volume = eventually(
        f"claim {claim} is bound", bound, within=60, seen=lambda: kubernetes.events(namespace, claim)[-2:]
    )
    return kubernetes.get("pv", volume)["spec"]["csi"]["volumeHandle"]


def read(kubernetes, namespace, pod, file="/data/written"):
    return kubernetes.execute(namespace, pod, "cat", file).strip()


def run_chapter(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    a, b = cluster.nodes
    kubernetes.namespace(SPACE)

    kubernetes.apply(manifests.claim(SPACE, "now", NOW))
    at_once = dataset_of(kubernetes, SPACE, "now")
    check(at_once in flocker.datasets(), "the dataset of a claim that is bound at once is configured")
    report.shown("a claim of a class with Immediate is bound without a pod")

    kubernetes.apply(manifests.claim(SPACE, "late", LATE))
    equal(kubernetes.get("pvc", "late", SPACE)["status"]["phase"], "Pending", "the claim before there is a pod")
    script = "echo life >>/data/lives; sleep infinity"
    kubernetes.apply(manifests.pod(SPACE, "writer", "late", script, node=a.name))
    kubernetes.until_running(SPACE, "writer")
    dataset = dataset_of(kubernetes, SPACE, "late")
    kubernetes.execute(SPACE, "writer", "sh", "-c", "echo precious >/data/written && sync")
    equal(flocker.datasets()[dataset]["primary"], flocker.node_id(1), "the primary of the first pod's dataset")
    volume = kubernetes.get("pvc", "late", SPACE)["spec"]["volumeName"]
    affinity = kubernetes.get("pv", volume)["spec"].get("nodeAffinity")
    equal(affinity, None, "the node affinity of a volume that can be used on every node")
    equal(flocker.leases().get(dataset), flocker.node_id(1), "who holds its lease")
    report.shown("a claim of a class with WaitForFirstConsumer is bound when its pod comes, and the pod writes")

    container = a.processes("/bin/sh", f"trap 'exit 0' TERM; {script} & wait")
    equal(len(container), 1, "containers of the writer")
    os.kill(container[0], signal.SIGKILL)

    def restarted():
        return read(kubernetes, SPACE, "writer", "/data/lives") == "life\nlife"

    eventually("the container is started again with its data", restarted, within=60)
    equal(read(kubernetes, SPACE, "writer"), "precious", "what the killed container had written")
    report.shown("its container is killed, and starts again with its data")

    kubernetes.remove("pod", "writer", SPACE)
    eventually("nothing is mounted on the first node", lambda: not volume_mounts(a, dataset))
    kubernetes.apply(manifests.pod(SPACE, "reader", "late", node=b.name))
    kubernetes.until_running(SPACE, "reader")
    equal(read(kubernetes, SPACE, "reader"), "precious", "what the second pod reads on the other node")
    equal(flocker.datasets()[dataset]["primary"], flocker.node_id(2), "the primary after the move")
    report.shown("a pod on the other node reads the data: Flocker has moved the dataset")

    kubernetes.remove_namespace(SPACE)
    eventually("its datasets are deleted", lambda: not {dataset, at_once} & set(flocker.backed()))
    report.shown("claims deleted, and both datasets are gone from Flocker")
