//! `gc` after plugins that were killed at any moment: it finds exactly what they left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host_fs::mount::testing::unmount;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::gc::{delete, device, forget_device, gc, has_no_device, left, staged};
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;

const ROUNDS: usize = 16;
const SEED: u64 = 7;
/// The latest moment of a kill, about as long as the lives take.
const LONGEST: u64 = 60;

type Left = BTreeSet<(String, PathBuf)>;

#[test]
fn what_killed_plugins_left_is_found_exactly_whenever_they_were_killed() {
    in_own_namespace(|| async {
        let mut random = StdRng::seed_from_u64(SEED);
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let used = staged(&plugin, &machine, "gc-campaign-used").await;
        plugin.csi.publish(&used).await.unwrap();
        plugin.kill().await;
        let (mut kinds, mut kept) = (BTreeSet::new(), Vec::new());
        for round in 0..ROUNDS {
            let moment = Duration::from_millis(random.random_range(0..LONGEST));
            let [forgotten, deleted, untouched] = killed_lives(&machine, round, moment).await;
            release_by_hand(&forgotten);
            for record in records(&machine, &forgotten) {
                fs::remove_file(record).unwrap();
            }
            lose_device(&machine, &forgotten);
            release_by_hand(&deleted);
            delete(&flocker, &deleted).await;
            lose_device(&machine, &deleted);

            let mut expected = unfinished(&machine);
            for usage in [&forgotten, &deleted, &untouched] {
                if records(&machine, usage).is_empty() || usage.volume_id == deleted.volume_id {
                    expected.extend(of_volume(&machine, usage));
                }
            }
            let roots = format!("--staging-root={}", machine.path("staging").display());
            let dry = gc(&machine, &[&roots]).await.assert_code(0).document("gc");
            assert_eq!(
                left(&dry),
                expected,
                "round {round}, killed after {moment:?}: {dry:#}"
            );
            let before = (everything(&machine), at_flocker(&flocker).await);
            let applied = gc(&machine, &[&roots, "--apply"])
                .await
                .assert_code(0)
                .document("gc");
            assert_eq!(left(&applied), expected, "{applied:#}");
            let gone = expected.iter().map(|(_, path)| path);
            let remaining: BTreeSet<_> = before
                .0
                .iter()
                .filter(|path| !gone.clone().any(|gone| gone == *path))
                .cloned()
                .collect();
            assert_eq!(
                (everything(&machine), at_flocker(&flocker).await),
                (remaining, before.1)
            );
            let again = gc(&machine, &[&roots]).await.assert_code(0).document("gc");
            assert_eq!(left(&again), Left::new());
            fs::write(used.target.join("file"), round.to_string()).unwrap();
            kinds.extend(expected.into_iter().map(|(kind, _)| kind));
            kept.push(untouched);
        }
        println!("{ROUNDS} rounds; what was left: {kinds:?}");
        for kind in ["record", "device-node", "directory"] {
            assert!(kinds.contains(kind), "no kill left one: {kinds:?}");
        }
        let plugin = machine.process(&[]).await;
        assert_eq!(
            fs::read_to_string(used.target.join("file")).unwrap(),
            (ROUNDS - 1).to_string()
        );
        for usage in kept.iter().chain([&used]) {
            plugin.csi.unpublish(usage).await.unwrap();
            plugin.csi.unstage(usage).await.unwrap();
        }
        plugin.terminate().await;
    });
}

/// Lives of three volumes at once, which end when their plugin is killed.
async fn killed_lives(machine: &Machine, round: usize, moment: Duration) -> [Usage; 3] {
    let plugin = machine.process(&[]).await;
    let mut usages = Vec::new();
    for number in 0..3 {
        let name = format!("gc-campaign-{round}-{number}");
        let volume = plugin.csi.create(&name).await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        usages.push(machine.usage(&name, volume, &context));
    }
    let lives: Vec<_> = usages
        .iter()
        .map(|usage| tokio::spawn(life(plugin.csi.clone(), usage.clone())))
        .collect();
    tokio::time::sleep(moment).await;
    plugin.kill().await;
    for life in lives {
        life.await.unwrap().ok();
    }
    usages.try_into().unwrap()
}

async fn life(csi: Csi, usage: Usage) -> Result<(), tonic::Status> {
    csi.stage(&usage).await?;
    csi.publish(&usage).await?;
    csi.unpublish(&usage).await?;
    csi.unstage(&usage).await
}

/// Unmounts a volume as an operator does who believes that nothing needs it.
fn release_by_hand(usage: &Usage) {
    for point in [&usage.target, &usage.alias()] {
        while !Mounts::read().at(point).is_empty() {
            unmount(point);
        }
    }
}

/// Gives what is left of a volume a device that no other test uses.
fn lose_device(machine: &Machine, usage: &Usage) {
    let node = device(machine, usage);
    if node.exists() {
        has_no_device(&node, &[]);
    }
    for record in records(machine, usage) {
        forget_device(&record);
    }
}

fn records(machine: &Machine, usage: &Usage) -> Vec<PathBuf> {
    let mut records = machine.records();
    records.retain(|record| record.to_str().unwrap().contains(&usage.volume_id));
    records
}

/// Returns what there is of a volume that nothing needs any more.
fn of_volume(machine: &Machine, usage: &Usage) -> Left {
    let records = records(machine, usage)
        .into_iter()
        .map(|record| ("record", record));
    let others = [
        ("device-node", device(machine, usage)),
        ("directory", usage.alias()),
    ];
    let all = records.chain(others).filter(|(_, path)| path.exists());
    all.map(|(kind, path)| (kind.to_owned(), path)).collect()
}

/// Returns the files that no process has finished.
fn unfinished(machine: &Machine) -> Left {
    let all = everything(machine).into_iter();
    let unfinished = all.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(".new-")
            || name
                .strip_prefix('.')
                .is_some_and(|name| uuid::Uuid::try_parse(name).is_ok())
    });
    unfinished
        .map(|path| ("unfinished-file".to_owned(), path))
        .collect()
}

/// Returns all that plugins make on a machine.
fn everything(machine: &Machine) -> BTreeSet<PathBuf> {
    let state_dir = &machine.config.node.state_dir;
    let directories = [
        state_dir.clone(),
        state_dir.join("stages"),
        machine.config.plugin.device_dir.clone(),
    ];
    let mut all: BTreeSet<_> = directories
        .iter()
        .flat_map(|directory| entries(directory))
        .collect();
    all.extend(
        entries(&machine.path("staging"))
            .iter()
            .flat_map(|staging| entries(staging)),
    );
    all
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Returns the datasets and the leases.
async fn at_flocker(flocker: &Flocker) -> Value {
    let datasets: Vec<_> = flocker
        .datasets()
        .await
        .into_iter()
        .filter(|dataset| !dataset.deleted)
        .map(|dataset| dataset.dataset_id)
        .collect();
    let leases = flocker.client().await.list_leases().await.unwrap();
    let leases: BTreeSet<_> = leases
        .into_iter()
        .map(|lease| (lease.dataset_id, lease.node_uuid))
        .collect();
    serde_json::json!([datasets.into_iter().collect::<BTreeSet<_>>(), leases])
}
