//! What the program says about itself, in its log and on request.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Map, Value};

use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// The fields that only lines of a start have, and `node.id`, which is in one of them.
const FIELDS: [&str; 13] = [
    "version",
    "commit",
    "mode",
    "driver.name",
    "control_service",
    "host.name",
    "cluster_cert.end",
    "user_cert.end",
    "volumes.staged",
    "volumes.held",
    "leases.pending",
    "node.id",
    "endpoint",
];

/// Returns the log of a process that has started, and knows which node it is.
async fn log_of_start(machine: &Machine, flags: &[&str]) -> String {
    let plugin = machine.process(flags).await;
    // They come from several tasks.
    for words in ["is Flocker's node", "volumes.staged", "Serving on"] {
        plugin.logged(words).await;
    }
    let log = plugin.log();
    plugin.kill().await;
    log
}

#[test]
fn a_start_says_the_same_in_text_as_in_objects() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let objects = log_of_start(&machine, &["--log-format=json"]).await;
        let objects = objects.lines().filter(|line| line.starts_with('{'));
        let objects: Vec<Map<String, Value>> =
            objects.map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_start: Vec<_> = objects
            .iter()
            .filter(|line| FIELDS.iter().any(|field| line.contains_key(*field)))
            .collect();
        assert!(of_start.len() <= 5, "few lines: {of_start:#?}");
        let text = log_of_start(&machine, &["--log-format=text"]).await;
        assert!(!text.contains("is not a setting"), "{text}");
        for object in of_start {
            let message = object["message"].as_str().unwrap();
            let line = text.lines().find(|line| line.contains(message));
            let line = line.unwrap_or_else(|| panic!("{message} is not in {text}"));
            let words: BTreeSet<_> = line.split(' ').collect();
            for field in FIELDS.iter().filter(|field| object.contains_key(**field)) {
                let value = match &object[*field] {
                    Value::String(value) => value.clone(),
                    number => number.to_string(),
                };
                assert!(words.contains(&*format!("{field}={value}")), "{field}: {line}");
            }
        }
        for field in FIELDS {
            assert!(
                objects.iter().any(|line| line.contains_key(field)),
                "{field}: {objects:#?}"
            );
        }
    });
}

#[test]
fn the_version_that_is_printed_names_the_commit_that_is_logged() {
    let printed = |flag: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_flocker-csi"))
            .arg(flag)
            .output()
            .unwrap();
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    let (version, commit) = (flocker_csi::telemetry::VERSION, flocker_csi::telemetry::COMMIT);
    assert_eq!(
        printed("--version"),
        format!("flocker-csi {version} (commit {commit})\n")
    );
    assert_eq!(printed("-V"), format!("flocker-csi {version}\n"));
    let is_digits = commit.len() == 12 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
    assert!(is_digits || commit == "unknown", "{commit}");
}
