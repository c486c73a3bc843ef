"""Where things are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# Everything listens on the loopback interface of the cluster's own network, so no other process uses these ports.
API_SERVER = "https://127.0.0.1:6443"
CONTROL_SERVICE = "https://127.0.0.1:4523"
# The address of a node is its name, too.
NODE_NAMES = ("127.0.0.1", "127.0.0.2")


class Layout:
    """The scratch directory of one run, and the programs it uses."""

    def __init__(self, work, binaries, helm, program, image):
        self.work = Path(work)
        self.binaries = Path(binaries)
        self.helm = Path(helm)
        self.program = Path(program)
        self.image = Path(image)
        for directory in ("log", "certificates", "kubeconfig", "images", "manifests"):
            (self.work / directory).mkdir(exist_ok=True)

    def binary(self, name):
        return self.binaries / name

    def log(self, name):
        return self.work / "log" / f"{name}.log"

    def certificate(self, name):
        return self.work / "certificates" / f"{name}.crt"

    def key(self, name):
        return self.work / "certificates" / f"{name}.key"

    def kubeconfig(self, name):
        return self.work / "kubeconfig" / name
