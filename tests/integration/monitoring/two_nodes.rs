//! The life of a volume on two nodes, as an operator finds it in their logs.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Map, Value};

use crate::support::csi::to_create;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

const NAME: &str = "pvc-5f2d0c1e";

/// Lets a volume live on the first node and then on the second one, with a controller on the first; returns its id.
async fn life(machines: &[Machine; 2], plugins: &[Process; 2]) -> String {
    let controller = &plugins[0].csi;
    let mut request = to_create(NAME);
    for (key, value) in [("name", "orders"), ("namespace", "shop")] {
        let key = format!("csi.storage.k8s.io/pvc/{key}");
        request.parameters.insert(key, value.to_owned());
    }
    let volume = controller.try_create(request).await.unwrap();
    for (machine, Process { csi, .. }) in machines.iter().zip(plugins) {
        let context = controller.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        csi.stats(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        controller.detach(volume, machine.node()).await;
    }
    controller.delete(volume).await.unwrap();
    volume.to_string()
}

/// Returns the logs of both nodes after such a life, and the id of the volume.
async fn logs(flags: &[&str]) -> ([Machine; 2], [String; 2], String) {
    let flocker = Flocker::start(2).await;
    let machines = [1, 2].map(|number| Machine::new(&flocker, number));
    let plugins = [machines[0].process(flags).await, machines[1].process(flags).await];
    let volume = life(&machines, &plugins).await;
    plugins[0].logged_end_of("DeleteVolume").await;
    plugins[1].logged_end_of("NodeUnstageVolume").await;
    let logs = [plugins[0].log(), plugins[1].log()];
    for plugin in plugins {
        plugin.kill().await;
    }
    (machines, logs, volume)
}

/// The calls that change something, in the order in which a node gets them.
const ON_NODE: [&str; 4] = [
    "NodeStageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
];

#[test]
fn the_name_of_a_volume_finds_every_line_about_it_on_every_node() {
    in_own_namespace(|| async {
        let (_, logs, volume) = logs(&[]).await;
        for (log, calls) in logs.iter().zip([10, 4]) {
            let found: Vec<_> = log.lines().filter(|line| line.contains(NAME)).collect();
            let about: Vec<_> = log.lines().filter(|line| line.contains(&volume)).collect();
            assert_eq!(found, about, "by name and by id");
            for method in ON_NODE {
                assert!(
                    found.iter().any(|line| line.contains(method)),
                    "{method}: {found:#?}"
                );
            }
            let ends = found.iter().filter(|line| line.contains("Call ended"));
            assert_eq!(ends.count(), calls, "{found:#?}");
            for field in ["claim.namespace=shop", "claim.name=orders"] {
                assert!(
                    found.iter().all(|line| line.contains(field)),
                    "{field}: {found:#?}"
                );
            }
        }
    });
}

/// Returns the objects that the command of `docs/logging.md` selects.
fn selected(log: &str, field: &str, value: &str) -> Vec<Map<String, Value>> {
    let command = "jq -cR 'fromjson? | select(.\"volume.id\" == \"7d3c1f0e-…\")'";
    assert!(include_str!("../../../docs/logging.md").contains(command));
    let filter = format!("fromjson? | select(.{field:?} == {value:?})");
    let mut jq = Command::new("jq");
    jq.args(["-cR", &filter])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut jq = jq.spawn().expect("jq is installed");
    let mut input = jq.stdin.take().unwrap();
    let (lines, status) = thread::scope(|scope| {
        scope.spawn(move || input.write_all(log.as_bytes()).unwrap());
        let output = jq.wait_with_output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status)
    });
    assert!(status.success());
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_name_of_a_volume_selects_the_same_lines_as_objects() {
    in_own_namespace(|| async {
        let (machines, logs, volume) = logs(&["--log-format=json"]).await;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (machine, log) in machines.iter().zip(&logs) {
            let found = selected(log, "volume.name", NAME);
            assert_eq!(found, selected(log, "volume.id", &volume));
            for method in ON_NODE {
                let full = format!("/csi.v1.Node/{method}");
                let line = found
                    .iter()
                    .find(|line| line["rpc.method"] == full.as_str())
                    .unwrap();
                assert_eq!(line["node.id"], machine.node().to_string(), "{line:?}");
                assert_eq!(line["host.name"], host, "{line:?}");
            }
            // Every line that names a node after its list was read names its host.
            let with_node = found.iter().filter(|line| line.contains_key("node.id"));
            assert!(with_node.clone().count() > 0);
            for line in with_node {
                assert!(line["node.host"].is_string(), "{line:?}");
            }
        }
    });
}

#[test]
fn at_debug_level_every_phase_of_a_life_is_logged_and_nothing_of_libraries() {
    in_own_namespace(|| async {
        let (_, logs, _) = logs(&["--log-format=json", "--log=debug"]).await;
        for (log, attaches) in logs.iter().zip([true, false]) {
            let objects = log.lines().filter(|line| line.starts_with('{'));
            let objects: Vec<Map<String, Value>> =
                objects.map(|line| serde_json::from_str(line).unwrap()).collect();
            let text = |line: &Map<String, Value>, field: &str| {
                line.get(field)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let phases: BTreeSet<_> = objects
                .iter()
                .map(|line| (text(line, "operation.name"), text(line, "phase")))
                .collect();
            let mut expected = vec![("stage", "flocker_answering")];
            if attaches {
                expected.extend([
                    ("create", "configured"),
                    ("create", "backing_volume"),
                    ("attach", "flocker_answering"),
                    ("attach", "configured"),
                    ("attach", "released_by_other_node"),
                    ("detach", "flocker_answering"),
                    ("delete", "destroyed"),
                ]);
            }
            for (operation, phase) in expected {
                let wanted = (operation.to_owned(), phase.to_owned());
                assert!(phases.contains(&wanted), "{wanted:?}: {phases:?}");
            }
            let steps = objects.iter().filter(|line| line.contains_key("step"));
            let steps: Vec<_> = steps
                .map(|line| format!("{} {}", text(line, "operation.name"), text(line, "step")))
                .collect();
            assert_eq!(
                steps,
                [
                    "stage recorded",
                    "stage pinned",
                    "stage confirmed",
                    "stage staged",
                    "publish published",
                    "unpublish unpublished",
                    "unstage unmounted",
                    "unstage unpinned",
                    "unstage forgotten",
                ]
            );
            let own = [
                "flocker_csi",
                "flocker_client",
                "host_fs",
                "grpc_authority",
                "supervised_tasks",
            ];
            for line in &objects {
                let target = text(line, "target");
                assert!(own.iter().any(|own| target.starts_with(own)), "{line:?}");
            }
        }
    });
}
