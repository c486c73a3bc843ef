//! Two plugins on one node, and one plugin that comes back as another node.

use std::collections::HashMap;
use std::time::Duration;

use flocker_csi::config::Endpoint;
use flocker_embedded::faults::{Effect, RequestFault};
use rustix::mount::{UnmountFlags, unmount};
use tonic::Code;
use uuid::Uuid;

use super::{Fixture, agent_unmounts, assert_refused, wait_until_agent_unmounts};
use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

const LEASE: &str = "/v1/configuration/leases/{dataset_id}";

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

/// Two plugins of one node with directories of their own.
struct Twins {
    flocker: Flocker,
    machines: [Machine; 2],
    plugins: [Option<Running>; 2],
}

impl Twins {
    async fn start() -> Self {
        let flocker = Flocker::start(1).await;
        let first = Machine::new(&flocker, 1);
        let mut second = second_of(&flocker);
        second.config.plugin.device_dir = second.path("second-devices");
        let mut machines = [first, second];
        for machine in &mut machines {
            machine.config.node.abandoned_grace = Duration::from_secs(1);
        }
        let plugins = [Some(machines[0].plugin().await), Some(machines[1].plugin().await)];
        Self {
            flocker,
            machines,
            plugins,
        }
    }

    fn csi(&self, number: usize) -> &Csi {
        &self.plugins[number].as_ref().unwrap().csi
    }

    /// Returns a usage of a volume by each of them; without a publish context the node attaches for itself.
    fn usages(&self, volume: Uuid, contexts: [&HashMap<String, String>; 2]) -> [Usage; 2] {
        [
            self.machines[0].usage("first", volume, contexts[0]),
            self.machines[1].usage("second", volume, contexts[1]),
        ]
    }

    async fn restart(&mut self) {
        for (machine, plugin) in self.machines.iter().zip(&mut self.plugins) {
            plugin.take().unwrap().stop().await;
            *plugin = Some(machine.plugin().await);
        }
    }

    fn assert_holds_nothing(&self, number: usize) {
        let machine = &self.machines[number];
        assert!(
            machine.devices().is_empty() && machine.records().is_empty(),
            "plugin {number}"
        );
    }
}

#[test]
fn of_two_plugins_each_holds_nothing_after_its_own_last_use_in_any_order_and_across_restarts() {
    in_own_namespace(|| async {
        for (first, with_restart) in [(0, false), (1, false), (0, true), (1, true)] {
            let last = 1 - first;
            let mut twins = Twins::start().await;
            let volume = twins.csi(0).create("data").await;
            let node = twins.machines[0].node();
            let nothing = HashMap::new();
            let usages = twins.usages(volume, [&nothing, &nothing]);
            for (number, usage) in usages.iter().enumerate() {
                twins.csi(number).stage(usage).await.unwrap();
                twins.csi(number).publish(usage).await.unwrap();
            }
            if with_restart {
                twins.restart().await;
            }
            let case = format!("plugin {first} first, restarts: {with_restart}");
            let flockers = twins.flocker.mount_of(1, volume);
            twins.csi(first).unpublish(&usages[first]).await.unwrap();
            twins.csi(first).unstage(&usages[first]).await.unwrap();
            twins.assert_holds_nothing(first);
            if with_restart {
                twins.restart().await;
            }
            // The other one still uses the volume: it holds it, and the node keeps the lease.
            only_mount_at(&usages[last].target);
            agent_unmounts(&flockers).unwrap_err();
            assert_eq!(twins.flocker.leaseholder(volume).await, Some(node), "{case}");
            twins.csi(last).unpublish(&usages[last]).await.unwrap();
            twins.csi(last).unstage(&usages[last]).await.unwrap();
            twins.assert_holds_nothing(last);
            assert_eq!(twins.flocker.leaseholder(volume).await, None, "{case}");
            twins.csi(first).delete(volume).await.unwrap();
            eventually("the data are destroyed", async || {
                twins.flocker.backing_files().is_empty().then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_volume_that_one_orchestrator_of_a_node_gives_up_stays_the_other_ones_and_is_deleted_after_it() {
    in_own_namespace(|| async {
        for gives_up_first in [true, false] {
            let twins = Twins::start().await;
            let volume = twins.csi(0).create("data").await;
            let node = twins.machines[0].node();
            let context = twins.csi(0).attach(volume, node).await;
            // The first one has a controller; for the second one the node attaches.
            let [attached, driven] = twins.usages(volume, [&context, &HashMap::new()]);
            twins.csi(0).stage(&attached).await.unwrap();
            twins.csi(1).stage(&driven).await.unwrap();
            twins.csi(1).publish(&driven).await.unwrap();
            let ends_second = async || {
                twins.csi(1).unpublish(&driven).await.unwrap();
                twins.csi(1).unstage(&driven).await.unwrap();
                twins.assert_holds_nothing(1);
            };
            if !gives_up_first {
                ends_second().await;
                assert_eq!(
                    twins.flocker.leaseholder(volume).await,
                    Some(node),
                    "the first one needs it"
                );
            }
            twins.csi(0).unstage(&attached).await.unwrap();
            twins.csi(0).detach(volume, node).await;
            twins.assert_holds_nothing(0);
            if gives_up_first {
                let holder = eventually("it is leased again", async || {
                    twins.flocker.leaseholder(volume).await
                })
                .await;
                assert_eq!(holder, node);
                assert_refused(twins.csi(0).delete(volume).await, Code::FailedPrecondition, &[]);
                only_mount_at(&driven.target);
                ends_second().await;
            }
            assert_eq!(twins.flocker.leaseholder(volume).await, None);
            twins.csi(0).delete(volume).await.unwrap();
            eventually("the data are destroyed", async || {
                twins.flocker.backing_files().is_empty().then_some(())
            })
            .await;
        }
    });
}

#[test]
fn a_plugin_without_its_pin_does_not_release_the_lease_that_another_plugin_needs() {
    in_own_namespace(|| async {
        let mut twins = Twins::start().await;
        let (volume, nothing) = (twins.csi(0).create("data").await, HashMap::new());
        let usages = twins.usages(volume, [&nothing, &nothing]);
        for (number, usage) in usages.iter().enumerate() {
            twins.csi(number).stage(usage).await.unwrap();
        }
        twins.csi(1).publish(&usages[1]).await.unwrap();
        twins.plugins[0].take().unwrap().stop().await;
        // No process can pin it again.
        unmount(twins.flocker.mount_of(1, volume), UnmountFlags::DETACH).unwrap();
        twins.plugins[0] = Some(twins.machines[0].plugin().await);
        twins.csi(0).unstage(&usages[0]).await.unwrap();
        assert!(twins.flocker.leaseholder(volume).await.is_some());
        only_mount_at(&usages[1].target);
        twins.csi(1).unpublish(&usages[1]).await.unwrap();
        twins.csi(1).unstage(&usages[1]).await.unwrap();
    });
}

#[test]
fn a_release_that_is_due_leaves_a_lease_alone_that_another_plugin_has_come_to_need() {
    in_own_namespace(|| async {
        let twins = Twins::start().await;
        let (volume, nothing) = (twins.csi(0).create("data").await, HashMap::new());
        let [before, after] = twins.usages(volume, [&nothing, &nothing]);
        twins.csi(0).stage(&before).await.unwrap();
        let broken = Effect::Answer {
            status: 500,
            body: "\"broken\"".to_owned(),
        };
        let faults = twins.flocker.embedded().faults();
        faults.add(RequestFault::new("failing", broken).on("DELETE", LEASE));
        twins.csi(0).unstage(&before).await.unwrap();
        twins.csi(1).stage(&after).await.unwrap();
        twins.csi(1).publish(&after).await.unwrap();
        faults.clear();
        eventually("the release is settled", async || {
            twins.machines[0].records().is_empty().then_some(())
        })
        .await;
        let holder = twins.flocker.leaseholder(volume).await;
        assert_eq!(holder, Some(twins.machines[0].node()));
        twins.csi(1).unpublish(&after).await.unwrap();
        twins.csi(1).unstage(&after).await.unwrap();
        assert_eq!(twins.flocker.leaseholder(volume).await, None);
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
        let parts = [first_node.to_string(), "NodeUnstageVolume".to_owned()];
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        assert_refused(plugin.csi.stage(&usage).await, Code::Unavailable, &parts);
        only_mount_at(&usage.alias());
        plugin.csi.unstage(&usage).await.unwrap();
        assert!(flocker.client().await.list_leases().await.unwrap().is_empty());
        assert!(machine.records().is_empty());
        plugin.stop().await;
    });
}

#[test]
fn a_lease_of_an_earlier_node_is_released_although_the_volume_is_staged_for_another_node_at_another_path() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let mut machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let before = machine.usage("before", volume, &HashMap::new());
        plugin.csi.stage(&before).await.unwrap();
        let broken = Effect::Answer {
            status: 500,
            body: "\"broken\"".to_owned(),
        };
        let faults = flocker.embedded().faults();
        faults.add(RequestFault::new("failing", broken).on("DELETE", LEASE));
        plugin.csi.unstage(&before).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, Some(flocker.node(1)));
        plugin.kill().await;

        let second = &flocker.embedded().nodes()[1];
        machine.config.node.node_id = Some(second.uuid);
        machine.config.node.mount_root.clone_from(&second.mount_root);
        let plugin = machine.process(&[]).await;
        let after = machine.usage("after", volume, &HashMap::new());
        let staged = plugin.csi.stage(&after);
        let mended = async {
            eventually("the staging waits for the lease", async || {
                (machine.records().len() == 2).then_some(())
            })
            .await;
            faults.clear();
        };
        futures::join!(staged, mended).0.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, Some(second.uuid));
        plugin.csi.unstage(&after).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, None);
        assert!(machine.records().is_empty());
        plugin.kill().await;
    });
}

#[test]
fn a_target_that_is_or_covers_the_staged_volume_or_lies_in_it_is_refused() {
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
        // The same directory, as it is seen through another mount.
        let (staging, copy) = (fixture.machine.path("staging"), fixture.machine.path("copy"));
        std::fs::create_dir(&copy).unwrap();
        rustix::mount::mount_bind_recursive(&staging, &copy).unwrap();
        let copied = copy.join(usage.alias().strip_prefix(&staging).unwrap());
        only_mount_at(&copied);
        for target in [usage.alias(), copied.clone()] {
            let usage = Usage {
                target: target.clone(),
                ..usage.clone()
            };
            let parts = ["target_path", target.to_str().unwrap()];
            assert_refused(fixture.csi().publish(&usage).await, Code::InvalidArgument, &parts);
            let parts = [parts[0], parts[1], "NodeUnstageVolume"];
            assert_refused(
                fixture.csi().unpublish(&usage).await,
                Code::InvalidArgument,
                &parts,
            );
        }
        only_mount_at(&usage.alias());
        fixture.csi().publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

fn nil() -> Uuid {
    Uuid::nil()
}
