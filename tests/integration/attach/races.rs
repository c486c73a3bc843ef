//! Two controllers and other clients at the same volume.

use std::fs::{self, File};
use std::time::Duration;

use flocker_csi::telemetry::Counter;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::{DATASET, LEASE, LEASES, LONG, Pair, attach, detach, hold};
use crate::node::assert_refused;
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_race_for_the_lease_has_one_winner_and_the_losers_error_names_it() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let rule = RequestFault {
            containing: Some(first.to_string()),
            ..hold("claim", "POST", LEASES)
        };
        pair.faults().add(rule);
        let csi = pair.one.csi.clone();
        let loser = tokio::spawn(async move { attach(&csi, volume, first, LONG).await });
        pair.faults().until_met("claim", 1).await;
        attach(&pair.two.csi, volume, second, LONG).await.unwrap();
        pair.faults().remove("claim");

        assert_refused(
            loser.await.unwrap(),
            Code::FailedPrecondition,
            &[
                &volume.to_string(),
                &first.to_string(),
                &format!("attached to node {second}"),
            ],
        );
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
        assert_eq!(pair.configured(volume).await.primary, second);
    });
}

#[test]
fn an_attachment_is_retried_when_the_winner_of_the_race_releases_the_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let client = pair.flocker.client().await;
        // Its read is outdated when it arrives, and so is the refusal.
        let read = RequestFault::new("read", Effect::HoldReply).on("GET", LEASES);
        let claim = RequestFault::new("claim", Effect::HoldReply).on("POST", LEASES);
        pair.faults().add(read.once());
        let csi = pair.one.csi.clone();
        let attached = tokio::spawn(async move { attach(&csi, volume, first, LONG).await });
        pair.faults().until_met("read", 1).await;
        client.acquire_lease(volume, second, None).await.unwrap();
        pair.faults().add(claim.once());
        pair.faults().remove("read");
        pair.faults().until_met("claim", 1).await;
        client.release_lease(volume).await.unwrap();
        pair.faults().remove("claim");

        attached.await.unwrap().unwrap();
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(first));
        let counters = pair.flocker.embedded().counters();
        assert_eq!(counters.answered("POST", LEASES, 409), 1, "it did lose");
    });
}

#[test]
fn detaching_that_hits_the_lease_of_a_newer_attachment_puts_it_back() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let client = pair.flocker.client().await;
        for node_id in [first.to_string(), String::new()] {
            attach(&pair.one.csi, volume, first, LONG).await.unwrap();
            pair.faults().add(hold("release", "DELETE", LEASE));
            let csi = pair.one.csi.clone();
            let detached = tokio::spawn(async move { detach(&csi, volume, &node_id).await });
            pair.faults().until_met("release", 1).await;
            client.release_lease(volume).await.unwrap();
            client.acquire_lease(volume, second, None).await.unwrap();
            // Flocker does not release it at once either.
            let lost = RequestFault::new("lost", Effect::LoseRequest).on("POST", LEASES);
            pair.faults().add(RequestFault {
                times: Some(2),
                ..lost
            });
            pair.faults().remove("release");

            detached.await.unwrap().unwrap();
            assert_eq!(pair.faults().met("lost"), 2);
            pair.faults().clear();
            assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
            client.release_lease(volume).await.unwrap();
        }
    });
}

#[test]
fn a_lease_that_was_put_back_is_counted() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let client = pair.flocker.client().await;
        client.acquire_lease(volume, first, None).await.unwrap();
        let cluster = pair.flocker.cluster();
        pair.faults().add(hold("release", "DELETE", LEASE));
        let releasing = {
            let cluster = cluster.clone();
            tokio::spawn(async move { cluster.release_lease_of(volume, Some(first)).await })
        };
        pair.faults().until_met("release", 1).await;
        client.release_lease(volume).await.unwrap();
        client.acquire_lease(volume, second, None).await.unwrap();
        pair.faults().remove("release");
        releasing.await.unwrap().unwrap();
        assert_eq!(cluster.counters().get(Counter::LeasesPutBack), 1);
        assert_eq!(cluster.counters().get(Counter::LeasesTakenOver), 0);
    });
}

#[test]
fn a_move_under_way_is_waited_for_and_can_be_turned_round() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let mounted = pair.flocker.mount_of(1, volume);
        fs::write(mounted.join("file"), "precious").unwrap();
        // An open file keeps the first node's agent from unmounting.
        let holder = File::open(mounted.join("file")).unwrap();
        assert_refused(
            attach(&pair.two.csi, volume, second, Duration::from_secs(3)).await,
            Code::DeadlineExceeded,
            &[
                &volume.to_string(),
                "\"released by the other node\"",
                &first.to_string(),
            ],
        );
        for csi in [&pair.one.csi, &pair.two.csi] {
            assert_refused(
                attach(csi, volume, first, LONG).await,
                Code::FailedPrecondition,
                &[&format!("attached to node {second}")],
            );
        }
        detach(&pair.two.csi, volume, &second.to_string()).await.unwrap();
        let context = attach(&pair.one.csi, volume, first, LONG).await.unwrap();
        drop(holder);
        let usage = pair.first.usage("data", volume, &context);
        pair.one.csi.stage(&usage).await.unwrap();
        pair.one.csi.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
    });
}

#[test]
fn a_volume_moved_away_during_an_attachment_is_moved_back() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let holder = File::open(pair.flocker.mount_of(1, volume)).unwrap();
        let csi = pair.two.csi.clone();
        let attached = tokio::spawn(async move { attach(&csi, volume, second, LONG).await });
        eventually("the volume is to move", async || {
            (pair.configured(volume).await.primary == second).then_some(())
        })
        .await;
        // Without a fetch the first node would keep the volume permanently.
        let client = pair.flocker.client().await;
        client.move_dataset(volume, first).await.unwrap();
        eventually("the volume is to move again", async || {
            (pair.configured(volume).await.primary == second).then_some(())
        })
        .await;
        drop(holder);
        attached.await.unwrap().unwrap();
        pair.flocker.reports(2, volume).await;
    });
}

#[test]
fn a_volume_that_was_never_attached_is_detached_without_a_write() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let deletes = pair.asked("DELETE", LEASE);
        for node_id in [first.to_string(), String::new(), "nonsense".to_owned()] {
            detach(&pair.one.csi, volume, &node_id).await.unwrap();
        }
        attach(&pair.two.csi, volume, second, LONG).await.unwrap();
        detach(&pair.one.csi, volume, &first.to_string()).await.unwrap();
        assert_eq!(pair.asked("DELETE", LEASE), deletes);
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));

        detach(&pair.one.csi, volume, "").await.unwrap();
        assert_eq!(pair.flocker.leaseholder(volume).await, None, "no node has it");
    });
}

#[test]
fn a_volume_moves_between_nodes_ten_times_with_its_data() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let volume = pair.volume("data").await;
        for round in 0..10 {
            let (machine, plugin) = if round % 2 == 0 {
                (&pair.second, &pair.two)
            } else {
                (&pair.first, &pair.one)
            };
            let context = attach(&plugin.csi, volume, machine.node(), LONG).await.unwrap();
            let usage = machine.usage("data", volume, &context);
            plugin.csi.stage(&usage).await.unwrap();
            plugin.csi.publish(&usage).await.unwrap();
            let written = fs::read_dir(&usage.target).unwrap().count();
            assert_eq!(written, round);
            fs::write(usage.target.join(round.to_string()), "").unwrap();
            plugin.csi.unpublish(&usage).await.unwrap();
            plugin.csi.unstage(&usage).await.unwrap();
            detach(&plugin.csi, volume, &machine.node().to_string())
                .await
                .unwrap();
        }
        // A volume that is already on the node is not moved.
        let moves = pair.asked("POST", DATASET);
        for _ in 0..10 {
            attach(&pair.one.csi, volume, pair.first.node(), LONG)
                .await
                .unwrap();
        }
        assert_eq!(pair.asked("POST", DATASET), moves);
    });
}
