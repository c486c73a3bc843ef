"""What the containers are given: command lines, ports, mounts."""

import os
import pathlib
import re
import unittest

import yaml

import charts

# The program that is tested, and certificates it takes; tests/tools/chart.sh says where they are.
PROGRAM = os.environ["FLOCKER_CSI"]
CERTIFICATES = os.environ["CERTIFICATES"]


def plugins():
    """Returns the arguments of the plugin in each pod of each render."""
    for name in charts.NAMES:
        for pod, container in charts.containers(name):
            if container["name"] == "plugin":
                yield name, pod, container


def argument(container, flag):
    """Returns the value of a flag that occurs once."""
    [value] = [word.partition("=")[2] for word in container["args"] if word.partition("=")[0] == flag]
    return value


def check(arguments):
    """Has the program check arguments of a container on this machine, where it has an address and certificates."""
    here = [
        re.sub(r"=/etc/flocker(-csi)?/(?=(cluster|plugin)\.)", f"={CERTIFICATES}/", word).replace("$(POD_IP)", "127.0.0.1")
        for word in arguments
    ]
    environment = {"PATH": os.environ["PATH"]}
    return charts.run(PROGRAM, *here, "--check-config", env=environment)


class CommandLines(unittest.TestCase):
    def test_the_plugin_takes_the_arguments_of_every_pod(self):
        checked = 0
        for name, _, container in plugins():
            with self.subTest(values=name, mode=argument(container, "--mode")):
                done = check(container["args"])
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            checked += 1
        self.assertEqual(checked, 2 * (len(charts.NAMES) - 2) + 2)

    def test_an_argument_the_plugin_does_not_know_is_not_taken(self):
        for _, _, container in plugins():
            self.assertEqual(check([*container["args"], "--takovr=never"]).returncode, 2)
            self.assertEqual(check([*container["args"], "--takeover=maybe"]).returncode, 2)

    def test_a_default_value_is_the_plugins_own_default(self):
        page = (charts.ROOT / "docs/configuration.md").read_text()
        defaults = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
        compared = set()
        for container in (container for name, _, container in plugins() if name == "defaults"):
            for word in container["args"]:
                key = word.partition("=")[0].removeprefix("--").replace("-", "_")
                # What the pod needs, as it is a pod, and in Kubernetes; state_dir is one on the node only.
                if key in ("mode", "endpoint", "cluster_cert", "user_cert", "user_key", "state_dir", "topology"):
                    continue
                if key in defaults:
                    self.assertEqual(argument(container, word.partition("=")[0]), defaults[key], key)
                    compared.add(key)
        self.assertGreaterEqual(
            compared,
            {"driver_name", "server_name", "takeover", "takeover_grace", "provision_wait", "default_size"}
            | {"allocation_unit", "max_volumes_per_node", "node_id_file", "mount_root", "log", "log_format"},
        )

    def test_plugin_and_provisioner_agree_on_topology(self):
        nodes = {("", "nodes"), ("storage.k8s.io", "csinodes")}
        flags = {"--strict-topology", "--immediate-topology=false"}
        for name in charts.NAMES:
            # YAML reads the off of that file as false.
            expected = "off" if name == "everything" else "hint"
            for _, container in charts.containers(name):
                with self.subTest(values=name, container=container["name"]):
                    if container["name"] == "plugin":
                        self.assertEqual(argument(container, "--topology"), expected)
                    elif container["name"] == "provisioner":
                        self.assertEqual(flags & set(container["args"]), flags if expected == "hint" else set())
            for role in charts.objects(name, "ClusterRole"):
                if role["metadata"]["name"].endswith("-provisioner"):
                    rules = {(rule["apiGroups"][0], rule["resources"][0]) for rule in role["rules"]}
                    self.assertEqual(rules & nodes, nodes if expected == "hint" else set(), name)

    def test_all_containers_of_the_controller_share_one_socket(self):
        for pod, container in charts.containers("everything"):
            if container["name"] == "plugin" and argument(container, "--mode") == "controller":
                self.assertEqual(argument(container, "--endpoint"), "unix:///csi/csi.sock")
                for sidecar in pod["containers"][1:]:
                    self.assertEqual(argument(sidecar, "--csi-address"), "/csi/csi.sock")
                mounts = [[m["name"] for m in c["volumeMounts"] if m["mountPath"] == "/csi"] for c in pod["containers"]]
                self.assertEqual(mounts, [["socket"]] * 3)
                return
        self.fail("there is no controller")


class Ports(unittest.TestCase):
    def test_whatever_listens_does_so_on_the_pods_address_at_a_port_that_is_declared(self):
        for name in charts.NAMES:
            for _, container in charts.containers(name):
                flag = "--metrics-address" if container["name"] == "plugin" else "--http-endpoint"
                [port] = container["ports"]
                with self.subTest(values=name, container=container["name"]):
                    self.assertEqual(argument(container, flag), f"[$(POD_IP)]:{port['containerPort']}")
                    self.assertIn({"fieldRef": {"fieldPath": "status.podIP"}}, [e.get("valueFrom") for e in container["env"]])
                    self.assertEqual(container["livenessProbe"]["httpGet"]["port"], port["name"])

    def test_no_two_containers_of_a_node_want_one_port(self):
        for name in charts.NAMES:
            ports = [port["containerPort"] for _, container in charts.containers(name) for port in container["ports"]]
            self.assertEqual(len(ports), len(set(ports)), name)

    def test_variables_reach_every_container(self):
        wanted = {"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"}
        for _, container in charts.containers("host-network"):
            self.assertIn(wanted, container["env"], container["name"])


class Mounts(unittest.TestCase):
    def nodes(self):
        for name, pod, container in plugins():
            if argument(container, "--mode") == "node":
                mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
                sources = {volume["name"]: volume for volume in pod["volumes"]}
                yield name, container, mounts, sources

    def test_what_the_host_shares_is_at_its_own_path_with_the_propagation_it_needs(self):
        for name, container, mounts, sources in self.nodes():
            values = yaml.safe_load((charts.ROOT / f"tests/chart/values/{name}.yaml").read_text()).get("node", {})
            kubelet = values.get("kubeletDir", "/var/lib/kubelet")
            root = values.get("flockerRoot", "/flocker")
            with self.subTest(values=name):
                self.assertEqual(mounts[kubelet]["mountPropagation"], "Bidirectional")
                self.assertEqual(mounts[root]["mountPropagation"], "HostToContainer")
                for mount in mounts.values():
                    host = sources[mount["name"]].get("hostPath")
                    if host:
                        self.assertEqual(host["path"], mount["mountPath"])
                self.assertTrue(argument(container, "--endpoint").startswith(f"unix://{kubelet}/plugins/"))
                self.assertEqual(argument(container, "--kubelet-registration-dir"), f"{kubelet}/plugins_registry")
                self.assertEqual(argument(container, "--mount-root"), root)
                self.assertIn(argument(container, "--state-dir"), mounts)

    def test_the_nodes_id_may_lie_in_a_directory_that_is_mounted_anyway(self):
        for place in ("/etc/flocker", "/flocker", "/var/lib/flocker-csi", "/srv"):
            text = charts.render(*charts.values("defaults"), "--set", f"node.nodeIdFile={place}/id")
            [node] = [one for one in charts.documents(text) if one["kind"] == "DaemonSet"]
            [container] = node["spec"]["template"]["spec"]["containers"]
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            with self.subTest(place=place):
                self.assertEqual(paths.count(place), 1)
                self.assertEqual(len(paths), len(set(paths)))

    def test_files_that_are_named_lie_in_a_directory_that_is_mounted_and_cannot_be_written(self):
        read = 0
        for name, _, container in plugins():
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            for word in container["args"]:
                flag, _, path = word.partition("=")
                if flag in ("--cluster-cert", "--user-cert", "--user-key", "--node-id-file"):
                    with self.subTest(values=name, flag=flag):
                        self.assertIs(mounts[str(pathlib.Path(path).parent)]["readOnly"], True)
                    read += 1
        self.assertEqual(read, 3 * 10 + 5)

    def test_certificates_come_from_the_secret_that_was_named(self):
        found = {}
        for name, pod, container in plugins():
            secrets = [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
            found[name, argument(container, "--mode")] = (argument(container, "--user-key"), secrets)
        secret = "/etc/flocker-csi/plugin.key"
        self.assertEqual(found["defaults", "controller"], (secret, ["flocker-csi-tls"]))
        self.assertEqual(found["defaults", "node"], ("/etc/flocker/plugin.key", []))
        self.assertEqual(found["tls-secret", "controller"], (secret, ["flocker-controller"]))
        self.assertEqual(found["tls-secret", "node"], (secret, ["flocker-node"]))
