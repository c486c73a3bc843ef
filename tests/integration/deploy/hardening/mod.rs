//! The restrictions of the shipped units: how systemd rates them, and that the plugin works under them.
//!
//! systemd itself does not run here. From each unit's own values, these are emulated by what systemd uses for them: the
//! capability bounding set, `NoNewPrivileges=`, `UMask=`, `LimitCORE=`; a seccomp filter for `SystemCallFilter=` (with the
//! groups of the installed systemd), `RestrictAddressFamilies=`, `RestrictNamespaces=`, `RestrictRealtime=`,
//! `LockPersonality=` and `MemoryDenyWriteExecute=`; a BPF program on a control group for `DevicePolicy=` and
//! `DeviceAllow=`. Not emulated are `KeyringMode=`, `SystemCallArchitectures=`, `OOMScoreAdjust=` and the runtime directory.

mod devices;
mod filter;
mod restrictions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use devices::DevicePolicy;
use restrictions::Restrictions;

use super::report::Report;
use super::systemd::Unit;
use super::tree::repository;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program_under};

/// The highest exposure that is accepted, of systemd's 10.
const HIGHEST: f64 = 5.5;

/// Returns every unit below `deploy/`.
fn units() -> Vec<PathBuf> {
    let mut units = Vec::new();
    let mut directories = vec![repository().join("deploy")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "service") {
                units.push(path);
            }
        }
    }
    assert!(!units.is_empty());
    units
}

fn unit(path: &Path) -> Unit {
    let mut report = Report::of(&path.display().to_string());
    Unit::read(&mut report, &fs::read_to_string(path).unwrap())
}

/// Runs systemd-analyze, and returns all that it prints.
fn systemd_analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("systemd-analyze is installed: make setup");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn every_unit_is_as_hardened_as_mounting_allows() {
    for path in units() {
        let path = path.to_str().unwrap();
        let rated = systemd_analyze(&[
            "security",
            "--offline=true",
            "--no-pager",
            "--threshold=100",
            path,
        ]);
        let overall = rated.lines().find(|line| line.contains("Overall exposure level"));
        let overall = overall.unwrap_or_else(|| panic!("{rated}"));
        let exposure: f64 = overall
            .rsplit(": ")
            .next()
            .and_then(|rest| rest.split(' ').next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{overall}"));
        assert!(exposure <= HIGHEST, "{path}: {overall}\n{rated}");
    }
}

#[test]
fn systemd_understands_every_line_of_every_unit() {
    for path in units() {
        let text = fs::read_to_string(&path).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join(path.file_name().unwrap());
        // The program need not be installed here.
        fs::write(&copy, text.replace("/usr/local/bin/flocker-csi", "/bin/true")).unwrap();
        let said = systemd_analyze(&["verify", "--man=no", copy.to_str().unwrap()]);
        assert_eq!(said, "", "{}", path.display());
    }
}

/// Runs a shell command under the restrictions, and returns whether it succeeds.
fn succeeds(restrictions: &Restrictions, devices: &DevicePolicy, script: &str) -> bool {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true);
    restrictions.apply(&mut shell, devices);
    let output = shell.as_std_mut().output().unwrap();
    output.status.success()
}

#[test]
fn a_volume_lives_its_whole_life_under_the_restrictions_of_every_unit() {
    for path in units() {
        in_own_namespace(move || async move {
            let unit = unit(&path);
            let restrictions = Restrictions::of(&unit);
            let devices = DevicePolicy::of(&unit);
            let flocker = Flocker::start(1).await;
            let machine = Machine::new(&flocker, 1);

            // They are in force.
            let node = machine.path("node").display().to_string();
            for (script, allowed) in [
                ("true", true),
                ("unshare --mount true", false),
                ("test \"$(umask)\" = 0077", true),
                ("test \"$(ulimit -c)\" = 0", true),
                ("grep -q '^NoNewPrivs:.*1' /proc/self/status", true),
                ("setpriv --reuid=1000 true", false),
                ("chroot / true", false),
                (&format!("mknod {node}-char c 1 1"), false),
                (&format!("mknod {node}-block b 7 250"), true),
            ] {
                assert_eq!(succeeds(&restrictions, &devices, script), allowed, "{script}");
            }

            let flags = machine.flags();
            let flags: Vec<_> = ["serve"]
                .into_iter()
                .chain(flags.iter().map(String::as_str))
                .collect();
            let start = async || {
                let mut program = program_under(&["env"], &flags);
                restrictions.apply(&mut program, &devices);
                let started = Process::attempt(program, &machine.path("plugin.log")).await;
                started.unwrap_or_else(|said| panic!("{said}"))
            };
            let plugin = start().await;
            assert!(
                !plugin.log().contains("WARN the plugin lacks"),
                "{}",
                plugin.log()
            );
            let volume = plugin.csi.create("data").await;
            let context = plugin.csi.attach(volume, machine.node()).await;
            let usage = machine.usage("data", volume, &context);
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            only_mount_at(&usage.target);
            fs::write(usage.target.join("file"), "data").unwrap();
            plugin.terminate().await;

            let plugin = start().await;
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            assert!(
                !plugin
                    .csi
                    .stats(&usage)
                    .await
                    .unwrap()
                    .volume_condition
                    .unwrap()
                    .abnormal
            );
            // The process that keeps a volume busy is named, for which other processes are read.
            let mut user = Command::new("sleep")
                .arg("600")
                .current_dir(&usage.target)
                .spawn()
                .unwrap();
            let busy = plugin.csi.unpublish(&usage).await.unwrap_err();
            user.kill().unwrap();
            user.wait().unwrap();
            assert!(busy.message().contains("sleep"), "{}", busy.message());
            plugin.csi.unpublish(&usage).await.unwrap();
            plugin.csi.unstage(&usage).await.unwrap();
            plugin.csi.detach(volume, machine.node()).await;
            plugin.csi.delete(volume).await.unwrap();
            assert!(machine.devices().is_empty());
            plugin.terminate().await;
        });
    }
}
