"""The notes that Helm prints after an installation."""

import json
import pathlib
import shutil
import tempfile
import unittest

import charts

LOOKUPS = {
    "namespace": 'lookup "v1" "Namespace" "" .Release.Namespace',
    "secret": 'lookup "v1" "Secret" $.Release.Namespace $name',
}
SECRET = {"data": {name: "" for name in ("cluster.crt", "plugin.crt", "plugin.key")}}


def notes(name, *arguments, **cluster):
    """Returns the notes of a set of values, on a cluster that answers all lookups of a kind alike."""
    text = (charts.CHART / "templates/NOTES.txt").read_text()
    for kind, lookup in LOOKUPS.items():
        assert lookup in text, lookup
        text = text.replace(lookup, f"fromJson `{json.dumps(cluster.get(kind, {}))}`")
    with tempfile.TemporaryDirectory() as directory:
        chart = pathlib.Path(directory) / "flocker-csi"
        shutil.copytree(charts.CHART, chart)
        (chart / "templates/NOTES.txt").unlink()
        (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + text + "{{- end -}}")
        (chart / "templates/notes.yaml").write_text('notes: {{ include "notes" . | toJson }}')
        done = charts.render(*charts.values(name), *arguments, "--show-only=templates/notes.yaml", chart=chart)
    [document] = charts.documents(done)
    return document["notes"]


class Notes(unittest.TestCase):
    def test_they_say_what_was_installed_and_how_to_check_it(self):
        text = notes("everything")
        for words in [
            "driver flocker.example.com, for https://[2001:db8::1]:4524",
            "Deployment flocker-csi/flocker-csi-controller, 3 replicas, certificates from the Secret flocker-controller",
            "DaemonSet flocker-csi/flocker-csi-node, certificates from the Secret flocker-node",
            "StorageClass flocker-gold, profile gold, the default",
            "kubectl -n flocker-csi get pods -l app.kubernetes.io/instance=flocker-csi",
            '@.name=="flocker.example.com"',
        ]:
            self.assertIn(words, text)
        self.assertNotIn("Deployment", notes("node-only"))
        self.assertIn("certificates from each node's /etc/flocker", notes("defaults"))

    def test_they_say_what_is_missing(self):
        plain = {"metadata": {"name": "flocker-csi"}}
        enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
        secret = "MISSING: a Secret flocker-csi/flocker-csi-tls with cluster.crt, plugin.crt and plugin.key"
        profile = "MISSING: the namespace enforces the Pod Security profile baseline"
        self.assertIn(secret, notes("defaults", namespace=plain))
        self.assertIn(secret, notes("defaults", namespace=plain, secret={"data": {"cluster.crt": ""}}))
        self.assertIn(profile, notes("defaults", namespace=enforced, secret=SECRET))
        self.assertIn("flocker-csi/flocker-node", notes("tls-secret", namespace=plain))
        networked = notes("controller-only", "--set=controller.hostNetwork=true", namespace=enforced, secret=SECRET)
        self.assertIn(f"{profile}, and the controller's pods need privileged", networked)

    def test_they_miss_nothing_where_all_is_there_or_nobody_can_be_asked(self):
        privileged = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}
        restricted = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        for text in (
            notes("defaults"),
            notes("defaults", namespace=privileged, secret=SECRET),
            notes("controller-only", namespace=restricted, secret=SECRET),
        ):
            self.assertNotIn("MISSING", text)
