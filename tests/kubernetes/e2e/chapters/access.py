"""Who may read and write."""

from .. import manifests
from ..waiting import check, equal
from .installing import LATE

TITLE = "a group owns what it mounts, and who may only read cannot write"
ALWAYS = False
SPACE = "access"
USER, GROUP = 1234, 5678


def run_chapter(cluster, report):
    kubernetes = cluster.kubernetes
    kubernetes.namespace(SPACE)
    kubernetes.apply(manifests.claim(SPACE, "shared", LATE))
    nobody = {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True, "fsGroup": GROUP}
    kubernetes.apply(manifests.pod(SPACE, "nobody", "shared", securityContext=nobody))
    kubernetes.until_running(SPACE, "nobody")
    kubernetes.execute(SPACE, "nobody", "sh", "-c", "echo mine >/data/file && mkdir /data/directory && sync")
    owners = kubernetes.execute(
        SPACE, "nobody", "stat", "-c", "%u:%g", "/data", "/data/file", "/data/directory"
    ).split()
    equal(owners[0].partition(":")[2], str(GROUP), "the group of the volume's root")
    equal(owners[1:], [f"{USER}:{GROUP}"] * 2, "owner and group of a new file and a new directory")
    report.shown(f"a pod of user {USER} with fsGroup {GROUP} writes; the root and new files have that group")
    kubernetes.remove("pod", "nobody", SPACE)

    reader = manifests.pod(SPACE, "reader", "shared", read_only=True)
    reader["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = True
    kubernetes.apply(reader)
    kubernetes.until_running(SPACE, "reader")
    refused = kubernetes.execute(SPACE, "reader", "sh", "-c", "echo no >/data/file", expect=None)
    check(refused.returncode != 0 and "Read-only file system" in refused.stderr, f"writing is refused: {refused}")
    equal(kubernetes.execute(SPACE, "reader", "cat", "/data/file").strip(), "mine", "what the reader sees")
    report.shown("a pod with a read-only claim reads the file and cannot write it")
    kubernetes.remove_namespace(SPACE)
