//! The log of a plugin, after calls that are known.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::support::csi::Csi;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

type Line = Map<String, Value>;

/// Returns the lines of a log of objects; the words on stdout are none.
fn lines(log: &str) -> Vec<Line> {
    let objects = log.lines().filter(|line| line.starts_with('{'));
    objects.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(line: &'a Line, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Lets a volume live on a machine, and asks for its usage in between; returns its id.
async fn life(csi: &Csi, machine: &Machine) -> String {
    let volume = csi.create("data").await;
    let context = csi.attach(volume, machine.node()).await;
    let usage = machine.usage("data", volume, &context);
    csi.stage(&usage).await.unwrap();
    csi.publish(&usage).await.unwrap();
    csi.stats(&usage).await.unwrap();
    csi.unpublish(&usage).await.unwrap();
    csi.unstage(&usage).await.unwrap();
    csi.detach(volume, machine.node()).await;
    csi.delete(volume).await.unwrap();
    volume.to_string()
}

#[test]
fn every_line_about_a_call_names_its_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&["--log-format=json"]).await;
        let volume = life(&plugin.csi, &machine).await;
        plugin.logged_end_of("DeleteVolume").await;
        let log = lines(&plugin.log());
        let ends: Vec<_> = log
            .iter()
            .filter(|line| text(line, "message") == "Call ended")
            .collect();
        let methods: Vec<_> = ends
            .iter()
            .map(|line| text(line, "rpc.method").rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            methods,
            [
                "CreateVolume",
                "ControllerPublishVolume",
                "NodeStageVolume",
                "NodePublishVolume",
                "NodeUnpublishVolume",
                "NodeUnstageVolume",
                "ControllerUnpublishVolume",
                "DeleteVolume",
            ],
            "one line for each call that changes something, and none for the others"
        );
        for line in ends {
            let named = [text(line, "volume.id"), text(line, "volume.name")];
            assert!(
                named.contains(&volume.as_str()) || named.contains(&"data"),
                "{line:?}"
            );
            assert_eq!(text(line, "csi.version"), "1");
            assert_eq!(text(line, "rpc.code"), "OK");
            assert!(line["rpc.duration_ms"].as_f64() > Some(0.0), "{line:?}");
            assert!(line["operation.id"].is_u64(), "{line:?}");
        }
        plugin.kill().await;
    });
}

#[test]
fn a_start_logs_which_program_runs_how_and_with_what() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.kill().await;
        let plugin = machine.process(&["--log-format=json"]).await;
        // They come from several tasks.
        for words in ["is Flocker's node", "volumes.staged", "Serving on"] {
            plugin.logged(words).await;
        }
        let log = lines(&plugin.log());
        let line_with = |field: &str| log.iter().find(|line| line.contains_key(field)).unwrap();
        let start = line_with("version");
        assert_eq!(text(start, "version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(text(start, "commit"), "unknown", "tests are no release");
        assert_eq!(text(start, "mode"), "all");
        assert_eq!(text(start, "driver.name"), "flocker.csi.clusterhq.com");
        let address = flocker.embedded().address();
        assert_eq!(text(start, "control_service"), format!("https://{address}"));
        let certificates = line_with("user_cert.end");
        for end in ["user_cert.end", "cluster_cert.end"] {
            assert!(text(certificates, end).starts_with("20"), "{certificates:?}");
        }
        let restored = line_with("volumes.staged");
        for (field, number) in [("volumes.staged", 1), ("volumes.held", 1), ("leases.pending", 0)] {
            assert_eq!(restored[field], number, "{restored:?}");
        }
        let endpoint = format!("unix://{}", machine.path("csi.sock").display());
        assert_eq!(text(line_with("endpoint"), "endpoint"), endpoint);
        let node = log
            .iter()
            .find(|line| text(line, "message").contains("is Flocker's node"))
            .unwrap();
        assert_eq!(text(node, "node.id"), machine.node().to_string());
        assert!(
            text(node, "message").ends_with("the setting node_id says so"),
            "{node:?}"
        );
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(text(node, "host.name"), host);
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

#[test]
fn a_process_that_has_not_asked_flocker_names_what_an_earlier_one_staged() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.kill().await;
        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        let plugin = machine.process(&["--log-format=json"]).await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.logged("NodeUnstageVolume").await;
        let log = lines(&plugin.log());
        let ends: Vec<_> = log
            .iter()
            .filter(|line| text(line, "message") == "Call ended")
            .map(|line| text(line, "volume.name"))
            .collect();
        assert_eq!(ends, ["data", "data"]);
        faults.clear();
        plugin.kill().await;
    });
}

#[test]
fn every_field_of_the_log_is_on_its_page() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&["--log-format=json", "--log=debug"]).await;
        life(&plugin.csi, &machine).await;
        plugin.logged("DeleteVolume").await;
        let log = lines(&plugin.log());
        let page = include_str!("../../../docs/logging.md");
        let documented: BTreeSet<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(field, _)| field)
            .collect();
        let logged: BTreeSet<_> = log.iter().flat_map(Map::keys).map(String::as_str).collect();
        let missing: Vec<_> = logged.difference(&documented).collect();
        assert!(missing.is_empty(), "docs/logging.md does not explain {missing:?}");
        for line in &log {
            assert!(
                line.values().all(|value| !value.is_object() && !value.is_array()),
                "{line:?}"
            );
        }
        let phases: BTreeSet<_> = log.iter().map(|line| text(line, "phase")).collect();
        assert!(phases.contains("flocker_answering"), "{phases:?}");
        plugin.kill().await;
    });
}
