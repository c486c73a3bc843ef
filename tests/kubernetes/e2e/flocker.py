"""The embedded Flocker of the cluster, with a node for each Kubernetes node, and what it reports."""

import json
import os
import ssl
import urllib.request

from .layout import CONTROL_SERVICE, NODE_NAMES
from .processes import Process, run
from .waiting import Failed, eventually


class Flocker:
    """A running Flocker."""

    def __init__(self, layout):
        self._layout = layout
        self.data = layout.work / "flocker"
        self.certificates = layout.work / "certificates" / "flocker"
        self._faults = layout.work / "faults.json"
        self._plan({})
        self._process = None

    def start(self, pace="instant"):
        """Starts it; its state of an earlier start is loaded."""
        self._process = Process(
            "flocker",
            [self._layout.program, "embedded", f"--data-dir={self.data}", f"--nodes={len(NODE_NAMES)}"]
            + [f"--pace={pace}", f"--certificates={self.certificates}", f"--faults={self._faults}"]
            # No more than a promise: the files are sparse, and little is written to them.
            + ["--capacity=1TiB"],
            self._layout.log("flocker"),
        )

        def listens():
            self._process.check_running()
            try:
                return self.get("version")
            except (OSError, Failed):
                return False

        eventually("the control service answers", listens)

    def stop(self):
        if self._process is not None:
            self._process.stop()

    def node_id(self, number):
        return (self.certificates / f"node-{number}.id").read_text(encoding="ascii").strip()

    def mount_root(self, number):
        return self.data / "flocker" / f"node-{number}"

    def get(self, path):
        return self._request("GET", path)

    def create(self, dataset_id, node, size, **metadata):
        """Declares a dataset as the clients before this driver did."""
        body = {"dataset_id": dataset_id, "primary": self.node_id(node), "maximum_size": size, "metadata": metadata}
        return self._request("POST", "configuration/datasets", body)

    def delete(self, dataset_id):
        return self._request("DELETE", f"configuration/datasets/{dataset_id}")

    def _request(self, method, path, body=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.certificates / "cluster.crt")
        context.load_cert_chain(self.certificates / "plugin.crt", self.certificates / "plugin.key")
        request = urllib.request.Request(
            f"{CONTROL_SERVICE}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.load(answer)

    def datasets(self):
        """The datasets that are not deleted, by id."""
        return {one["dataset_id"]: one for one in self.get("configuration/datasets") if not one.get("deleted")}

    def leases(self):
        """Who holds which dataset: node ids by dataset id."""
        return {one["dataset_id"]: one["node_uuid"] for one in self.get("configuration/leases")}

    def backed(self):
        """The datasets that exist on some node."""
        return {one["dataset_id"]: one for one in self.get("state/datasets")}

    def faults(self, **plan):
        """Puts a plan of faults into force; without one no fault occurs."""
        self._plan(plan)

    def _plan(self, plan):
        new = self._faults.with_suffix(".new")
        new.write_text(json.dumps(plan), encoding="utf-8")
        os.replace(new, self._faults)

    def loop_devices(self):
        """The loop devices of its datasets, those included that wait for their last mount to go."""
        listed = json.loads(run(["losetup", "--list", "--json", "--output", "NAME,BACK-FILE"]) or '{"loopdevices": []}')
        return [one for one in listed["loopdevices"] if (one["back-file"] or "").startswith(str(self.data))]

    def loop_devices_of(self, dataset):
        return [one for one in self.loop_devices() if dataset in one["back-file"]]
