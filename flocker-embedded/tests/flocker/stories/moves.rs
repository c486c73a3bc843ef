//! Datasets that are made, moved and deleted.

use serde_json::json;
use uuid::Uuid;

use super::Story;
use crate::support::{SIZE, isolated};

#[test]
fn a_new_dataset_is_unseen_then_unmounted_then_mounted() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        story.create("timeline: state while creating", 1).await;
    });
}

#[test]
fn a_move_shows_the_old_node_then_none_then_the_new_one() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(1).await;
        story
            .relocate("move: state while moving n1->n2", dataset, 2)
            .await;
        story
            .relocate("move: state while moving n2->n1", dataset, 1)
            .await;
    });
}

#[test]
fn a_dataset_moved_before_it_is_mounted_is_mounted_on_the_new_node_alone() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = Uuid::new_v4();
        let mut watch = story.watch("move mid-create: state", dataset).await;
        story.ask_for(dataset, story.node(1)).await;
        story.cluster.relocate(dataset, 2).await;
        watch.end().await;
    });
}

#[test]
fn a_move_to_an_unknown_node_detaches_the_dataset_until_it_is_moved_back() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(2).await;
        let mut away = story
            .watch("move: state after move to unknown node", dataset)
            .await;
        story.ask_for_move(dataset, Uuid::new_v4()).await;
        away.end().await;
        story.relocate("move: state while recovering", dataset, 1).await;
    });
}

#[test]
fn a_dataset_asked_for_on_an_unknown_node_is_made_when_it_is_moved_to_a_real_one() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = Uuid::new_v4();
        story.ask_for(dataset, Uuid::new_v4()).await;
        story
            .relocate("move: ghost-created to real node state", dataset, 3)
            .await;
    });
}

#[test]
fn a_move_among_deletions_ends_as_any_other() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(2).await;
        let others = [
            story.cluster.create_mounted(1).await,
            story.cluster.create_mounted(1).await,
        ];
        let mut watch = story.watch("restart: settle on node3", dataset).await;
        for other in others {
            story.cluster.delete(other).await;
        }
        story.cluster.relocate(dataset, 3).await;
        watch.end().await;
        for other in others {
            story.cluster.wait_until_state(other, None).await;
        }
    });
}

#[test]
fn a_dataset_that_is_deleted_before_it_was_mounted_is_seen_unmounted_before_it_goes() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create(1, SIZE).await;
        let unmounted = json!({"dataset_id": dataset, "maximum_size": SIZE});
        story.cluster.wait_until_state(dataset, Some(unmounted)).await;
        story.cluster.relocate(dataset, 2).await;
        story.cluster.delete(dataset).await;
        story.watch("requests: state", dataset).await.end().await;
        story.cluster.wait_until_state(dataset, None).await;
    });
}
