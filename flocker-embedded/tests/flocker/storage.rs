//! What a start does with volumes that are missing, damaged or unknown: nothing that loses data.

use host_fs::mount::testing::unmount;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use flocker_embedded::Embedded;
use rustix::mount::mount_bind;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    Cluster, SIZE, edit_state, eventually, for_a_while, isolated, loop_devices, mount_points, options,
};

const CONTENT: &str = "of a database";

fn volume(directory: &Path, dataset: Uuid) -> PathBuf {
    directory.join("data/volumes").join(dataset.to_string())
}

/// Stops a Flocker of one node that has a dataset with content and another dataset.
async fn stopped(directory: &Path) -> (Uuid, Uuid) {
    stopped_with(directory, SIZE).await
}

/// The same, with this size of the first dataset in bytes.
async fn stopped_with(directory: &Path, size: u64) -> (Uuid, Uuid) {
    let cluster = Cluster::start(directory, 1).await;
    let (dataset, other) = (
        cluster.create_mounted_of(1, size).await,
        cluster.create_mounted(1).await,
    );
    fs::write(cluster.path(1, dataset).join("file"), CONTENT).unwrap();
    cluster.flocker.stop().await.unwrap();
    assert!(loop_devices(directory).is_empty());
    (dataset, other)
}

/// Asserts that the dataset is neither mounted nor attached, and that all others can be used.
async fn only_this_one_is_missing(cluster: &Cluster, directory: &Path, dataset: Uuid, other: Uuid) {
    cluster.wait_until_on(1, other).await;
    cluster.create_mounted(1).await;
    for_a_while("it is not mounted", async || {
        !mount_points().contains(&cluster.path(1, dataset))
            && !loop_devices(directory)
                .iter()
                .any(|(_, file)| *file == volume(directory, dataset))
    })
    .await;
}

async fn has_its_content(cluster: &Cluster, dataset: Uuid) {
    cluster.wait_until_on(1, dataset).await;
    let file = cluster.path(1, dataset).join("file");
    assert_eq!(fs::read_to_string(file).unwrap(), CONTENT);
}

#[test]
fn a_missing_volume_is_not_made_again_and_is_used_when_it_returns() {
    isolated(async |directory| {
        let (dataset, other) = stopped(&directory).await;
        let (file, moved) = (volume(&directory, dataset), directory.join("moved"));
        fs::rename(&file, &moved).unwrap();

        let cluster = Cluster::start(&directory, 1).await;
        only_this_one_is_missing(&cluster, &directory, dataset, other).await;
        assert!(!file.exists());
        assert_eq!(cluster.state(dataset).await, None);
        fs::rename(&moved, &file).unwrap();
        has_its_content(&cluster, dataset).await;
    });
}

#[test]
fn a_missing_volume_can_be_deleted() {
    isolated(async |directory| {
        let (dataset, other) = stopped(&directory).await;
        fs::remove_file(volume(&directory, dataset)).unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        cluster.wait_until_on(1, other).await;
        cluster.delete(dataset).await;
        for_a_while("it is not made", async || !volume(&directory, dataset).exists()).await;
        assert_eq!(cluster.state(dataset).await, None);
    });
}

#[test]
fn volumes_that_are_not_mounted_are_waited_for_and_none_are_made_in_their_place() {
    isolated(async |directory| {
        let (dataset, _) = stopped(&directory).await;
        let (volumes, elsewhere) = (directory.join("data/volumes"), directory.join("elsewhere"));
        fs::rename(&volumes, &elsewhere).unwrap();
        for exists in [false, true] {
            if exists {
                // As the directory is below a file system that is not mounted.
                fs::create_dir(&volumes).unwrap();
            }
            let cluster = Cluster::start(&directory, 1).await;
            let new = cluster.create(1, crate::support::SIZE).await;
            for_a_while("nothing is made", async || {
                volumes.exists() == exists && (!exists || fs::read_dir(&volumes).unwrap().count() == 0)
            })
            .await;
            cluster.delete(new).await;
            if exists {
                mount_bind(&elsewhere, &volumes).unwrap();
                has_its_content(&cluster, dataset).await;
                cluster.create_mounted(1).await;
            }
            cluster.flocker.stop().await.unwrap();
        }
        unmount(&volumes);
    });
}

#[test]
fn a_damaged_volume_is_not_formatted_again_and_can_be_repaired() {
    isolated(async |directory| {
        // Large enough for a second group of blocks, which has a copy of the superblock.
        let (dataset, other) = stopped_with(&directory, 160 << 20).await;
        let path = volume(&directory, dataset);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        for content in [
            [0; 4096],
            *b"another program's data, 32 bytes"
                .repeat(128)
                .first_chunk()
                .unwrap(),
        ] {
            file.write_all_at(&content, 0).unwrap();
            let before = read(&path);
            let cluster = Cluster::start(&directory, 1).await;
            only_this_one_is_missing(&cluster, &directory, dataset, other).await;
            cluster.flocker.stop().await.unwrap();
            assert!(read(&path) == before, "nothing was written");
        }

        let cluster = Cluster::start(&directory, 1).await;
        let repair = Command::new("e2fsck")
            .args(["-fy", "-b", "32768"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(repair.status.code().is_some_and(|code| code < 4), "{repair:?}");
        has_its_content(&cluster, dataset).await;
    });
}

#[test]
fn what_is_no_volume_of_this_dataset_is_neither_used_nor_changed() {
    isolated(async |directory| {
        let (dataset, other) = stopped(&directory).await;
        let (path, moved) = (volume(&directory, dataset), directory.join("moved"));
        fs::rename(&path, &moved).unwrap();
        let replacements: [&dyn Fn(); 5] = [
            &|| symlink(&moved, &path).unwrap(),
            &|| fs::create_dir(&path).unwrap(),
            &|| fs::hard_link(volume(&directory, other), &path).unwrap(),
            &|| assert_ne!(fs::copy(volume(&directory, other), &path).unwrap(), 0),
            &|| {
                fs::copy(&moved, &path).unwrap();
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(1 << 20)
                    .unwrap();
            },
        ];
        for replace in replacements {
            replace();
            let cluster = Cluster::start(&directory, 1).await;
            only_this_one_is_missing(&cluster, &directory, dataset, other).await;
            cluster.flocker.stop().await.unwrap();
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
        fs::rename(&moved, &path).unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        has_its_content(&cluster, dataset).await;
    });
}

fn database(directory: &Path) -> PathBuf {
    directory.join("data/state.redb")
}

/// Replaces the database by the state file that an earlier version would have written, without what the earliest did not
/// record.
async fn go_back_to_the_earliest_version(directory: &Path) {
    let node = fs::read_to_string(directory.join("certificates/node-1.id")).unwrap();
    let mut old = json!({});
    edit_state(directory, |state| {
        let (datasets, leases) = (&state["datasets"], &state["leases"]);
        let registered = &state["registered"];
        let configuration = json!({"datasets": datasets, "leases": leases, "registered": registered});
        old = json!({
            "cluster": Uuid::new_v4(), "nodes": [node.trim()], "configuration": configuration,
            "attachments": state["attachments"],
        });
    })
    .await;
    fs::remove_file(database(directory)).unwrap();
    fs::remove_dir_all(directory.join("data/pki")).unwrap();
    fs::write(directory.join("data/state.json"), old.to_string()).unwrap();
}

#[test]
fn volumes_of_a_state_file_of_an_earlier_version_count_as_formatted() {
    isolated(async |directory| {
        let (dataset, other) = stopped(&directory).await;
        go_back_to_the_earliest_version(&directory).await;
        let (path, moved) = (volume(&directory, dataset), directory.join("moved"));
        fs::rename(&path, &moved).unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        only_this_one_is_missing(&cluster, &directory, dataset, other).await;
        assert!(!path.exists());
        fs::rename(&moved, &path).unwrap();
        has_its_content(&cluster, dataset).await;
    });
}

#[test]
fn a_state_file_that_is_older_than_the_volumes_leads_to_no_formatting() {
    isolated(async |directory| {
        let (dataset, other) = stopped(&directory).await;
        // As it was right before the volume was formatted, and before it was known at all.
        let formatting = json!("formatting");
        edit_state(&directory, |state| {
            state["storage"][dataset.to_string()] = formatting;
        })
        .await;
        let cluster = Cluster::start(&directory, 1).await;
        has_its_content(&cluster, dataset).await;
        cluster.flocker.stop().await.unwrap();

        edit_state(&directory, |state| {
            let id = dataset.to_string();
            state["storage"].as_object_mut().unwrap().remove(&id).unwrap();
            state["registered"]
                .as_array_mut()
                .unwrap()
                .retain(|registered| *registered != json!(id));
        })
        .await;
        let before = read(&volume(&directory, dataset));
        let cluster = Cluster::start(&directory, 1).await;
        only_this_one_is_missing(&cluster, &directory, dataset, other).await;
        assert!(
            read(&volume(&directory, dataset)) == before,
            "nothing was written"
        );
        cluster.delete(dataset).await;
        eventually("a deleted dataset's file is removed", async || {
            !volume(&directory, dataset).exists()
        })
        .await;
    });
}

#[test]
fn a_lost_state_file_is_no_first_start() {
    isolated(async |directory| {
        let (dataset, _) = stopped(&directory).await;
        let (state, moved) = (database(&directory), directory.join("moved"));
        fs::rename(&state, &moved).unwrap();
        let notice = directory.join("data/state.json");
        let refused = async || {
            let error = Embedded::start(options(&directory))
                .await
                .err()
                .unwrap()
                .to_string();
            for part in ["is missing", state.to_str().unwrap(), "mount -o loop"] {
                assert!(error.contains(part), "{error}");
            }
        };
        refused().await;
        fs::rename(&notice, directory.join("notice")).unwrap();
        let refused_without_notice = async || {
            let error = Embedded::start(options(&directory))
                .await
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("is missing"), "{error}");
        };
        refused_without_notice().await;
        symlink("/nowhere/state.redb", &state).unwrap();
        let link = Embedded::start(options(&directory))
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(link.contains(state.to_str().unwrap()), "{link}");
        fs::remove_file(&state).unwrap();
        let (volumes, elsewhere) = (directory.join("data/volumes"), directory.join("elsewhere"));
        fs::rename(&volumes, &elsewhere).unwrap();
        refused_without_notice().await;
        assert!(!volumes.exists() && !state.exists(), "nothing is made");

        fs::rename(&elsewhere, &volumes).unwrap();
        fs::rename(&moved, &state).unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        has_its_content(&cluster, dataset).await;
    });
}

#[test]
fn a_first_start_that_was_interrupted_is_still_the_first() {
    isolated(async |directory| {
        fs::create_dir_all(directory.join("data/volumes")).unwrap();
        fs::write(directory.join("data/lock"), "1").unwrap();
        let cluster = Cluster::start(&directory, 1).await;
        cluster.create_mounted(1).await;
    });
}

fn read(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    File::open(path).unwrap().read_to_end(&mut content).unwrap();
    content
}
