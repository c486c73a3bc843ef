//! Datasets with a second mount, as a container orchestrator makes it, and its effect on the agent.

use host_fs::mount::testing::unmount;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use uuid::Uuid;

use super::Scenario;
use super::other_namespace::OtherNamespace;
use crate::support::{eventually, isolated, loop_devices};

/// Seconds until a real agent without steps observes again.
const NEXT_ITERATION: u32 = 60;

impl Scenario {
    /// Mounts a dataset a second time, as its user does, and returns where. Later mounts on the dataset do not appear
    /// there.
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

    /// Unmounts a dataset from the agent's mount path and from its target: the steps that an operator takes when the
    /// agent no longer observes the dataset.
    fn unmount_all(&self, dataset: Uuid, number: usize, target: &Path) {
        unmount(self.cluster.path(number, dataset));
        unmount(target);
    }
}

#[test]
fn a_bind_mount_removes_the_path_from_state_until_it_ends() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.create("bind: create", 1).await;
        scenario.lease(dataset, 1).await;
        let mut watch = scenario
            .watch("bind: state with bind mount present, 75 s", dataset)
            .await;
        let target = scenario.bind(&directory, dataset, 1);
        watch.end().await;

        let mut held = scenario.watch("bind: leased move", dataset).await;
        scenario.cluster.relocate(dataset, 2).await;
        held.hold(20).await;

        let mut freed = scenario.watch("bind: after unbind+release", dataset).await;
        unmount(&target);
        freed.reach("node-1").await;
        scenario.release(dataset).await;
        freed.end().await;
    });
}

#[test]
fn a_bound_dataset_that_is_moved_is_attached_elsewhere_only_when_its_last_mount_ends() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(2).await;
        let target = scenario.bind(&directory, dataset, 2);
        let mut watch = scenario.watch("bind: unleased move while bound", dataset).await;
        scenario.cluster.relocate(dataset, 1).await;
        watch.reach("unmounted").await;
        watch.hold(NEXT_ITERATION).await;
        scenario.unmount_all(dataset, 2, &target);
        watch.end().await;
    });
}

#[test]
fn a_bound_dataset_that_is_deleted_is_destroyed_when_its_last_mount_ends() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(3).await;
        let target = scenario.bind(&directory, dataset, 3);
        fs::write(target.join("file"), "content").unwrap();
        let backing = directory.join("data/volumes").join(dataset.to_string());
        let mut watch = scenario
            .watch("bind: delete while bound, no lease", dataset)
            .await;
        scenario.cluster.delete(dataset).await;
        watch.reach("unmounted").await;
        watch.hold(NEXT_ITERATION).await;
        assert!(backing.exists());
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "content");
        scenario.unmount_all(dataset, 3, &target);
        watch.end().await;
        eventually("the volume is destroyed", async || {
            loop_devices(&directory).is_empty() && !backing.exists()
        })
        .await;
    });
}

#[test]
fn a_mount_stacked_on_the_agents_own_restores_the_path() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(1).await;
        let mut lost = scenario
            .watch("bind-nolease: state of bound dataset", dataset)
            .await;
        let target = scenario.bind(&directory, dataset, 1);
        lost.end().await;

        let mut found = scenario
            .watch("bind-rebind: state of bound dataset", dataset)
            .await;
        scenario.bind_on_itself(dataset, 1);
        found.end().await;
        unmount(&target);
        scenario
            .relocate("bind-rebind: move with stacked self-bind", dataset, 2)
            .await;
    });
}

#[test]
fn a_bind_mount_ends_the_protection_of_the_lease() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.create("lease+bind: create", 1).await;
        scenario.lease(dataset, 1).await;
        let mut lost = scenario.watch("lease+bind: state loses path", dataset).await;
        let target = scenario.bind(&directory, dataset, 1);
        lost.end().await;

        let mut moved = scenario.watch("lease+bind: state after move", dataset).await;
        scenario.cluster.relocate(dataset, 2).await;
        moved.hold(20).await;
        scenario.unmount_all(dataset, 1, &target);
        moved.end().await;
        scenario.release(dataset).await;

        scenario.relocate("lease+bind+rebind: settle", dataset, 3).await;
        scenario.lease(dataset, 3).await;
        let target = scenario.bind(&directory, dataset, 3);
        scenario.bind_on_itself(dataset, 3);
        let mut kept = scenario
            .watch("lease+bind+rebind: state keeps path 10 s", dataset)
            .await;
        kept.hold(NEXT_ITERATION * 2).await;
        let mut held = scenario
            .watch("lease+bind+rebind: state after move", dataset)
            .await;
        scenario.cluster.relocate(dataset, 1).await;
        held.hold(NEXT_ITERATION * 2).await;

        unmount(&target);
        let mut released = scenario.watch("lease+bind+rebind: after release", dataset).await;
        scenario.release(dataset).await;
        released.end().await;
    });
}

#[test]
fn an_agent_without_steps_sees_a_bind_mount_only_at_its_next_iteration() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.create("stock lease+bind: create", 1).await;
        scenario.lease(dataset, 1).await;
        let target = scenario.bind(&directory, dataset, 1);
        let mut watch = scenario
            .watch("stock lease+bind: state after move", dataset)
            .await;
        scenario.cluster.relocate(dataset, 2).await;
        watch.reach("unmounted").await;
        watch.hold(20).await;
        scenario.unmount_all(dataset, 1, &target);
        watch.end().await;
    });
}

#[test]
fn a_bind_mount_that_the_agent_cannot_see_changes_nothing() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.create("slave-ns: create", 1).await;
        let target = directory.join("target");
        fs::create_dir(&target).unwrap();
        let unseen = OtherNamespace::bind(scenario.cluster.path(1, dataset), &target);
        scenario
            .watch("slave-ns: state of bound dataset", dataset)
            .await
            .hold(NEXT_ITERATION * 2)
            .await;
        unseen.end();
        scenario.relocate("slave-ns: move", dataset, 2).await;

        let dataset = scenario.create("agent-private-root: create", 3).await;
        scenario.lease(dataset, 3).await;
        let unseen = OtherNamespace::bind(scenario.cluster.path(3, dataset), &target);
        scenario
            .watch("agent-private-root: state keeps path", dataset)
            .await
            .hold(NEXT_ITERATION * 2)
            .await;
        let mut held = scenario.watch("agent-private-root: leased move", dataset).await;
        scenario.cluster.relocate(dataset, 1).await;
        held.hold(20).await;
        unseen.end();
        let mut released = scenario.watch("agent-private-root: after release", dataset).await;
        scenario.release(dataset).await;
        released.end().await;
    });
}
