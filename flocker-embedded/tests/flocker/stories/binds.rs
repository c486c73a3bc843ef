//! Datasets that are mounted once more, as a container orchestrator does, and what that does to the agent.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use uuid::Uuid;

use super::Story;
use super::elsewhere::Elsewhere;
use crate::support::{eventually, isolated, loop_devices};

/// Seconds a real agent at rest takes to look around again.
const NEXT_LOOK: u32 = 60;

impl Story {
    /// Mounts a dataset once more, as whoever uses it does, and returns where. What is mounted on the dataset later is
    /// not mounted there too.
    fn bind(&self, directory: &Path, dataset: Uuid, number: usize) -> PathBuf {
        let target = directory.join("target");
        fs::create_dir_all(&target).unwrap();
        mount_bind(self.cluster.path(number, dataset), &target).unwrap();
        mount_change(&target, MountPropagationFlags::PRIVATE).unwrap();
        target
    }

    /// Stacks a mount of a dataset on itself, so that the mount table's last line for it is the agent's again.
    fn bind_on_itself(&self, dataset: Uuid, number: usize) {
        let path = self.cluster.path(number, dataset);
        mount_bind(&path, &path).unwrap();
    }

    /// Unmounts a dataset where the agent had it and where it was used: what is left to do when the agent has lost it
    /// out of its sight.
    fn clear_up(&self, dataset: Uuid, number: usize, target: &Path) {
        unmount(self.cluster.path(number, dataset), UnmountFlags::empty()).unwrap();
        unmount(target, UnmountFlags::empty()).unwrap();
    }
}

#[test]
fn a_bind_mount_makes_state_lose_the_path_until_it_has_gone() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.create("bind: create", 1).await;
        story.lease(dataset, 1).await;
        let mut watch = story
            .watch("bind: state with bind mount present, 75 s", dataset)
            .await;
        let target = story.bind(&directory, dataset, 1);
        watch.end().await;

        let mut held = story.watch("bind: leased move", dataset).await;
        story.cluster.relocate(dataset, 2).await;
        held.hold(20).await;

        let mut freed = story.watch("bind: after unbind+release", dataset).await;
        unmount(&target, UnmountFlags::empty()).unwrap();
        freed.reach("node-1").await;
        story.release(dataset).await;
        freed.end().await;
    });
}

#[test]
fn a_bound_dataset_that_is_moved_is_detached_but_attached_elsewhere_only_when_no_mount_is_left() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(2).await;
        let target = story.bind(&directory, dataset, 2);
        let mut watch = story.watch("bind: unleased move while bound", dataset).await;
        story.cluster.relocate(dataset, 1).await;
        watch.reach("unmounted").await;
        watch.hold(NEXT_LOOK).await;
        story.clear_up(dataset, 2, &target);
        watch.end().await;
    });
}

#[test]
fn a_bound_dataset_that_is_deleted_goes_when_no_mount_is_left() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(3).await;
        let target = story.bind(&directory, dataset, 3);
        fs::write(target.join("file"), "content").unwrap();
        let backing = directory.join("data/volumes").join(dataset.to_string());
        let mut watch = story.watch("bind: delete while bound, no lease", dataset).await;
        story.cluster.delete(dataset).await;
        watch.reach("unmounted").await;
        watch.hold(NEXT_LOOK).await;
        assert!(backing.exists());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content");
        story.clear_up(dataset, 3, &target);
        watch.end().await;
        eventually("the volume is destroyed", async || {
            loop_devices(&directory).is_empty() && !backing.exists()
        })
        .await;
    });
}

#[test]
fn a_mount_stacked_on_the_agents_own_brings_the_path_back() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(1).await;
        let mut lost = story.watch("bind-nolease: state of bound dataset", dataset).await;
        let target = story.bind(&directory, dataset, 1);
        lost.end().await;

        let mut found = story.watch("bind-rebind: state of bound dataset", dataset).await;
        story.bind_on_itself(dataset, 1);
        found.end().await;
        unmount(&target, UnmountFlags::empty()).unwrap();
        story
            .relocate("bind-rebind: move with stacked self-bind", dataset, 2)
            .await;
    });
}

#[test]
fn a_bind_mount_takes_the_protection_of_the_lease_away() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.create("lease+bind: create", 1).await;
        story.lease(dataset, 1).await;
        let mut lost = story.watch("lease+bind: state loses path", dataset).await;
        let target = story.bind(&directory, dataset, 1);
        lost.end().await;

        let mut moved = story.watch("lease+bind: state after move", dataset).await;
        story.cluster.relocate(dataset, 2).await;
        moved.hold(20).await;
        story.clear_up(dataset, 1, &target);
        moved.end().await;
        story.release(dataset).await;

        story.relocate("lease+bind+rebind: settle", dataset, 3).await;
        story.lease(dataset, 3).await;
        let target = story.bind(&directory, dataset, 3);
        story.bind_on_itself(dataset, 3);
        let mut kept = story
            .watch("lease+bind+rebind: state keeps path 10 s", dataset)
            .await;
        kept.hold(NEXT_LOOK * 2).await;
        let mut held = story.watch("lease+bind+rebind: state after move", dataset).await;
        story.cluster.relocate(dataset, 1).await;
        held.hold(NEXT_LOOK * 2).await;

        unmount(&target, UnmountFlags::empty()).unwrap();
        let mut released = story.watch("lease+bind+rebind: after release", dataset).await;
        story.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn an_agent_at_rest_sees_the_bind_mount_only_when_it_looks_again() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.create("stock lease+bind: create", 1).await;
        story.lease(dataset, 1).await;
        let target = story.bind(&directory, dataset, 1);
        let mut watch = story.watch("stock lease+bind: state after move", dataset).await;
        story.cluster.relocate(dataset, 2).await;
        watch.reach("unmounted").await;
        watch.hold(20).await;
        story.clear_up(dataset, 1, &target);
        watch.end().await;
    });
}

#[test]
fn a_bind_mount_that_the_agent_cannot_see_confuses_nobody() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.create("slave-ns: create", 1).await;
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        let unseen = Elsewhere::bind(story.cluster.path(1, dataset), &target);
        story
            .watch("slave-ns: state of bound dataset", dataset)
            .await
            .hold(NEXT_LOOK * 2)
            .await;
        unseen.end();
        story.relocate("slave-ns: move", dataset, 2).await;

        let dataset = story.create("agent-private-root: create", 3).await;
        story.lease(dataset, 3).await;
        let unseen = Elsewhere::bind(story.cluster.path(3, dataset), &target);
        story
            .watch("agent-private-root: state keeps path", dataset)
            .await
            .hold(NEXT_LOOK * 2)
            .await;
        let mut held = story.watch("agent-private-root: leased move", dataset).await;
        story.cluster.relocate(dataset, 1).await;
        held.hold(20).await;
        unseen.end();
        let mut released = story.watch("agent-private-root: after release", dataset).await;
        story.release(dataset).await;
        released.end().await;
    });
}
