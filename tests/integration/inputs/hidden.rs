//! A plugin whose mounts no other process sees.

use std::fs;

use tonic::Code;

use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

#[test]
fn a_target_on_a_private_mount_is_refused_with_the_remedy() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let flags = machine.flags();
        // As in a container that receives the host's mounts but propagates none.
        let arguments = ["serve"].into_iter().chain(flags.iter().map(String::as_str));
        let plugin = Process::start_contained(arguments.collect(), &machine.path("plugin.log")).await;
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
