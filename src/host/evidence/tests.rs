use std::path::Path;

use super::super::mount::DeviceNodes;
use super::super::records::{RecordState, Records};
use super::super::{HostSettings, PinStore, boot};
use super::*;
use crate::telemetry::Metrics;
use host_fs::mount::testing::{LoopDevice, in_own_namespace, tmpfs_named, unmount};
use rustix::mount::{MountFlags, mount};

pub(in crate::host) const DATASET: Uuid = Uuid::from_u128(1);
const NODE: Uuid = Uuid::from_u128(2);

fn settings(scratch: &Path) -> HostSettings {
    HostSettings {
        mount_root: scratch.join("flocker"),
        state_dir: scratch.join("state"),
        device_dir: scratch.join("devices"),
        accept_unverified_propagation: false,
        socket_dir: None,
        agent_file_systems: crate::host::agent_file_systems(),
        pin_store: PinStore::default(),
        metrics: Metrics::default(),
    }
}

pub(in crate::host) fn this_boot() -> Uuid {
    boot::boot_id(boot::BOOT_ID_FILE.as_ref()).unwrap()
}

fn top(point: &Path) -> Mount {
    layers(point).unwrap().pop().unwrap()
}

/// Opens the host after an earlier process has written this record.
pub(in crate::host) fn host_with(
    scratch: &Path,
    origin: Option<Origin>,
    state: RecordState,
    boot: Uuid,
) -> Host {
    let settings = settings(scratch);
    let (records, _) = Records::open(&settings.state_dir.join("stages")).unwrap();
    let record = Record {
        origin,
        state,
        ..Record::staging(&scratch.join("staging"), "1", DATASET, NODE, boot, true)
    };
    records.write(&record).unwrap();
    Host::open(&settings).unwrap().0
}

#[test]
fn a_file_system_that_has_the_number_of_an_unmounted_one_is_not_the_plugins() {
    in_own_namespace(|scratch| {
        let point = scratch.join("theirs");
        tmpfs_named("theirs", &point);
        let theirs = top(&point);
        let bind = |fs_id| Origin::Bind {
            device: theirs.device,
            root: theirs.root.clone(),
            flocker: scratch.join("flocker").join(DATASET.to_string()),
            fs_type: Some("tmpfs".to_owned()),
            fs_id,
        };
        let (own, other) = (file_system_id(&theirs), Some(1));
        assert!(own.is_some() && own != other);
        for (what, fs_id, state, boot, owned, used) in [
            (
                "another boot",
                own,
                RecordState::Staged,
                Uuid::nil(),
                false,
                false,
            ),
            (
                "release pending",
                own,
                RecordState::ReleasePending,
                this_boot(),
                false,
                false,
            ),
            (
                "a reused number",
                other,
                RecordState::Staged,
                this_boot(),
                false,
                false,
            ),
            (
                "nothing but the number",
                None,
                RecordState::Staged,
                this_boot(),
                false,
                true,
            ),
            (
                "the same file system",
                own,
                RecordState::Staged,
                this_boot(),
                true,
                true,
            ),
        ] {
            let host = host_with(scratch, Some(bind(fs_id)), state, boot);
            let origins = host.origins(DATASET);
            assert_eq!(
                (origins.own(&theirs), origins.are_used_by(&theirs)),
                (owned, used),
                "{what}"
            );
        }
    });
}

#[test]
fn a_mount_from_the_plugins_device_node_is_its_own_by_the_record_or_where_none_is_left_by_the_node() {
    in_own_namespace(|scratch| {
        // A file system on which device nodes work.
        mount("scratch", scratch, "tmpfs", MountFlags::empty(), None).unwrap();
        let (volume, other) = (LoopDevice::new(), LoopDevice::new());
        let nodes = DeviceNodes::new(scratch.join("devices"));
        let node = nodes.make(DATASET, volume.device).unwrap();
        let target = scratch.join("target");
        std::fs::create_dir(&target).unwrap();
        mount(&node, &target, "ext4", MountFlags::empty(), None).unwrap();
        let ours = top(&target);
        let alias = |device| {
            Some(Origin::Alias {
                node: node.clone(),
                device,
            })
        };
        let (staged, pending) = (RecordState::Staged, RecordState::ReleasePending);
        for (what, origin, state, boot, owned) in [
            (
                "the recorded device",
                alias(Some(volume.device)),
                staged,
                this_boot(),
                true,
            ),
            (
                "another recorded device",
                alias(Some(other.device)),
                staged,
                this_boot(),
                false,
            ),
            ("the device of version 2", alias(None), staged, this_boot(), true),
            ("no origin yet", None, staged, this_boot(), true),
            (
                "release pending",
                alias(Some(volume.device)),
                pending,
                this_boot(),
                false,
            ),
            (
                "release pending without an origin",
                None,
                pending,
                this_boot(),
                false,
            ),
            (
                "another boot",
                alias(Some(volume.device)),
                staged,
                Uuid::nil(),
                false,
            ),
        ] {
            let host = host_with(scratch, origin, state, boot);
            assert_eq!(host.origins(DATASET).own(&ours), owned, "{what}");
        }
        std::fs::remove_dir_all(scratch.join("state")).unwrap();
        let lost = || {
            Host::open(&settings(scratch))
                .unwrap()
                .0
                .origins(DATASET)
                .own(&ours)
        };
        assert!(lost());
        nodes.make(DATASET, other.device).unwrap();
        assert!(!lost(), "the node has the number of another device");
        std::fs::remove_file(&node).unwrap();
        assert!(!lost(), "the name alone proves nothing");
        unmount(&target);
        tmpfs_named(node.to_str().unwrap(), &target);
        nodes.make(DATASET, volume.device).unwrap();
        assert!(
            !Host::open(&settings(scratch))
                .unwrap()
                .0
                .origins(DATASET)
                .own(&top(&target))
        );
    });
}

#[test]
fn a_record_of_version_2_gets_the_device_of_its_mounts_at_the_start() {
    in_own_namespace(|scratch| {
        mount("scratch", scratch, "tmpfs", MountFlags::empty(), None).unwrap();
        let volume = LoopDevice::new();
        let nodes = DeviceNodes::new(scratch.join("devices"));
        let node = nodes.make(DATASET, volume.device).unwrap();
        let alias = alias_path(&scratch.join("staging"), DATASET);
        let flocker = scratch.join("flocker").join(DATASET.to_string());
        for point in [&alias, &flocker] {
            std::fs::create_dir_all(point).unwrap();
        }
        mount(&node, &alias, "ext4", MountFlags::empty(), None).unwrap();
        let origin = Origin::Alias {
            node: node.clone(),
            device: None,
        };
        let open = || host_with(scratch, Some(origin.clone()), RecordState::Staged, this_boot());
        let recorded = |host: &Host| host.records.of(DATASET)[0].origin.clone();
        std::fs::remove_file(&node).unwrap();
        assert_eq!(
            recorded(&open()),
            Some(origin.clone()),
            "the name alone proves nothing"
        );
        volume.mount(&flocker);
        let host = open();
        let found = Origin::Alias {
            node: node.clone(),
            device: Some(volume.device),
        };
        assert_eq!(recorded(&host), Some(found));
        assert_eq!(host.pins.device(DATASET), Some(volume.device));
        drop(host);
        for point in [&alias, &flocker] {
            unmount(point);
        }
    });
}
