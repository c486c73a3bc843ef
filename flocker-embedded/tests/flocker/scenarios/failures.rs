//! Agents, machines and control services that stop and start again, and a mount that is in use.

use std::fs::File;
use std::time::Duration;

use flocker_embedded::faults::{AgentState, MachineState, NodeFault};
use serde_json::json;
use uuid::Uuid;

use super::{Scenario, Subject, Watch, era};
use crate::support::{eventually, isolated, mount_points};

#[test]
fn an_agent_that_stops_is_listed_for_two_minutes_and_then_disappears_with_its_datasets() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(3).await;
        let mut nodes = Watch::begin(&scenario, "agent3 stopped: nodes", Subject::Nodes).await;
        let mut state = scenario.watch("agent3 stopped: state", dataset).await;
        let mut by_era = Watch::begin(&scenario, "agent3 stopped: by_era", Subject::Era(era(3))).await;
        scenario.agent(3, AgentState::Stopped);
        // Not all of the two minutes: how long this machine takes to reach this point is unknown.
        nodes.hold(60).await;
        state.end().await;
        nodes.end().await;
        by_era.hold(10).await;
        by_era.end().await;
        assert!(mount_points().contains(&scenario.cluster.path(3, dataset)));

        let case = "dead node: state after moving away from dead node, 20 s";
        let mut waiting = scenario.watch(case, dataset).await;
        scenario.cluster.relocate(dataset, 1).await;
        waiting.hold(20).await;

        let mut back = scenario.watch("agent3 restarted: state", dataset).await;
        scenario.agent(3, AgentState::Running);
        back.end().await;
        scenario.cluster.wait_until_on(1, dataset).await;
    });
}

#[test]
fn a_restarted_control_service_shows_nothing_until_the_agents_report() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(3).await;
        scenario.cluster.flocker.faults().change(|plan| {
            plan.reconnect_after = Duration::from_secs(3);
            plan.control_restarts += 1;
        });
        let nodes = Watch::begin_late(&scenario, "control restarted: nodes", Subject::Nodes);
        let state = Watch::begin_late(&scenario, "control restarted: state", Subject::Dataset(dataset));
        let (mut nodes, mut state) = (nodes.await, state.await);
        assert_eq!(scenario.configured(dataset).await, json!(scenario.node(3)));
        assert!(mount_points().contains(&scenario.cluster.path(3, dataset)));
        nodes.end().await;
        state.end().await;
    });
}

#[test]
fn a_node_that_reboots_is_shown_as_before_until_its_agent_reports_under_the_new_era() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(2).await;
        let path = scenario.cluster.path(2, dataset);
        scenario.lease(dataset, 2).await;
        let new = Uuid::new_v4();
        let mut stale = scenario.watch("reboot with lease: state", dataset).await;
        scenario.cluster.flocker.faults().change(|plan| {
            let off = NodeFault {
                machine: MachineState::Off,
                era: Some(new),
                ..NodeFault::default()
            };
            plan.nodes.insert(2, off);
        });
        eventually("the mount no longer exists", async || {
            !mount_points().contains(&path)
        })
        .await;
        stale.hold(10).await;
        let mut unknown = Watch::begin(&scenario, "reboot: by_era new", Subject::Era(new)).await;
        unknown.hold(10).await;
        let known = Watch::begin(&scenario, "reboot: by_era old", Subject::Era(era(2)));
        known.await.end().await;

        scenario.cluster.flocker.faults().change(|plan| {
            plan.nodes.entry(2).or_default().machine = MachineState::On;
        });
        eventually("the node has its new era", async || {
            scenario.see(Subject::Era(new)).await == "node-2"
        })
        .await;
        // The lease does not prevent the agent from mounting what it finds unmounted.
        scenario.cluster.wait_until_on(2, dataset).await;
        assert!(mount_points().contains(&path));
        let mut released = scenario.watch("reboot: after lease release", dataset).await;
        scenario.release(dataset).await;
        released.hold(10).await;
    });
}

#[test]
fn an_open_file_delays_a_recorded_move_until_it_is_closed() {
    isolated(async |directory| {
        let scenario = Scenario::start(&directory).await;
        let dataset = scenario.cluster.create_mounted(3).await;
        let file = File::create(scenario.cluster.path(3, dataset).join("file")).unwrap();
        let mut watch = scenario.watch("busy: move with open file", dataset).await;
        scenario.cluster.relocate(dataset, 1).await;
        watch.hold(20).await;
        drop(file);
        watch.end().await;
    });
}
