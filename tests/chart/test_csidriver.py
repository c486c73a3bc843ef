"""The CSIDriver object, whose fields must not change between versions."""

import pathlib
import shutil
import tempfile
import unittest

import charts

# Kubernetes refuses some changes of these, and the rest affect volumes that are in use.
FROZEN = {
    "attachRequired": True,
    "podInfoOnMount": False,
    "fsGroupPolicy": "File",
    "seLinuxMount": False,
    "storageCapacity": False,
    "requiresRepublish": False,
    "volumeLifecycleModes": ["Persistent"],
}


def changed(driver):
    """Returns the fields of a CSIDriver that are not as they have to be."""
    spec = driver["spec"]
    return sorted(field for field in FROZEN.keys() | spec.keys() if spec.get(field) != FROZEN.get(field))


class Frozen(unittest.TestCase):
    def test_it_is_as_it_has_to_be_with_any_values(self):
        for name in charts.NAMES:
            with self.subTest(values=name):
                drivers = charts.objects(name, "CSIDriver")
                self.assertEqual(len(drivers), 0 if name == "node-only" else 1)
                for driver in drivers:
                    self.assertEqual(changed(driver), [])

    def test_a_change_of_any_field_is_noticed(self):
        template = (charts.CHART / "templates/core/csidriver.yaml").read_text()
        others = {True: "false", False: "true", "File": "None", "Persistent": "Ephemeral"}
        for field, value in FROZEN.items():
            [line] = [line for line in template.splitlines() if line.startswith(f"  {field}: ")]
            other = others[value[0] if isinstance(value, list) else value]
            other = f"[{other}]" if isinstance(value, list) else other
            for broken in (template.replace(line, f"  {field}: {other}"), template.replace(line, "  {{- /* */}}")):
                with self.subTest(field=field), tempfile.TemporaryDirectory() as directory:
                    chart = pathlib.Path(directory) / "flocker-csi"
                    shutil.copytree(charts.CHART, chart)
                    (chart / "templates/core/csidriver.yaml").write_text(broken)
                    text = charts.render(*charts.values("defaults"), chart=chart)
                    [driver] = [one for one in charts.documents(text) if one["kind"] == "CSIDriver"]
                    self.assertEqual(changed(driver), [field])

    def test_a_new_field_is_noticed(self):
        [driver] = charts.objects("defaults", "CSIDriver")
        driver["spec"]["tokenRequests"] = []
        driver["spec"]["nodeAllocatableUpdatePeriodSeconds"] = 60
        self.assertEqual(changed(driver), ["nodeAllocatableUpdatePeriodSeconds", "tokenRequests"])
