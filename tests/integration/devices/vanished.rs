//! A device whose storage was removed under the file system.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use rustix::fs::{Advice, fadvise};
use tonic::Code;

use super::sync;
use crate::node::{Fixture, assert_refused};
use crate::support::eventually;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

const SIZE: usize = 8 << 20;

/// Reads a file from its device, not from memory.
fn read_from_device(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.sync_all()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).map(|_| content)
}

#[test]
fn a_volume_whose_device_lost_its_storage_is_abnormal_and_can_be_unstaged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let file = usage.target.join("file");
        fs::write(&file, vec![7; SIZE]).unwrap();
        assert_eq!(read_from_device(&file).unwrap().len(), SIZE);

        // From now on, reads of every block but the first fail.
        let storage = &fixture.flocker.backing_files()[0];
        OpenOptions::new()
            .write(true)
            .open(storage)
            .unwrap()
            .set_len(4096)
            .unwrap();
        let device = only_mount_at(&fixture.flocker.mount_of(1, usage.dataset())).source;
        let shrunk = Command::new("losetup").args(["--set-capacity", &device]).status();
        assert!(shrunk.unwrap().success());
        assert_eq!(
            read_from_device(&file).unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );

        // ext4 detects it as soon as it must write.
        eventually("ext4 meets the error", async || {
            fs::write(usage.target.join("more"), "lost").ok();
            sync(&usage.target);
            fixture.condition(&usage).await.abnormal.then_some(())
        })
        .await;
        fixture.assert_abnormal(&usage, &["needs a repair"]).await;
        eventually("ext4 shuts down", async || {
            sync(&usage.target);
            fs::create_dir(usage.target.join("directory")).err()
        })
        .await;
        fixture.assert_read_only_to_another_target(&usage).await;
        fixture.clean_up(&usage).await;
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, "has become read-only"],
        );
        assert!(fixture.machine.records().is_empty() && fixture.machine.devices().is_empty());
    });
}
