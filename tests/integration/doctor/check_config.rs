//! `--check-config` in both depths.

use std::fs;

use super::machine::run;
use super::replaced;
use crate::admin::{Ended, end};
use crate::node::Fixture;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;

/// Checks the settings of a machine, with some replaced.
async fn check(machine: &Machine, depth: &str, more: &[&str]) -> Ended {
    let flags = replaced(&machine.flags(), more);
    let arguments: Vec<_> = ["serve", depth]
        .into_iter()
        .chain(more.iter().copied())
        .chain(flags.iter().map(String::as_str))
        .collect();
    end(program(&arguments)).await
}

const SHALLOW: &str = "--check-config";
const DEEP: &str = "--check-config=deep";

/// Asserts that both depths refuse settings, with these words.
async fn assert_refused(machine: &Machine, more: &[&str], words: &[&str]) {
    let shallow = check(machine, SHALLOW, more).await;
    shallow.assert_code(2).assert_said(words);
    let deep = check(machine, DEEP, more).await;
    deep.assert_code(2);
    for word in words {
        assert!(deep.text.contains(word), "{word:?} in {deep:?}");
    }
}

/// Asserts that both depths warn of settings, with these words.
async fn assert_warned(machine: &Machine, more: &[&str], words: &[&str]) {
    let shallow = check(machine, SHALLOW, more).await;
    shallow.assert_code(0).assert_said(&["WARN"]).assert_said(words);
    assert!(
        shallow.text.starts_with("the configuration is valid\n"),
        "{shallow:?}"
    );
    let deep = check(machine, DEEP, more).await;
    deep.assert_code(3);
    for word in words {
        assert!(deep.text.contains(word), "{word:?} in {deep:?}");
    }
}

#[test]
fn valid_settings_are_accepted_and_the_shallow_check_says_what_it_leaves_out() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let shallow = check(&machine, SHALLOW, &[]).await;
        shallow.assert_code(0);
        assert_eq!(shallow.said, "");
        let lines: Vec<_> = shallow.text.lines().collect();
        assert_eq!(lines[0], "the configuration is valid");
        assert!(
            lines[1].contains("not checked: Flocker") && lines[1].contains(DEEP),
            "{lines:?}"
        );
        let deep = check(&machine, DEEP, &[]).await;
        deep.assert_code(0);
        assert!(deep.text.contains("nothing listens on"), "{deep:?}");
        assert!(!machine.config.node.state_dir.exists(), "nothing is changed");
        flocker.stop().await;
        check(&machine, SHALLOW, &[]).await.assert_code(0);
        let deep = check(&machine, DEEP, &[]).await;
        deep.assert_code(1);
        assert!(deep.text.contains("nothing listens at the port"), "{deep:?}");
        let standalone = ["standalone", "--data-dir=/nowhere", DEEP];
        end(program(&standalone))
            .await
            .assert_code(2)
            .assert_said(&["is for serve"]);
    });
}

#[test]
fn what_is_wrong_or_doubtful_is_reported_at_both_depths() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let path = |name: &str| machine.path(name).display().to_string();
        fs::write(path("file"), "").unwrap();
        assert_refused(
            &machine,
            &[&format!("--state-dir={}", path("file"))],
            &["is a file", "another state_dir"],
        )
        .await;
        assert_refused(
            &machine,
            &["--state-dir=/proc/flocker-csi"],
            &["/proc/flocker-csi", "file system of the kernel"],
        )
        .await;
        fs::create_dir(path("nodev")).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "nodev,mode=0700", "nodev", &path("nodev")],
        );
        assert_refused(
            &machine,
            &[&format!("--device-dir={}/devices", path("nodev"))],
            &["nodev", "remount,dev"],
        )
        .await;
        run("umount", &[&path("nodev")]);
        assert_refused(
            &machine,
            &["--kubelet-endpoint=/k/csi.sock"],
            &["kubelet_registration_dir"],
        )
        .await;

        assert_warned(
            &machine,
            &["--state-dir=state"],
            &["state_dir \"state\" is relative"],
        )
        .await;
        assert_warned(
            &machine,
            &["--mount-root=/nowhere"],
            &["mount_root /nowhere does not exist"],
        )
        .await;
        assert_warned(&machine, &["--takeover-grace=59s"], &["takeover_grace is 59 s"]).await;
        assert_warned(
            &machine,
            &[
                "--pool=capacity=1TiB,profile=gold",
                "--pool=capacity=2TiB,profile=gold",
            ],
            &["two pools of the profile \"gold\""],
        )
        .await;
        assert_warned(
            &machine,
            &["--log=info,flocker_csi::nodes=debug"],
            &["flocker_csi::nodes", "did you mean \"node\""],
        )
        .await;
        assert_warned(
            &machine,
            &["--mode=node", "--list-scope=node"],
            &["list_scope has no effect with mode = node"],
        )
        .await;
        assert_warned(
            &machine,
            &["--mode=controller", "--abandoned-grace=5m"],
            &["abandoned_grace has no effect"],
        )
        .await;
        assert_warned(
            &machine,
            &["--allow-unauthenticated-tcp"],
            &["allow_unauthenticated_tcp has no effect"],
        )
        .await;
    });
}

#[test]
fn the_deep_check_runs_beside_a_plugin_that_serves() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let deep = check(&fixture.machine, DEEP, &[]).await;
        deep.assert_code(0);
        assert!(deep.text.contains("answers on"), "{deep:?}");
    });
}
