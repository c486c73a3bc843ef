"""etcd, the API server, the controller manager and the scheduler."""

import signal

from .layout import API_SERVER
from .processes import Process, run
from .waiting import eventually

ETCD = "http://127.0.0.1:2379"
SERVICE_RANGE = "10.0.0.0/24"


class ControlPlane:
    """A running control plane."""

    def __init__(self, layout):
        self._layout = layout
        self._processes = []
        self._start(
            "etcd",
            "etcd",
            f"--data-dir={layout.work}/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            # The data lives as long as this run.
            "--unsafe-no-fsync",
        )
        self._start(
            "kube-apiserver",
            layout.binary("kube-apiserver"),
            f"--etcd-servers={ETCD}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--secure-port=6443",
            # A service's endpoints may not be on the loopback interface.
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={layout.certificate('ca')}",
            f"--tls-cert-file={layout.certificate('kube-apiserver')}",
            f"--tls-private-key-file={layout.key('kube-apiserver')}",
            f"--kubelet-certificate-authority={layout.certificate('ca')}",
            f"--kubelet-client-certificate={layout.certificate('apiserver-to-kubelet')}",
            f"--kubelet-client-key={layout.key('apiserver-to-kubelet')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={layout.key('service-accounts')}",
            f"--service-account-signing-key-file={layout.key('service-accounts')}",
            f"--service-account-issuer={API_SERVER}",
        )
        self._until_ready()
        for name, *arguments in (
            (
                "kube-controller-manager",
                f"--root-ca-file={layout.certificate('ca')}",
                f"--service-account-private-key-file={layout.key('service-accounts')}",
                "--use-service-account-credentials=true",
                # A lost node is seen as soon as on a cluster that was set up for quick failover.
                "--node-monitor-grace-period=20s",
                "--node-monitor-period=2s",
            ),
            ("kube-scheduler",),
        ):
            kubeconfig = layout.kubeconfig(name)
            self._start(
                name,
                layout.binary(name),
                f"--kubeconfig={kubeconfig}",
                f"--authentication-kubeconfig={kubeconfig}",
                f"--authorization-kubeconfig={kubeconfig}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                *arguments,
            )

    def _start(self, name, *arguments):
        self._processes.append(Process(name, arguments, self._layout.log(name)))

    def _until_ready(self):
        def ready():
            for process in self._processes:
                process.check_running()
            command = [self._layout.binary("kubectl"), "--kubeconfig", self._layout.kubeconfig("admin")]
            done = run([*command, "get", "--raw", "/readyz"], expect=None, within=10)
            return done.returncode == 0 and done.stdout == "ok"

        eventually("the API server is ready", ready, within=90)

    def stop(self):
        """Stops it; programs that depend on other programs stop first."""
        for process in reversed(self._processes):
            process.stop(signal.SIGTERM, within=10)
