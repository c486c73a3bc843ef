"""Many volumes at once."""

from .. import manifests
from ..plugin import Plugin
from ..waiting import check, equal, eventually
from .installing import LATE
from .volumes import dataset_of, read

TITLE = "a StatefulSet of two, and twenty claims and pods at once"
ALWAYS = False
SPACE, SET = "many", "set"
NUMBER = 20


def run_chapter(cluster, report):
    kubernetes, plugin = cluster.kubernetes, Plugin(cluster)
    _stateful_set(cluster, report)
    kubernetes.namespace(SPACE)
    before = plugin.calls()
    node = cluster.nodes[0]
    names = [f"one-of-many-{number}" for number in range(NUMBER)]
    claims = [manifests.claim(SPACE, name, LATE) for name in names]
    pods = [
        manifests.pod(SPACE, name, name, f"echo {name} >/data/written; sleep infinity", node=node.name)
        for name in names
    ]
    kubernetes.apply(*claims, *pods)
    for name in names:
        kubernetes.until_running(SPACE, name, within=240)
    equal([read(kubernetes, SPACE, name) for name in names], names, "what each pod has written")
    datasets = {dataset_of(kubernetes, SPACE, name) for name in names}
    equal(len(datasets), NUMBER, "datasets of the claims")
    report.shown(f"{NUMBER} claims and pods applied at once: all run, each with its own volume")
    report.measured(f"RSS of the node's container under {NUMBER} running pods", f"{plugin.memory(node):.1f} MiB")

    kubernetes.remove_namespace(SPACE)
    eventually("their datasets are deleted", lambda: not datasets & set(cluster.flocker.backed()), within=120)
    report.shown("all of them deleted, and their datasets are gone from Flocker")
    calls = plugin.calls() - before
    for name in sorted(calls):
        report.measured(f"calls of {name} for each of {NUMBER} volume lives", f"{calls[name] / NUMBER:.2f}")
    check(calls["CreateVolume"] >= NUMBER and calls["NodePublishVolume"] >= NUMBER, f"every call was counted: {calls}")


def _stateful_set(cluster, report):
    kubernetes = cluster.kubernetes
    kubernetes.namespace(SET)
    claim = manifests.claim(SET, "data", LATE)
    spec = manifests.pod_spec("ignored")
    del spec["volumes"]
    kubernetes.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "set", "namespace": SET},
            "spec": {
                "replicas": 2,
                "serviceName": "set",
                "selector": {"matchLabels": {"app": "set"}},
                "template": {"metadata": {"labels": {"app": "set"}}, "spec": spec},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim["spec"]}],
            },
        }
    )
    pods = ["set-0", "set-1"]
    for pod in pods:
        kubernetes.until_running(SET, pod)
        kubernetes.execute(SET, pod, "sh", "-c", f"echo {pod} >/data/written && sync")
    kubernetes.kubectl("rollout", "restart", "statefulset/set", f"--namespace={SET}")
    kubernetes.kubectl("rollout", "status", "statefulset/set", f"--namespace={SET}", "--timeout=120s", within=130)
    for pod in pods:
        kubernetes.until_running(SET, pod)
        equal(read(kubernetes, SET, pod), pod, f"what {pod} finds after it was rolled")
    kubernetes.remove_namespace(SET)
    report.shown("a StatefulSet of two runs, is rolled, and each pod finds its own data")
