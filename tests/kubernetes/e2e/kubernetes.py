"""A client of the cluster: kubectl, with answers as objects."""

import json

from .processes import run
from .waiting import Failed, eventually


class Kubernetes:
    """Talks to the API server as an administrator."""

    def __init__(self, layout):
        self._command = [layout.binary("kubectl"), "--kubeconfig", layout.kubeconfig("admin")]

    def kubectl(self, *arguments, **how):
        return run([*self._command, *arguments], **how)

    def apply(self, *objects):
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "--filename=-", text=json.dumps(listed))

    def namespace(self, name):
        """Makes a namespace in which pods can be made."""
        self.kubectl("create", "namespace", name)
        eventually(f"namespace {name} has its service account", lambda: self.get("serviceaccount", "default", name))

    def remove_namespace(self, name, within=240.0):
        """Deletes a namespace with everything in it, and waits until it no longer exists."""
        self.delete("namespace", name)
        self.until_gone("namespace", name, within=within)

    def get(self, kind, name=None, namespace=None, labels=None):
        """One object or `None`; without a name all of the kind."""
        arguments = ["get", kind, "--output=json", "--ignore-not-found"]
        arguments += [f"--namespace={namespace}"] if namespace else ["--all-namespaces"] if name is None else []
        arguments += [f"--selector={labels}"] if labels else []
        answer = self.kubectl(*arguments, *([name] if name else []))
        found = json.loads(answer) if answer.strip() else None
        return found if name else (found or {"items": []})["items"]

    def delete(self, kind, name, namespace=None, wait=False, **how):
        arguments = ["delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}"]
        arguments += [f"--namespace={namespace}"] if namespace else []
        return self.kubectl(*arguments, **how)

    def execute(self, namespace, pod, *command, expect=0):
        return self.kubectl("exec", f"--namespace={namespace}", pod, "--", *command, expect=expect)

    def events(self, namespace, name):
        """What was said about an object, newest last."""
        events = [one for one in self.get("events", namespace=namespace) if one["involvedObject"]["name"] == name]
        return [f"{one['reason']}: {one['message']}" for one in events]

    def phase(self, namespace, pod):
        """The phase of a pod, and whether its containers are ready."""
        found = self.get("pod", pod, namespace)
        if found is None:
            return "gone", False
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", [])}
        return found["status"].get("phase"), conditions.get("Ready") == "True"

    def until_running(self, namespace, pod, within=90.0):
        """Waits until a pod is ready and returns it."""

        def running():
            phase, ready = self.phase(namespace, pod)
            if phase in ("Failed", "Succeeded"):
                raise Failed(f"it is {phase}")
            return phase == "Running" and ready

        eventually(
            f"pod {namespace}/{pod} runs",
            running,
            within,
            seen=lambda: f"{self.phase(namespace, pod)}; {self.events(namespace, pod)[-3:]}",
        )
        return self.get("pod", pod, namespace)

    def until_gone(self, kind, name, namespace=None, within=90.0):
        def gone():
            return self.get(kind, name, namespace) is None

        eventually(
            f"{kind} {name} is gone", gone, within, seen=lambda: json.dumps(self.get(kind, name, namespace))[-600:]
        )

    def remove(self, kind, name, namespace=None, within=90.0):
        """Deletes an object and waits until it no longer exists."""
        self.delete(kind, name, namespace)
        self.until_gone(kind, name, namespace, within)
