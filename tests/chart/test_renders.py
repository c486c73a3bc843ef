"""What the chart renders: kept, valid, and the same wherever it is shipped."""

import functools
import json
import unittest

import yaml
from kubernetes_validate import utils

import charts

# Reading them takes most of the time.
utils.schema_contents = functools.cache(utils.schema_contents)
RELEASES = sorted(set(utils.all_versions()), key=utils.Version)[-4:]


def validate(document):
    """Raises unless all of the newest releases know every field of a document."""
    # Kubernetes knows these only with an operator; test_monitoring.py is about them.
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        return
    for release in RELEASES:
        utils.validate(document, release, strict=True)


class Renders(unittest.TestCase):
    def test_what_is_made_from_the_chart_is_as_it_would_be_made_now(self):
        for path, text in charts.kept():
            with self.subTest(path=path.relative_to(charts.ROOT)):
                self.assertEqual(path.read_text(), text, "run: make chart")

    def test_every_value_is_described(self):
        rows = [line for line in charts.readme().splitlines() if line.startswith("| ") and "|------|" not in line]
        self.assertGreater(len(rows), 50)
        for row in rows:
            self.assertRegex(row, r"[a-z`.)] \|$|Description \|$", row)

    def test_there_is_no_render_of_values_that_are_gone(self):
        made = {path for path, _ in charts.kept()}
        for path in (charts.ROOT / "tests/chart/golden").iterdir():
            self.assertIn(path, made, f"{path} has no values")

    def test_helm_has_nothing_to_say_about_the_chart(self):
        for name in charts.NAMES:
            with self.subTest(values=name):
                done = charts.helm("lint", "--strict", *charts.values(name))
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_four_releases_of_kubernetes_know_every_field_of_every_render(self):
        self.assertEqual(RELEASES, ["1.34.0", "1.35.0", "1.36.0", "1.37.0"])
        for name in charts.NAMES:
            for document in charts.documents(charts.rendered(name)):
                with self.subTest(values=name, kind=document["kind"], name=document["metadata"]["name"]):
                    validate(document)

    def test_a_text_that_looks_like_something_else_stays_a_text(self):
        storage_class = {"name": "7", "profile": "0x7", "metadata": {"null": 'a,b"c{{x}}: #', "on": "true"}}
        done = charts.helm(
            "template",
            *charts.values("tls-secret"),
            "--namespace=0x10",
            f"--set-json=storageClasses=[{json.dumps(storage_class)}]",
            "--set-string=driver.name=true,controller.tlsSecret=1,node.tlsSecret=2",
            "--set-string=controller.priorityClassName=3,node.priorityClassName=",
            release="123",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        for document in charts.documents(done.stdout):
            with self.subTest(kind=document["kind"]):
                validate(document)
            if document["kind"] == "StorageClass":
                wanted = {"profile": "0x7", "metadata.null": 'a,b"c{{x}}: #', "metadata.on": "true"}
                self.assertEqual(document["parameters"], wanted)

    def test_a_field_that_no_release_knows_is_refused_wherever_it_is(self):
        for document in charts.documents(charts.rendered("everything")):
            if document["apiVersion"] == "monitoring.coreos.com/v1":
                continue
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            for place in [document, *([pod] if pod else []), *pod.get("containers", []), *pod.get("volumes", [])]:
                place["mispelt"] = "x"
                with self.subTest(kind=document["kind"]), self.assertRaisesRegex(utils.ValidationError, "mispelt"):
                    validate(document)
                del place["mispelt"]
            validate(document)

    def test_the_everything_render_has_another_value_than_the_default_for_all_there_is(self):
        def same(default, given, path):
            if isinstance(default, dict) and default and path not in MAPS:
                for key in default:
                    yield from same(default[key], (given or {}).get(key), f"{path}.{key}".lstrip("."))
            elif given is None or given == default:
                yield path

        # Maps that Helm merges, and what other sets of values change.
        MAPS = {"controller.nodeSelector", "node.nodeSelector"}
        others = {"csiDriver.create", "controller.enabled", "controller.hostNetwork", "node.enabled"}
        others |= {f"monitoring.serviceMonitor.{key}" for key in ("enabled", "labels", "interval")}
        default = yaml.safe_load((charts.CHART / "values.yaml").read_text())
        given = yaml.safe_load((charts.ROOT / "tests/chart/values/everything.yaml").read_text())
        self.assertEqual(set(same(default, given, "")), others)

    def test_objects_of_the_cluster_have_no_namespace_and_all_others_have(self):
        cluster = {"ClusterRole", "ClusterRoleBinding", "CSIDriver", "StorageClass"}
        for document in charts.documents(charts.rendered("everything")):
            namespace = document["metadata"].get("namespace")
            self.assertEqual(namespace, None if document["kind"] in cluster else "flocker-csi", document["kind"])

    def test_the_chart_has_the_version_of_the_program(self):
        manifest = (charts.ROOT / "Cargo.toml").read_text()
        version = manifest.split("[workspace.package]")[1].split('version = "')[1].split('"')[0]
        chart = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))


class Upgrades(unittest.TestCase):
    def test_what_kubernetes_does_not_let_be_changed_depends_on_no_value(self):
        def fixed(name, chart=charts.CHART):
            text = charts.render(*charts.values(name), chart=chart)
            return {
                (document["kind"], document["metadata"]["name"]): document["spec"]["selector"]
                for document in charts.documents(text)
                if document["kind"] in ("Deployment", "DaemonSet")
            }

        self.assertEqual(fixed("everything"), fixed("defaults"))
        self.assertNotIn("version", str(fixed("defaults")))


class Deploy(unittest.TestCase):
    def manifests(self):
        for path in (charts.DEPLOY / "namespace.yaml", *charts.EXAMPLES):
            for document in charts.documents(path.read_text()):
                yield path.name, document

    def test_four_releases_of_kubernetes_know_every_field_of_the_examples(self):
        seen = set()
        for name, document in self.manifests():
            with self.subTest(file=name, kind=document["kind"]):
                validate(document)
            seen.add(document["kind"])
        wanted = {"Namespace", "PersistentVolumeClaim", "Pod", "StatefulSet", "Service", "PersistentVolume"}
        self.assertEqual(seen, wanted)

    def test_examples_use_the_classes_and_the_driver_of_the_chart(self):
        classes = {storage_class["metadata"]["name"] for storage_class in charts.objects("defaults", "StorageClass")}
        [driver] = charts.objects("defaults", "CSIDriver")
        for name, document in self.manifests():
            specs = [document.get("spec", {})]
            specs += [claim["spec"] for claim in specs[0].get("volumeClaimTemplates", [])]
            for spec in specs:
                if "storageClassName" in spec:
                    self.assertIn(spec["storageClassName"], classes | {""}, name)
                if "csi" in spec:
                    self.assertEqual(spec["csi"]["driver"], driver["metadata"]["name"], name)
                    # Flocker takes ids of this form only.
                    form = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
                    self.assertRegex(spec["csi"]["volumeHandle"], form)

    def test_the_namespace_lets_the_nodes_pods_in(self):
        [namespace] = charts.documents((charts.DEPLOY / "namespace.yaml").read_text())
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged")
        for document in charts.documents(charts.rendered("defaults")):
            wanted = document["metadata"].get("namespace", namespace["metadata"]["name"])
            self.assertEqual(namespace["metadata"]["name"], wanted)
