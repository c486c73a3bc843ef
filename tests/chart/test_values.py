"""What the chart refuses, and with which words."""

import unittest

import yaml

import charts

REQUIRED = charts.values("defaults")


class Refusals(unittest.TestCase):
    def refused(self, *words, arguments):
        done = charts.helm("template", *arguments)
        self.assertNotEqual(done.returncode, 0, f"{arguments} was taken")
        for word in words:
            self.assertIn(word, done.stderr)

    def test_a_misspelt_value_is_refused_by_its_name_at_every_depth(self):
        for path, name in [
            ("imagePulPolicy=Always", "imagePulPolicy"),
            ("image.repo=x", "repo"),
            ("flocker.controlServce=https://x", "controlServce"),
            ("flocker.pools[0].capcity=1GiB", "capcity"),
            ("controller.ports.plugn=29801", "plugn"),
            ("controller.resources.limit.memory=1Gi", "limit"),
            ("provisioner.image.dgst=x", "dgst"),
            ("node.tolerations[0].efect=NoSchedule", "efect"),
            ("node.extraEnv[0].nam=X", "nam"),
            ("storageClasses[0].proflie=gold", "proflie"),
            ("csiDriver.attachRequired=false", "attachRequired"),
            ("monitoring.podMonitor.intervall=15s", "intervall"),
        ]:
            with self.subTest(value=path):
                self.refused(f"additional properties '{name}' not allowed", arguments=[*REQUIRED, "--set", path])

    def test_every_object_of_the_values_refuses_keys_it_does_not_know(self):
        def objects(value, path=""):
            if isinstance(value, dict) and value:
                yield path
                for key, inner in value.items():
                    yield from objects(inner, f"{path}{key}.")

        free = {"controller.nodeSelector.", "node.nodeSelector."}
        default = yaml.safe_load((charts.CHART / "values.yaml").read_text())
        for path in objects(default):
            quantities = path.endswith((".requests.", ".limits."))
            if path in free or quantities:
                continue
            with self.subTest(path=path):
                arguments = [*REQUIRED, "--set", f"{path}mispelt=x"]
                self.refused("additional properties 'mispelt' not allowed", arguments=arguments)

    def test_a_value_that_cannot_be_is_refused_by_its_path(self):
        for value, path in [
            ("flocker.controlService=http://10.0.0.1", "/flocker/controlService"),
            ("flocker.takeover=always", "/flocker/takeover"),
            ("flocker.takeoverGrace=soon", "/flocker/takeoverGrace"),
            ("flocker.topology=strict", "/flocker/topology"),
            ("flocker.defaultSize=10G", "/flocker/defaultSize"),
            ("flocker.pools[0].capacity=lots", "/flocker/pools/0/capacity"),
            ("driver.name=Flocker!", "/driver/name"),
            ("image.digest=latest", "/image/digest"),
            ("image.repository=registry.example.com/flocker-csi:1", "/image/repository"),
            ("attacher.image.repository=registry.example.com/csi-attacher:v4.13.0", "/attacher/image/repository"),
            ("provisioner.image.tag=", "/provisioner/image/tag"),
            ("controller.replicas=0", "/controller/replicas"),
            ("controller.ports.plugin=80", "/controller/ports/plugin"),
            ("node.kubeletDir=var/lib/kubelet", "/node/kubeletDir"),
            ("node.kubeletDir=/var/lib/kubelet/", "/node/kubeletDir"),
            ("node.nodeIdFile=/node-id", "/node/nodeIdFile"),
            ("node.maxUnavailable=some", "/node/maxUnavailable"),
            ("monitoring.podMonitor.interval=often", "/monitoring/podMonitor/interval"),
            ("monitoring.serviceMonitor.interval=often", "/monitoring/serviceMonitor/interval"),
            ("monitoring.prometheusRule.runbookUrl=wiki", "/monitoring/prometheusRule/runbookUrl"),
            (r"monitoring.podMonitor.labels.app\.kubernetes\.io/name=x", "/monitoring/podMonitor/labels/app.kubernetes.io~1name"),
            ("node.maxUnavailable=0%", "/node/maxUnavailable"),
            # What the chart itself says twice would be refused by Kubernetes, or count for less.
            ("node.extraEnv[0].name=POD_IP", "/node/extraEnv/0/name"),
            (r"node.podLabels.app\.kubernetes\.io/name=x", "/node/podLabels/app.kubernetes.io~1name"),
            ("storageClasses[0].mountOptions[0]=discard", "/storageClasses/0/mountOptions/0"),
            ("storageClasses[0].reclaimPolicy=Recycle", "/storageClasses/0/reclaimPolicy"),
        ]:
            with self.subTest(value=value):
                self.refused(f"at '{path}'", arguments=[*REQUIRED, "--set", value])

    def test_a_value_that_is_taken_away_is_missed(self):
        for path in ("flocker.takeover", "node.stateDir", "attacher.image.tag"):
            with self.subTest(value=path):
                name = path.rpartition(".")[2]
                self.refused(f"missing property '{name}'", arguments=[*REQUIRED, "--set", f"{path}=null"])

    def test_what_has_no_default_is_asked_for_with_an_example(self):
        for value, sentence in [
            ("image.repository=", "image.repository is not set: build the image with `make image`"),
            ("flocker.controlService=", "flocker.controlService is not set: say where Flocker's control service is"),
            ("controller.tlsSecret=", "controller.tlsSecret is not set: say which Secret"),
        ]:
            with self.subTest(value=value):
                self.refused(sentence, arguments=[*REQUIRED, "--set", value])

    def test_directories_of_the_host_that_do_not_go_together_are_refused(self):
        for value, sentence in [
            ("node.stateDir=/var/lib/kubelet/plugins/flocker", "node.stateDir is in node.kubeletDir, /var/lib/kubelet:"),
            ("node.flockerRoot=/var/lib/kubelet", "node.flockerRoot is in node.kubeletDir"),
            ("node.nodeIdFile=/var/lib/kubelet/node-id", "node.nodeIdFile is in node.kubeletDir"),
            # With the driver's name one byte more than the kernel takes.
            (f"node.kubeletDir=/{'k' * 55}", "node.kubeletDir and driver.name are too long together"),
        ]:
            with self.subTest(value=value):
                self.refused(sentence, arguments=[*REQUIRED, "--set", value])
        for value in ("node.stateDir=/var/lib/kubelet-flocker", f"node.kubeletDir=/{'k' * 54}"):
            charts.render(*REQUIRED, "--set", value)

    def test_the_chart_can_be_part_of_another(self):
        charts.render(*REQUIRED, "--set", "global.region=north")


class Images(unittest.TestCase):
    def test_an_image_is_known_by_its_digest_where_there_is_one_and_else_by_its_tag(self):
        def images(name):
            return {container["image"] for _, container in charts.containers(name)}

        self.assertEqual(
            images("defaults"),
            {
                "registry.example.com/flocker-csi:0.1.0",
                "registry.k8s.io/sig-storage/csi-provisioner:v6.3.0",
                "registry.k8s.io/sig-storage/csi-attacher:v4.13.0",
            },
        )
        for image in images("everything"):
            self.assertRegex(image, r"^registry\.example\.com:5000/[-/a-z]+@sha256:[0-9a-f]{64}$")
