//! Datasets that are created, moved and deleted.

use serde_json::json;
use uuid::Uuid;

use super::Scenario;
use crate::support::{SIZE, isolated};

#[test]
fn a_new_dataset_is_unseen_then_unmounted_then_mounted() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        scenario.create("timeline: state while creating", 1).await;
    });
}

#[test]
fn a_move_shows_the_old_node_then_none_then_the_new_one() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(1).await;
        scenario
            .relocate("move: state while moving n1->n2", dataset, 2)
            .await;
        scenario
            .relocate("move: state while moving n2->n1", dataset, 1)
            .await;
    });
}

#[test]
fn a_dataset_moved_before_it_is_mounted_is_mounted_on_the_new_node_alone() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = scenario.watch("move mid-create: state", dataset).await;
        scenario.request_dataset(dataset, scenario.node(1)).await;
        scenario.cluster.relocate(dataset, 2).await;
        watch.end().await;
    });
}

#[test]
fn a_move_to_an_unknown_node_detaches_the_dataset_until_it_is_moved_back() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(2).await;
        let mut away = scenario
            .watch("move: state after move to unknown node", dataset)
            .await;
        scenario.request_move(dataset, Uuid::new_v4()).await;
        away.end().await;
        scenario
            .relocate("move: state while recovering", dataset, 1)
            .await;
    });
}

#[test]
fn a_dataset_requested_on_an_unknown_node_is_created_when_it_is_moved_to_a_real_one() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = Uuid::new_v4();
        scenario.request_dataset(dataset, Uuid::new_v4()).await;
        scenario
            .relocate("move: ghost-created to real node state", dataset, 3)
            .await;
    });
}

#[test]
fn a_move_among_deletions_ends_as_any_other() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(2).await;
        let others = [
            scenario.cluster.create_mounted(1).await,
            scenario.cluster.create_mounted(1).await,
        ];
        let mut watch = scenario.watch("restart: settle on node3", dataset).await;
        for other in others {
            scenario.cluster.delete(other).await;
        }
        scenario.cluster.relocate(dataset, 3).await;
        watch.end().await;
        for other in others {
            scenario.cluster.wait_until_state(other, None).await;
        }
    });
}

#[test]
fn a_dataset_that_is_deleted_before_it_was_mounted_is_shown_unmounted_first() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create(1, SIZE).await;
        let unmounted = json!({"dataset_id": dataset, "maximum_size": SIZE});
        scenario.cluster.wait_until_state(dataset, Some(unmounted)).await;
        scenario.cluster.relocate(dataset, 2).await;
        scenario.cluster.delete(dataset).await;
        scenario.watch("requests: state", dataset).await.end().await;
        scenario.cluster.wait_until_state(dataset, None).await;
    });
}
