"""Nodes: namespaces with a containerd and a kubelet."""

import json
import os
import shutil
import signal
from pathlib import Path

from .processes import Process, run
from .waiting import eventually

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PAUSE = "registry.invalid/pause:e2e"
HERE = Path(__file__).resolve().parents[1]

# AppArmor and lower scores for the out-of-memory killer are not to be had everywhere.
CONTAINERD_CONFIG = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "/etc/cni/net.d"
"""

# Every pod of this run is on the network of its node; the plugin named here is never called.
CNI_CONFIG = {"cniVersion": "0.4.0", "name": "none", "plugins": [{"type": "loopback"}]}


class Node:
    """One node of the cluster; it can be switched off and on again."""

    def __init__(self, layout, number, name, flocker_root, cgroup):
        self._layout = layout
        self.number = number
        self.name = name
        self.directory = layout.work / f"node{number}"
        self._flocker_root = flocker_root
        self._cgroup = cgroup
        self._machine = None
        self._containerd = None
        self._kubelet = None
        for path in ("/etc/flocker", "/var/lib/kubelet", "/etc/cni/net.d", "/flocker"):
            Path(path).mkdir(parents=True, exist_ok=True)
        for path in ("/var/lib/flocker-csi", "/var/lib/containerd", "/run/containerd", "/run/runc", "/var/log/pods"):
            Path(path).mkdir(parents=True, exist_ok=True)
        Path("/etc/cni/net.d/none.conflist").write_text(json.dumps(CNI_CONFIG), encoding="utf-8")
        (self.directory / "etc/flocker").mkdir(parents=True)
        (self.directory / "containerd.toml").write_text(CONTAINERD_CONFIG, encoding="utf-8")
        (self.directory / "kubelet.json").write_text(json.dumps(self._kubelet_config()), encoding="utf-8")

    def _kubelet_config(self):
        layout = self._layout
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.name,
            "healthzBindAddress": self.name,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.certificate("ca"))},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(layout.certificate(f"kubelet-server-{self.name}")),
            "tlsPrivateKeyFile": str(layout.key(f"kubelet-server-{self.name}")),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0.01%", "imagefs.available": "0.01%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "makeIPTablesUtilChains": False,
            "podLogsDir": "/var/log/pods",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "nodeStatusUpdateFrequency": "4s",
            "nodeStatusReportFrequency": "4s",
            "nodeLeaseDurationSeconds": 10,
            "syncFrequency": "10s",
            "maxPods": 110,
        }

    def switch_on(self):
        """Starts the machine with what its directories hold, as after a power cut."""
        for name in ("ready", "run"):
            path = self.directory / name
            if path.is_dir():
                # What is under /run does not outlive a machine.
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        self._machine = Process(
            f"node{self.number}",
            ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "slave", "--"]
            + ["bash", HERE / "node.sh", self.directory, self._flocker_root],
            self._layout.log(f"node{self.number}"),
        )
        self.pid = self._machine.child()

        def ready():
            self._machine.check_running()
            return (self.directory / "ready").exists()

        eventually(f"the namespaces of node {self.name} are made", ready)
        self.start_containerd()
        self.start_kubelet()

    def within(self, *command):
        """The command as it is run on the node."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--uts", "--", *command]

    def run(self, *command, **how):
        return run(self.within(*command), **how)

    def start_containerd(self):
        self._containerd = Process(
            f"containerd on {self.name}",
            self.within("containerd", "--config", self.directory / "containerd.toml", "--log-level", "warn"),
            self._layout.log(f"containerd{self.number}"),
        )

        def serves():
            self._containerd.check_running()
            return self.ctr("version", expect=None, within=10).returncode == 0

        eventually(f"containerd on {self.name} serves", serves)

    def start_kubelet(self):
        self._kubelet = Process(
            f"kubelet on {self.name}",
            self.within(
                self._layout.binary("kubelet"),
                f"--config={self.directory}/kubelet.json",
                f"--kubeconfig={self._layout.kubeconfig(f'kubelet-{self.name}')}",
                f"--hostname-override={self.name}",
            ),
            self._layout.log(f"kubelet{self.number}"),
        )

    def stop_kubelet(self):
        self._kubelet.stop_child()

    def kill_kubelet(self):
        self._kubelet.stop_child(signal.SIGKILL)

    def ctr(self, *arguments, **how):
        return self.run("ctr", "--namespace", "k8s.io", *arguments, **how)

    def power_off(self):
        """Ends everything on the node at one blow."""
        if self._machine is not None:
            self._machine.stop(signal.SIGKILL)

    def mounts(self):
        """The lines of the node's table of mounts."""
        try:
            with open(f"/proc/{self.pid}/mountinfo", encoding="utf-8") as table:
                return table.read().splitlines()
        except OSError:
            return []

    def processes(self, *words):
        """The ids, as seen here, of the processes on the node whose command line has all of these words as arguments."""
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                arguments = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
                if all(word in arguments for word in words) and _below(process, namespace):
                    found.append(int(process.name))
            except OSError:
                continue  # It has ended since.
        return found


def _below(process, namespace):
    """Whether a process is on a node: one of its ancestors is in the namespace of the node's first process."""
    while process.name not in ("0", "1"):
        if os.readlink(process / "ns/pid") == namespace:
            return True
        status = (process / "status").read_text(encoding="utf-8", errors="replace")
        parent = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
        process = Path("/proc") / parent
    return False
