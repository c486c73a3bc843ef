"""The images of the cluster beside the plugin's own: one static program each."""

import shutil

from oci import write_archive

from .manifests import BUSYBOX
from .nodes import PAUSE

BUSYBOX_PROGRAM = "/usr/bin/busybox"
SIDECARS = {
    "csi-provisioner": "registry.invalid/csi-provisioner:v6.3.0",
    "csi-attacher": "registry.invalid/csi-attacher:v4.13.0",
}
# What the chapters' scripts call.
APPLETS = ("sh", "cat", "date", "mkdir", "sleep", "stat", "sync")


def make_all(layout):
    """Writes the archives."""
    images = layout.work / "images"
    busybox = layout.work / "busybox"
    shutil.copy(BUSYBOX_PROGRAM, busybox)
    links = [(f"bin/{applet}", "busybox", 0o777) for applet in APPLETS]
    files = [("bin/busybox", busybox, 0o755), *links, ("tmp", None, 0o1777)]
    write_archive(images / "busybox.tar", BUSYBOX, files, ["/bin/sh"])
    write_archive(images / "pause.tar", PAUSE, files, ["/bin/sleep", "infinity"])
    for program, name in SIDECARS.items():
        write_archive(images / f"{program}.tar", name, [(program, layout.binary(program), 0o755)], [f"/{program}"])
    shutil.copy(layout.image, images / "flocker-csi.tar")
