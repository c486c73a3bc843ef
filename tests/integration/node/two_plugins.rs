//! Two plugins on one node, and one plugin that comes back as another node.

use std::collections::HashMap;

use flocker_csi::config::Endpoint;
use tonic::Code;

use super::{Fixture, agent_unmounts, assert_refused, wait_until_agent_unmounts};
use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// A second plugin of the same node: its own socket and state directory, and another name for its directories.
fn second_of(flocker: &Flocker) -> Machine {
    let mut machine = Machine::new(flocker, 1);
    machine.config.plugin.endpoint = Endpoint::Unix(machine.path("second.sock"));
    machine.config.node.state_dir = machine.path("second-state");
    machine
}

#[test]
fn a_plugin_is_refused_the_device_directory_of_another_and_names_both_settings() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let first = Machine::new(&flocker, 1).process(&[]).await;
        let machine = second_of(&flocker);
        let second = machine.plugin().await;
        let volume = second.csi.create("data").await;
        let context = second.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        let holder = format!("process {}", first.id());
        let directory = machine.config.plugin.device_dir.display().to_string();
        let parts = [holder.as_str(), &directory, "state_dir", "device_dir"];
        assert_refused(second.csi.stage(&usage).await, Code::Unavailable, &parts);
        assert_refused(second.csi.unstage(&usage).await, Code::Unavailable, &parts);
        // It takes over as soon as the other one is gone, without a restart.
        first.kill().await;
        second.csi.stage(&usage).await.unwrap();
        second.csi.unstage(&usage).await.unwrap();
        second.stop().await;
        assert!(
            !machine.config.plugin.device_dir.exists(),
            "an empty device directory is removed when the plugin stops"
        );
    });
}

#[test]
fn two_plugins_with_directories_of_their_own_each_unstage_what_they_staged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let mut machine = second_of(&fixture.flocker);
        machine.config.plugin.device_dir = machine.path("second-devices");
        let second = machine.plugin().await;
        let usage = fixture.staged("data").await;
        let others = Usage {
            staging: machine.usage("others", nil(), &HashMap::new()).staging,
            ..usage.clone()
        };
        second.csi.stage(&others).await.unwrap();
        only_mount_at(&usage.alias());
        only_mount_at(&others.alias());

        // What the first process held goes with its own last use; the second one still holds the volume.
        fixture.csi().unstage(&usage).await.unwrap();
        assert!(fixture.machine.devices().is_empty() && fixture.machine.records().is_empty());
        only_mount_at(&others.alias());
        let flockers = fixture.machine.config.node.mount_root.join(&usage.volume_id);
        agent_unmounts(&flockers).unwrap_err();
        second.csi.unstage(&others).await.unwrap();
        assert!(machine.devices().is_empty());
        // Neither holds it any more.
        wait_until_agent_unmounts(&flockers).await;
        second.stop().await;
    });
}

#[test]
fn a_volume_staged_for_a_node_releases_the_lease_of_that_node_also_when_the_plugin_serves_another() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let mut machine = Machine::new(&flocker, 1);
        let (first_node, second_node) = (machine.node(), flocker.embedded().nodes()[1].uuid);
        let plugin = machine.plugin().await;
        let volume = plugin.csi.create("data").await;
        // The node attaches for itself.
        let usage = machine.usage("data", volume, &HashMap::new());
        plugin.csi.stage(&usage).await.unwrap();
        plugin.stop().await;

        machine.config.node.node_id = Some(second_node);
        let plugin = machine.plugin().await;
        plugin.csi.unstage(&usage).await.unwrap();
        assert!(flocker.client().await.list_leases().await.unwrap().is_empty());
        assert!(machine.records().is_empty());
        plugin.stop().await;

        // Staging is refused for good, and so leaves nothing of the other node's either, unless it is in use.
        machine.config.node.node_id = Some(first_node);
        let plugin = machine.plugin().await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.stop().await;
        machine.config.node.node_id = Some(second_node);
        let plugin = machine.plugin().await;
        let of_first = first_node.to_string();
        let published = [of_first.as_str(), "still published"];
        assert_refused(plugin.csi.stage(&usage).await, Code::Unavailable, &published);
        only_mount_at(&usage.alias());
        plugin.csi.unpublish(&usage).await.unwrap();
        assert_refused(
            plugin.csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[&of_first],
        );
        assert!(machine.records().is_empty() && machine.devices().is_empty());
        assert!(flocker.client().await.list_leases().await.unwrap().is_empty());
        plugin.stop().await;
    });
}

#[test]
fn a_target_that_covers_the_staged_volume_or_lies_in_it_is_refused() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.staged("data").await;
        let above = usage.staging.parent().unwrap().to_owned();
        for target in [
            usage.staging.clone(),
            usage.alias(),
            usage.alias().join("inside"),
            above,
        ] {
            let usage = Usage {
                target: target.clone(),
                ..usage.clone()
            };
            assert_refused(
                fixture.csi().publish(&usage).await,
                Code::InvalidArgument,
                &["target_path", "staging_target_path", target.to_str().unwrap()],
            );
        }
        only_mount_at(&usage.alias());
        fixture.csi().publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

fn nil() -> uuid::Uuid {
    uuid::Uuid::nil()
}
