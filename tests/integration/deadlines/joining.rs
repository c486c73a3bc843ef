//! Operations that take longer than their callers wait.

use std::time::Duration;

use flocker_embedded::faults::Effect;
use tonic::Code;

use super::{DATASET, DATASETS, HELD, LEASES, hold};
use crate::node::{Fixture, assert_refused};
use crate::support::csi::{to_attach, to_create, within};
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

/// Long enough for the next caller to arrive before the work is cancelled, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn a_create_that_takes_longer_than_three_callers_wait_makes_one_dataset() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        for effect in [Effect::HoldRequest, Effect::HoldReply] {
            let name = format!("{effect:?}");
            let before = fixture.asked("POST", DATASETS);
            fixture.faults().add(hold(effect).on("POST", DATASETS));
            for _ in 0..3 {
                let created = fixture.csi().try_create(within(PATIENCE, to_create(&name)));
                assert_refused(
                    created.await,
                    Code::DeadlineExceeded,
                    &[&format!("creating volume {name:?}: waiting for \"configured\"")],
                );
            }
            assert_eq!(fixture.faults().met(HELD), 1, "one request for all of them");
            let csi = fixture.csi().clone();
            let (fourth, ()) = tokio::join!(csi.create(&name), async { fixture.faults().remove(HELD) });
            assert_eq!(fixture.asked("POST", DATASETS) - before, 1);
            let datasets = fixture.flocker.datasets().await;
            let made =
                |dataset: &&flocker_client::Dataset| dataset.metadata.values().any(|value| *value == name);
            let made: Vec<_> = datasets.iter().filter(made).collect();
            assert_eq!(made.len(), 1);
            assert_eq!(made[0].dataset_id, fourth);
        }
        assert_eq!(fixture.flocker.backing_files().len(), 2);
    });
}

#[test]
fn an_attachment_that_takes_longer_than_three_callers_wait_leases_and_moves_once() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let volume = fixture.csi().create("data").await;
        let node = fixture.other_node_than_of(volume).await;
        fixture.faults().add(hold(Effect::HoldReply).on("POST", LEASES));
        for _ in 0..3 {
            let attached = fixture
                .csi()
                .try_attach(within(PATIENCE, to_attach(volume, node)));
            assert_refused(
                attached.await,
                Code::DeadlineExceeded,
                &[
                    &volume.to_string(),
                    "\"configured\"",
                    &format!("the lease for node {node}"),
                ],
            );
        }
        let csi = fixture.csi().clone();
        tokio::join!(csi.attach(volume, node), async { fixture.faults().remove(HELD) });
        assert_eq!(
            (fixture.asked("POST", LEASES), fixture.asked("POST", DATASET)),
            (1, 1)
        );
        assert_eq!(fixture.flocker.leaseholder(volume).await, Some(node));
    });
}

#[test]
fn a_staging_that_takes_longer_than_three_callers_wait_mounts_once() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let volume = fixture.csi().create("data").await;
        let usage = fixture.machine.usage("data", volume, &[].into());
        fixture.faults().add(hold(Effect::HoldReply).on("POST", LEASES));
        for _ in 0..3 {
            let staged = fixture
                .csi()
                .node()
                .node_stage_volume(within(PATIENCE, usage.to_stage()))
                .await;
            assert_refused(
                staged,
                Code::DeadlineExceeded,
                &[
                    &usage.volume_id,
                    usage.staging.to_str().unwrap(),
                    "\"configured\"",
                ],
            );
        }
        let csi = fixture.csi().clone();
        let (staged, ()) = tokio::join!(csi.stage(&usage), async { fixture.faults().remove(HELD) });
        staged.unwrap();
        assert_eq!(fixture.asked("POST", LEASES), 1);
        only_mount_at(&usage.alias());
        assert_eq!(
            (fixture.machine.records().len(), fixture.machine.devices().len()),
            (1, 1)
        );
    });
}
