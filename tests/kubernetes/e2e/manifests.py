"""The objects that the chapters apply."""

BUSYBOX = "registry.invalid/busybox:e2e"


def claim(namespace, name, storage_class, size="64Mi", **spec):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def pod_spec(claim_name, script="sleep infinity", *, node=None, read_only=False, **more):
    """A pod's specification: one container that runs a script with the volume at /data."""
    spec = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "main",
                "image": BUSYBOX,
                "imagePullPolicy": "Never",
                # The first process of a container ignores signals that it has no handler for.
                "command": ["/bin/sh", "-c", f"trap 'exit 0' TERM; {script} & wait"],
                "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": read_only}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}],
        **more,
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return spec


def pod(namespace, name, claim_name, script="sleep infinity", **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": pod_spec(claim_name, script, **spec),
    }
