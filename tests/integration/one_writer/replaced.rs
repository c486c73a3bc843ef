//! A file system that is no longer the volume's, though the lease is its node's or no node's; and staging it again.

use host_fs::mount::testing::unmount;
use std::fs;

use tonic::Code;

use super::{Fixture, Task};
use crate::node::assert_refused;
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

impl Fixture {
    /// Waits until Flocker has a volume mounted on one node, and on no other.
    async fn is_mounted_on(&self, number: usize, usage: &Usage) {
        let mounted = |number| {
            let path = self.flocker.mount_of(number, usage.dataset());
            !Mounts::read().at(&path).is_empty()
        };
        eventually(&format!("it is mounted on node {number}"), async || {
            (mounted(number) && !mounted(3 - number)).then_some(())
        })
        .await;
    }

    /// Publishes a volume on the first node, to which a task writes, and kills the plugin.
    async fn without_plugin(&self) -> (Usage, Task) {
        let plugin = self.old_plugin().await;
        let usage = self.published(&plugin).await;
        let task = Task::start(&usage.target).await;
        plugin.kill().await;
        (usage, task)
    }

    /// Ends the task and its publication, and stages the volume on the first node again.
    async fn staged_again(&self, plugin: &Process, task: Task, usage: &Usage) {
        assert_refused(
            plugin.csi.stage(usage).await,
            Code::Unavailable,
            &[
                "writes to volume",
                "were stopped on this node",
                "NodeUnpublishVolume",
            ],
        );
        task.end().await;
        plugin.csi.unpublish(usage).await.unwrap();
    }
}

#[test]
fn a_volume_that_moved_away_and_back_under_a_dead_plugin_is_stopped_by_its_own_lease_and_staged_anew() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let (usage, task) = fixture.without_plugin().await;
        fixture.moved(&usage).await;
        fixture.is_mounted_on(2, &usage).await;
        fixture.csi().detach(usage.dataset(), fixture.new.node()).await;
        fixture.csi().attach(usage.dataset(), fixture.old.node()).await;
        fixture.is_mounted_on(1, &usage).await;
        task.writes("its file system is not the one that Flocker has mounted")
            .await;
        assert_eq!(fixture.devices(), 2);

        let plugin = fixture.old_plugin().await;
        task.is_stopped().await;
        task.stays_stopped().await;
        plugin.logged("no longer the one that Flocker mounts").await;
        let stats = plugin.csi.stats(&usage).await.unwrap().volume_condition.unwrap();
        assert!(
            stats.abnormal && stats.message.contains("shut down here"),
            "{}",
            stats.message
        );
        let flockers = fixture.flocker.mount_of(1, usage.dataset());
        fs::write(flockers.join("flockers"), "").expect("only what was replaced is stopped");

        fixture.staged_again(&plugin, task, &usage).await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        let task = Task::start(&usage.target).await;
        assert_eq!(fixture.devices(), 1, "the stale one is free");
        task.end().await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.terminate().await;
    });
}

#[test]
fn a_volume_whose_mount_is_only_missing_is_not_stopped_under_the_lease_of_its_node() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let (usage, task) = fixture.without_plugin().await;
        // The agent mounts it again, from the same device.
        unmount(fixture.flocker.mount_of(1, usage.dataset()));
        let plugin = fixture.old_plugin().await;
        fixture.is_mounted_on(1, &usage).await;
        super::unbroken::reads_of_leases(&fixture, 3).await;
        task.writes("nothing has replaced it").await;
        task.end().await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.terminate().await;
    });
}

#[test]
fn a_volume_that_was_moved_away_and_that_no_node_has_leased_is_stopped_and_never_leased_again() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old_plugin().await;
        let volume = fixture.csi().create("data").await;
        // Without a publish context: the node attaches it for itself.
        let usage = fixture.old.usage("data", volume, &[].into());
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        let task = Task::start(&usage.target).await;
        plugin.kill().await;
        fixture.moved(&usage).await;
        fixture.is_mounted_on(2, &usage).await;
        fixture.csi().detach(volume, fixture.new.node()).await;
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        task.writes("the old node still writes").await;

        let plugin = fixture.old_plugin().await;
        task.is_stopped().await;
        task.stays_stopped().await;
        plugin
            .logged(&format!("to have the volume on node {}", fixture.new.node()))
            .await;
        super::unbroken::reads_of_leases(&fixture, 3).await;
        assert_eq!(
            fixture.flocker.leaseholder(volume).await,
            None,
            "it is not leased again"
        );
        task.end().await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.terminate().await;
    });
}

#[test]
fn a_volume_that_was_stopped_under_flockers_mount_too_is_refused_until_that_is_unmounted() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let (usage, task) = fixture.without_plugin().await;
        let flockers = fixture.flocker.mount_of(1, usage.dataset());
        // The agent mounts it again, from the same device, and so the same file system.
        unmount(&flockers);
        fixture.is_mounted_on(1, &usage).await;
        let client = fixture.flocker.client().await;
        let lease_to = async |node| {
            client.release_lease(usage.dataset()).await.unwrap();
            client.acquire_lease(usage.dataset(), node, None).await.unwrap();
        };
        lease_to(fixture.new.node()).await;
        let plugin = fixture.old_plugin().await;
        task.is_stopped().await;
        lease_to(fixture.old.node()).await;

        fixture.staged_again(&plugin, task, &usage).await;
        assert_refused(
            plugin.csi.stage(&usage).await,
            Code::FailedPrecondition,
            &["is shut down on this node", "umount"],
        );
        assert!(
            Mounts::read().at(&usage.alias()).is_empty(),
            "a final answer leaves nothing"
        );
        assert_eq!((fixture.old.records(), fixture.old.devices()), (vec![], vec![]));
        unmount(&flockers);
        fixture.is_mounted_on(1, &usage).await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        Task::start(&usage.target).await.end().await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.terminate().await;
    });
}
