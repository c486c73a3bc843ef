"""What the pods may do, on their nodes and at the API server."""

import json
import unittest

import charts


def verdicts(text):
    """Returns, for each object with pods, the strictest Pod Security profile that lets them in."""
    done = charts.run(charts.TOOLS / "podsecurity", input=text)
    if done.returncode:
        raise AssertionError(done.stderr)
    return {(verdict["kind"], verdict["name"]): verdict for verdict in json.loads(done.stdout)}


CONTROLLER = ("Deployment", "flocker-csi-controller")
NODE = ("DaemonSet", "flocker-csi-node")


class PodSecurity(unittest.TestCase):
    def test_the_controller_is_restricted_unless_it_uses_the_nodes_network(self):
        judged = 0
        for name in charts.NAMES:
            found = verdicts(charts.rendered(name)).get(CONTROLLER)
            if found is None:
                self.assertEqual(name, "node-only")
                continue
            host = name == "host-network"
            with self.subTest(values=name):
                self.assertEqual(found["profile"], "privileged" if host else "restricted", found["objections"])
            if host:
                [objection] = found["objections"]["restricted"]
                self.assertEqual(objection, "host namespaces: hostNetwork=true")
            judged += 1
        self.assertEqual(judged, len(charts.NAMES) - 1)

    def test_the_nodes_pod_is_privileged_and_nothing_less_lets_it_in(self):
        for name in charts.NAMES:
            found = verdicts(charts.rendered(name)).get(NODE)
            if found is None:
                self.assertEqual(name, "controller-only")
                continue
            with self.subTest(values=name):
                self.assertEqual(found["profile"], "privileged")
                self.assertIn("privileged", str(found["objections"]["baseline"]))

    def test_a_controller_that_may_do_more_is_not_restricted(self):
        text = charts.rendered("defaults")
        for written, broken, objection in [
            ("runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
            ("runAsUser: 65532", "runAsUser: 0", "runAsUser=0"),
            ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation"),
            ("drop: [ALL]", "drop: []", "unrestricted capabilities"),
            ("type: RuntimeDefault", "type: Unconfined", "seccompProfile"),
            ("emptyDir: {}", "hostPath: {path: /csi}", "restricted volume types"),
        ]:
            self.assertIn(written, text)
            found = verdicts(text.replace(written, broken))[CONTROLLER]
            with self.subTest(broken=broken):
                self.assertNotEqual(found["profile"], "restricted")
                self.assertIn(objection, str(found["objections"]["restricted"]))

    def test_the_pods_of_the_examples_are_restricted(self):
        judged = {}
        for path in charts.EXAMPLES:
            judged |= verdicts(path.read_text())
        self.assertEqual(set(judged), {("Pod", "writer"), ("StatefulSet", "postgres")})
        for found in judged.values():
            self.assertEqual(found["profile"], "restricted", found["objections"])

    def test_no_container_can_write_to_its_image(self):
        for name in charts.NAMES:
            for _, container in charts.containers(name):
                self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True, container["name"])


class Access(unittest.TestCase):
    """Every rule there is. A new one is added here with the reason in its template."""

    LEASES = ("flocker-csi-clusterhq-com", "external-attacher-leader-flocker-csi-clusterhq-com")
    RULES = {
        "flocker-csi-provisioner": {
            ("", "persistentvolumeclaims", ()): "list watch",
            ("", "persistentvolumes", ()): "list watch create patch delete",
            ("storage.k8s.io", "storageclasses", ()): "list watch",
            ("storage.k8s.io", "volumeattachments", ()): "list watch",
            ("", "nodes", ()): "list watch",
            ("storage.k8s.io", "csinodes", ()): "list watch",
            ("", "events", ()): "create patch",
        },
        "flocker-csi-attacher": {
            ("storage.k8s.io", "volumeattachments", ()): "list watch patch",
            ("storage.k8s.io", "volumeattachments/status", ()): "patch",
            ("", "persistentvolumes", ()): "list watch patch",
            ("storage.k8s.io", "csinodes", ()): "list watch",
        },
        "flocker-csi-leases": {
            ("coordination.k8s.io", "leases", ()): "create",
            ("coordination.k8s.io", "leases", LEASES): "get update",
        },
    }

    def test_the_rules_are_these_and_no_others(self):
        found = {}
        for kind in ("ClusterRole", "Role"):
            for role in charts.objects("defaults", kind):
                rules = found.setdefault(role["metadata"]["name"], {})
                for rule in role["rules"]:
                    [group], [resource] = rule["apiGroups"], rule["resources"]
                    rules[group, resource, tuple(rule.get("resourceNames", ()))] = " ".join(rule["verbs"])
        self.assertEqual(found, self.RULES)

    def test_only_the_controller_is_bound_to_a_role(self):
        bound = set()
        for kind in ("ClusterRoleBinding", "RoleBinding"):
            for binding in charts.objects("defaults", kind):
                [subject] = binding["subjects"]
                self.assertEqual(subject["name"], "flocker-csi-controller")
                bound.add(binding["roleRef"]["name"])
        self.assertEqual(bound, set(self.RULES))

    def test_the_nodes_have_no_roles_and_no_token(self):
        for name in charts.NAMES:
            for account in charts.objects(name, "ServiceAccount"):
                wanted = False if account["metadata"]["name"] == "flocker-csi-node" else None
                self.assertIs(account.get("automountServiceAccountToken"), wanted)
            for node in charts.objects(name, "DaemonSet"):
                pod = node["spec"]["template"]["spec"]
                self.assertIs(pod["automountServiceAccountToken"], False)
        for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"):
            self.assertEqual(charts.objects("node-only", kind), [])

    def test_the_leases_are_named_after_any_driver(self):
        text = charts.render(*charts.values("defaults"), "--set", "driver.name=a.b-c.example.com")
        self.assertIn('["a-b-c-example-com", "external-attacher-leader-a-b-c-example-com"]', text)
