"""How long it takes from a claim to a running pod."""

import statistics
import time

from .. import manifests
from ..waiting import equal, eventually
from .installing import LATE

TITLE = "from claim to running pod, at the pace of a Flocker without delays and of a stock one"
ALWAYS = False
SPACE = "pace"
TIMES = 10


def run_chapter(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    kubernetes.namespace(SPACE)
    try:
        for pace in ("instant", "stock"):
            flocker.stop()
            flocker.start(pace)
            took = [_once(cluster, f"{pace}-{number}") for number in range(TIMES)]
            equal(len(took), TIMES, "measurements")
            spread = f"(from {min(took):.2f} to {max(took):.2f} s, {TIMES} pods)"
            report.measured(
                f"claim and pod applied to pod Running, pace {pace}, p50", f"{statistics.median(took):.2f} s {spread}"
            )
    finally:
        flocker.stop()
        flocker.start()
    kubernetes.remove_namespace(SPACE)
    eventually("its datasets are deleted", lambda: not flocker.backed())
    report.shown("a pod runs with a new volume at either pace")


def _once(cluster, name):
    kubernetes = cluster.kubernetes
    began = time.monotonic()
    kubernetes.apply(manifests.claim(SPACE, name, LATE), manifests.pod(SPACE, name, name, node=cluster.nodes[0].name))
    kubernetes.until_running(SPACE, name, within=180)
    took = time.monotonic() - began
    kubernetes.remove("pod", name, SPACE)
    return took
