use std::process::{Child, Command, Stdio};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use super::super::testing::{LoopDevice, PeerNamespace, bind, in_own_namespace, run, tmpfs};
use super::*;

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

/// The name of a device's node; no other test binds one of that name.
fn node_name(device: &LoopDevice) -> OsString {
    let mut name = OsString::from("the-volume-on-");
    name.push(device.path.file_name().unwrap());
    name
}

/// The file system of a device whose mounts at these paths are no use.
fn subject(device: &LoopDevice, known: &[&Path]) -> FileSystemUse {
    let table = MountTable::read().unwrap();
    let is_known = |mount: &&Mount| known.contains(&mount.point.as_path());
    FileSystemUse {
        device: Some(device.device),
        node_name: node_name(device),
        known: table
            .mounts()
            .iter()
            .filter(is_known)
            .map(|mount| mount.id)
            .collect(),
        ..FileSystemUse::default()
    }
}

fn use_of(device: &LoopDevice, known: &[&Path]) -> Option<String> {
    UseSearch::default().find(&subject(device, known))
}

/// Checks that nothing uses it. A process that another test is about to start has the files of this one for a moment.
fn assert_unused(device: &LoopDevice, known: &[&Path]) {
    let mut last = None;
    for _ in 0..200 {
        last = use_of(device, known);
        if last.is_none() {
            return;
        }
    }
    panic!("{last:?}");
}

/// Checks that a use is found whose description has all these parts. A process of another test that looks at all devices
/// uses this one for a moment.
#[track_caller]
fn assert_used(device: &LoopDevice, known: &[&Path], parts: &[&str]) {
    let mut last = None;
    for _ in 0..200 {
        last = use_of(device, known);
        if last
            .as_ref()
            .is_some_and(|found| parts.iter().all(|part| found.contains(part)))
        {
            return;
        }
    }
    panic!("{parts:?} in {last:?}");
}

fn share_all() {
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
}

#[test]
fn a_mount_that_is_not_known_is_a_use() {
    in_own_namespace(|scratch| {
        let (device, one, two) = (LoopDevice::new(), scratch.join("one"), scratch.join("two"));
        device.mount(&one);
        assert_unused(&device, &[&one]);
        bind(&one, &two);
        assert_used(&device, &[&one], &[two.to_str().unwrap()]);
        assert_unused(&device, &[&one, &two]);
    });
}

/// Also of another device: the number of the device that was looked for may be wrong or unknown.
#[test]
fn a_mount_of_the_name_or_at_a_path_is_a_use_where_that_is_wanted() {
    in_own_namespace(|scratch| {
        let name = "the-volume-by-its-name";
        let (named, below) = (scratch.join(name), scratch.join("staging"));
        let search = |subject: FileSystemUse| UseSearch::default().find(&subject);
        let by_name = || FileSystemUse {
            node_name: name.into(),
            by_name: true,
            ..FileSystemUse::default()
        };
        let at_path = || FileSystemUse {
            node_name: name.into(),
            paths: vec![below.clone()],
            ..FileSystemUse::default()
        };
        assert_eq!((search(by_name()), search(at_path())), (None, None));
        tmpfs(&named);
        assert!(search(by_name()).unwrap().contains(name));
        assert_eq!(
            search(at_path()),
            None,
            "its name counts only where that is wanted"
        );
        let other = PeerNamespace::with("private");
        crate::mount::testing::unmount(&named);
        assert!(search(by_name()).unwrap().contains(name), "in another namespace");
        drop(other);

        fs::create_dir(&below).unwrap();
        tmpfs(&below.join("deeper"));
        assert!(search(at_path()).unwrap().contains("deeper"));
        assert_eq!(search(by_name()), None);
    });
}

#[test]
fn a_copy_in_another_namespace_is_a_use_unless_it_is_unmounted_with_the_known_mount() {
    in_own_namespace(|scratch| {
        share_all();
        let (device, point) = (LoopDevice::new(), scratch.join("one"));
        device.mount(&point);
        for (propagation, is_used) in [("unchanged", false), ("slave", false), ("private", true)] {
            let other = PeerNamespace::with(propagation);
            assert!(other.table().by_device(device.device).next().is_some());
            if is_used {
                assert_used(&device, &[&point], &["one"]);
            } else {
                assert_unused(&device, &[&point]);
            }
        }
    });
}

#[test]
fn a_mount_that_exists_in_another_namespace_only_is_a_use() {
    in_own_namespace(|scratch| {
        let (device, point) = (LoopDevice::new(), scratch.join("one"));
        device.mount(&point);
        let other = PeerNamespace::new();
        crate::mount::testing::unmount(&point);
        assert!(other.table().by_device(device.device).next().is_some());
        assert_used(&device, &[], &["one"]);
    });
}

#[test]
fn a_file_or_the_device_that_a_process_has_open_is_a_use_also_without_a_mount() {
    in_own_namespace(|scratch| {
        let (device, point) = (LoopDevice::new(), scratch.join("one"));
        device.mount(&point);
        fs::write(point.join("file"), "text").unwrap();
        let open = |path: &Path| Stdio::from(fs::File::open(path).unwrap());
        let inside = Running::start(sleep().current_dir(&point));
        assert_used(&device, &[&point], &["its working directory"]);
        drop(inside);
        let reader = Running::start(sleep().stdin(open(&point.join("file"))));
        // Detached, the mount is in no table.
        unmount(&point, UnmountFlags::DETACH).unwrap();
        assert_used(&device, &[], &["(sleep) has", "open"]);
        drop(reader);
        let raw = Running::start(sleep().stdin(open(&device.path)));
        assert_used(&device, &[], &[device.path.to_str().unwrap()]);
        drop(raw);
        assert_unused(&device, &[]);
    });
}

#[test]
fn a_device_node_that_is_bound_is_a_use() {
    in_own_namespace(|scratch| {
        let (device, nodes, target) = (LoopDevice::new(), scratch.join("nodes"), scratch.join("target"));
        tmpfs(&nodes);
        let node = nodes.join(node_name(&device));
        run(
            "cp",
            &["--archive", device.path.to_str().unwrap(), node.to_str().unwrap()],
        );
        assert_unused(&device, &[]);
        fs::write(&target, "").unwrap();
        mount_bind(&node, &target).unwrap();
        assert_used(&device, &[], &[target.to_str().unwrap()]);
    });
}

#[test]
fn a_search_that_has_not_ended_counts_as_a_use() {
    in_own_namespace(|_| {
        let search = UseSearch::default();
        search.searching.store(true, Ordering::SeqCst);
        let subject = FileSystemUse {
            device: Some(Device { major: 7, minor: 0 }),
            node_name: "the-volume".into(),
            ..FileSystemUse::default()
        };
        let found = search.find(&subject).unwrap();
        assert!(found.contains("earlier search"), "{found}");
    });
}
