"""A node pod without a mount that it needs reports that and does not start."""

from ..plugin import NAMESPACE, RELEASE
from ..waiting import check, equal, eventually

TITLE = "a node pod that lacks a mount says which"
ALWAYS = False


def run_chapter(cluster, report):
    kubernetes = cluster.kubernetes
    template = kubernetes.get("daemonset", f"{RELEASE}-node", NAMESPACE)["spec"]["template"]["spec"]
    mounts = template["containers"][0]["volumeMounts"]
    for mount in mounts:
        _refused(cluster, report, template, mount["name"], mount["mountPath"], None)
    for mount in mounts:
        if mount.get("mountPropagation"):
            _refused(cluster, report, template, mount["name"], mount["mountPath"], "None")


def _refused(cluster, report, template, name, path, propagation):
    """Starts the pod without a mount, or with it but without its propagation."""
    kubernetes = cluster.kubernetes
    container = {**template["containers"][0]}
    container["volumeMounts"] = [
        {**mount, "mountPropagation": propagation} if mount["name"] == name else mount
        for mount in container["volumeMounts"]
        if propagation or mount["name"] != name
    ]
    for key in ("livenessProbe", "readinessProbe", "ports"):
        container.pop(key, None)
    # Its port is taken by the plugin that runs on the node.
    container["args"] = [one for one in container["args"] if not one.startswith("--metrics-address=")]
    pod = f"without-{name}" if propagation is None else f"unpropagated-{name}"
    spec = {**template, "containers": [container], "restartPolicy": "Never", "nodeName": cluster.nodes[0].name}
    kubernetes.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE}, "spec": spec}
    )

    def ended():
        found = kubernetes.get("pod", pod, NAMESPACE)
        states = found["status"].get("containerStatuses") or [{}]
        return states[0].get("state", {}).get("terminated")

    terminated = eventually(f"{pod} has ended", ended, within=60, seen=lambda: kubernetes.events(NAMESPACE, pod)[-2:])
    said = kubernetes.kubectl("logs", f"--namespace={NAMESPACE}", pod)
    equal(terminated["exitCode"], 2, f"exit status of {pod}, which said {said[-300:]}")
    check(path in said, f"{pod} names {path}: {said[-600:]}")
    report.shown(
        f"{'without' if propagation is None else 'without propagation of'} {path}: {said.strip().splitlines()[-1][:240]}"
    )
    kubernetes.remove("pod", pod, NAMESPACE)
