//! When writes are stopped.

use flocker_embedded::faults::FaultPlan;
use tokio::time::Instant;

use super::{Fixture, Task};
use crate::support::namespace::in_own_namespace;

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
