use std::fs;
use std::path::Path;

use host_fs::mount::testing::{LoopDevice, in_own_namespace, tmpfs, tmpfs_named};
use host_fs::mount::{MountId, visible_at};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::super::evidence::tests::{DATASET, host_with, this_boot};
use super::super::mount::Origin;
use super::super::records::RecordState;
use super::*;

/// A volume on a loop device, staged and pinned by an earlier process, and the host that has found it.
fn staged(scratch: &Path) -> (Host, LoopDevice) {
    let device = LoopDevice::new();
    let flocker = scratch.join("flocker").join(DATASET.to_string());
    let alias = scratch.join("staging").join(DATASET.to_string());
    let node = scratch.join("devices").join(DATASET.to_string());
    for directory in [&flocker, &alias, &scratch.join("devices")] {
        fs::create_dir_all(directory).unwrap();
    }
    device.mount(&flocker);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::BlockDevice;
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device.device.to_raw()).unwrap();
    mount(&node, &alias, "ext4", MountFlags::empty(), None).unwrap();
    let origin = Origin::Alias {
        node,
        device: Some(device.device),
    };
    let host = host_with(scratch, Some(origin), RecordState::Staged, this_boot());
    (host, device)
}

fn flocker(scratch: &Path) -> std::path::PathBuf {
    scratch.join("flocker").join(DATASET.to_string())
}

fn can_write(scratch: &Path) -> bool {
    fs::write(scratch.join("staging").join(DATASET.to_string()).join("file"), "").is_ok()
}

#[test]
fn a_volume_is_protected_while_the_pinned_mount_is_attached_and_lost_from_then_on() {
    in_own_namespace(|scratch| {
        let (host, _device) = staged(scratch);
        // The record does not name the mount that is pinned, so nothing is known of it.
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Lost);
        host.pins.is_proven(DATASET);
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Pinned);
        tmpfs(&flocker(scratch));
        assert_eq!(
            host.protection(DATASET).unwrap(),
            Protection::Pinned,
            "the agent finds it busy"
        );
        host_fs::mount::testing::unmount(flocker(scratch));
        unmount(flocker(scratch), UnmountFlags::DETACH).unwrap();
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Lost);

        assert!(can_write(scratch));
        assert_eq!(
            host.stop_writes(DATASET, StopScope::All).unwrap(),
            Protection::Stopped
        );
        assert!(!can_write(scratch));
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Stopped);
        assert_eq!(
            host.stop_writes(DATASET, StopScope::All).unwrap(),
            Protection::Stopped
        );
    });
}

#[test]
fn the_mount_that_the_record_names_proves_that_nothing_has_unmounted_it() {
    in_own_namespace(|scratch| {
        let (host, device) = staged(scratch);
        let found = visible_at(&flocker(scratch)).unwrap().unwrap();
        let id = MountId::of(&open_mount(&found).unwrap());
        let record = host.records.of(DATASET).remove(0);
        let named = crate::host::records::Record {
            flocker: id,
            ..record
        };
        host.records.write(&named).unwrap();
        let settings = host.settings.clone();
        drop(host);
        let (host, _) = Host::open(&settings).unwrap();
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Pinned);
        drop(host);
        // The agent has unmounted it, and mounted it again.
        host_fs::mount::testing::unmount(flocker(scratch));
        device.mount(&flocker(scratch));
        let (host, _) = Host::open(&settings).unwrap();
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Lost);
    });
}

#[test]
fn a_file_system_that_cannot_be_shut_down_is_reported_as_such() {
    in_own_namespace(|scratch| {
        let flocker = flocker(scratch);
        let alias = scratch.join("staging").join(DATASET.to_string());
        for directory in [&flocker, &alias] {
            fs::create_dir_all(directory).unwrap();
        }
        tmpfs_named("theirs", &flocker);
        mount_bind(&flocker, &alias).unwrap();
        let theirs = visible_at(&flocker).unwrap().unwrap();
        let origin = Origin::Bind {
            device: theirs.device,
            root: theirs.root.clone(),
            flocker,
            fs_type: Some("tmpfs".to_owned()),
            fs_id: host_fs::mount::file_system_id(&theirs),
        };
        let host = host_with(scratch, Some(origin), RecordState::Staged, this_boot());
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Lost);
        assert_eq!(
            host.stop_writes(DATASET, StopScope::All).unwrap(),
            Protection::Unstoppable
        );
        assert!(can_write(scratch));
    });
}

#[test]
fn a_volume_that_flocker_has_mounted_from_another_device_is_replaced_and_stopped_and_one_that_is_missing_is_not()
 {
    in_own_namespace(|scratch| {
        let (host, _device) = staged(scratch);
        let other = LoopDevice::new();
        other.mount(&flocker(scratch));
        assert_eq!(
            host.protection(DATASET).unwrap(),
            Protection::Lost,
            "its own mount is below, so another process may have covered it"
        );
        host_fs::mount::testing::unmount(flocker(scratch));
        unmount(flocker(scratch), UnmountFlags::DETACH).unwrap();
        assert_eq!(
            host.protection(DATASET).unwrap(),
            Protection::Lost,
            "it is missing"
        );
        assert!(host.replaced_or_stopped(&[DATASET]).unwrap().is_empty());
        host.stop_writes(DATASET, StopScope::Replaced).unwrap();
        assert!(can_write(scratch), "what is missing has not been replaced");

        other.mount(&flocker(scratch));
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Replaced);
        assert_eq!(host.replaced_or_stopped(&[DATASET]).unwrap(), [DATASET]);
        let stopped = host.stop_writes(DATASET, StopScope::Replaced).unwrap();
        assert_eq!(stopped, Protection::Stopped);
        assert!(!can_write(scratch));
        assert!(
            fs::write(flocker(scratch).join("file"), "").is_ok(),
            "only what was replaced"
        );
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Stopped);
        assert_eq!(host.replaced_or_stopped(&[DATASET]).unwrap(), [DATASET]);
    });
}

#[test]
fn a_volume_whose_pin_is_unbroken_is_not_replaced_whatever_is_mounted_over_flockers_mount() {
    in_own_namespace(|scratch| {
        let (host, _device) = staged(scratch);
        host.pins.is_proven(DATASET);
        let other = LoopDevice::new();
        other.mount(&flocker(scratch));
        assert_eq!(host.protection(DATASET).unwrap(), Protection::Pinned);
        assert!(host.replaced_or_stopped(&[DATASET]).unwrap().is_empty());
        for scope in [StopScope::All, StopScope::Replaced] {
            host.stop_writes(DATASET, scope).unwrap();
            assert!(can_write(scratch));
        }
    });
}
