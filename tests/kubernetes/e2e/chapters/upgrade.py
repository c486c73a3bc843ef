"""The chart is upgraded under live mounts."""

from .. import manifests
from ..plugin import Plugin, volume_mounts
from ..waiting import check, equal, eventually
from .installing import LATE, install, values
from .volumes import dataset_of, read

TITLE = "helm upgrade rolls the node plugins under live mounts"
ALWAYS = False
SPACE = "upgrade"


def run_chapter(cluster, report):
    kubernetes, plugin = cluster.kubernetes, Plugin(cluster)
    kubernetes.namespace(SPACE)
    before = {}
    for node in cluster.nodes:
        name = f"user{node.number}"
        kubernetes.apply(manifests.claim(SPACE, name, LATE), manifests.pod(SPACE, name, name, node=node.name))
        kubernetes.until_running(SPACE, name)
        dataset = dataset_of(kubernetes, SPACE, name)
        before[node] = (name, dataset, volume_mounts(node, dataset), plugin.pod_on(node)["metadata"]["uid"])

    changed = values()
    changed["node"]["podAnnotations"] = {"example.com/rolled": "yes"}
    install(cluster, changed, "upgrade")

    def rolled():
        pods = {node: plugin.pod_on(node) for node in cluster.nodes}
        return all(pod and pod["metadata"]["uid"] != before[node][3] for node, pod in pods.items())

    eventually("every node has a new pod of the plugin", rolled, within=120, seen=plugin.problems)
    plugin.until_all_ready()
    for node, (name, dataset, mounts, _) in before.items():
        pod = kubernetes.get("pod", name, SPACE)
        equal(pod["status"]["containerStatuses"][0]["restartCount"], 0, f"restarts of {name}")
        equal(volume_mounts(node, dataset), mounts, f"the mounts of the volume on {node.name}")
        check(plugin.pins(node, dataset) >= 1, f"the new plugin on {node.name} pins the volume")
        kubernetes.execute(SPACE, name, "sh", "-c", "echo after >/data/written && sync")
        equal(read(kubernetes, SPACE, name), "after", "what is written after the upgrade")
    report.shown("both node plugins are replaced: mounts and containers are the same ones, and are pinned again")
    for node, (name, dataset, _, _) in before.items():
        kubernetes.remove("pod", name, SPACE)
        eventually(f"nothing is mounted on {node.name}", lambda: not volume_mounts(node, dataset))
    report.shown("the new plugins take down what the old ones had mounted")
    kubernetes.remove_namespace(SPACE)
