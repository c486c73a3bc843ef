"""The certificates of the cluster, made by openssl."""

import json

from .layout import API_SERVER, NODE_NAMES
from .processes import run

DAYS = "2"


class Authority:
    """The one authority that everybody in the cluster trusts."""

    def __init__(self, layout):
        self._layout = layout
        self._make("ca", "/CN=flocker-csi-e2e")

    def _make(self, name, subject, *extensions, issuer=None):
        layout = self._layout
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", DAYS, "-subj", subject, "-keyout", layout.key(name), "-out", layout.certificate(name)]
        if issuer:
            command += ["-CA", layout.certificate(issuer), "-CAkey", layout.key(issuer)]
            command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        for extension in extensions:
            command += ["-addext", extension]
        run(command)

    def client(self, name, common_name, organization=None):
        """A client's certificate, and the kubeconfig that presents it."""
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        self._make(name, subject, "extendedKeyUsage=clientAuth", issuer="ca")
        self._kubeconfig(name)

    def server(self, name, *names):
        addresses = ",".join(f"{'IP' if one[0].isdigit() else 'DNS'}:{one}" for one in names)
        self._make(name, f"/CN={name}", f"subjectAltName={addresses}", "extendedKeyUsage=serverAuth", issuer="ca")

    def _kubeconfig(self, name):
        layout = self._layout
        cluster = {"server": API_SERVER, "certificate-authority": str(layout.certificate("ca"))}
        user = {"client-certificate": str(layout.certificate(name)), "client-key": str(layout.key(name))}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": name}}],
            "current-context": "e2e",
        }
        layout.kubeconfig(name).write_text(json.dumps(config), encoding="utf-8")


def make_all(layout):
    """Makes what the control plane and the nodes need."""
    authority = Authority(layout)
    authority.server("kube-apiserver", "127.0.0.1", "10.0.0.1", "localhost", "kubernetes.default.svc")
    authority.client("admin", "admin", "system:masters")
    authority.client("kube-controller-manager", "system:kube-controller-manager")
    authority.client("kube-scheduler", "system:kube-scheduler")
    authority.client("apiserver-to-kubelet", "apiserver-to-kubelet", "system:masters")
    for node in NODE_NAMES:
        authority.client(f"kubelet-{node}", f"system:node:{node}", "system:nodes")
        authority.server(f"kubelet-server-{node}", node)
    run(["openssl", "genrsa", "-out", layout.key("service-accounts"), "2048"])
