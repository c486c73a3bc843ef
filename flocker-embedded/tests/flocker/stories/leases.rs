//! What a lease holds back, and what it does not.

use serde_json::json;
use uuid::Uuid;

use super::Story;
use crate::support::isolated;

#[test]
fn a_lease_holds_a_move_back_for_as_long_as_it_lives() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(1).await;
        story.lease(dataset, 1).await;
        let mut held = story.watch("leased move: state for 25 s", dataset).await;
        story.cluster.relocate(dataset, 2).await;
        assert_eq!(story.configured(dataset).await, json!(story.node(2)));
        held.hold(25).await;
        story
            .watch("leased move: state unchanged after 25 s", dataset)
            .await
            .end()
            .await;
        assert_eq!(story.cluster.lease(dataset, 2).await.status, 409);

        let mut released = story.watch("leased move: state after release", dataset).await;
        story.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn a_lease_for_a_node_where_the_dataset_is_not_holds_nothing_back() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(2).await;
        story.lease(dataset, 1).await;
        story.relocate("lease elsewhere: state", dataset, 1).await;
    });
}

#[test]
fn a_leased_dataset_that_is_deleted_stays_until_its_lease_is_released() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(1).await;
        story.lease(dataset, 1).await;
        let mut held = story.watch("leased delete: state for 15 s", dataset).await;
        story.cluster.delete(dataset).await;
        held.hold(15).await;
        story.watch("leased delete: state", dataset).await.end().await;
        assert_eq!(
            story.cluster.lease(dataset, 1).await.status,
            200,
            "it can even be renewed"
        );

        let mut released = story.watch("leased delete: state after release", dataset).await;
        story.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn a_lease_taken_before_the_mount_neither_hastens_nor_hinders_it() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = story.watch("lease-before-mount: state", dataset).await;
        story.ask_for(dataset, story.node(1)).await;
        story.lease(dataset, 1).await;
        watch.end().await;
    });
}

#[test]
fn a_lease_for_another_node_lets_the_dataset_be_mounted_and_moved_there() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = story.watch("lease-other-before-mount: state", dataset).await;
        story.ask_for(dataset, story.node(1)).await;
        story.lease(dataset, 2).await;
        watch.end().await;
        story.relocate("lease-other: state", dataset, 2).await;
    });
}
