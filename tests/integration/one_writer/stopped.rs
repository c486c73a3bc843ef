//! When writes are stopped, and what is not written then.

use std::fs;

use flocker_embedded::faults::FaultPlan;
use tokio::time::Instant;

use super::{Fixture, Task, WRITTEN, sync};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;

/// A volume of which the first node has something in its cache, and that the second node uses; the first node's plugin is
/// dead.
async fn with_something_cached(fixture: &Fixture) -> (Usage, Usage) {
    let plugin = fixture.old_plugin().await;
    let old = fixture.published(&plugin).await;
    sync(&old.target).unwrap();
    fs::write(old.target.join("file"), format!("{WRITTEN}00000001")).unwrap();
    plugin.csi.unpublish(&old).await.unwrap();
    plugin.kill().await;
    let new = fixture.moved(&old).await;
    fixture.used_by_the_new_node(&new).await;
    (old, new)
}

/// Checks that the first node has released the volume without writing what it had in its cache.
async fn nothing_was_written(fixture: &Fixture, old: &Usage, new: &Usage) {
    eventually("its loop device is free", async || {
        (fixture.devices() == 1).then_some(())
    })
    .await;
    assert_eq!(fixture.on_disk(old.dataset(), WRITTEN), Vec::<String>::new());
    sync(&new.target).unwrap();
    assert_eq!(fs::read(new.target.join("new")).unwrap(), b"the new node's");
}

#[test]
fn a_volume_that_another_node_has_is_let_go_without_writing_what_is_cached() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let (old, new) = with_something_cached(&fixture).await;
        let plugin = fixture.old_plugin().await;
        eventually("the volume is let go", async || {
            (fixture.old.records().is_empty() && fixture.old.devices().is_empty()).then_some(())
        })
        .await;
        nothing_was_written(&fixture, &old, &new).await;
        plugin.terminate().await;
    });
}

#[test]
fn a_volume_that_another_node_has_is_unstaged_without_writing_what_is_cached() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let (old, new) = with_something_cached(&fixture).await;
        // The watch reads the leases only after the volume has been unstaged.
        let faults = fixture.flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        let plugin = fixture.old_plugin().await;
        faults.set(FaultPlan::default());
        faults.until_in_force().await;
        plugin.csi.unstage(&old).await.unwrap();
        nothing_was_written(&fixture, &old, &new).await;
        plugin.terminate().await;
    });
}

#[test]
fn a_plugin_that_starts_without_flocker_stops_the_writes_as_soon_as_flocker_answers() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old_plugin().await;
        let old = fixture.published(&plugin).await;
        let task = Task::start(&old.target).await;
        plugin.kill().await;
        let new = fixture.moved(&old).await;
        fixture.used_by_the_new_node(&new).await;
        let faults = fixture.flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        let plugin = fixture.old_plugin().await;
        task.writes("Flocker does not answer").await;
        let began = Instant::now();
        faults.set(FaultPlan::default());
        task.is_stopped().await;
        println!("Writes had stopped {:?} after Flocker answered", began.elapsed());
        task.stays_stopped().await;
        task.end().await;
        plugin.terminate().await;
    });
}
