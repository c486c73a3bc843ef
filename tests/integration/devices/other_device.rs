//! Device numbers that now belong to another volume.
//!
//! A number is free again once its device is detached. While the plugin was down, an operator unstaged a volume by hand,
//! and another volume got the number of its device: the plugin's record, its device node and even a mount made from that
//! node still have the first volume's name.

use host_fs::mount::testing::unmount;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use tonic::Code;
use uuid::Uuid;

use crate::node::{agent_unmounts, assert_refused};
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

/// Two published volumes, the first of which was unstaged by hand while the plugin was down.
struct Swapped {
    flocker: Flocker,
    machine: Machine,
    first: Usage,
    second: Usage,
}

impl Swapped {
    async fn start() -> Self {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let mut usages = Vec::new();
        for name in ["first", "second"] {
            let volume = plugin.csi.create(name).await;
            let context = plugin.csi.attach(volume, machine.node()).await;
            let usage = machine.usage(name, volume, &context);
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            fs::write(usage.target.join("name"), name).unwrap();
            usages.push(usage);
        }
        plugin.kill().await;
        let [first, second] = usages.try_into().unwrap();
        unmount(&first.target);
        unmount(first.alias());
        let swapped = Self {
            flocker,
            machine,
            first,
            second,
        };
        let (stale, other) = (swapped.node(&swapped.first), swapped.node(&swapped.second));
        fs::remove_file(&stale).unwrap();
        let number = fs::metadata(other).unwrap().rdev();
        mknodat(
            CWD,
            &stale,
            FileType::BlockDevice,
            Mode::RUSR | Mode::WUSR,
            number,
        )
        .unwrap();
        swapped
    }

    /// Returns the device node of a volume.
    fn node(&self, usage: &Usage) -> std::path::PathBuf {
        self.machine.config.plugin.device_dir.join(&usage.volume_id)
    }

    /// Mounts the second volume's device under the first one's name.
    fn mount_under_the_other_name(&self, at: &Path) {
        mount(self.node(&self.first), at, "ext4", MountFlags::empty(), None).unwrap();
        assert_eq!(fs::read_to_string(at.join("name")).unwrap(), "second");
    }

    async fn plugin(&self) -> Process {
        self.machine.process(&[]).await
    }

    fn device_of(&self, dataset: Uuid) -> String {
        only_mount_at(&self.flocker.mount_of(1, dataset)).device
    }

    async fn assert_both_are_themselves(&self, csi: &Csi) {
        for usage in [&self.first, &self.second] {
            csi.stage(usage).await.unwrap();
            csi.publish(usage).await.unwrap();
            let stats = csi.stats(usage).await.unwrap();
            assert!(!stats.volume_condition.unwrap().abnormal);
        }
        assert_eq!(
            fs::read_to_string(self.first.target.join("name")).unwrap(),
            "first"
        );
        assert_eq!(
            fs::read_to_string(self.second.target.join("name")).unwrap(),
            "second"
        );
        assert_eq!(
            only_mount_at(&self.first.target).device,
            self.device_of(self.first.dataset())
        );
    }
}

#[test]
fn a_device_node_with_another_volumes_number_is_recreated() {
    in_own_namespace(|| async {
        let swapped = Swapped::start().await;
        let plugin = swapped.plugin().await;
        assert_refused(
            plugin.csi.publish(&swapped.first).await,
            Code::FailedPrecondition,
            &[
                &swapped.first.volume_id,
                "is not staged at",
                "nothing is mounted there",
            ],
        );
        swapped.assert_both_are_themselves(&plugin.csi).await;
        plugin.kill().await;
    });
}

#[test]
fn nothing_is_published_from_another_volumes_device_under_any_name() {
    in_own_namespace(|| async {
        let swapped = Swapped::start().await;
        let Swapped { first, second, .. } = &swapped;
        swapped.mount_under_the_other_name(&first.alias());
        swapped.mount_under_the_other_name(&first.target);
        let plugin = swapped.plugin().await;
        let csi = &plugin.csi;
        assert_refused(
            csi.stats(first).await,
            Code::NotFound,
            &[&first.volume_id, "not this plugin's"],
        );
        for usage in [first, &first.at_target("again")] {
            assert_refused(
                csi.publish(usage).await,
                Code::FailedPrecondition,
                &[&first.volume_id, "is not staged at", "is mounted there"],
            );
        }
        assert!(!first.at_target("again").target.exists());
        // The second volume is pinned once, as itself.
        assert_eq!(
            agent_unmounts(&swapped.flocker.mount_of(1, second.dataset())),
            Err(Errno::BUSY)
        );
        assert!(
            !csi.stats(second)
                .await
                .unwrap()
                .volume_condition
                .unwrap()
                .abnormal
        );

        // They are not the plugin's mounts of the first volume, so their maker unmounts them.
        for (answer, at) in [
            (csi.unpublish(first).await, first.target.clone()),
            (csi.unstage(first).await, first.alias()),
        ] {
            let parts = [at.to_str().unwrap(), "left unchanged"];
            assert_refused(answer, Code::FailedPrecondition, &parts);
            only_mount_at(&at);
            unmount(&at);
        }
        csi.unpublish(first).await.unwrap();
        csi.unstage(first).await.unwrap();
        assert!(Mounts::read().below(&first.staging).is_empty());
        swapped.assert_both_are_themselves(csi).await;
        plugin.kill().await;
    });
}

#[test]
fn staging_over_another_volumes_device_is_refused_and_leaves_the_mount_to_its_maker() {
    in_own_namespace(|| async {
        let swapped = Swapped::start().await;
        let first = &swapped.first;
        swapped.mount_under_the_other_name(&first.alias());
        let plugin = swapped.plugin().await;
        assert_refused(
            plugin.csi.stage(first).await,
            Code::FailedPrecondition,
            &[
                &first.volume_id,
                &format!("device {})", swapped.device_of(swapped.second.dataset())),
                "left unchanged",
            ],
        );
        only_mount_at(&first.alias());
        unmount(first.alias());
        assert_eq!(swapped.machine.records().len(), 1, "only the second volume's");
        swapped.assert_both_are_themselves(&plugin.csi).await;
        plugin.kill().await;
    });
}
