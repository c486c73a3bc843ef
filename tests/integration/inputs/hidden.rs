//! A plugin whose mounts no other process sees.

use std::fs;
use std::time::Duration;

use tonic::Code;

use crate::inputs::with;
use crate::support::csi::within;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program_under};

/// What the tests otherwise accept, because each has a mount namespace of its own.
const VERIFY: &str = "--accept-unverified-propagation=false";

#[test]
fn a_target_on_a_private_mount_is_refused_with_the_remedy() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let flags = machine.flags();
        // As in a container that receives the host's mounts but propagates none.
        let arguments = ["serve"].into_iter().chain(flags.iter().map(String::as_str));
        let plugin = Process::start_contained(arguments.collect(), &machine.path("plugin.log")).await;
        plugin
            .logged("No mount of this process is shared with the host")
            .await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        assert_eq!(
            Mounts::read().below(&usage.staging),
            [],
            "what it mounts is its own"
        );
        let refused = plugin.csi.publish(&usage).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
        let target = usage.target.display().to_string();
        for part in [
            &*target,
            "visible to the plugin alone",
            "Bidirectional",
            "--make-rshared",
        ] {
            assert!(refused.message().contains(part), "{}", refused.message());
        }
        assert!(!usage.target.exists());
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        plugin.kill().await;
    });
}

/// Starts a plugin as a command runs it, with the settings of a machine but for some.
async fn start_under(command: &[&str], machine: &Machine, replaced: &[&str]) -> Process {
    let flags = machine.flags();
    let program = program_under(command, &with(&flags, replaced));
    let started = Process::attempt(program, &machine.path("plugin.log")).await;
    started.unwrap_or_else(|said| panic!("{said}"))
}

#[test]
fn a_target_that_is_shared_only_inside_the_plugins_namespace_is_refused() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // As systemd does for a unit with PrivateTmp= and the like.
        let script = "mount --make-rshared / && exec \"$@\"";
        let private_tmp = [
            "unshare",
            "--mount",
            "--propagation=slave",
            "sh",
            "-c",
            script,
            "sh",
        ];
        let plugin = start_under(&private_tmp, &machine, &[VERIFY]).await;
        assert!(
            plugin
                .log()
                .contains("No mount of this process is shared with the host"),
            "{}",
            plugin.log()
        );
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        for _repeated in 0..2 {
            let refused = plugin.csi.publish(&usage).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{}", refused.message());
            let target = usage.target.display().to_string();
            for part in [&*target, "not be visible to the host", "process 1", "PrivateTmp="] {
                assert!(refused.message().contains(part), "{}", refused.message());
            }
            assert!(!usage.target.exists());
        }
        plugin.kill().await;

        // Where the operator knows better, and says so.
        let plugin = start_under(&private_tmp, &machine, &[]).await;
        assert!(
            plugin.log().contains("accept_unverified_propagation is set"),
            "{}",
            plugin.log()
        );
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

#[test]
fn a_staging_that_waits_for_a_mount_that_the_namespace_does_not_receive_says_so() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // As Mesos runs a plugin on a host whose mounts are private.
        let copy = ["unshare", "--mount", "--propagation=private"];
        let plugin = start_under(&copy, &machine, &[]).await;
        let mount_root = machine.config.node.mount_root.display().to_string();
        for part in [
            "receives no mounts from the host",
            "mount --make-rshared /",
            &*mount_root,
        ] {
            assert!(plugin.log().contains(part), "{}", plugin.log());
        }
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        flocker.reports(1, volume).await;
        let usage = machine.usage("data", volume, &context);
        let request = within(Duration::from_secs(3), usage.to_stage());
        let waited = plugin.csi.node().node_stage_volume(request).await.unwrap_err();
        assert_eq!(waited.code(), Code::DeadlineExceeded, "{}", waited.message());
        let said = format!(
            "Flocker says it is mounted at {mount_root}/{volume}; this mount namespace does not receive it: mount \
             --make-rshared /"
        );
        assert!(waited.message().contains(&said), "{}", waited.message());
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
        // In the host's namespace it was there all the time.
        let plugin = machine.process(&[]).await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}
