"""The commands on the pages that install and configure the chart."""

import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

import charts

PAGES = ["README.md", "docs/kubernetes.md", "deploy/kubernetes/README.md", "charts/flocker-csi/README.md"]


def blocks(page, language):
    """Returns the blocks of a page in a language."""
    text = (charts.ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Pages(unittest.TestCase):
    def test_the_chart_takes_every_install_of_a_page(self):
        installs = 0
        for page in PAGES:
            for block in blocks(page, "sh"):
                for line in block.replace("\\\n", " ").splitlines():
                    words = line.split()
                    if words[:1] == ["helm"] and "install" in words:
                        [chart] = [word for word in words if word.startswith("charts/")]
                        self.assertEqual(charts.ROOT / chart, charts.CHART)
                        settings = words[words.index(chart) + 1 :]
                        with self.subTest(page=page, line=line):
                            self.assertIn("kind: ", charts.render(*settings))
                        installs += 1
        self.assertEqual(installs, 5)

    def test_the_chart_takes_every_value_a_page_names(self):
        named = set()
        for page in PAGES:
            text = (charts.ROOT / page).read_text()
            for value in re.findall(r"`((?:flocker|node|controller)\.(?!csi\.)[\w.]+)(?:=([\w-]+))?`", text):
                named.add(value)
            for setting in re.findall(r"--set '?([\w.]+)=([^\s'`]+)", text):
                named.add(setting)
        self.assertGreater(len(named), 15)
        defaults = yaml.safe_load((charts.CHART / "values.yaml").read_text())
        for path, value in named:
            with self.subTest(path=path, value=value):
                found = defaults
                for key in path.split("."):
                    found = found[key]
                if value and "…" not in value:
                    charts.render(*charts.values("defaults"), "--set", f"{path}={value}")

    def test_the_chart_takes_the_values_a_page_shows(self):
        shown = blocks("docs/kubernetes.md", "yaml")
        self.assertEqual(len(shown), 1)
        for text in shown:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(text)
                file.flush()
                render = charts.render(*charts.values("defaults"), "--values", file.name)
            classes = [one["metadata"]["name"] for one in charts.documents(render) if one["kind"] == "StorageClass"]
            self.assertEqual(classes, ["flocker", "flocker-gold"])

    def test_the_plain_manifests_are_usable_once_the_page_has_replaced_what_has_to_be(self):
        [block] = blocks("deploy/kubernetes/README.md", "sh")
        [command] = re.findall(r"^(sed .*) \| kubectl apply -f -$", block.replace("\\\n", " "), re.MULTILINE)
        done = subprocess.run(command, shell=True, cwd=charts.DEPLOY, capture_output=True, text=True, check=True)
        self.assertNotIn("example.com", done.stdout)
        for path in re.findall(r"[\w-]+\.yaml", block):
            self.assertTrue((charts.DEPLOY / path).exists(), path)
        self.assertIn('"registry.internal/storage/flocker-csi:0.1.0"', done.stdout)
        self.assertIn('"--control-service=https://10.0.0.1:4523"', done.stdout)

    def test_links_between_the_pages_lead_somewhere(self):
        for page in PAGES:
            directory = (charts.ROOT / page).parent
            for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", (charts.ROOT / page).read_text()):
                if "://" not in link:
                    with self.subTest(page=page, link=link):
                        self.assertTrue(pathlib.Path(directory / link).exists())
