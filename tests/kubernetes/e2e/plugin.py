"""What can be seen of the plugin from outside: its pods, processes, log and mounts."""

import json
import os
import re
from collections import Counter

from .waiting import eventually

RELEASE = "flocker-csi"
NAMESPACE = "flocker"
DRIVER = "flocker.csi.clusterhq.com"
CALL = re.compile(r"/csi\.v1\.\w+/(\w+) (?:ended|failed)")


class Plugin:
    """The plugin as the chart installs it."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._kubernetes = cluster.kubernetes

    def pods(self, component):
        """The pods of `controller` or `node`."""
        return self._kubernetes.get("pods", namespace=NAMESPACE, labels=f"app.kubernetes.io/component={component}")

    def pod_on(self, node, component="node"):
        """The pod of a component that runs on a node, or `None`."""
        return next((pod for pod in self.pods(component) if pod["spec"].get("nodeName") == node.name), None)

    def node_process(self, node):
        """The process that serves the node's calls."""
        found = node.processes("/flocker-csi", "serve", "--mode=node")
        return found[0] if len(found) == 1 else None

    def until_serving(self, node, within=60):
        """Waits until the plugin of a node is ready, and one process serves it."""

        def serving():
            pod = self.pod_on(node)
            return pod and _is_ready(pod) and self.node_process(node)

        return eventually(f"the plugin on {node.name} is ready", serving, within, seen=lambda: self.tail(node))

    def until_all_ready(self, within=120):
        def ready():
            nodes, controllers = self.pods("node"), self.pods("controller")
            return (
                len(nodes) == len(self._cluster.nodes)
                and len(controllers) == 2
                and all(_is_ready(pod) for pod in nodes + controllers)
            )

        eventually("all pods of the plugin are ready", ready, within, seen=self.problems)

    def problems(self):
        """Returns the states and events of the pods that are not ready."""
        found = []
        for pod in self.pods("node") + self.pods("controller"):
            if not _is_ready(pod):
                name = pod["metadata"]["name"]
                states = [one.get("state") for one in pod["status"].get("containerStatuses", [])]
                found.append(f"{name}: {json.dumps(states)[:600]} {self._kubernetes.events(NAMESPACE, name)[-2:]}")
        return "; ".join(found)

    def logs(self):
        """All lines that the plugin's pods of now have logged, as text."""
        lines = []
        for node in self._cluster.nodes:
            for log in sorted((node.directory / "var/log/pods").glob(f"{NAMESPACE}_*/plugin/*.log")):
                lines += log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines

    def tail(self, node, lines=6):
        """The end of what the plugin on a node said."""
        logs = sorted(
            (node.directory / "var/log/pods").glob(f"{NAMESPACE}_*-node-*/plugin/*.log"), key=os.path.getmtime
        )
        if not logs:
            return "it has logged nothing"
        return "\n".join(logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def calls(self):
        """How often each RPC has been answered."""
        return Counter(found.group(1) for found in map(CALL.search, self.logs()) if found)

    def registrations(self, node):
        """How often the kubelet of a node has confirmed the registration to the plugin's current pod."""
        pod = self.pod_on(node)["metadata"]["name"]
        logs = (node.directory / "var/log/pods").glob(f"{NAMESPACE}_{pod}_*/plugin/*.log")
        said = f"The kubelet has registered {DRIVER}"
        return sum(log.read_text(encoding="utf-8", errors="replace").count(said) for log in logs)

    def memory(self, node):
        """The resident memory of the node's plugin, in MiB."""
        with open(f"/proc/{self.node_process(node)}/status", encoding="ascii") as status:
            resident = next(line.split()[1] for line in status if line.startswith("VmRSS:"))
        return int(resident) / 1024

    def pins(self, node, dataset):
        """How many descriptors the node's plugin holds on Flocker's mount of a dataset."""
        directory = f"/proc/{self.node_process(node)}/fd"
        links = []
        for descriptor in os.listdir(directory):
            try:
                links.append(os.readlink(f"{directory}/{descriptor}"))
            except OSError:
                continue
        return sum(link == f"/flocker/{dataset}" for link in links)


def _is_ready(pod):
    statuses = pod["status"].get("containerStatuses", [])
    return bool(statuses) and all(one["ready"] for one in statuses) and not pod["metadata"].get("deletionTimestamp")


def restarts(pod):
    """How often the containers of a pod have been started again."""
    return {one["name"]: one["restartCount"] for one in pod["status"]["containerStatuses"] if one["restartCount"]}


def volume_mounts(node, dataset):
    """The mounts of a volume below the kubelet's directory of a node: the staged and the published ones."""
    return [
        line
        for line in node.mounts()
        if line.split()[4].startswith("/var/lib/kubelet/") and f"/dev/flocker-csi/{dataset}" in line
    ]
