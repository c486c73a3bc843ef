"""The commands of the runbook that are Kubernetes', each as its page has it."""

import re
import subprocess

from .. import manifests
from ..layout import ROOT
from ..plugin import NAMESPACE, Plugin
from ..processes import run
from ..waiting import Failed, check, equal, eventually
from .installing import LATE
from .node_loss import TAINT
from .volumes import dataset_of

TITLE = "every kubectl command of docs/runbook.md does what the page says"
ALWAYS = False
SPACE = "runbook"
NAME = "orders"
PROBES = 29800


def commands():
    """The commands in the order of the page, which escapes the pipes in its tables."""
    page = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    spans = re.findall(r"`(kubectl [^`]+)`", page)
    return list(dict.fromkeys(span.replace("\\|", "|") for span in spans))


def _with_values(command, values):
    """The command as an operator types it: with names in the place of words in capitals."""
    for word, value in {"flocker-csi": NAMESPACE, **values}.items():
        command = re.sub(rf"(?<![\w-]){word}(?![\w-])", value, command)
    return command


def _shell(cluster, command, **how):
    kubectl, config = cluster.layout.binary("kubectl"), cluster.layout.kubeconfig("admin")
    function = f'kubectl() {{ "{kubectl}" --kubeconfig="{config}" --namespace={SPACE} "$@"; }}'
    return run(["bash", "-o", "pipefail", "-c", f"{function}; {command}"], **how)


def _stateful_set():
    labels = {"app": NAME}
    template = {"metadata": {"labels": labels}, "spec": manifests.pod_spec(NAME)}
    spec = {"serviceName": NAME, "replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": NAME, "namespace": SPACE},
        "spec": spec,
    }


def run_chapter(cluster, report):
    kubernetes = cluster.kubernetes
    kubernetes.namespace(SPACE)
    kubernetes.apply(manifests.claim(SPACE, NAME, LATE), _stateful_set())
    pod = kubernetes.until_running(SPACE, f"{NAME}-0")
    node = next(one for one in cluster.nodes if one.name == pod["spec"]["nodeName"])
    dataset = dataset_of(kubernetes, SPACE, NAME)
    plugin = Plugin(cluster).pod_on(node)["metadata"]["name"]
    values = {"POD": plugin, "ID": dataset, "NODE": node.name, "NAME": NAME}
    # The first that is part of a command.
    expected = {
        "grep volume.id=ID": "NodeStageVolume",
        "logs POD -c plugin": "serving on",
        "get pods": plugin,
        "get volumeattachments": node.name,
        "describe csinode": "flocker.csi.clusterhq.com",
        "describe node": "DiskPressure",
    }
    looks = [command for command in commands() if any(words in command for words in expected)]
    for command in looks:
        words = next(words for words in expected if words in command)
        seen = _shell(cluster, _with_values(command, values))
        check(expected[words] in seen, f"{command!r} shows {expected[words]!r}: {seen[-2000:]}")
    changes = [command for command in commands() if command not in looks]
    equal(len(changes), 3, f"the commands that change something, or do not end: {changes}")
    report.shown(f"{len(looks)} commands that look, each with what the page says")

    _forward(cluster, next(command for command in changes if "port-forward" in command), values)
    report.shown("readiness through kubectl port-forward")

    _shell(cluster, _with_values(next(command for command in changes if "taint" in command), values))
    taints = [taint["key"] for taint in kubernetes.get("node", node.name)["spec"].get("taints", [])]
    kubernetes.kubectl("taint", "node", node.name, f"{TAINT}-")
    check(TAINT.partition("=")[0] in taints, f"the node is tainted: {taints}")
    eventually("the pod is back after the taint", lambda: kubernetes.phase(SPACE, f"{NAME}-0") == ("Running", True))
    report.shown("the taint of a node that is out of service")

    _shell(cluster, _with_values(next(command for command in changes if "scale" in command), values))
    kubernetes.until_gone("pod", f"{NAME}-0", SPACE)
    eventually("the lease is released", lambda: dataset not in cluster.flocker.leases())
    report.shown("the use of a volume is ended by scaling its StatefulSet to nothing, and its lease is released")
    kubernetes.remove_namespace(SPACE)


def _forward(cluster, command, values):
    """Runs a command that lasts as long as it is used, and asks for readiness through it."""
    kubectl, config = cluster.layout.binary("kubectl"), cluster.layout.kubeconfig("admin")
    arguments = _with_values(command, values).split()[1:]
    # A free port of its own: in this cluster, the plugin's own is on the same loopback interface.
    arguments[-1] = f":{arguments[-1]}"
    with subprocess.Popen([kubectl, f"--kubeconfig={config}", *arguments], stdout=subprocess.PIPE, text=True) as forward:
        try:
            line = forward.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+) -> (\d+)", line)
            if not found or int(found[2]) != PROBES:
                raise Failed(f"it forwards a port to {PROBES}: {line!r}")
            answer = run(["curl", "--silent", "--max-time", "10", f"http://127.0.0.1:{found[1]}/readyz"])
            check("socket" in answer, f"the checks are answered: {answer!r}")
        finally:
            forward.terminate()
