//! Existing volumes, exported to Kubernetes: the program itself, with a real Flocker.

mod datasets;
mod guides;
mod old_volumes;
mod settings;

use std::fs;
use std::process::Stdio;

use csi_proto::v1::volume_capability::access_mode::Mode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::node::Fixture;
use crate::support::PATIENCE;
use crate::support::csi::{Usage, with_flags};
use crate::support::flocker::Flocker;
use crate::support::process::program;

/// The outcome of the program.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    /// Its standard output.
    text: String,
    /// Its stderr, by lines.
    said: Vec<String>,
}

impl Ended {
    /// Returns the objects, of which at least one must exist; the remarks must be exactly these, by a part of each.
    #[track_caller]
    fn objects(&self, remarks: &[&str]) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.said.len(), remarks.len(), "{self:?}");
        for (said, part) in self.said.iter().zip(remarks) {
            assert!(
                said.starts_with("flocker-csi: ") && said.contains(part),
                "{part}: {said}"
            );
        }
        serde_saphyr::from_multiple(&self.text).unwrap()
    }

    /// Checks that nothing was exported, and that each line of stderr has these parts.
    #[track_caller]
    fn assert_refused(&self, code: i32, parts: &[&[&str]]) {
        assert_eq!((self.code, self.text.as_str()), (Some(code), ""), "{self:?}");
        assert_eq!(self.said.len(), parts.len(), "{self:?}");
        for (said, parts) in self.said.iter().zip(parts) {
            for part in *parts {
                assert!(
                    said.starts_with("flocker-csi: ") && said.contains(part),
                    "{part}: {said}"
                );
            }
        }
    }
}

/// Runs a program to its end, with an input.
async fn run(mut program: Command, input: &str) -> Ended {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        // A program that ends before it has read everything closes the pipe.
        stdin.write_all(input.as_bytes()).await.ok();
        drop(stdin);
    };
    let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
    let ended = timeout(PATIENCE, ended).await.expect("it ends in time").unwrap();
    Ended {
        code: ended.status.code(),
        text: String::from_utf8(ended.stdout).unwrap(),
        said: String::from_utf8(ended.stderr)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect(),
    }
}

/// Returns the environment that has the address and certificates of a Flocker.
fn reached(flocker: &Flocker) -> [(&'static str, String); 4] {
    let file = |name: &str| flocker.embedded().certificates().join(name).display().to_string();
    [
        (
            "FLOCKER_CSI_CONTROL_SERVICE",
            format!("https://{}", flocker.embedded().address()),
        ),
        ("FLOCKER_CSI_CLUSTER_CERT", file("cluster.crt")),
        ("FLOCKER_CSI_USER_CERT", file("plugin.crt")),
        ("FLOCKER_CSI_USER_KEY", file("plugin.key")),
    ]
}

/// Exports volumes of the in-tree plugin, given on the standard input.
async fn old(flocker: &Flocker, flags: &[&str], input: &str) -> Ended {
    let mut program = program(&["export", "--from=kubernetes-pv", "-"]);
    program.args(flags).envs(reached(flocker));
    run(program, input).await
}

/// Exports datasets.
async fn datasets(flocker: &Flocker, arguments: &[&str]) -> Ended {
    let mut program = program(&["export", "--from=flocker"]);
    program.args(arguments).envs(reached(flocker));
    run(program, "").await
}

/// Returns a volume of the in-tree plugin.
fn volume(name: &str, source: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "64Mi"},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "apps", "name": format!("{name}-data"),
                "uid": "0b9c6d52-9f0c-4a4e-8a0b-3f2d6e5c4b3a", "resourceVersion": "1099"},
            "flocker": source,
            "mountOptions": ["noatime"],
            "persistentVolumeReclaimPolicy": "Retain",
        },
    })
}

fn handle(volume: &Value) -> Uuid {
    volume["spec"]["csi"]["volumeHandle"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// Writes a file as the previous user of the dataset did.
async fn fill(flocker: &Flocker, number: usize, dataset: Uuid, text: &str) {
    flocker.reports(number, dataset).await;
    fs::write(flocker.mount_of(number, dataset).join("precious"), text).unwrap();
}

/// Publishes an exported volume as Kubernetes does, reads the file, and unpublishes the volume.
async fn read(fixture: &Fixture, volume: &Value) -> String {
    let name = volume["metadata"]["name"].as_str().unwrap();
    let options = volume["spec"]["mountOptions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let options: Vec<_> = options.iter().map(|option| option.as_str().unwrap()).collect();
    let (csi, node) = (fixture.csi(), fixture.machine.node());
    let context = csi.attach(handle(volume), node).await;
    let usage = Usage {
        capability: with_flags(Mode::SingleNodeWriter, &options),
        ..fixture.machine.usage(name, handle(volume), &context)
    };
    csi.stage(&usage).await.unwrap();
    csi.publish(&usage).await.unwrap();
    let text = fs::read_to_string(usage.target.join("precious")).unwrap();
    csi.unpublish(&usage).await.unwrap();
    csi.unstage(&usage).await.unwrap();
    csi.detach(handle(volume), node).await;
    text
}
