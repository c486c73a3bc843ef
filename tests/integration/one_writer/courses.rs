//! The two courses that were recorded on a real Flocker with its loopback backend, where a plugin is dead.

use std::fs;

use flocker_csi::flocker::attach::Takeover;
use tokio::time::Instant;
use tonic::Code;

use super::{Fixture, SOON, Task, WRITTEN};
use crate::node::assert_refused;
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;
use crate::support::scratch::loop_devices_on;

/// Starts the plugin of the first node where two nodes have the volume, and checks what follows.
async fn the_plugin_stops_the_old_writer(fixture: &Fixture, task: Task, old: &Usage, new: &Usage) {
    assert_eq!(fixture.devices(), 2, "both nodes have it");
    task.writes("the old node still writes, with its plugin dead")
        .await;

    let began = Instant::now();
    let plugin = fixture.old_plugin().await;
    let serving = began.elapsed();
    task.is_stopped().await;
    println!(
        "The plugin served {serving:?} after its start, and writes had stopped after {:?}",
        began.elapsed()
    );
    task.stays_stopped().await;
    check_answers(fixture, &plugin, old).await;

    // What was in flight at the stop may have arrived, and nothing after it.
    let last = task.end().await;
    let arrived = fixture.on_disk(old.dataset(), WRITTEN);
    let numbers = arrived
        .iter()
        .map(|text| text[WRITTEN.len()..].parse::<u64>().unwrap());
    assert!(
        numbers.max().unwrap() <= last + 1,
        "{arrived:?}, the last one was {last}"
    );

    plugin.csi.unpublish(old).await.unwrap();
    plugin.csi.unstage(old).await.unwrap();
    assert_eq!((fixture.old.records(), fixture.old.devices()), (vec![], vec![]));
    eventually("its loop device is free", async || {
        (fixture.devices() == 1).then_some(())
    })
    .await;
    assert_eq!(fs::read(new.target.join("new")).unwrap(), b"the new node's");
    plugin.terminate().await;
}

async fn check_answers(fixture: &Fixture, plugin: &Process, usage: &Usage) {
    let holder = fixture.new.node().to_string();
    let stats = plugin.csi.stats(usage).await.unwrap().volume_condition.unwrap();
    assert!(stats.abnormal);
    for part in [holder.as_str(), "shut down here", "unpublish and unstage"] {
        assert!(stats.message.contains(part), "{part:?} in {:?}", stats.message);
    }
    assert!(
        !stats.message.contains("stage the volume again"),
        "{}",
        stats.message
    );
    let more = plugin.csi.publish(&usage.at_target("more")).await;
    assert_refused(more, Code::FailedPrecondition, &[&holder, "shut down here"]);
    plugin.logged("shut down here").await;
}

#[test]
fn a_plugin_that_starts_stops_the_writes_to_a_volume_that_was_detached_by_force() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old_plugin().await;
        let old = fixture.published(&plugin).await;
        let task = Task::start(&old.target).await;
        plugin.kill().await;
        let new = fixture.moved(&old).await;
        fixture.used_by_the_new_node(&new).await;
        the_plugin_stops_the_old_writer(&fixture, task, &old, &new).await;
    });
}

#[test]
fn a_plugin_that_starts_stops_the_writes_to_a_volume_that_was_taken_over() {
    in_own_namespace(|| async {
        let fixture = Fixture::with(|new| {
            new.config.node_loss.takeover = Takeover::NodeGone;
            new.config.node_loss.takeover_grace = SOON;
        })
        .await;
        let plugin = fixture.old_plugin().await;
        let old = fixture.published(&plugin).await;
        let task = Task::start(&old.target).await;
        fixture.stop_agent(1).await;
        let context = eventually("the volume is taken over", async || {
            let request = crate::support::csi::to_attach(old.dataset(), fixture.new.node());
            fixture.csi().try_attach(request).await.ok()
        })
        .await;
        let new = fixture.new.usage("data", old.dataset(), &context);
        task.writes("the agent of the old node is dead").await;
        plugin.kill().await;
        fixture.start_agents();
        fixture.used_by_the_new_node(&new).await;
        the_plugin_stops_the_old_writer(&fixture, task, &old, &new).await;
        assert_eq!(loop_devices_on(fixture.flocker.path()).len(), 1);
    });
}

#[test]
fn a_plugin_that_may_take_volumes_over_says_at_the_start_what_that_needs_of_the_backend() {
    const NEED: &str = "has to attach a volume to one machine at a time";
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let plugin = fixture.old.process(&["--takeover=node-gone"]).await;
        assert_eq!(plugin.logged(NEED).await.matches(NEED).count(), 1);
        plugin.terminate().await;
        let plugin = fixture.old_plugin().await;
        assert!(!plugin.log().contains(NEED), "{}", plugin.log());
        plugin.terminate().await;
    });
}
