//! One process at a time serves the volumes of a node.

use std::collections::HashMap;
use std::fs;

use csi_proto::v1::{GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, ProbeRequest};
use flocker_csi::config::Endpoint;
use rustix::mount::{MountFlags, mount};
use tonic::Code;

use super::{assert_refused, unknown_id, wait_until_agent_unmounts};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

#[test]
fn a_second_plugin_names_the_first_and_takes_over_when_that_ends() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let first = machine.process(&[]).await;
        let volume = first.csi.create("data").await;
        let context = first.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        first.csi.stage(&usage).await.unwrap();

        machine.config.plugin.endpoint = Endpoint::Unix(machine.path("second.sock"));
        let second = machine.plugin().await;
        let holder = format!("process {}", first.id());
        let state_dir = machine.config.node.state_dir.display().to_string();
        for answer in [
            second.csi.stage(&usage).await,
            second.csi.unstage(&usage).await,
            second.csi.publish(&usage).await,
            second.csi.unpublish(&usage).await,
            second.csi.stats(&usage).await.map(drop),
        ] {
            assert_refused(answer, Code::Unavailable, &[&holder, &state_dir]);
        }
        let mut identity = second.csi.identity();
        let ready = identity.probe(ProbeRequest {}).await.unwrap().into_inner();
        assert_eq!(ready.ready, Some(true));
        identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap();
        let mut node = second.csi.node();
        node.node_get_info(NodeGetInfoRequest {}).await.unwrap();
        node.node_get_capabilities(NodeGetCapabilitiesRequest {})
            .await
            .unwrap();
        second.csi.create("of the controller").await;

        first.csi.publish(&usage).await.unwrap();
        first.kill().await;
        second.csi.stage(&usage).await.unwrap();
        second.csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
        second.csi.unpublish(&usage).await.unwrap();
        second.csi.unstage(&usage).await.unwrap();
        second.stop().await;
    });
}

#[test]
fn a_controller_beside_a_node_plugin_needs_no_state_of_its_own() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let node = machine.process(&["--mode=node"]).await;
        machine.config.plugin.endpoint = Endpoint::Unix(machine.path("controller.sock"));
        machine.config.mode = flocker_csi::config::Mode::Controller;
        let controller = machine.plugin().await;

        let volume = controller.csi.create("data").await;
        let context = controller.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        node.csi.stage(&usage).await.unwrap();
        node.csi.publish(&usage).await.unwrap();
        let names = ["NodeStageVolume", "\"node\" or \"all\"", "csi.v1.Controller"];
        assert_refused(controller.csi.stage(&usage).await, Code::Unimplemented, &names);
        let names = ["DeleteVolume", "\"controller\" or \"all\"", "csi.v1.Node"];
        assert_refused(node.csi.delete(unknown_id()).await, Code::Unimplemented, &names);
        node.csi.unpublish(&usage).await.unwrap();
        node.csi.unstage(&usage).await.unwrap();
        controller.csi.detach(volume, machine.node()).await;
        controller.csi.delete(volume).await.unwrap();
        controller.stop().await;
    });
}

#[test]
fn unfinished_files_of_a_killed_plugin_are_removed_by_the_next_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let first = machine.process(&[]).await;
        let volume = first.csi.create("data").await;
        let context = first.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        first.csi.stage(&usage).await.unwrap();
        first.kill().await;
        let state_dir = &machine.config.node.state_dir;
        let record = fs::read(&machine.records()[0]).unwrap();
        let half = &record[..record.len() / 2];
        let unfinished = [
            state_dir.join(".new-Ab3dEf"),
            state_dir.join("stages/.new-0bcde9"),
        ];
        for file in &unfinished {
            fs::write(file, half).unwrap();
        }
        let other = state_dir.join(".new-certificates");
        fs::write(&other, "of another process").unwrap();

        let plugin = machine.process(&[]).await;
        for file in &unfinished {
            assert!(!file.exists(), "{}", file.display());
        }
        assert!(other.exists(), "what only looks alike is not ours");
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
    });
}

#[test]
fn a_volume_of_an_earlier_device_directory_stays_the_plugins_when_it_is_staged_again() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        // The node attaches for itself.
        let usage = machine.usage("data", volume, &HashMap::new());
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        plugin.kill().await;
        // Flocker's mount goes while no plugin holds it, so staging has to be repeated once it is back.
        let flockers = flocker.mount_of(1, volume);
        let before = only_mount_at(&flockers);
        wait_until_agent_unmounts(&flockers).await;
        machine.config.plugin.device_dir = machine.path("other-devices");
        let plugin = machine.process(&[]).await;
        mount(&before.source, &flockers, "ext4", MountFlags::empty(), None).ok();
        only_mount_at(&flockers);
        plugin.csi.stage(&usage).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, Some(machine.node()));
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, None);
        assert!(machine.records().is_empty() && machine.devices().is_empty());
        assert_eq!(Mounts::read().below(&machine.path("")), []);
        plugin.kill().await;
    });
}
