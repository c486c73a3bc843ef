//! What is never stopped.

use super::{Fixture, Task};
use crate::support::csi::{to_attach, to_detach};
use crate::support::namespace::in_own_namespace;

/// Waits until the leases have been read that many times.
pub(super) async fn reads_of_leases(fixture: &Fixture, times: u64) {
    let read = || {
        let counters = fixture.flocker.embedded().counters();
        counters.asked("GET", "/v1/configuration/leases")
    };
    let before = read();
    crate::support::eventually("the leases are read", async || {
        (read() >= before + times).then_some(())
    })
    .await;
}

#[test]
fn a_volume_in_use_that_was_detached_by_force_is_not_stopped_while_it_is_pinned() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old_plugin().await;
        let old = fixture.published(&plugin).await;
        let task = Task::start(&old.target).await;
        fixture
            .csi()
            .try_detach(to_detach(old.dataset(), fixture.old.node()))
            .await
            .unwrap();
        let attach = crate::support::csi::within(super::SOON, to_attach(old.dataset(), fixture.new.node()));
        fixture.csi().try_attach(attach).await.unwrap_err();
        plugin.logged("which holds Flocker's mount in place").await;
        reads_of_leases(&fixture, 4).await;
        task.writes("it is pinned").await;
        assert_eq!(fixture.devices(), 1, "the other node waits");
        task.end().await;
        plugin.terminate().await;
    });
}

#[test]
fn a_volume_in_use_is_not_stopped_by_a_restart_that_finds_the_mount_which_was_pinned() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old_plugin().await;
        let old = fixture.published(&plugin).await;
        let task = Task::start(&old.target).await;
        fixture.stop_agent(1).await;
        plugin.kill().await;
        // The agent could have unmounted it from here on, and has not.
        let client = fixture.flocker.client().await;
        client.release_lease(old.dataset()).await.unwrap();
        client
            .acquire_lease(old.dataset(), fixture.new.node(), None)
            .await
            .unwrap();
        client
            .move_dataset(old.dataset(), fixture.new.node())
            .await
            .unwrap();
        let plugin = fixture.old_plugin().await;
        plugin.logged("which holds Flocker's mount in place").await;
        fixture.start_agents();
        reads_of_leases(&fixture, 4).await;
        task.writes("it is pinned again").await;
        assert_eq!(fixture.devices(), 1, "the agent cannot unmount it");
        task.end().await;
        plugin.terminate().await;
    });
}
