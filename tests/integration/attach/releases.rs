//! A volume that is attached to a node that has not yet released the lease of an earlier use.

use std::collections::HashMap;
use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;
use uuid::Uuid;

use super::{DATASET, LEASE, LEASES, LONG, Pair, attach, delete, detach, hold, stage};
use crate::node::assert_refused;
use crate::support::csi::{Usage, to_detach, within};
use crate::support::eventually;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// Flocker's answer to a release that it does not carry out.
fn failing() -> RequestFault {
    let broken = Effect::Answer {
        status: 500,
        body: "\"c5d5cc5a-3089-4718-95e0-ad9db0433cbd@/2\"".to_owned(),
    };
    RequestFault::new("failing", broken).on("DELETE", LEASE)
}

impl Pair {
    /// Stages a volume on the first node, which attaches it for itself, and unstages it while `rule` keeps the lease from
    /// being released.
    async fn with_pending_release(&self, name: &str, rule: RequestFault) -> Usage {
        let volume = self.one.csi.create(name).await;
        let usage = self.first.usage(name, volume, &HashMap::new());
        stage(&self.one.csi, &usage, LONG).await.unwrap();
        self.faults().add(rule);
        self.one.csi.unstage(&usage).await.unwrap();
        assert_eq!(self.first.records().len(), 1, "the release is still to be made");
        usage
    }

    async fn leaseholder(&self, volume: Uuid) -> Option<Uuid> {
        self.flocker.leaseholder(volume).await
    }

    /// Uses an attached volume, and checks that the lease is released when it is detached, and not before.
    async fn use_and_detach(&self, usage: &Usage, context: HashMap<String, String>) {
        let (volume, first) = (usage.dataset(), self.first.node());
        let usage = Usage {
            publish_context: context,
            ..usage.clone()
        };
        stage(&self.one.csi, &usage, LONG).await.unwrap();
        only_mount_at(&usage.alias());
        self.one.csi.unstage(&usage).await.unwrap();
        assert_eq!(
            self.leaseholder(volume).await,
            Some(first),
            "it is the controller's"
        );
        detach(&self.one.csi, volume, &first.to_string()).await.unwrap();
        assert_eq!(self.leaseholder(volume).await, None);
    }
}

#[test]
fn an_attachment_takes_over_the_lease_that_its_node_was_still_to_release() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let first = pair.first.node();
        let usage = pair.with_pending_release("data", failing()).await;
        assert_eq!(pair.leaseholder(usage.dataset()).await, Some(first));

        let context = attach(&pair.one.csi, usage.dataset(), first, LONG).await.unwrap();
        assert!(
            pair.first.records().is_empty(),
            "nothing is to be released any more"
        );
        pair.faults().clear();
        pair.use_and_detach(&usage, context).await;
    });
}

#[test]
fn an_attachment_waits_for_a_release_that_flocker_has_received_and_leases_again() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let first = pair.first.node();
        let usage = pair
            .with_pending_release("data", hold("release", "DELETE", LEASE))
            .await;
        pair.faults().until_met("release", 1).await;
        let leased = pair.asked("POST", LEASES);
        assert_refused(
            attach(&pair.one.csi, usage.dataset(), first, Duration::from_secs(2)).await,
            Code::Unavailable,
            &[&usage.volume_id, "another operation on the volume"],
        );
        pair.faults().remove("release");
        let context = attach(&pair.one.csi, usage.dataset(), first, LONG).await.unwrap();
        assert_eq!(pair.asked("POST", LEASES), leased + 1);
        assert!(pair.first.records().is_empty());
        pair.use_and_detach(&usage, context).await;
    });
}

#[test]
fn detaching_and_deleting_are_answered_in_time_while_a_release_is_under_way() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let usage = pair
            .with_pending_release("data", hold("release", "DELETE", LEASE))
            .await;
        let volume = usage.dataset();
        pair.faults().until_met("release", 1).await;
        let short = Duration::from_secs(2);
        let detaching = within(short, to_detach(volume, pair.first.node()));
        assert_refused(
            pair.one.csi.try_detach(detaching).await,
            Code::Unavailable,
            &[&usage.volume_id, "another operation on the volume"],
        );
        assert_refused(
            delete(&pair.one.csi, volume, short).await,
            Code::Unavailable,
            &[&usage.volume_id, "another operation on the volume"],
        );
        pair.faults().remove("release");
        detach(&pair.one.csi, volume, "").await.unwrap();
        assert_eq!(pair.leaseholder(volume).await, None);
        eventually("nothing is left to be released", async || {
            pair.first.records().is_empty().then_some(())
        })
        .await;
        delete(&pair.one.csi, volume, LONG).await.unwrap();
        pair.file_goes().await;
    });
}

#[test]
fn an_attachment_that_took_a_lease_over_and_fails_releases_it() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        let first = pair.first.node();
        let usage = pair.with_pending_release("data", failing()).await;
        let volume = usage.dataset();
        // Another client has moved the volume since, so it must be moved back.
        client.move_dataset(volume, pair.second.node()).await.unwrap();
        pair.faults().add(hold("move", "POST", DATASET));
        let csi = pair.one.csi.clone();
        let attached = tokio::spawn(async move { attach(&csi, volume, first, LONG).await });
        pair.faults().until_met("move", 1).await;
        assert!(pair.first.records().is_empty(), "the lease is taken over");
        pair.faults().remove("failing");
        client.delete_dataset(volume).await.unwrap();
        pair.faults().remove("move");

        assert_refused(attached.await.unwrap(), Code::NotFound, &[&usage.volume_id]);
        assert_eq!(pair.leaseholder(volume).await, None);
        pair.file_goes().await;
    });
}

/// A controller in another process cannot know which releases the node has pending.
#[test]
fn a_lease_released_during_another_controllers_attachment_is_acquired_by_attaching_again() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let first = pair.first.node();
        let usage = pair
            .with_pending_release("data", hold("release", "DELETE", LEASE))
            .await;
        let volume = usage.dataset();
        pair.faults().until_met("release", 1).await;
        let context = attach(&pair.two.csi, volume, first, LONG).await.unwrap();
        pair.faults().remove("release");
        eventually("the node has released its lease", async || {
            pair.leaseholder(volume).await.is_none().then_some(())
        })
        .await;
        let usage = Usage {
            publish_context: context.clone(),
            ..usage
        };
        assert_refused(
            stage(&pair.one.csi, &usage, LONG).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, "call ControllerPublishVolume first"],
        );
        assert!(pair.first.records().is_empty());

        attach(&pair.two.csi, volume, first, LONG).await.unwrap();
        pair.use_and_detach(&usage, context).await;
    });
}
