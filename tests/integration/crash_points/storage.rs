//! An embedded Flocker that is killed at every change it makes to its storage, with and without a power cut.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flocker_client::{Client, NewDataset};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;
use uuid::Uuid;

use super::calls::Sight;
use super::disk::Disk;
use super::tripwire::{Trap, Tripwire};
use crate::support::flocker::settings;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace_for;
use crate::support::process::program;
use crate::support::state::read_state;
use crate::support::{PATIENCE, eventually};

/// How long all points of an operation may take.
const LONGEST: Duration = Duration::from_secs(900);
const SIZE: u64 = 64 << 20;
const CONTENT: &[u8] = b"of a database";
/// One of so many of the writes of mkfs is a point, and of those of a transaction: there are hundreds that differ in nothing.
const WRITES: [(&str, usize); 2] = [("write loop", 60), ("write data/state.redb", 5)];

/// The interrupted operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// The first start, which makes the data directory.
    FirstStart,
    /// A dataset's way from the request to the mount.
    Create,
    /// A start that mounts a dataset which has data.
    Restart,
    /// The same, of a data directory that an earlier version has left.
    Upgrade,
    Delete,
}

/// What ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Killed,
    PowerCut,
}

#[test]
fn a_first_start_converges_from_every_point_at_which_it_is_interrupted() {
    let must = &[
        "sync data/.new-*",
        "rename data/.new-* -> data/state.redb",
        "sync data",
        "rename data/.new-* -> data/state.json",
        "sync data",
        "mkdir data/volumes",
        "sync data",
        "allocate data/ballast",
        "write data/state.redb",
        "sync data/state.redb",
        "mkdir data/pki",
    ];
    visit(Operation::FirstStart, must);
}

#[test]
fn an_upgrade_converges_from_every_point_at_which_it_is_interrupted() {
    let must = &[
        "rename data/.new-* -> data/state.json.old",
        "sync data",
        "sync data/.new-*",
        "rename data/.new-* -> data/state.redb",
        "sync data",
        "rename data/.new-* -> data/state.json",
        "sync data",
        "mount loop -> data/flocker/node-1/ID",
    ];
    visit(Operation::Upgrade, must);
}

#[test]
fn a_volume_is_made_once_from_every_point_at_which_that_is_interrupted() {
    let must = &[
        // The request.
        "write data/state.redb",
        "sync data/state.redb",
        // That it may be formatted.
        "write data/state.redb",
        "sync data/state.redb",
        "rename data/volumes/.new-* -> data/volumes/ID.formatting",
        "sync data/volumes",
        "write loop",
        "sync loop",
        "sync data/volumes/ID.formatting",
        "rename data/volumes/ID.formatting -> data/volumes/ID",
        "sync data/volumes",
        // That it is formatted.
        "write data/state.redb",
        "sync data/state.redb",
        "mount loop -> data/flocker/node-1/ID",
        "rmdir data/flocker/node-1/ID/lost+found",
    ];
    visit(Operation::Create, must);
}

#[test]
fn a_volume_keeps_its_data_from_every_point_at_which_a_start_is_interrupted() {
    let must = &[
        "write data/state.redb",
        "sync data/state.redb",
        "mount loop -> data/flocker/node-1/ID",
    ];
    visit(Operation::Restart, must);
}

#[test]
fn a_volume_is_destroyed_from_every_point_at_which_its_deletion_is_interrupted() {
    let must = &[
        "write data/state.redb",
        "sync data/state.redb",
        "umount data/flocker/node-1/ID",
        "unlink data/volumes/ID",
        "sync data/volumes",
    ];
    visit(Operation::Delete, must);
}

fn visit(operation: Operation, must: &'static [&'static str]) {
    in_own_namespace_for(LONGEST, move || async move {
        let mut walk = Walk {
            disk: Disk::new(),
            dataset: Uuid::new_v4(),
            operation,
        };
        walk.prepare().await;
        let saved = walk.disk.save().await;

        let steps = walk.interrupted(Box::new(|_| false)).await;
        let mut rest = steps.iter();
        for must in must {
            assert!(
                rest.any(|step| step == must),
                "{must} in its place among {steps:#?}"
            );
        }
        for end in [End::Killed, End::PowerCut] {
            let mut visited = BTreeSet::new();
            for point in points(&steps) {
                println!(
                    "{operation:?} is {end:?} before {}",
                    steps.get(point).map_or("the end", String::as_str)
                );
                walk.disk.restore(&saved).await;
                let before = walk
                    .interrupted(Box::new(move |calls: &[String]| calls.len() > point))
                    .await;
                visited.extend(before.into_iter().last());
                if end == End::PowerCut {
                    walk.disk.cut_power().await;
                }
                walk.recovers().await;
            }
            // A device that other processes examine is detached later, in other steps: the rest is visited by name.
            for must in must.iter().copied().filter(|must| !visited.contains(*must)) {
                walk.disk.restore(&saved).await;
                let is_next = move |calls: &[String]| calls.last().is_some_and(|call| call == must);
                let before = walk.interrupted(Box::new(is_next)).await;
                assert_eq!(before.last().map(String::as_str), Some(must), "{end:?}");
                if end == End::PowerCut {
                    walk.disk.cut_power().await;
                }
                walk.recovers().await;
            }
        }
    });
}

/// Returns the points that are visited: all of them, and the end; but few of the writes between two others.
fn points(steps: &[String]) -> Vec<usize> {
    let is_chosen = |point: &usize| {
        let step = steps.get(*point);
        let neighbours = [
            point.checked_sub(1).and_then(|before| steps.get(before)),
            steps.get(point + 1),
        ];
        let of_many = WRITES
            .iter()
            .find(|(write, _)| step.is_some_and(|step| step == write));
        of_many.is_none_or(|(_, every)| neighbours != [step, step] || point.is_multiple_of(*every))
    };
    (0..=steps.len()).filter(is_chosen).collect()
}

struct Walk {
    disk: Disk,
    dataset: Uuid,
    operation: Operation,
}

impl Walk {
    /// Makes what exists before the operation.
    async fn prepare(&self) {
        if self.operation == Operation::FirstStart {
            return;
        }
        let flocker = Running::start(&self.data(), None).await.expect("it starts");
        if self.operation != Operation::Create {
            self.create(&flocker).await;
            self.is_mounted(&flocker).await;
            self.write_content();
        }
        let node = flocker.node;
        flocker.terminate().await;
        if self.operation == Operation::Upgrade {
            self.go_back(node);
        }
    }

    /// Carries out the operation until the trap springs or it is complete; then kills the process. Returns the calls.
    async fn interrupted(&self, trap: Trap) -> Vec<String> {
        let wire = Tripwire::default();
        let mut trap = Some(trap);
        if let Operation::FirstStart | Operation::Restart | Operation::Upgrade = self.operation {
            wire.arm(trap.take().unwrap());
        }
        let Some(mut flocker) = Running::start(&self.data(), Some((&wire, self.sight()))).await else {
            assert!(wire.has_sprung());
            return wire.disarm();
        };
        if self.operation == Operation::Delete {
            // The start has to be over.
            self.is_mounted(&flocker).await;
        }
        if let Some(trap) = trap {
            wire.arm(trap);
        }
        let operation = async {
            match self.operation {
                Operation::FirstStart => {}
                Operation::Create => {
                    self.create(&flocker).await;
                    self.is_mounted(&flocker).await;
                }
                Operation::Restart | Operation::Upgrade => self.is_mounted(&flocker).await,
                Operation::Delete => {
                    flocker.client.delete_dataset(self.dataset).await.ok();
                    self.is_destroyed(&flocker).await;
                }
            }
        };
        let sprung = eventually_sprung(&wire);
        tokio::select! {
            () = operation => {}
            () = sprung => {}
        }
        let calls = wire.disarm();
        flocker.child.kill().await.unwrap();
        calls
    }

    /// Checks what was left, and that the next process continues from there.
    async fn recovers(&self) {
        let found = self.inspect();
        let flocker = Running::start(&self.data(), None).await.expect("it starts again");
        if self.operation == Operation::FirstStart {
            flocker.terminate().await;
            return;
        }
        let configured = flocker.client.list_datasets().await.unwrap().datasets;
        let configured = configured
            .iter()
            .find(|dataset| dataset.dataset_id == self.dataset);
        if self.operation == Operation::Delete {
            if configured.is_some_and(|dataset| !dataset.deleted) {
                self.is_mounted(&flocker).await;
                self.has_content();
                flocker.client.delete_dataset(self.dataset).await.unwrap();
            }
            self.is_destroyed(&flocker).await;
            assert_eq!(fs::read_dir(self.data().join("volumes")).unwrap().count(), 0);
            flocker.terminate().await;
            return;
        }
        if configured.is_none() {
            assert_eq!(found, None, "what was made was asked for");
            self.create(&flocker).await;
        }
        self.is_mounted(&flocker).await;
        if let Some(found) = found {
            assert_eq!(file_system(&self.volume()), found, "it was not formatted again");
        }
        if let Operation::Restart | Operation::Upgrade = self.operation {
            self.has_content();
        } else {
            self.write_content();
        }
        flocker.terminate().await;
    }

    /// Returns the file system that the volume has, if it has the name of one that is formatted.
    fn inspect(&self) -> Option<Uuid> {
        let state = self.recorded();
        let recorded = &state["storage"][self.dataset.to_string()]["formatted"]["file_system"];
        let is_mounted = !Mounts::read().at(&self.mount_path()).is_empty();
        if self.volume().exists() {
            let found = file_system(&self.volume());
            if !is_mounted {
                check_file_system(&self.volume());
            }
            if let Some(recorded) = recorded.as_str() {
                assert_eq!(recorded, found.to_string());
            }
            assert!(!is_mounted || recorded.is_string(), "what is mounted is recorded");
            return Some(found);
        }
        let is_deleted = !state["deleted"][self.dataset.to_string()].is_null();
        assert!(
            recorded.is_null() || is_deleted,
            "what is recorded as formatted exists: {state}"
        );
        None
    }

    /// Makes the data directory what the version before the database would have left.
    fn go_back(&self, node: Uuid) {
        let state = read_state(&self.data().join("state.redb"));
        let configuration = json!({
            "datasets": state["datasets"], "leases": state["leases"], "registered": state["registered"],
        });
        let old = json!({
            "cluster": Uuid::new_v4(), "nodes": [node], "configuration": configuration,
            "attachments": state["attachments"], "storage": state["storage"],
        });
        fs::write(self.data().join("state.json"), old.to_string()).unwrap();
        for of_database in ["state.redb", "ballast"] {
            fs::remove_file(self.data().join(of_database)).unwrap();
        }
        fs::remove_dir_all(self.data().join("pki")).unwrap();
    }

    /// Returns what is recorded, without a change to the database.
    fn recorded(&self) -> Value {
        let old = fs::read(self.data().join("state.json")).ok();
        let old = old.and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(old @ Value::Object(_)) = old {
            return old;
        }
        let copy = self.disk.scratch().join("copy.redb");
        match fs::copy(self.data().join("state.redb"), &copy) {
            Ok(_) => read_state(&copy),
            Err(error) if error.kind() == ErrorKind::NotFound => Value::Null,
            Err(error) => panic!("{error}"),
        }
    }

    async fn create(&self, flocker: &Running) {
        let new = NewDataset {
            dataset_id: Some(self.dataset),
            primary: flocker.node,
            maximum_size: Some(SIZE),
            metadata: std::collections::BTreeMap::default(),
        };
        // An answer that is lost is part of the interruption.
        flocker.client.create_dataset(&new).await.ok();
    }

    async fn is_mounted(&self, flocker: &Running) {
        eventually("it is mounted", async || {
            let states = flocker.client.list_dataset_states().await.ok()?;
            let state = states
                .into_iter()
                .find(|state| state.dataset_id == self.dataset)?;
            state.path.map(drop)
        })
        .await;
    }

    async fn is_destroyed(&self, flocker: &Running) {
        eventually("it is destroyed", async || {
            // State shows it until the last step is done.
            let states = flocker.client.list_dataset_states().await.ok()?;
            let is_listed = states.iter().any(|state| state.dataset_id == self.dataset);
            (!is_listed && !self.volume().exists()).then_some(())
        })
        .await;
    }

    fn write_content(&self) {
        let path = self.mount_path().join("file");
        fs::write(&path, CONTENT).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        File::open(self.mount_path()).unwrap().sync_all().unwrap();
    }

    fn has_content(&self) {
        assert_eq!(fs::read(self.mount_path().join("file")).unwrap(), CONTENT);
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn volume(&self) -> PathBuf {
        self.data().join("volumes").join(self.dataset.to_string())
    }

    fn mount_path(&self) -> PathBuf {
        self.data().join("flocker/node-1").join(self.dataset.to_string())
    }

    fn sight(&self) -> Sight {
        Sight {
            places: vec![("data", self.data())],
            dataset: self.dataset,
            loops: true,
        }
    }
}

async fn eventually_sprung(wire: &Tripwire) {
    eventually("the operation ends", async || wire.has_sprung().then_some(())).await;
}

/// A running embedded Flocker.
struct Running {
    child: Child,
    client: Client,
    node: Uuid,
}

impl Running {
    /// Starts one, under a tripwire if there is one; `None` if it ends first.
    async fn start(data: &Path, wire: Option<(&Tripwire, Sight)>) -> Option<Self> {
        let directory = data.to_str().unwrap();
        let mut program = program(&["embedded", "--listen=127.0.0.1:0", "--data-dir", directory]);
        program.stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Some((wire, sight)) = wire {
            wire.watch(&mut program, sight, &[]);
        }
        let mut child = program.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .expect("it starts in time");
        let Some(line) = line.unwrap() else {
            child.wait().await.unwrap();
            return None;
        };
        let address = line.strip_prefix("listening on ").unwrap();
        let certificates = data.join("certificates");
        let node = fs::read_to_string(certificates.join("node-1.id")).unwrap();
        let settings = settings(address, &certificates);
        let client = tokio::task::spawn_blocking(|| Client::new(settings))
            .await
            .unwrap();
        Some(Self {
            child,
            client: client.unwrap(),
            node: node.trim().parse().unwrap(),
        })
    }

    async fn terminate(mut self) {
        let id = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time");
        assert!(status.unwrap().success());
    }
}

/// Returns the UUID of an ext4 file system.
fn file_system(volume: &Path) -> Uuid {
    let mut superblock = [0; 1024];
    File::open(volume)
        .unwrap()
        .read_exact_at(&mut superblock, 1024)
        .unwrap();
    assert_eq!(superblock[0x38..0x3a], [0x53, 0xef]);
    Uuid::from_slice(&superblock[0x68..0x78]).unwrap()
}

/// Checks a copy of a file system, because a check replays its journal.
fn check_file_system(volume: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    let copied = Command::new("cp")
        .arg("--sparse=always")
        .args([volume, &copy])
        .status()
        .unwrap();
    assert!(copied.success());
    let checked = Command::new("e2fsck")
        .args(["-p", "-f"])
        .arg(&copy)
        .output()
        .unwrap();
    // It makes `lost+found` again, which the agent removes at the first mount.
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
}
