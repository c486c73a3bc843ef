//! `gc`: it finds what was left on this machine, removes exactly that, and never touches what is in use.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use flocker_embedded::faults::AgentState;
use host_fs::mount::testing::{PeerNamespace, unmount};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, makedev, mknodat};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Ended, run};
use crate::names::declare;
use crate::node::Fixture;
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

/// The minor number of a loop device that no machine has.
const UNUSED: u32 = 1_000_000;

pub(super) async fn gc(machine: &Machine, more: &[&str]) -> Ended {
    run(
        machine,
        &[&["gc", "--output=json", "--interval=1ms"], more].concat(),
    )
    .await
}

/// Returns kind and path of what is left.
pub(super) fn left(document: &Value) -> BTreeSet<(String, PathBuf)> {
    let left = document["leftovers"].as_array().unwrap().iter();
    left.map(|left| {
        let text = |key: &str| left[key].as_str().unwrap().to_owned();
        (text("kind"), text("path").into())
    })
    .collect()
}

fn expected<const N: usize>(left: [(&str, &Path); N]) -> BTreeSet<(String, PathBuf)> {
    left.map(|(kind, path)| (kind.to_owned(), path.to_owned())).into()
}

/// Checks that a dry run finds exactly this.
async fn finds<const N: usize>(machine: &Machine, more: &[&str], left_here: [(&str, &Path); N]) -> Value {
    let document = gc(machine, more).await.assert_code(0).document("gc");
    assert_eq!(left(&document), expected(left_here), "{document:#}");
    document
}

pub(super) fn device(machine: &Machine, usage: &Usage) -> PathBuf {
    machine.config.plugin.device_dir.join(&usage.volume_id)
}

/// Gives what is left of a volume, a node and records, the number of a loop device that does not exist: the number that it had
/// may be that of another test's device by now, which uses it.
pub(super) fn has_no_device(node: &Path, records: &[&Path]) {
    fs::remove_file(node).unwrap();
    let number = makedev(7, UNUSED);
    mknodat(CWD, node, FileType::BlockDevice, Mode::RUSR, number).unwrap();
    for record in records {
        assert!(forget_device(record), "{}", fs::read_to_string(record).unwrap());
    }
}

/// As [`has_no_device`], for a record. Returns whether it has a device.
pub(super) fn forget_device(record: &Path) -> bool {
    let mut content: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    let Some(minor) = content.pointer_mut("/record/origin/alias/device/minor") else {
        return false;
    };
    assert!(minor.is_number(), "{minor}");
    *minor = json!(UNUSED);
    fs::write(record, content.to_string()).unwrap();
    true
}

fn record(machine: &Machine, usage: &Usage) -> PathBuf {
    let records = machine.records().into_iter();
    let mut of_volume = records.filter(|record| record.to_str().unwrap().contains(&usage.volume_id));
    of_volume.next().expect("it has a record")
}

/// Stages a new volume. Its name is that of no other test's: a mount of a dataset of this id anywhere on the machine is a use.
pub(super) async fn staged(plugin: &Process, machine: &Machine, name: &str) -> Usage {
    let volume = plugin.csi.create(name).await;
    let context = plugin.csi.attach(volume, machine.node()).await;
    let usage = machine.usage(name, volume, &context);
    plugin.csi.stage(&usage).await.unwrap();
    usage
}

/// Deletes a volume that is no longer mounted here beside Flocker, and waits until Flocker has.
pub(super) async fn delete(flocker: &Flocker, usage: &Usage) {
    let client = flocker.client().await;
    client.release_lease(usage.dataset()).await.unwrap();
    client.delete_dataset(usage.dataset()).await.unwrap();
    let mount = flocker.mount_of(1, usage.dataset());
    eventually("the agent has deleted the volume", async || {
        Mounts::read().below(&mount).is_empty().then_some(())
    })
    .await;
}

#[test]
#[allow(
    clippy::too_many_lines,
    reason = "one story: what is made, found, removed and still there"
)]
fn what_a_killed_plugin_left_is_found_and_removed_and_nothing_else() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let used = staged(&plugin, &machine, "gc-used").await;
        plugin.csi.publish(&used).await.unwrap();
        let unrecorded = staged(&plugin, &machine, "gc-unrecorded").await;
        plugin.csi.publish(&unrecorded).await.unwrap();
        let deleted = staged(&plugin, &machine, "gc-deleted").await;
        let vanished = staged(&plugin, &machine, "gc-vanished").await;
        let volume = plugin.csi.create("gc-killed").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let killed = machine.usage("gc-killed", volume, &context);
        let staging = tokio::spawn({
            let (csi, killed) = (plugin.csi.clone(), killed.clone());
            async move { csi.stage(&killed).await.map(drop) }
        });
        let node = device(&machine, &killed);
        eventually("it is being staged", async || node.exists().then_some(())).await;
        plugin.kill().await;
        staging.await.unwrap().ok();

        // What an operator does by hand, and what a killed process has not finished.
        for usage in [&unrecorded, &killed] {
            fs::remove_file(record(&machine, usage)).unwrap();
        }
        for usage in [&killed, &deleted, &vanished] {
            if usage.alias().exists() && !Mounts::read().below(&usage.alias()).is_empty() {
                unmount(usage.alias());
            }
            fs::create_dir_all(usage.alias()).unwrap();
        }
        let client = flocker.client().await;
        let forgotten = declare(&flocker, 1, &[("name", "forgotten")]).await;
        client
            .acquire_lease(forgotten, machine.node(), None)
            .await
            .unwrap();
        delete(&flocker, &deleted).await;
        has_no_device(&device(&machine, &killed), &[]);
        has_no_device(&device(&machine, &deleted), &[&record(&machine, &deleted)]);
        client.release_lease(vanished.dataset()).await.unwrap();
        fs::remove_dir_all(&vanished.staging).unwrap();
        let state_dir = machine.config.node.state_dir.clone();
        // Depending on its moment, the kill has left one too.
        for entry in fs::read_dir(state_dir.join("stages")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(".new-") {
                fs::remove_file(path).unwrap();
            }
        }
        let unfinished = [
            state_dir.join(".new-abcdef"),
            state_dir.join("stages/.new-ABC123"),
        ];
        for file in &unfinished {
            fs::write(file, "half").unwrap();
        }
        let device_dir = machine.config.plugin.device_dir.clone();
        let unfinished_node = device_dir.join(format!(".{}", Uuid::new_v4()));
        mknodat(
            CWD,
            &unfinished_node,
            FileType::BlockDevice,
            Mode::RUSR,
            makedev(7, 4000),
        )
        .unwrap();
        let foreign = [
            state_dir.join("notes.txt"),
            device_dir.join("null"),
            state_dir.join(".new-abc"),
            machine.path("staging").join(Uuid::new_v4().to_string()),
        ];
        for file in &foreign[..3] {
            fs::write(file, "not the plugin's").unwrap();
        }
        fs::create_dir(&foreign[3]).unwrap();
        let paths: Vec<PathBuf> = vec![
            killed.alias(),
            device(&machine, &killed),
            deleted.alias(),
            device(&machine, &deleted),
            record(&machine, &deleted),
        ];
        let all = [
            ("directory", paths[0].as_path()),
            ("device-node", &paths[1]),
            ("directory", &paths[2]),
            ("device-node", &paths[3]),
            ("record", &paths[4]),
            ("unfinished-file", &unfinished[0]),
            ("unfinished-file", &unfinished[1]),
            ("unfinished-file", &unfinished_node),
        ];
        let root = format!("--staging-root={}", machine.path("staging").display());
        let document = finds(&machine, &[&root], all).await;
        assert!(
            all.iter().all(|(_, path)| path.exists()),
            "a dry run removes nothing"
        );
        let kept = document["kept"].as_array().unwrap();
        assert!(
            kept.iter()
                .any(|kept| kept["path"] == json!(device(&machine, &unrecorded))),
            "{document:#}"
        );
        let leases = document["leases"].as_array().unwrap();
        // The killed plugin held that one too, and nothing here uses the volume.
        let of_volume = |volume: Uuid| leases.iter().find(|lease| lease["volume"] == json!(volume));
        let command = format!("flocker-csi leases release {forgotten} --node {}", machine.node());
        assert_eq!(of_volume(forgotten).unwrap()["command"], json!(command));
        assert!(of_volume(used.dataset()).is_none() && of_volume(unrecorded.dataset()).is_none());

        let applied = gc(&machine, &[&root, "--apply"]).await;
        let applied = applied.assert_code(0).document("gc");
        for removed in applied["leftovers"].as_array().unwrap() {
            assert_eq!(removed["outcome"], "removed", "{applied:#}");
        }
        assert_eq!(left(&applied), expected(all));
        let there: Vec<_> = all.iter().filter(|(_, path)| path.exists()).collect();
        assert!(there.is_empty(), "{there:?}");
        assert!(foreign.iter().all(|path| path.exists()));
        assert_eq!(flocker.leaseholder(forgotten).await, Some(machine.node()));
        let again = gc(&machine, &[&root, "--apply"])
            .await
            .assert_code(0)
            .document("gc");
        assert_eq!(left(&again), BTreeSet::new());

        // The plugin goes on with what was in use, also where the record was lost.
        let plugin = machine.process(&[]).await;
        for usage in [&used, &unrecorded] {
            only_mount_at(&usage.target);
            plugin.csi.stage(usage).await.unwrap();
            plugin.csi.unpublish(usage).await.unwrap();
            plugin.csi.unstage(usage).await.unwrap();
        }
        // Flocker has that one mounted still.
        assert_eq!(machine.records(), [record(&machine, &vanished)]);
        plugin.kill().await;
    });
}

#[test]
fn nothing_is_removed_while_a_plugin_runs() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let machine = &fixture.machine;
        let used = fixture.published("gc-beside").await;
        fs::remove_file(record(machine, &used)).unwrap();
        let unfinished = machine.config.node.state_dir.join(".new-abcdef");
        fs::write(&unfinished, "half").unwrap();
        let refused = gc(machine, &["--apply"]).await;
        let process = format!("process {}", std::process::id());
        refused.assert_code(1).assert_said(&[
            "is in use by",
            &process,
            "volumes stay mounted while it is stopped",
        ]);
        assert_eq!(refused.text, "");
        finds(machine, &[], [("unfinished-file", &unfinished)]).await;
        let table = run(machine, &["gc", "--interval=1ms"]).await;
        let lines: Vec<_> = table.assert_code(0).text.lines().collect();
        assert!(lines[0].starts_with("KIND ") && lines.len() == 2, "{table:?}");
        assert!(unfinished.exists() && device(machine, &used).exists());
    });
}

#[test]
fn a_device_that_anything_on_the_machine_uses_keeps_its_node() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = staged(&plugin, &machine, "gc-device").await;
        plugin.kill().await;
        fs::remove_file(record(&machine, &usage)).unwrap();
        let node = device(&machine, &usage);
        let is_kept = async |why: &str| {
            let applied = gc(&machine, &["--apply"]).await.assert_code(0).document("gc");
            assert_eq!(left(&applied), BTreeSet::new());
            let kept = applied["kept"].as_array().unwrap();
            let kept = kept.iter().find(|kept| kept["path"] == json!(node)).unwrap();
            assert!(kept["reason"].as_str().unwrap().contains(why), "{kept}");
            assert!(node.exists());
        };
        // It is mounted here, then only in another mount namespace, then only the device is open.
        is_kept("").await;
        let elsewhere = PeerNamespace::with("private");
        unmount(usage.alias());
        is_kept("process ").await;
        drop(elsewhere);
        let open = File::open(&node).unwrap();
        is_kept(" open").await;
        drop(open);
        finds(&machine, &[], [("device-node", &node)]).await;
        // In a record that cannot be read, it may be needed.
        let unreadable = machine
            .config
            .node
            .state_dir
            .join(format!("stages/{}-0123456789abcdef.json", usage.volume_id));
        fs::write(&unreadable, "{").unwrap();
        let part = gc(&machine, &["--apply"]).await;
        part.assert_code(1).assert_said(&[unreadable.to_str().unwrap()]);
        assert!(node.exists() && unreadable.exists());
        fs::remove_file(unreadable).unwrap();
        gc(&machine, &["--apply"]).await.assert_code(0);
        assert!(!node.exists());
    });
}

#[test]
fn a_record_is_left_only_where_flocker_says_that_its_volume_is_gone() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = staged(&plugin, &machine, "gc-record").await;
        plugin.kill().await;
        unmount(usage.alias());
        // The volume exists, and its lease is this node's.
        finds(&machine, &[], []).await;
        // A record of a volume that Flocker never listed.
        let (known, unknown) = (record(&machine, &usage), Uuid::new_v4());
        let rename = |text: &str| text.replace(&usage.volume_id, &unknown.to_string());
        let absent = PathBuf::from(rename(known.to_str().unwrap()));
        fs::write(&absent, rename(&fs::read_to_string(&known).unwrap())).unwrap();
        finds(&machine, &[&format!("--node-id={}", Uuid::new_v4())], []).await;
        // Its device is mounted.
        finds(&machine, &[], []).await;
        delete(&flocker, &usage).await;
        let (alias, node) = (usage.alias(), device(&machine, &usage));
        has_no_device(&node, &[&known, &absent]);
        let expected = [
            ("directory", alias.as_path()),
            ("device-node", &node),
            ("record", &known),
            ("record", &absent),
        ];
        finds(&machine, &[], expected).await;
        let unfinished = machine.config.node.state_dir.join(".new-abcdef");
        fs::write(&unfinished, "half").unwrap();
        flocker.stop().await;
        let part = gc(&machine, &["--apply"]).await;
        part.assert_code(1)
            .assert_said(&["records and leases cannot be judged, because Flocker cannot be asked"]);
        let removed = part.document("gc");
        assert_eq!(left(&removed), self::expected([("unfinished-file", &unfinished)]));
        assert!(known.exists() && absent.exists() && node.exists() && !unfinished.exists());
    });
}

/// Docker Swarm makes no staging directory, so the plugin makes it and what is above it.
#[test]
fn directories_that_were_made_for_a_staging_go_with_its_record() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let mut all = Vec::new();
        // The first two share a directory, something else is put beside the third, and a link takes the place of the fourth.
        for (name, parent) in [
            ("gc-made-1", "shared"),
            ("gc-made-2", "shared"),
            ("gc-made-3", "filled"),
            ("gc-made-4", "linked"),
        ] {
            let volume = plugin.csi.create(name).await;
            let context = plugin.csi.attach(volume, machine.node()).await;
            let mut usage = machine.usage(name, volume, &context);
            usage.staging = machine.path(&format!("made/{parent}/{name}"));
            fs::remove_dir_all(machine.path("staging")).ok();
            plugin.csi.stage(&usage).await.unwrap();
            all.push(usage);
        }
        plugin.kill().await;
        for usage in &all {
            let (known, node) = (record(&machine, usage), device(&machine, usage));
            unmount(usage.alias());
            delete(&flocker, usage).await;
            has_no_device(&node, &[&known]);
        }
        let (beside, elsewhere) = (machine.path("made/filled/of-others"), machine.path("elsewhere"));
        fs::write(&beside, "").unwrap();
        fs::rename(machine.path("made/linked"), &elsewhere).unwrap();
        symlink(&elsewhere, machine.path("made/linked")).unwrap();
        let applied = gc(&machine, &["--apply"]).await.assert_code(1).document("gc");
        let leftovers = applied["leftovers"].as_array().unwrap();
        let (removed, failed): (Vec<_>, Vec<_>) =
            leftovers.iter().partition(|left| left["outcome"] == "removed");
        assert_eq!(removed.iter().filter(|left| left["kind"] == "record").count(), 3);
        assert!(!failed.is_empty(), "{applied:#}");
        assert!(
            failed
                .iter()
                .all(|left| left["volume"] == json!(all[3].volume_id)),
            "{applied:#}"
        );
        assert!(!machine.path("made/shared").exists());
        assert!(!machine.path("made/filled/gc-made-3").exists() && beside.exists());
        assert!(elsewhere.join("gc-made-4").exists(), "no link is followed");
        fs::remove_file(machine.path("made/linked")).unwrap();
        fs::rename(&elsewhere, machine.path("made/linked")).unwrap();
        gc(&machine, &["--apply"]).await.assert_code(0);
        assert!(!machine.path("made/linked").exists() && beside.exists());
        finds(&machine, &[], []).await;
    });
}

/// The plugin notes a directory that it cannot remove in the state directory, by a link of the volume's name.
#[test]
fn a_directory_that_an_undo_could_not_remove_is_found_by_its_note() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = staged(&plugin, &machine, "gc-noted").await;
        plugin.kill().await;
        unmount(usage.alias());
        has_no_device(&device(&machine, &usage), &[]);
        fs::remove_file(record(&machine, &usage)).unwrap();
        fs::create_dir_all(usage.alias()).unwrap();
        let leftovers = machine.config.node.state_dir.join("leftovers");
        fs::create_dir_all(&leftovers).unwrap();
        let link_to = |of: &Path| {
            let note = leftovers.join(format!("{}.{}", usage.volume_id, of.components().count()));
            symlink(of, &note).unwrap();
            note
        };
        let vanished = machine.path("vanished");
        let (noted, empty) = (link_to(&usage.alias()), link_to(&vanished));
        let (alias, device_node) = (usage.alias(), device(&machine, &usage));
        let left_here = [
            ("directory", alias.as_path()),
            ("note", &empty),
            ("device-node", &device_node),
        ];
        finds(&machine, &[], left_here).await;
        let applied = gc(&machine, &["--apply"]).await.assert_code(0).document("gc");
        assert_eq!(left(&applied), expected(left_here));
        for gone in [&alias, &noted, &empty, &device_node] {
            assert!(fs::symlink_metadata(gone).is_err(), "{}", gone.display());
        }
    });
}

/// Flocker moves the volume to another node, so nothing of the record is needed.
#[test]
fn a_record_whose_staging_path_vanished_is_left_once_the_volume_is_nowhere_here() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = staged(&plugin, &machine, "gc-moved").await;
        plugin.kill().await;
        unmount(usage.alias());
        fs::remove_dir_all(&usage.staging).unwrap();
        let client = flocker.client().await;
        client.release_lease(usage.dataset()).await.unwrap();
        finds(&machine, &[], []).await;
        // Both nodes are this machine, so a mount of the other one would be a use.
        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.nodes.entry(2).or_default().agent = AgentState::Stopped);
        faults.until_in_force().await;
        let moved = client.move_dataset(usage.dataset(), flocker.node(2)).await;
        moved.unwrap();
        let mount = flocker.mount_of(1, usage.dataset());
        let gone = async || Mounts::read().below(&mount).is_empty().then_some(());
        eventually("Flocker unmounts the volume", gone).await;
        let (known, node) = (record(&machine, &usage), device(&machine, &usage));
        has_no_device(&node, &[&known]);
        let left_here = [("device-node", node.as_path()), ("record", &known)];
        finds(&machine, &[], left_here).await;
        // It is staged again, so both are needed.
        fs::create_dir_all(&usage.staging).unwrap();
        finds(&machine, &[], []).await;
    });
}

#[test]
fn a_file_that_a_process_is_writing_is_kept() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let stages = machine.config.node.state_dir.join("stages");
        fs::create_dir_all(&stages).unwrap();
        let unfinished = stages.join(".new-abcdef");
        let writing = File::create(&unfinished).unwrap();
        flock(&writing, FlockOperation::LockExclusive).unwrap();
        let applied = gc(&machine, &["--apply"]).await.assert_code(0).document("gc");
        assert_eq!(left(&applied), BTreeSet::new());
        assert!(unfinished.exists());
        drop(writing);
        finds(&machine, &[], [("unfinished-file", unfinished.as_path())]).await;
    });
}
