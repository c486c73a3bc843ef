"""How long it takes from a claim to a running pod, and how often Flocker has to move the volume before."""

import statistics
import threading
import time

from .. import manifests
from ..plugin import Plugin
from ..waiting import equal, eventually
from .installing import LATE, install, values
from .volumes import dataset_of

TITLE = "from claim to running pod, with and without topology, at the pace of a Flocker without delays and of a stock one"
ALWAYS = False
SPACE = "pace"
TIMES = 10
KEY = "flocker.csi.clusterhq.com/node"


def run_chapter(cluster, report):
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    kubernetes.namespace(SPACE)
    try:
        for topology in ("off", "hint"):
            _switch(cluster, topology)
            for pace in ("instant", "stock"):
                flocker.stop()
                flocker.start(pace)
                eventually("both nodes report", lambda: len(flocker.get("state/nodes")) == 2)
                took, moves = zip(*(_once(cluster, f"{topology}-{pace}-{number}") for number in range(TIMES)))
                spread = f"(from {min(took):.2f} to {max(took):.2f} s, {TIMES} pods)"
                report.measured(
                    f"claim and pod applied to pod Running, pace {pace}, topology {topology}, p50",
                    f"{statistics.median(took):.2f} s {spread}",
                )
                report.measured(f"moves per claim, pace {pace}, topology {topology}", f"{sum(moves) / TIMES:g}")
                if topology == "hint":
                    equal(sum(moves), 0, "moves of volumes that were made for a pod")
    finally:
        flocker.stop()
        flocker.start()
        _switch(cluster, "hint")
    kubernetes.remove_namespace(SPACE)
    eventually("its datasets are deleted", lambda: not flocker.backed())
    report.shown("a pod runs with a new volume at either pace, which is not moved where topology is on")


def _switch(cluster, topology):
    """Installs the chart with this value, and waits until both nodes have registered accordingly."""
    kubernetes = cluster.kubernetes
    chosen = values()
    chosen["flocker"]["topology"] = topology
    install(cluster, chosen, "upgrade")
    Plugin(cluster).until_all_ready()
    expected = [KEY] if topology == "hint" else None

    def registered():
        return all(_keys(kubernetes, node.name) == expected for node in cluster.nodes)

    eventually(f"both nodes have registered with topology {topology}", registered, within=120)


def _keys(kubernetes, node):
    drivers = (kubernetes.get("csinode", node) or {"spec": {}})["spec"].get("drivers") or []
    return next((one.get("topologyKeys") for one in drivers if one["name"] == KEY.partition("/")[0]), "none")


def _once(cluster, name):
    """Returns how long a claim and its pod took, and how often the volume's node was changed in Flocker."""
    kubernetes, flocker = cluster.kubernetes, cluster.flocker
    began = time.monotonic()
    with Primaries(flocker) as primaries:
        claimed = manifests.claim(SPACE, name, LATE)
        kubernetes.apply(claimed, manifests.pod(SPACE, name, name, node=cluster.nodes[0].name))
        kubernetes.until_running(SPACE, name, within=180)
        took = time.monotonic() - began
    dataset = dataset_of(kubernetes, SPACE, name)
    seen = primaries.of(dataset)
    equal(seen[-1], flocker.node_id(1), "the node of the volume")
    kubernetes.remove("pod", name, SPACE)
    return took, len(seen) - 1


class Primaries:
    """The configured nodes of all datasets, read again and again while a block runs, and once after it."""

    def __init__(self, flocker):
        self._flocker = flocker
        self._seen = {}
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read_all)

    def __enter__(self):
        self._reader.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._reader.join()
        self._read()

    def of(self, dataset):
        """The nodes of a dataset, in their order."""
        return self._seen[dataset]

    def _read_all(self):
        # A volume keeps its first node for longer than this: only after it is bound is it attached.
        while not self._ended.wait(0.2):
            self._read()

    def _read(self):
        for dataset, configured in self._flocker.datasets().items():
            nodes = self._seen.setdefault(dataset, [])
            if nodes[-1:] != [configured["primary"]]:
                nodes.append(configured["primary"])
