//! The capabilities that the plugin needs from the kernel.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program_under, run_under};

/// Each capability that a node needs: as setpriv writes it, as the message names it, and a word of its purpose.
const NEEDED: [(&str, &str, &str); 3] = [
    ("sys_admin", "CAP_SYS_ADMIN", "mount volumes"),
    ("mknod", "CAP_MKNOD", "device nodes"),
    ("dac_override", "CAP_DAC_OVERRIDE", "directories of other users"),
];

/// A user other than the one that runs the tests.
const OTHER_USER: u32 = 1000;

fn serve(machine: &Machine) -> Vec<String> {
    [vec!["serve".to_owned()], machine.flags()].concat()
}

/// Starts the plugin with the capabilities of a bounding set, as setpriv writes it.
async fn start(machine: &Machine, set: &str, more: &[&str]) -> Process {
    let flags = serve(machine);
    let arguments: Vec<_> = flags
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    let program = program_under(&["setpriv", &format!("--bounding-set={set}")], &arguments);
    let started = Process::attempt(program, &machine.path("plugin.log")).await;
    started.unwrap_or_else(|said| panic!("{said}"))
}

fn give_to_user(path: &Path) {
    chown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_node_without_a_capability_it_needs_says_so_and_does_not_start() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let flags = serve(&machine);
        for mode in ["--mode=node", "--mode=all"] {
            let arguments: Vec<_> = flags.iter().map(String::as_str).chain([mode]).collect();
            for (name, capability, purpose) in NEEDED {
                let set = format!("--bounding-set=-{name}");
                let (status, said) = run_under(&["setpriv", &set], &arguments).await;
                assert_eq!(status.code(), Some(2), "{said}");
                for part in [
                    capability,
                    purpose,
                    "as root",
                    "securityContext",
                    "CapabilityBoundingSet",
                ] {
                    assert!(said.contains(part), "{part:?} in {said:?}");
                }
                let others = NEEDED.iter().filter(|(other, ..)| *other != name);
                for (_, other, _) in others {
                    assert!(!said.contains(other), "{other} is named: {said:?}");
                }
            }
        }
        let (status, said) = run_under(
            &["setpriv", "--bounding-set=-all"],
            &flags.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
        assert_eq!(status.code(), Some(2));
        for (_, capability, _) in NEEDED {
            assert!(said.contains(capability), "all at once: {said:?}");
        }
        assert!(!machine.path("csi.sock").exists());
    });
}

#[test]
fn the_capabilities_a_node_needs_are_enough_for_the_whole_life_of_a_volume() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let set = NEEDED.map(|(name, ..)| format!("+{name}")).join(",");
        let set = format!("-all,{set}");
        let plugin = start(&machine, &set, &[]).await;
        plugin
            .logged("CAP_SYS_PTRACE, which is required to name the processes")
            .await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        for directory in [&machine.path("staging"), &usage.staging, &machine.path("targets")] {
            give_to_user(directory);
        }
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        give_to_user(&usage.target);
        fs::write(usage.target.join("file"), "data").unwrap();
        plugin.kill().await;

        let plugin = start(&machine, &set, &[]).await;
        plugin.csi.publish(&usage).await.unwrap();
        let stats = plugin.csi.stats(&usage).await.unwrap();
        assert!(!stats.volume_condition.unwrap().abnormal);
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert!(!usage.target.exists());
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        plugin.csi.detach(volume, machine.node()).await;
        plugin.csi.delete(volume).await.unwrap();
        plugin.kill().await;
    });
}

#[test]
fn a_controller_needs_no_capability() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = start(&machine, "-all", &["--mode=controller"]).await;
        let volume = plugin.csi.create("data").await;
        plugin.csi.attach(volume, machine.node()).await;
        assert!(!plugin.log().contains("CAP_"), "{}", plugin.log());
        plugin.kill().await;
    });
}

#[test]
fn the_memory_of_a_plugin_is_in_no_core_and_no_other_process_of_its_user_reads_it() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // The other process has the same user and the same capabilities, which is enough for an ordinary process. The file
        // is one whose check no other capability passes.
        let bounding = "--bounding-set=-sys_ptrace";
        let reads = |id: u32| {
            let path = format!("/proc/{id}/io");
            let output = Command::new("setpriv")
                .args([bounding, "cat", &path])
                .output()
                .unwrap();
            output.status.success()
        };
        let mut ordinary = Command::new("setpriv")
            .args([bounding, "sleep", "600"])
            .spawn()
            .unwrap();
        let executed = async || {
            let name = fs::read_to_string(format!("/proc/{}/comm", ordinary.id())).unwrap();
            (name == "sleep\n").then_some(())
        };
        eventually("it is started", executed).await;
        assert!(reads(ordinary.id()));
        ordinary.kill().unwrap();
        ordinary.wait().unwrap();

        let plugin = start(&machine, "-sys_ptrace", &[]).await;
        assert!(!reads(plugin.id()));
        // What everything else needs of itself is still there.
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}
