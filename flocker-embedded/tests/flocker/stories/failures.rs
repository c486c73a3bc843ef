//! Agents, machines and control services that stop and come back, and a mount that is in use.

use std::fs::File;
use std::time::Duration;

use flocker_embedded::faults::{AgentState, MachineState, NodeFault};
use serde_json::json;
use uuid::Uuid;

use super::{Story, Subject, Watch, era};
use crate::support::{eventually, isolated, mount_points};

#[test]
fn an_agent_that_dies_is_listed_for_two_minutes_and_then_gone_with_its_datasets() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(3).await;
        let mut nodes = Watch::begin(&story, "agent3 stopped: nodes", Subject::Nodes).await;
        let mut state = story.watch("agent3 stopped: state", dataset).await;
        let mut by_era = Watch::begin(&story, "agent3 stopped: by_era", Subject::Era(era(3))).await;
        story.agent(3, AgentState::Stopped);
        // Not all of the two minutes: nobody knows how long this machine takes to get here.
        nodes.hold(60).await;
        state.end().await;
        nodes.end().await;
        by_era.hold(10).await;
        by_era.end().await;
        assert!(mount_points().contains(&story.cluster.path(3, dataset)));

        let case = "dead node: state after moving away from dead node, 20 s";
        let mut waiting = story.watch(case, dataset).await;
        story.cluster.relocate(dataset, 1).await;
        waiting.hold(20).await;

        let mut back = story.watch("agent3 restarted: state", dataset).await;
        story.agent(3, AgentState::Running);
        back.end().await;
        story.cluster.wait_until_on(1, dataset).await;
    });
}

#[test]
fn a_control_service_that_starts_again_shows_nothing_until_the_agents_report() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(3).await;
        story.cluster.flocker.faults().change(|plan| {
            plan.reconnect_after = Duration::from_secs(3);
            plan.control_restarts += 1;
        });
        let nodes = Watch::begin_late(&story, "control restarted: nodes", Subject::Nodes);
        let state = Watch::begin_late(&story, "control restarted: state", Subject::Dataset(dataset));
        let (mut nodes, mut state) = (nodes.await, state.await);
        assert_eq!(story.configured(dataset).await, json!(story.node(3)));
        assert!(mount_points().contains(&story.cluster.path(3, dataset)));
        nodes.end().await;
        state.end().await;
    });
}

#[test]
fn a_node_that_reboots_is_shown_as_before_until_its_agent_reports_under_the_new_era() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(2).await;
        let path = story.cluster.path(2, dataset);
        story.lease(dataset, 2).await;
        let new = Uuid::new_v4();
        let mut stale = story.watch("reboot with lease: state", dataset).await;
        story.cluster.flocker.faults().change(|plan| {
            let off = NodeFault {
                machine: MachineState::Off,
                era: Some(new),
                ..NodeFault::default()
            };
            plan.nodes.insert(2, off);
        });
        eventually("the mount is gone", async || !mount_points().contains(&path)).await;
        stale.hold(10).await;
        let mut unknown = Watch::begin(&story, "reboot: by_era new", Subject::Era(new)).await;
        unknown.hold(10).await;
        let known = Watch::begin(&story, "reboot: by_era old", Subject::Era(era(2)));
        known.await.end().await;

        story.cluster.flocker.faults().change(|plan| {
            plan.nodes.entry(2).or_default().machine = MachineState::On;
        });
        eventually("the node has its new era", async || {
            story.see(Subject::Era(new)).await == "node-2"
        })
        .await;
        // The lease does not keep the agent from mounting what it finds unmounted.
        story.cluster.wait_until_on(2, dataset).await;
        assert!(mount_points().contains(&path));
        let mut released = story.watch("reboot: after lease release", dataset).await;
        story.release(dataset).await;
        released.hold(10).await;
    });
}

#[test]
fn an_open_file_holds_a_move_back_until_it_is_closed() {
    isolated(async |directory| {
        let story = Story::start(&directory).await;
        let dataset = story.cluster.create_mounted(3).await;
        let file = File::create(story.cluster.path(3, dataset).join("file")).unwrap();
        let mut watch = story.watch("busy: move with open file", dataset).await;
        story.cluster.relocate(dataset, 1).await;
        watch.hold(20).await;
        drop(file);
        watch.end().await;
    });
}
