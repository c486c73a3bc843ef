"""What the chart gives to the operator of Prometheus."""

import unittest

import yaml

import charts

KINDS = ("PodMonitor", "PrometheusRule")
BY_SERVICE = ("ServiceMonitor", "Service")
RULES = yaml.safe_load((charts.ROOT / "deploy/monitoring/rules.yaml").read_text())


def enabled(*settings, name="defaults"):
    """Returns the PodMonitor and the PrometheusRule of a set of values with both switched on."""
    both = [f"--set=monitoring.{kind}.enabled=true" for kind in ("podMonitor", "prometheusRule")]
    documents = charts.documents(charts.render(*charts.values(name), *both, *settings))
    return [next(document for document in documents if document["kind"] == kind) for kind in KINDS]


class Monitoring(unittest.TestCase):
    def test_nothing_of_it_is_rendered_unless_it_is_asked_for(self):
        for name in charts.NAMES:
            asked = {"everything": KINDS, "node-only": BY_SERVICE}.get(name, ())
            for kind in (*KINDS, *BY_SERVICE):
                self.assertEqual(bool(charts.objects(name, kind)), kind in asked, f"{kind} of {name}")

    def test_the_monitor_finds_the_pods_of_each_component_that_is_installed_at_a_port_they_have(self):
        for name, components in [
            ("defaults", ["controller", "node"]),
            ("controller-only", ["controller"]),
            ("node-only", ["node"]),
        ]:
            with self.subTest(values=name):
                monitor, _ = enabled("--set=monitoring.serviceMonitor.enabled=false", name=name)
                selector = monitor["spec"]["selector"]
                [expression] = selector["matchExpressions"]
                self.assertEqual((expression["operator"], expression["values"]), ("In", components))
                found = []
                for kind in ("Deployment", "DaemonSet"):
                    for workload in charts.objects(name, kind):
                        labels = workload["spec"]["template"]["metadata"]["labels"]
                        self.assertLessEqual(selector["matchLabels"].items(), labels.items())
                        found.append(labels[expression["key"]])
                self.assertEqual(found, components)
                [endpoint] = monitor["spec"]["podMetricsEndpoints"]
                for _, container in charts.containers(name):
                    ports = [port["name"] for port in container.get("ports", [])]
                    self.assertEqual(endpoint["port"] in ports, container["name"] == "plugin")

    def test_the_job_is_the_one_that_the_rules_look_for(self):
        monitor, rule = enabled()
        job = monitor["spec"]["selector"]["matchLabels"][monitor["spec"]["jobLabel"]]
        self.assertIn(f'job="{job}"', str(rule))

    def test_the_monitor_has_only_fields_of_its_kind(self):
        monitor, _ = enabled()
        self.assertEqual(set(monitor["spec"]), {"jobLabel", "selector", "podMetricsEndpoints"})
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        self.assertEqual(set(endpoint), {"port", "path", "interval", "relabelings"})
        [relabeling] = endpoint["relabelings"]
        self.assertEqual(set(relabeling), {"sourceLabels", "targetLabel"})

    def test_the_rules_are_those_of_the_directory(self):
        _, rule = enabled()
        self.assertEqual(rule["spec"], RULES)

    def test_alerts_link_to_the_runbook_where_the_values_say_it_is(self):
        _, rule = enabled("--set=monitoring.prometheusRule.runbookUrl=https://wiki.example.com/run")
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                link = f"https://wiki.example.com/run#{alert['alert'].lower()}"
                self.assertEqual(alert["annotations"]["runbook_url"], link)

    def test_labels_for_the_selectors_of_prometheus_are_added(self):
        for kind in KINDS:
            [document] = charts.objects("everything", kind)
            self.assertEqual(document["metadata"]["labels"]["release"], "prometheus")

    def test_the_service_of_the_other_monitor_selects_the_pods_at_a_port_they_have(self):
        service, monitor = (
            next(
                document
                for document in charts.documents(
                    charts.render(*charts.values("defaults"), "--set=monitoring.serviceMonitor.enabled=true")
                )
                if document["kind"] == kind
            )
            for kind in ("Service", "ServiceMonitor")
        )
        labels = service["metadata"]["labels"]
        self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), labels.items())
        self.assertIn(f'job="{labels[monitor["spec"]["jobLabel"]]}"', str(RULES))
        self.assertEqual(service["spec"]["clusterIP"], "None")
        self.assertTrue(service["spec"]["publishNotReadyAddresses"])
        [port] = service["spec"]["ports"]
        [endpoint] = monitor["spec"]["endpoints"]
        self.assertEqual(endpoint["port"], port["name"])
        self.assertEqual(set(monitor["spec"]), {"jobLabel", "selector", "endpoints"})
        self.assertEqual(set(endpoint), {"port", "path", "interval", "relabelings"})
        pods = 0
        for kind in ("Deployment", "DaemonSet"):
            for workload in charts.objects("defaults", kind):
                found = workload["spec"]["template"]["metadata"]["labels"]
                self.assertLessEqual(service["spec"]["selector"].items(), found.items())
                pods += 1
        self.assertEqual(pods, 2)
        for _, container in charts.containers("defaults"):
            names = [one["name"] for one in container.get("ports", [])]
            self.assertEqual(port["targetPort"] in names, container["name"] == "plugin")

    def test_a_plugin_that_would_be_scraped_twice_is_refused(self):
        both = [f"--set=monitoring.{kind}.enabled=true" for kind in ("podMonitor", "serviceMonitor")]
        done = charts.helm("template", *charts.values("defaults"), *both)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("would scrape each plugin twice", done.stderr)
