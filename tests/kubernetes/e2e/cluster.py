"""The cluster: control plane, Flocker and two nodes, brought up and taken down."""

import json
import re
import shutil
from pathlib import Path

from . import certificates
from .control_plane import ControlPlane
from .flocker import Flocker
from .images import SIDECARS
from .kubernetes import Kubernetes
from .layout import NODE_NAMES
from .nodes import Node
from .processes import run
from .waiting import eventually

VERSION = re.compile(r"\d+(\.\d+)+")


class Cluster:
    """A running cluster."""

    def __init__(self, layout, cgroup):
        self.layout = layout
        self._cgroup = cgroup
        self.flocker = Flocker(layout)
        self.kubernetes = Kubernetes(layout)
        self.nodes = []
        self._control_plane = None

    def start(self, report):
        certificates.make_all(self.layout)
        self.flocker.start()
        self._control_plane = ControlPlane(self.layout)
        report.say("control plane and control service answer")
        for number, name in enumerate(NODE_NAMES, start=1):
            self.flocker.mount_root(number).mkdir(parents=True, exist_ok=True)
            node = Node(self.layout, number, name, self.flocker.mount_root(number), f"{self._cgroup}/node{number}")
            self._configure(node)
            self.nodes.append(node)
            node.switch_on()
            for image in sorted((self.layout.work / "images").iterdir()):
                node.ctr("images", "import", image)
        for node in self.nodes:
            self.until_ready(node)
        report.say(f"nodes {' and '.join(NODE_NAMES)} are ready")
        report.say(f"versions: {self.versions()}")

    def versions(self):
        """What the cluster is made of, in the words of its parts."""
        kubernetes = json.loads(self.kubernetes.kubectl("get", "--raw", "/version"))["gitVersion"]
        parts = [f"Kubernetes {kubernetes}"]
        programs = ["etcd", "containerd", "runc", *map(self.layout.binary, SIDECARS)]
        for command in [[program, "--version"] for program in programs] + [[self.layout.helm, "version", "--short"]]:
            found = VERSION.search(run(command))
            parts.append(f"{Path(command[0]).name} {found.group() if found else 'of an unknown version'}")
        return ", ".join(parts)

    def _configure(self, node):
        """Gives a node what an administrator of Flocker gives it."""
        directory = node.directory / "etc/flocker"
        (directory / "node-id").write_text(self.flocker.node_id(node.number), encoding="ascii")
        for name in ("cluster.crt", "plugin.crt", "plugin.key"):
            shutil.copy(self.flocker.certificates / name, directory / name)

    def is_ready(self, node):
        found = self.kubernetes.get("node", node.name)
        conditions = {one["type"]: one["status"] for one in (found or {"status": {}})["status"].get("conditions", [])}
        return conditions.get("Ready") == "True"

    def until_ready(self, node):
        eventually(f"node {node.name} is ready", lambda: self.is_ready(node), within=60)

    def until_not_ready(self, node):
        eventually(f"node {node.name} is not ready", lambda: not self.is_ready(node), within=90)

    def node(self, name):
        return next(node for node in self.nodes if node.name == name)

    def other(self, node):
        return next(other for other in self.nodes if other is not node)

    def keep_pod_logs(self, name):
        """Copies what the pods of now have logged to where the logs of a failed run are kept."""
        for node in self.nodes:
            shutil.copytree(
                node.directory / "var/log/pods", self.layout.work / "log" / name / node.name, dirs_exist_ok=True
            )

    def stop(self):
        """Ends everything; what it leaves then is what a part of it did not clean up."""
        for node in self.nodes:
            node.power_off()
        if self._control_plane:
            self._control_plane.stop()
        self.flocker.stop()
