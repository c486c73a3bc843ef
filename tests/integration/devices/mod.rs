//! Faulty devices and mounts on a node with a plugin.

mod foreign;
mod frozen;
mod fuse;
mod hung;
mod hung_path;
mod other_device;
mod read_only;
mod vanished;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use csi_proto::v1::VolumeCondition;
use rustix::mount::{MountFlags, mount};
use tonic::Code;

use crate::node::{Fixture, assert_refused};
use crate::support::csi::Usage;

impl Fixture {
    /// Returns the condition of a volume, as reported for its target.
    async fn condition(&self, usage: &Usage) -> VolumeCondition {
        self.csi().stats(usage).await.unwrap().volume_condition.unwrap()
    }

    /// Checks that a volume is reported as abnormal, with these words in the message.
    async fn assert_abnormal(&self, usage: &Usage, parts: &[&str]) {
        let condition = self.condition(usage).await;
        assert!(condition.abnormal, "{}", condition.message);
        for part in parts {
            assert!(
                condition.message.contains(part),
                "{part:?} in {:?}",
                condition.message
            );
        }
    }

    /// Unpublishes and unstages a volume, and checks that nothing of it is left on the node.
    async fn clean_up(&self, usage: &Usage) {
        self.csi().unpublish(usage).await.unwrap();
        assert!(!usage.target.exists());
        self.csi().unstage(usage).await.unwrap();
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        assert!(self.machine.records().is_empty() && self.machine.devices().is_empty());
    }

    /// Checks that a volume whose file system became read-only is not published for writing at another target, and
    /// returns that target.
    async fn assert_read_only_to_another_target(&self, usage: &Usage) -> Usage {
        let again = usage.at_target("again");
        assert_refused(
            self.csi().publish(&again).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                "cannot be published",
                "has become read-only",
                "repair",
            ],
        );
        assert!(!again.target.exists());
        again
    }
}

/// Writes the data of a file system to its device, and returns whether that succeeded.
pub(crate) fn sync(path: &Path) -> bool {
    let synced = Command::new("sync").arg("-f").arg(path).output();
    synced.unwrap().status.success()
}

/// Mounts a file system that belongs to no volume.
fn mount_foreign(at: &Path) {
    mount("foreign", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// Returns the directory in which ext4 describes the file system on a loop device, given by its numbers.
pub(crate) fn ext4_of(device: &str) -> PathBuf {
    let device = fs::canonicalize(Path::new("/sys/dev/block").join(device)).unwrap();
    Path::new("/sys/fs/ext4").join(device.file_name().unwrap())
}

/// Makes errors turn a mounted ext4 read-only, as a superblock may request; by default ext4 continues.
pub(crate) fn stop_on_errors(mounted_at: &Path) {
    let remounted = Command::new("mount")
        .args(["-o", "remount,errors=remount-ro"])
        .arg(mounted_at)
        .status();
    assert!(remounted.unwrap().success());
}
