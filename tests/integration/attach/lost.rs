//! Writes whose request or reply is lost.

use std::collections::HashMap;

use flocker_embedded::faults::{Effect, RequestFault};
use tonic::Code;

use super::{DATASET, LEASE, LEASES, LONG, Pair, attach, detach, stage};
use crate::node::assert_refused;
use crate::support::eventually;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// How a write may be lost, and how often it is sent until it is known to be carried out: a write that has arrived is not
/// sent again.
const LOSSES: [(Effect, u64); 2] = [(Effect::LoseReply, 1), (Effect::LoseRequest, 2)];

impl Pair {
    pub(super) fn lose(&self, effect: &Effect, method: &str, route: &str) {
        let rule = RequestFault::new("lost", effect.clone()).on(method, route);
        self.faults().add(rule.once());
    }

    pub(super) fn assert_lost_one(&self) {
        assert_eq!(self.faults().met("lost"), 1);
        self.faults().clear();
    }
}

#[test]
fn an_attachment_whose_write_is_lost_is_finished_by_the_next_one() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (csi, second) = (&pair.two.csi, pair.second.node());
        for (effect, sent) in &LOSSES {
            for (lost, other) in [(LEASES, DATASET), (DATASET, LEASES)] {
                let volume = pair.volume(&format!("{effect:?} {lost}")).await;
                let before = [pair.asked("POST", lost), pair.asked("POST", other)];
                pair.lose(effect, "POST", lost);
                assert_refused(
                    attach(csi, volume, second, LONG).await,
                    Code::Unavailable,
                    &[&volume.to_string(), &second.to_string()],
                );
                pair.assert_lost_one();
                for _ in 0..3 {
                    attach(csi, volume, second, LONG).await.unwrap();
                }
                let after = [pair.asked("POST", lost), pair.asked("POST", other)];
                assert_eq!(after, [before[0] + sent, before[1] + 1], "{effect:?} of {lost}");
                assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
                pair.flocker.reports(2, volume).await;
                detach(csi, volume, &second.to_string()).await.unwrap();
                pair.one.csi.delete(volume).await.unwrap();
            }
        }
    });
}

#[test]
fn a_detachment_whose_write_is_lost_reads_before_it_writes_again() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (csi, first) = (&pair.one.csi, pair.first.node());
        let volume = pair.volume("data").await;
        for (effect, sent) in &LOSSES {
            attach(csi, volume, first, LONG).await.unwrap();
            let before = [pair.asked("DELETE", LEASE), pair.asked("GET", LEASES)];
            pair.lose(effect, "DELETE", LEASE);
            detach(csi, volume, &first.to_string()).await.unwrap();
            pair.assert_lost_one();
            assert_eq!(pair.asked("DELETE", LEASE), before[0] + sent, "{effect:?}");
            assert_eq!(
                pair.asked("GET", LEASES),
                before[1] + 2,
                "one look before each decision"
            );
            assert_eq!(pair.flocker.leaseholder(volume).await, None);
        }
    });
}

#[test]
fn a_node_that_attaches_for_itself_survives_the_loss_of_every_write() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let csi = &pair.two.csi;
        for (effect, _) in &LOSSES {
            for route in [LEASES, DATASET] {
                let name = if route == LEASES { "lease" } else { "move" };
                let volume = pair.volume(&format!("{effect:?} {name}")).await;
                let usage = pair.second.usage(name, volume, &HashMap::new());
                pair.lose(effect, "POST", route);
                assert_refused(
                    stage(csi, &usage, LONG).await,
                    Code::Unavailable,
                    &[&volume.to_string()],
                );
                pair.assert_lost_one();
                stage(csi, &usage, LONG).await.unwrap();
                only_mount_at(&usage.alias());
                assert_eq!(pair.flocker.leaseholder(volume).await, Some(pair.second.node()));

                pair.lose(effect, "DELETE", LEASE);
                csi.unstage(&usage).await.unwrap();
                eventually("lease and record are removed", async || {
                    let leased = pair.flocker.leaseholder(volume).await.is_some();
                    (!leased && pair.second.records().is_empty()).then_some(())
                })
                .await;
                pair.assert_lost_one();
                assert!(pair.second.devices().is_empty());
                assert_eq!(Mounts::read().below(&pair.second.path("")), []);
                csi.delete(volume).await.unwrap();
            }
        }
    });
}
