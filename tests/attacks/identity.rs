//! Mounts that look like the plugin's or like Flocker's, and a control service that lies about where a dataset is mounted.
//!
//! No mount that only has the name, the device number or the path of a volume's is unmounted, published, or counted.

use std::fs;
use std::path::{Path, PathBuf};

use csi_proto::v1::volume_capability::access_mode::Mode;
use flocker_embedded::faults::{Effect, RequestFault};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::csi::{Csi, Usage, capability};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program_under};

/// A mount namespace that has the mounts of this one as peers, as a container with bidirectional propagation has.
const PEER: [&str; 3] = ["unshare", "--mount", "--propagation=unchanged"];

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, part: &str) {
    let refused = answer.unwrap_err();
    assert_eq!(refused.code(), code, "{}", refused.message());
    assert!(
        refused.message().contains(part),
        "{part:?} in {:?}",
        refused.message()
    );
}

async fn attached(csi: &Csi, machine: &Machine, name: &str) -> Usage {
    let volume = csi.create(name).await;
    let context = csi.attach(volume, machine.node()).await;
    machine.usage(name, volume, &context)
}

/// Mounts a file system of another process under the name of the volume's device node.
fn mount_imposter(machine: &Machine, usage: &Usage, at: &Path) {
    fs::create_dir_all(at).unwrap();
    let node = machine.config.plugin.device_dir.join(&usage.volume_id);
    mount(node, at, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(at.join("theirs"), "precious").unwrap();
}

#[track_caller]
fn assert_untouched(at: &Path) {
    assert_eq!(Mounts::read().at(at).len(), 1, "{}", at.display());
    assert_eq!(fs::read_to_string(at.join("theirs")).unwrap(), "precious");
}

#[test]
fn a_mount_that_has_only_the_name_of_a_device_node_is_neither_unmounted_nor_counted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = Usage {
            capability: capability(Mode::SingleNodeSingleWriter),
            ..attached(&plugin.csi, &machine, "data").await
        };
        plugin.csi.stage(&usage).await.unwrap();
        let theirs = Usage {
            target: usage.target.with_file_name("theirs"),
            ..usage.clone()
        };
        mount_imposter(&machine, &usage, &theirs.target);
        let mut plugin = plugin;
        for restarted in [false, true] {
            if restarted {
                plugin.kill().await;
                plugin = machine.process(&[]).await;
            }
            let csi = &plugin.csi;
            assert_refused(
                csi.unpublish(&theirs).await,
                Code::FailedPrecondition,
                "left unchanged",
            );
            assert_refused(
                csi.publish(&theirs).await,
                Code::FailedPrecondition,
                "left unchanged",
            );
            assert_refused(csi.stats(&theirs).await, Code::NotFound, "not this plugin's");
            assert_untouched(&theirs.target);
            // It is no second target of a volume that may have one.
            csi.publish(&usage).await.unwrap();
            csi.unpublish(&usage).await.unwrap();
        }
        let csi = &plugin.csi;
        // Nor does it keep the volume staged.
        csi.unstage(&usage).await.unwrap();
        for volume in ["lost", &usage.volume_id] {
            let theirs = Usage {
                volume_id: volume.to_owned(),
                ..theirs.clone()
            };
            assert_refused(
                csi.unpublish(&theirs).await,
                Code::FailedPrecondition,
                "left unchanged",
            );
        }
        mount_imposter(&machine, &usage, &usage.alias());
        assert_refused(
            csi.unstage(&usage).await,
            Code::FailedPrecondition,
            "left unchanged",
        );
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            "left unchanged",
        );
        assert_untouched(&usage.alias());
        assert_untouched(&theirs.target);
        assert!(machine.records().is_empty() && machine.devices().is_empty());
        plugin.kill().await;
    });
}

#[test]
fn a_mount_of_a_directory_of_the_volume_is_not_unmounted_and_keeps_the_volume_staged() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let csi = &plugin.csi;
        let usage = attached(csi, &machine, "data").await;
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        // As the kubelet does for a subPath.
        fs::create_dir(usage.target.join("directory")).unwrap();
        let part = Usage {
            target: usage.target.with_file_name("part"),
            ..usage.clone()
        };
        fs::create_dir(&part.target).unwrap();
        mount_bind(usage.target.join("directory"), &part.target).unwrap();
        assert_refused(
            csi.unpublish(&part).await,
            Code::FailedPrecondition,
            "left unchanged",
        );
        only_mount_at(&part.target);
        csi.unpublish(&usage).await.unwrap();
        let at = part.target.to_str().unwrap().to_owned();
        assert_refused(csi.unstage(&usage).await, Code::FailedPrecondition, &at);
        only_mount_at(&usage.alias());
        host_fs::mount::testing::unmount(&part.target);
        csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

/// Answers every read of the state with this one dataset on the first node.
fn report_path(flocker: &Flocker, dataset: Uuid, path: &Path) {
    let state = serde_json::json!([{
        "dataset_id": dataset, "primary": flocker.node(1), "path": path, "maximum_size": 67_108_864_u64,
    }]);
    let lie = Effect::Answer {
        status: 200,
        body: state.to_string(),
    };
    flocker.embedded().faults().clear();
    let rule = RequestFault::new("lie", lie).on("GET", "/v1/state/datasets");
    flocker.embedded().faults().add(rule);
}

#[test]
fn only_a_mount_that_flockers_agent_makes_for_the_dataset_is_staged_whatever_path_the_state_reports() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        // Without the mount where the plugin expects it, the state's path is all there is.
        machine.config.node.mount_root = machine.path("flocker");
        let plugin = machine.process(&[]).await;
        let csi = &plugin.csi;
        let (usage, other) = (
            attached(csi, &machine, "data").await,
            attached(csi, &machine, "other").await,
        );
        for volume in [&usage, &other] {
            flocker.reports(1, volume.dataset()).await;
        }
        let (real, others) = (
            flocker.mount_of(1, usage.dataset()),
            flocker.mount_of(1, other.dataset()),
        );
        let named = |directory: &str| {
            let path = machine.path(directory).join(&usage.volume_id);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let (whole, part, root, memory) = (named("whole"), named("part"), named("root"), named("memory"));
        mount_bind(&others, &whole).unwrap();
        fs::create_dir(real.join("directory")).unwrap();
        mount_bind(real.join("directory"), &part).unwrap();
        mount_bind("/", &root).unwrap();
        mount("theirs", &memory, "tmpfs", MountFlags::empty(), None).unwrap();
        let lies: [(PathBuf, &str); 8] = [
            ("/".into(), "is not named after the dataset"),
            ("/proc".into(), "is not named after the dataset"),
            ("/dev".into(), "is not named after the dataset"),
            (others.clone(), "is not named after the dataset"),
            (whole, "is another dataset's"),
            (part.clone(), "of a directory"),
            (root, "root file system"),
            (memory, "no block device"),
        ];
        for (path, why) in lies {
            report_path(&flocker, usage.dataset(), &path);
            assert_refused(csi.stage(&usage).await, Code::FailedPrecondition, why);
            assert!(!usage.alias().exists());
            assert!(machine.records().is_empty() && machine.devices().is_empty());
        }
        // With a bind of its mount, an agent takes the dataset for unmounted, and reports no path.
        host_fs::mount::testing::unmount(&part);
        flocker.embedded().faults().clear();
        flocker.reports(1, usage.dataset()).await;
        csi.stage(&usage).await.unwrap();
        assert_eq!(only_mount_at(&usage.alias()).device, only_mount_at(&real).device);
        csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

async fn in_another_namespace(machine: &Machine) -> Process {
    let flags = machine.flags();
    let arguments: Vec<_> = ["serve"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .collect();
    let program = program_under(&PEER, &arguments);
    let started = Process::attempt(program, &machine.path("plugin.log")).await;
    started.unwrap_or_else(|said| panic!("{said}"))
}

#[test]
fn a_plugin_that_restarts_in_another_mount_namespace_unpublishes_and_unstages_what_it_made() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let first = in_another_namespace(&machine).await;
        let usage = attached(&first.csi, &machine, "data").await;
        first.csi.stage(&usage).await.unwrap();
        first.csi.publish(&usage).await.unwrap();
        first.kill().await;
        let second = in_another_namespace(&machine).await;
        let csi = &second.csi;
        let condition = csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "pinned again: {}", condition.message);
        csi.publish(&usage).await.unwrap();
        let again = Usage {
            target: usage.target.with_file_name("again"),
            ..usage.clone()
        };
        csi.publish(&again).await.unwrap();
        for usage in [&usage, &again] {
            only_mount_at(&usage.target);
            csi.unpublish(usage).await.unwrap();
            assert_eq!(Mounts::read().at(&usage.target), []);
        }
        csi.unstage(&usage).await.unwrap();
        assert_eq!(Mounts::read().below(&usage.staging), []);
        assert!(machine.records().is_empty() && machine.devices().is_empty());
        let flockers = flocker.mount_of(1, usage.dataset());
        eventually("the agent may have the volume", async || {
            unmount(&flockers, UnmountFlags::empty()).ok()
        })
        .await;
        second.kill().await;
    });
}

#[test]
fn a_mount_of_flockers_that_was_replaced_while_no_plugin_ran_is_not_held_until_the_volume_is_staged_again() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let usage = attached(&plugin.csi, &machine, "data").await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.kill().await;
        let flockers = flocker.mount_of(1, usage.dataset());
        let before = only_mount_at(&flockers);
        eventually("the agent unmounts the volume", async || {
            unmount(&flockers, UnmountFlags::empty()).ok()
        })
        .await;
        mount(&before.source, &flockers, "ext4", MountFlags::empty(), None).ok();
        let plugin = machine.process(&[]).await;
        let condition = plugin.csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal, "{}", condition.message);
        plugin.csi.stage(&usage).await.unwrap();
        let condition = plugin.csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}
