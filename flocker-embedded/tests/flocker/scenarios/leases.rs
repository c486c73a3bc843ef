//! What a lease delays, and what it does not.

use serde_json::json;
use uuid::Uuid;

use super::Scenario;
use crate::support::isolated;

#[test]
fn a_lease_delays_a_move_until_it_is_released_by_its_node() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(1).await;
        scenario.lease(dataset, 1).await;
        let mut held = scenario.watch("leased move: state for 25 s", dataset).await;
        scenario.cluster.relocate(dataset, 2).await;
        assert_eq!(scenario.configured(dataset).await, json!(scenario.node(2)));
        held.hold(25).await;
        scenario
            .watch("leased move: state unchanged after 25 s", dataset)
            .await
            .end()
            .await;
        assert_eq!(scenario.cluster.lease(dataset, 2).await.status, 409);

        let mut released = scenario.watch("leased move: state after release", dataset).await;
        scenario.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn a_lease_for_a_node_without_the_dataset_delays_nothing() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(2).await;
        scenario.lease(dataset, 1).await;
        scenario.relocate("lease elsewhere: state", dataset, 1).await;
    });
}

#[test]
fn a_leased_dataset_that_is_deleted_stays_until_its_lease_is_released() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(1).await;
        scenario.lease(dataset, 1).await;
        let mut held = scenario.watch("leased delete: state for 15 s", dataset).await;
        scenario.cluster.delete(dataset).await;
        held.hold(15).await;
        scenario.watch("leased delete: state", dataset).await.end().await;
        assert_eq!(
            scenario.cluster.lease(dataset, 1).await.status,
            200,
            "it can even be renewed"
        );

        let mut released = scenario
            .watch("leased delete: state after release", dataset)
            .await;
        scenario.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn a_lease_acquired_before_the_mount_does_not_affect_it() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = scenario.watch("lease-before-mount: state", dataset).await;
        scenario.request_dataset(dataset, scenario.node(1)).await;
        scenario.lease(dataset, 1).await;
        watch.end().await;
    });
}

#[test]
fn a_lease_for_another_node_lets_the_dataset_be_mounted_and_moved_there() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = scenario.watch("lease-other-before-mount: state", dataset).await;
        scenario.request_dataset(dataset, scenario.node(1)).await;
        scenario.lease(dataset, 2).await;
        watch.end().await;
        scenario.relocate("lease-other: state", dataset, 2).await;
    });
}
