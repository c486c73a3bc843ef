//! Writes that Flocker carries out after their caller is no longer there: it has no conditions that would prevent that.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use tonic::Code;
use uuid::Uuid;

use super::{DATASET, LEASES, LONG, Pair, attach, delete, detach, hold, stage};
use crate::node::{assert_refused, unknown_id};
use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

/// A node whose plugin is killed, and another node with a plugin.
struct Mortal {
    flocker: Flocker,
    machine: Machine,
    other: Machine,
    csi: Csi,
    /// Dropped last, so it serves until then.
    _other: crate::support::machine::Running,
}

impl Mortal {
    async fn start() -> Self {
        let flocker = Flocker::start(2).await;
        let (machine, other) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        let running = other.plugin().await;
        Self {
            flocker,
            machine,
            other,
            csi: running.csi.clone(),
            _other: running,
        }
    }

    /// Kills a plugin after Flocker has received the lease claim of `call` and before it carries the claim out. Then starts
    /// another plugin.
    async fn killed_with_its_claim_under_way<F>(&self, plugin: Process, call: F) -> Process
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let faults = self.flocker.embedded().faults();
        faults.add(hold("claim", "POST", LEASES));
        let called = tokio::spawn(call);
        faults.until_met("claim", 1).await;
        plugin.kill().await;
        assert!(!called.await.unwrap(), "its caller got no answer");
        self.machine.process(&[]).await
    }

    /// Lets Flocker carry out the claim of the process that was killed.
    async fn claim_arrives(&self, volume: Uuid) {
        assert_eq!(self.flocker.leaseholder(volume).await, None);
        self.flocker.embedded().faults().remove("claim");
        eventually("the claim is carried out", async || {
            self.flocker.leaseholder(volume).await
        })
        .await;
    }

    /// Checks that no other node gets the volume, and that every refusal names the node that holds it.
    async fn assert_in_the_way(&self, volume: Uuid) {
        let named = format!("attached to node {}", self.machine.node());
        assert_refused(
            attach(&self.csi, volume, self.other.node(), LONG).await,
            Code::FailedPrecondition,
            &[&named, "flocker-csi leases release"],
        );
        assert_refused(
            delete(&self.csi, volume, LONG).await,
            Code::FailedPrecondition,
            &[&named],
        );
    }

    async fn assert_free(&self, volume: Uuid) {
        assert_eq!(self.flocker.leaseholder(volume).await, None);
        attach(&self.csi, volume, self.other.node(), LONG).await.unwrap();
        detach(&self.csi, volume, &self.other.node().to_string())
            .await
            .unwrap();
        delete(&self.csi, volume, LONG).await.unwrap();
    }
}

#[test]
fn a_lease_granted_after_its_controller_died_is_released_by_detaching_again() {
    in_own_namespace(|| async {
        let fixture = Mortal::start().await;
        let node = fixture.machine.node();
        let plugin = fixture.machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let csi = plugin.csi.clone();
        let call = async move { attach(&csi, volume, node, LONG).await.is_ok() };
        let plugin = fixture.killed_with_its_claim_under_way(plugin, call).await;
        detach(&plugin.csi, volume, &node.to_string()).await.unwrap();
        fixture.claim_arrives(volume).await;
        fixture.assert_in_the_way(volume).await;

        // It can be attached to the node to which it appears to be attached, and is detached from there as usual.
        attach(&plugin.csi, volume, node, LONG).await.unwrap();
        detach(&plugin.csi, volume, &node.to_string()).await.unwrap();
        fixture.assert_free(volume).await;
    });
}

#[test]
fn a_lease_granted_after_its_node_plugin_died_is_released_by_the_next_use_or_by_detaching() {
    in_own_namespace(|| async {
        let fixture = Mortal::start().await;
        for by_use in [true, false] {
            let plugin = fixture.machine.process(&[]).await;
            let name = format!("by use: {by_use}");
            let volume = plugin.csi.create(&name).await;
            let usage = fixture.machine.usage(&name, volume, &HashMap::new());
            let (csi, asked) = (plugin.csi.clone(), usage.clone());
            let call = async move { stage(&csi, &asked, LONG).await.is_ok() };
            let plugin = fixture.killed_with_its_claim_under_way(plugin, call).await;
            plugin.csi.unstage(&usage).await.unwrap();
            assert!(fixture.machine.records().is_empty());
            fixture.claim_arrives(volume).await;
            fixture.assert_in_the_way(volume).await;

            if by_use {
                stage(&plugin.csi, &usage, LONG).await.unwrap();
                plugin.csi.unstage(&usage).await.unwrap();
            } else {
                detach(&fixture.csi, volume, &fixture.machine.node().to_string())
                    .await
                    .unwrap();
            }
            fixture.assert_free(volume).await;
            plugin.kill().await;
        }
    });
}

#[test]
fn a_deletion_that_overtakes_another_controllers_attachment_takes_the_volume_when_it_is_detached() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let second = pair.second.node();
        let volume = pair.volume("data").await;
        pair.faults().add(hold("deletion", "DELETE", DATASET));
        let csi = pair.one.csi.clone();
        let deleted = tokio::spawn(async move { delete(&csi, volume, Duration::from_secs(4)).await });
        pair.faults().until_met("deletion", 1).await;
        let context = attach(&pair.two.csi, volume, second, LONG).await.unwrap();
        let usage = pair.second.usage("data", volume, &context);
        stage(&pair.two.csi, &usage, LONG).await.unwrap();
        pair.two.csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("file"), "precious").unwrap();
        pair.faults().remove("deletion");
        // The deletion is stored, but cannot be carried out yet; a caller that did not wait that long repeats the call.
        deleted.await.unwrap().ok();
        assert!(pair.configured(volume).await.deleted);

        // The node that uses the volume keeps it, and no other node gets it.
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        assert_eq!(pair.flocker.backing_files().len(), 1);
        for node in [second, pair.first.node()] {
            assert_refused(
                attach(&pair.two.csi, volume, node, LONG).await,
                Code::NotFound,
                &[&volume.to_string()],
            );
        }
        let again = Usage {
            staging: pair.second.usage("again", unknown_id(), &context).staging,
            ..usage.clone()
        };
        assert_refused(
            stage(&pair.two.csi, &again, LONG).await,
            Code::NotFound,
            &[&volume.to_string()],
        );
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
        pair.two.csi.unpublish(&usage).await.unwrap();
        pair.two.csi.unstage(&usage).await.unwrap();
        detach(&pair.two.csi, volume, &second.to_string()).await.unwrap();
        delete(&pair.one.csi, volume, LONG).await.unwrap();
        pair.file_goes().await;
        assert_eq!(pair.flocker.leaseholder(volume).await, None);
    });
}
