//! Mounts, directories and capabilities of this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::Diagnosis;
use super::stand_ins::StandIns;
use crate::node::Fixture;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// Runs a program that has to succeed.
pub(super) fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{program} {arguments:?}: {ended:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn mounts_that_do_not_reach_the_plugin_are_found_and_shared() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let flags = fixture.machine.flags();
        let root = fixture.machine.config.node.mount_root.clone();
        let stand_ins = StandIns::new(fixture.flocker.path());
        // Another namespace is the plugin's, as in a container; that of the test is the host's.
        let contained = ["unshare", "--mount", "--propagation=unchanged"];
        Diagnosis::under(&contained, &flags, &[]).await.assert_content();
        run("mount", &["--bind", text(&root), text(&root)]);
        run("mount", &["--make-private", text(&root)]);
        let private = Diagnosis::under(&contained, &flags, &[]).await;
        private.assert_code(1).assert_check(
            "mount-propagation",
            "error",
            &[text(&root), "receives no mounts from the host"],
        );
        stand_ins.run(&private.command("mount-propagation")).await;
        Diagnosis::under(&contained, &flags, &[]).await.assert_content();
        run("umount", &[text(&root)]);
    });
}

#[test]
fn a_full_state_dir_is_found_by_writing_to_it() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let state = machine.config.node.state_dir.clone();
        fs::create_dir_all(&state).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "size=16m,mode=0700", "state", text(&state)],
        );
        let fixture = Fixture::on(machine, flocker).await;
        let flags = fixture.machine.flags();
        Diagnosis::of(&flags, &[]).await.assert_content();
        let size = |size: &str| run("mount", &["-o", &format!("remount,size={size}"), text(&state)]);
        size("128k");
        let log = state.join("forgotten.log");
        let mut filler = fs::File::create(&log).unwrap();
        let written = std::io::copy(&mut std::io::repeat(0), &mut filler);
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        let full = Diagnosis::of(&flags, &[]).await;
        full.assert_code(1)
            .assert_check(
                "state-dir-writable",
                "error",
                &[text(&state), "No space left on device"],
            )
            .assert_check("disk-space", "skipped", &[]);
        let stand_ins = StandIns::new(fixture.flocker.path());
        let listed = stand_ins.run(&full.command("state-dir-writable")).await;
        // The second last line is the largest file, as the last one is the directory itself.
        let largest = listed.lines().rev().nth(1).unwrap().split('\t').nth(1).unwrap();
        assert_eq!(largest, text(&log), "{listed}");
        drop(filler);
        fs::remove_file(largest).unwrap();
        let small = Diagnosis::of(&flags, &[]).await;
        small
            .assert_code(3)
            .assert_check("disk-space", "warning", &["KiB are free"]);
        size("16m");
        Diagnosis::of(&flags, &[]).await.assert_content();

        // A plugin has files open there.
        fixture.plugin.stop().await;
        run("mount", &["-o", "remount,ro", text(&state)]);
        let read_only = Diagnosis::of(&flags, &[]).await;
        read_only
            .assert_code(1)
            .assert_check("state-dir-writable", "error", &["Read-only file system"]);
        stand_ins.run(&read_only.command("state-dir-writable")).await;
        let writable = Diagnosis::of(&flags, &[]).await;
        assert_eq!((writable.code, writable.names("warning")), (3, vec!["endpoint"]));
        run("umount", &["--lazy", text(&state)]);
    });
}

#[test]
fn a_missing_capability_is_named_with_how_to_grant_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let flags = fixture.machine.flags();
        let without = ["setpriv", "--bounding-set=-sys_admin"];
        let lacks = Diagnosis::under(&without, &flags, &[]).await;
        lacks.assert_code(1).assert_check(
            "capabilities",
            "error",
            &[
                "CAP_SYS_ADMIN",
                "mount volumes",
                "--cap-add=SYS_ADMIN",
                "CapabilityBoundingSet=",
            ],
        );
        assert_eq!(lacks.names("error"), ["capabilities"]);
        let useful = ["setpriv", "--bounding-set=-sys_ptrace"];
        let lacks = Diagnosis::under(&useful, &flags, &[]).await;
        lacks
            .assert_code(3)
            .assert_check("capabilities", "warning", &["CAP_SYS_PTRACE"]);
        // As root, with all that the message names.
        let with = ["setpriv", "--bounding-set=+sys_admin"];
        Diagnosis::under(&with, &flags, &[]).await.assert_content();
    });
}

#[test]
fn a_plugin_that_hangs_a_record_that_is_damaged_and_a_file_in_the_way_are_found() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let flags = machine.flags();
        let plugin = machine.process(&[]).await;
        Diagnosis::of(&flags, &[]).await.assert_content();
        let process = Pid::from_raw(plugin.id().cast_signed()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        let hangs = Diagnosis::of(&flags, &[]).await;
        let named = format!("process {} (flocker-csi) has not answered", plugin.id());
        hangs.assert_code(1).assert_check("endpoint", "error", &[&named]);
        kill_process(process, Signal::CONT).unwrap();
        Diagnosis::of(&flags, &[]).await.assert_content();
        plugin.terminate().await;

        let stages = machine.config.node.state_dir.join("stages");
        let record = stages.join("damaged.json");
        fs::write(&record, "{").unwrap();
        let damaged = Diagnosis::of(&flags, &[]).await;
        damaged
            .assert_code(1)
            .assert_check("records", "error", &[text(&record)]);
        fs::remove_file(&record).unwrap();
        fs::write(machine.path("csi.sock"), "").unwrap();
        let in_the_way = Diagnosis::of(&flags, &[]).await;
        in_the_way
            .assert_code(1)
            .assert_check("endpoint", "error", &["csi.sock is no socket"]);

        // The settings of the plugin are read from its file.
        fs::remove_file(machine.path("csi.sock")).unwrap();
        let file = machine.path("plugin.toml");
        let lines = flags.iter().map(|flag| {
            let (key, value) = flag.trim_start_matches("--").split_once('=').unwrap();
            let value = if value == "true" {
                value.to_owned()
            } else {
                format!("{value:?}")
            };
            format!("{} = {value}\n", key.replace('-', "_"))
        });
        fs::write(
            &file,
            lines.collect::<String>() + "metrics_address = \"127.0.0.1:0\"\n",
        )
        .unwrap();
        let from_file = Diagnosis::of(&[format!("--config={}", file.display())], &[]).await;
        assert_eq!(
            (from_file.code, from_file.names("warning")),
            (3, vec!["endpoint"])
        );
    });
}
