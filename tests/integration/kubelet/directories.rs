//! The directories of the host that a node's pod needs, and the messages when it lacks one.

use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};

use super::scene;
use crate::inputs::{assert_ends, with};
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{CONTAINED, Process, program_under, run_under};

/// A pod with the host's directories: it has its own processes, and mounts propagate in both directions.
const POD: [&str; 7] = [
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--mount",
    "--propagation=unchanged",
];

fn tmpfs_alone(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount("tmpfs", path, "tmpfs", MountFlags::empty(), None).unwrap();
    mount_change(path, MountPropagationFlags::PRIVATE).unwrap();
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Checks that the plugin does not start and prints these parts, and returns once it has ended.
async fn refuses(machine: &Machine, replaced: &[&str], parts: &[&str]) {
    assert_ends(&with(&machine.flags(), replaced), 2, parts).await;
    assert!(!machine.path("csi.sock").exists());
}

#[test]
fn a_pod_without_a_directory_of_the_hosts_says_which_at_start() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let missing = machine.path("missing/plugins_registry");
        let parent = machine.path("missing").display().to_string();
        refuses(
            &machine,
            &[&flag("kubelet-registration-dir", &missing)],
            &[
                "kubelet_registration_dir",
                "does not exist",
                &*parent,
                "hostPath",
                "Bidirectional",
            ],
        )
        .await;

        let missing = machine.path("unknown-flocker");
        let path = missing.display().to_string();
        refuses(
            &machine,
            &[&kubelet.flag(), &flag("mount-root", &missing)],
            &[
                "the mount_root",
                "does not exist",
                &*path,
                "hostPath",
                "HostToContainer",
            ],
        )
        .await;

        let unwritable = machine.path("unwritable");
        tmpfs_alone(&unwritable);
        mount_remount(&unwritable, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        for path in [unwritable.clone(), unwritable.join("below")] {
            let state_dir = flag("state-dir", &path);
            let parts = ["the state_dir", "cannot be written", "DirectoryOrCreate"];
            refuses(&machine, &[&kubelet.flag(), &state_dir], &parts).await;
        }
    });
}

#[test]
fn a_pod_whose_mounts_do_not_propagate_says_which_at_start() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let alone = machine.path("alone");
        tmpfs_alone(&alone);
        fs::create_dir(alone.join("plugins_registry")).unwrap();
        let registry = flag("kubelet-registration-dir", &alone.join("plugins_registry"));
        let path = alone.display().to_string();
        refuses(
            &machine,
            &[&registry],
            &[
                "visible to no pod",
                &*path,
                "is not shared with the host",
                "mountPropagation: Bidirectional",
            ],
        )
        .await;
        refuses(
            &machine,
            &[&kubelet.flag(), &flag("mount-root", &alone)],
            &[
                "not be visible to the plugin",
                &*path,
                "receives no mounts from the host",
                "HostToContainer",
            ],
        )
        .await;
        // Without a kubelet to register with, it may get its mounts later.
        let (flags, mount_root) = (machine.flags(), flag("mount-root", &alone));
        let plugin = Process::start(with(&flags, &[&mount_root]), &machine.path("plugin.log")).await;
        plugin.kill().await;
    });
}

#[test]
fn a_pod_that_would_keep_things_in_its_own_file_system_says_so_at_start() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        // Nothing is mounted there, so the directory is part of `/`: the container's own.
        let own = tempfile::tempdir().unwrap();
        let places = ["kubelet/plugins_registry", "flocker", "state"].map(|name| own.path().join(name));
        for place in &places {
            fs::create_dir_all(place).unwrap();
        }
        let replaced = [
            flag("kubelet-registration-dir", &places[0]),
            flag("mount-root", &places[1]),
            flag("state-dir", &places[2]),
        ];
        let (flags, replaced) = (machine.flags(), replaced.each_ref().map(String::as_str));
        let (status, said) = run_under(&CONTAINED, &with(&flags, &replaced)).await;
        assert_eq!(status.code(), Some(2), "{said}");
        assert_eq!(said.matches("the container's own").count(), 3, "{said}");
        for part in [
            "the mount_root",
            "the state_dir",
            "Bidirectional",
            "HostToContainer",
        ] {
            assert!(said.contains(part), "{part:?} in {said:?}");
        }
    });
}

#[test]
fn a_pod_with_the_hosts_directories_serves_volumes_that_the_host_sees() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        // Flocker's mounts need only propagate into the pod.
        let mount_root = machine.config.node.mount_root.clone();
        mount_bind(&mount_root, &mount_root).unwrap();
        let flags = machine.flags();
        let registers = kubelet.flag();
        let script = "mount --make-slave \"$0\" && exec \"$@\"";
        let mount_root = mount_root.display().to_string();
        let command = [&POD[..], &["sh", "-c", script, &mount_root]].concat();
        let program = program_under(&command, &with(&flags, &[&registers]));
        let started = Process::attempt(program, &machine.path("plugin.log")).await;
        let plugin = started.unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(kubelet.registers().await, machine.node().to_string());

        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        plugin.kill().await;
    });
}
