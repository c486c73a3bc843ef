//! Volumes that another client deletes while they are attached, and deletions that fail.

use std::fs::File;
use std::time::Duration;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::{DATASET, DATASETS, LEASES, LONG, Pair, attach, delete, detach, hold};
use crate::node::assert_refused;
use crate::support::eventually;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

impl Pair {
    pub(super) async fn file_goes(&self) {
        eventually("the file of the deleted volume goes", async || {
            self.flocker.backing_files().is_empty().then_some(())
        })
        .await;
    }
}

#[test]
fn a_volume_that_is_deleted_at_any_step_of_attaching_is_not_found_and_leaves_no_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        let last_look = RequestFault {
            after: 1,
            ..hold("the last look", "GET", DATASETS)
        };
        for rule in [
            hold("the first look", "GET", DATASETS),
            hold("the claim", "POST", LEASES),
            hold("the move", "POST", DATASET),
            last_look,
        ] {
            let step = rule.name.clone();
            let volume = pair.volume(&step).await;
            let (csi, second) = (pair.two.csi.clone(), pair.second.node());
            pair.faults().add(rule);
            let attached = tokio::spawn(async move { attach(&csi, volume, second, LONG).await });
            pair.faults().until_met(&step, 1).await;
            client.delete_dataset(volume).await.unwrap();
            pair.faults().remove(&step);
            assert_refused(attached.await.unwrap(), Code::NotFound, &[&volume.to_string()]);
            assert_eq!(pair.flocker.leaseholder(volume).await, None, "before {step}");
            pair.file_goes().await;
        }
    });
}

#[test]
fn a_volume_that_is_deleted_while_another_node_has_it_is_not_waited_for() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        let volume = pair.volume("data").await;
        let holder = File::open(pair.flocker.mount_of(1, volume)).unwrap();
        let (csi, second) = (pair.two.csi.clone(), pair.second.node());
        let attached = tokio::spawn(async move { attach(&csi, volume, second, LONG).await });
        eventually("the volume is to move", async || {
            (pair.configured(volume).await.primary == second).then_some(())
        })
        .await;
        client.delete_dataset(volume).await.unwrap();
        assert_refused(attached.await.unwrap(), Code::NotFound, &[&volume.to_string()]);
        assert_eq!(pair.flocker.leaseholder(volume).await, None);
        drop(holder);
        pair.file_goes().await;
    });
}

#[test]
fn a_lease_that_was_there_before_outlives_an_attachment_that_fails() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (csi, first) = (&pair.one.csi, pair.first.node());
        let volume = pair.volume("data").await;
        attach(csi, volume, first, LONG).await.unwrap();
        let client = pair.flocker.client().await;
        client.delete_dataset(volume).await.unwrap();
        // The first attachment has succeeded, and its caller may be using the volume.
        assert_refused(attach(csi, volume, first, LONG).await, Code::NotFound, &[]);
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(first));
        only_mount_at(&pair.flocker.mount_of(1, volume));
        detach(csi, volume, &first.to_string()).await.unwrap();
        assert_eq!(pair.flocker.leaseholder(volume).await, None);
        pair.file_goes().await;
    });
}

#[test]
fn a_deletion_whose_answer_is_lost_is_found_done_by_the_next_one() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        for (effect, sent) in [(Effect::LoseReply, 1), (Effect::LoseRequest, 2)] {
            let volume = pair.volume("data").await;
            let before = pair.asked("DELETE", DATASET);
            let rule = RequestFault::new("delete", effect).on("DELETE", DATASET);
            pair.faults().add(rule.once());
            assert_refused(
                delete(&pair.one.csi, volume, LONG).await,
                Code::Unavailable,
                &[&volume.to_string()],
            );
            delete(&pair.one.csi, volume, LONG).await.unwrap();
            assert_eq!(pair.asked("DELETE", DATASET) - before, sent);
            pair.faults().clear();
            pair.file_goes().await;
        }
    });
}

#[test]
fn a_volume_leased_between_the_reads_of_a_deletion_is_not_deleted() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        pair.faults().add(hold("look", "GET", LEASES));
        let csi = pair.one.csi.clone();
        let deleted = tokio::spawn(async move { delete(&csi, volume, LONG).await });
        pair.faults().until_met("look", 1).await;
        let client = pair.flocker.client().await;
        client.acquire_lease(volume, second, None).await.unwrap();
        pair.faults().clear();
        assert_refused(
            deleted.await.unwrap(),
            Code::FailedPrecondition,
            &[&volume.to_string(), &second.to_string()],
        );
        assert_eq!(pair.asked("DELETE", DATASET), 0);
        assert_eq!(pair.configured(volume).await.primary, first);
    });
}

#[test]
fn a_deletion_cannot_overtake_an_attachment_that_waits() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let second = pair.second.node();
        let volume = pair.volume("data").await;
        let holder = File::open(pair.flocker.mount_of(1, volume)).unwrap();
        let csi = pair.two.csi.clone();
        let attached = tokio::spawn(async move { attach(&csi, volume, second, LONG).await });
        eventually("the volume is leased", async || {
            pair.flocker.leaseholder(volume).await
        })
        .await;
        for csi in [&pair.one.csi, &pair.two.csi] {
            assert_refused(
                delete(csi, volume, Duration::from_secs(20)).await,
                Code::FailedPrecondition,
                &[&second.to_string()],
            );
        }
        drop(holder);
        attached.await.unwrap().unwrap();
    });
}
