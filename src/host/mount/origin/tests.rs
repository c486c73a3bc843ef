use super::Ownership::{Foreign, InUse, Ours};
use super::*;
use host_fs::mount::MountTable;

/// Returns a mount parsed from a line of mountinfo.
pub(crate) fn mounted(source: &str, device: &str, point: &str) -> Mount {
    showing("/", source, device, point)
}

fn showing(root: &str, source: &str, device: &str, point: &str) -> Mount {
    let line = format!("70 27 {device} {root} {point} rw,relatime - ext4 {source} rw\n");
    MountTable::parse(line.as_bytes()).unwrap().mounts()[0].clone()
}

const DISK: Device = Device {
    major: 202,
    minor: 80,
};
const OTHER_DISK: Device = Device {
    major: 202,
    minor: 96,
};
const MEMORY: Device = Device { major: 0, minor: 52 };

fn alias(device: Option<Device>) -> Origin {
    Origin::Alias {
        node: "/dev/flocker-csi/1".into(),
        device,
    }
}

fn pinned(device: Device) -> KnownDevices {
    KnownDevices {
        pinned: Some(device),
        node: None,
    }
}

fn node(device: Device) -> KnownDevices {
    KnownDevices {
        pinned: None,
        node: Some(device),
    }
}

const NAME: &str = "/dev/flocker-csi/1";
const NOTHING: KnownDevices = KnownDevices {
    pinned: None,
    node: None,
};

#[test]
fn a_mount_of_a_block_device_is_decided_by_device_root_and_name_together() {
    // The source, the device and the root of a mount, and what is known of devices.
    for (what, source, device, root, known, expected) in [
        ("the plugin's", NAME, "202:80", "/", NOTHING, Ours),
        (
            "another name",
            "/dev/flocker-csi/2",
            "202:80",
            "/",
            NOTHING,
            Foreign,
        ),
        ("Flocker's", "/dev/xvdf", "202:80", "/", NOTHING, Foreign),
        ("only the name", NAME, "0:52", "/", NOTHING, Foreign),
        ("another device", NAME, "202:96", "/", NOTHING, Foreign),
        (
            "another one, the node's",
            NAME,
            "202:96",
            "/",
            node(OTHER_DISK),
            Foreign,
        ),
        (
            "another one, pinned",
            NAME,
            "202:96",
            "/",
            pinned(OTHER_DISK),
            Foreign,
        ),
        ("a directory of it", NAME, "202:80", "/sub", NOTHING, InUse),
        ("a directory of another", NAME, "202:96", "/sub", NOTHING, Foreign),
    ] {
        assert_eq!(
            decided(Some(DISK), source, device, root, known),
            expected,
            "{what}"
        );
    }
}

#[test]
fn where_no_record_names_the_device_it_has_to_be_pinned_or_that_of_the_device_node() {
    for (what, source, device, root, known, expected) in [
        ("nothing known", NAME, "202:80", "/", NOTHING, Foreign),
        ("the node's", NAME, "202:80", "/", node(DISK), Ours),
        ("the pinned one", NAME, "202:80", "/", pinned(DISK), Ours),
        ("another name", "/dev/xvdf", "202:80", "/", node(DISK), Foreign),
        ("a directory of it", NAME, "202:80", "/sub", node(DISK), InUse),
        ("another device", NAME, "202:80", "/", node(OTHER_DISK), Foreign),
        ("no block device", NAME, "0:52", "/", node(MEMORY), Foreign),
    ] {
        assert_eq!(decided(None, source, device, root, known), expected, "{what}");
    }
}

/// Decides about a mount of a volume that lies on a block device.
fn decided(
    recorded: Option<Device>,
    source: &str,
    device: &str,
    root: &str,
    known: KnownDevices,
) -> Ownership {
    let mount = showing(root, source, device, "/target");
    alias(recorded).ownership(&mount, known, |_| panic!("a block device needs no id"))
}

#[test]
fn a_mount_without_a_block_device_is_decided_by_the_pin_or_the_file_systems_id_too() {
    let flocker = mounted("pool/1", "0:52", "/flocker/1");
    let bind = |id| Origin::of(&flocker, Path::new("/unused"), move |_| id);
    let (nothing, target) = (NOTHING, mounted("pool/1", "0:52", "/target"));
    let of_version_2 = Origin::Bind {
        device: MEMORY,
        root: "/".into(),
        flocker: "/flocker/1".into(),
        fs_type: None,
        fs_id: None,
    };
    let mut other_type = target.clone();
    other_type.fs_type = "tmpfs".to_owned();
    let part = showing("/sub", "pool/1", "0:52", "/target");
    let other = mounted("pool/2", "0:53", "/target");
    for (what, origin, mount, known, found, expected) in [
        ("its id", bind(Some(7)), &target, nothing, Some(7), Ours),
        (
            "its number reused",
            bind(Some(7)),
            &target,
            nothing,
            Some(8),
            Foreign,
        ),
        ("covered", bind(Some(7)), &target, nothing, None, InUse),
        ("without an id", bind(None), &target, nothing, Some(8), InUse),
        (
            "without an id, pinned",
            bind(None),
            &target,
            pinned(MEMORY),
            None,
            Ours,
        ),
        ("pinned", bind(Some(7)), &target, pinned(MEMORY), None, Ours),
        (
            "another one pinned",
            bind(Some(7)),
            &target,
            pinned(DISK),
            Some(8),
            Foreign,
        ),
        ("a directory", bind(Some(7)), &part, nothing, Some(7), InUse),
        (
            "a directory of a reused number",
            bind(Some(7)),
            &part,
            nothing,
            Some(8),
            Foreign,
        ),
        (
            "another type",
            bind(Some(7)),
            &other_type,
            pinned(MEMORY),
            Some(7),
            Foreign,
        ),
        (
            "another device",
            bind(Some(7)),
            &other,
            pinned(MEMORY),
            Some(7),
            Foreign,
        ),
        (
            "Flocker's",
            bind(Some(7)),
            &flocker,
            pinned(MEMORY),
            Some(7),
            Foreign,
        ),
        (
            "of version 2",
            of_version_2.clone(),
            &target,
            nothing,
            Some(7),
            InUse,
        ),
        (
            "of version 2, pinned",
            of_version_2,
            &target,
            pinned(MEMORY),
            None,
            Ours,
        ),
    ] {
        assert_eq!(origin.ownership(mount, known, |_| found), expected, "{what}");
    }
}

#[test]
fn an_origin_survives_serialisation() {
    for origin in [
        alias(Some(DISK)),
        alias(None),
        Origin::of(
            &mounted("pool/1", "0:52", "/flocker/1"),
            Path::new("/unused"),
            |_| Some(u64::MAX),
        ),
    ] {
        let text = serde_json::to_string(&origin).unwrap();
        assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin);
    }
}

#[test]
fn an_origin_of_version_2_is_read() {
    let text = r#"{"alias":{"node":"/dev/flocker-csi/1"}}"#;
    assert_eq!(serde_json::from_str::<Origin>(text).unwrap(), alias(None));
    let text = r#"{"bind":{"device":{"major":0,"minor":52},"root":"/","flocker":"/flocker/1"}}"#;
    serde_json::from_str::<Origin>(text).unwrap();
}
