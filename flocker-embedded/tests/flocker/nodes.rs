//! Nodes that become silent, stop, start again, and a control service that does.

use host_fs::mount::testing::unmount;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, Effect, FaultPlan, MachineState, NodeFault, RequestFault};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    Cluster, alias, eventually, for_a_while, isolated, loop_devices, mount_points, options,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SOON: Duration = Duration::from_millis(300);
const STATE: &str = "/v1/state/datasets";

/// Two nodes, the first with an era.
async fn start(directory: &Path, expiry: Duration) -> (Cluster, Uuid) {
    let era = Uuid::new_v4();
    let cluster = Cluster::start_with(Options {
        nodes: 2,
        eras: BTreeMap::from([(1, era)]),
        node_expiry: Some(expiry),
        ..options(directory)
    })
    .await;
    (cluster, era)
}

#[test]
fn an_agent_that_stops_alone_disappears_from_the_lists_but_keeps_its_datasets() {
    isolated(async |directory| {
        let (cluster, era) = start(&directory, SOON).await;
        let dataset = cluster.create_mounted(1).await;
        let mounted = cluster.state(dataset).await;
        // A running machine is not off, no matter how long its agent has been stopped.
        cluster
            .flocker
            .faults()
            .change(|plan| plan.dead_nodes_known = true);
        cluster
            .change_node(1, |node| node.agent = AgentState::Stopped)
            .await;
        eventually("the node expires", async || cluster.listed().await == [2]).await;
        assert_eq!(cluster.state(dataset).await, None);
        assert_eq!(cluster.node_of_era(era).await, Some(cluster.node(1).uuid));
        let configured = cluster.client.get("/v1/configuration/datasets").await.json();
        assert_eq!(configured[0]["primary"], json!(cluster.node(1).uuid));

        cluster.relocate(dataset, 2).await;
        for_a_while("the dataset stays where it is mounted", async || {
            mount_points().contains(&cluster.path(1, dataset)) && loop_devices(&directory).len() == 1
        })
        .await;
        cluster.relocate(dataset, 1).await;
        cluster
            .change_node(1, |node| node.agent = AgentState::Running)
            .await;
        eventually("it reports what it had mounted", async || {
            cluster.state(dataset).await == mounted
        })
        .await;
        cluster.relocate(dataset, 2).await;
        cluster.wait_until_on(2, dataset).await;
    });
}

#[test]
fn a_silent_node_stays_listed_until_it_expires() {
    isolated(async |directory| {
        let (cluster, _) = start(&directory, DAY).await;
        let dataset = cluster.create_mounted(1).await;
        let mounted = cluster.state(dataset).await;
        cluster
            .change_node(1, |node| node.machine = MachineState::Off)
            .await;
        let new = cluster.create(1, crate::support::SIZE).await;
        for_a_while("state shows what was before", async || {
            cluster.listed().await == [1, 2]
                && cluster.state(dataset).await == mounted
                && cluster.state(new).await.is_none()
        })
        .await;
        assert!(!mount_points().contains(&cluster.path(1, dataset)));
    });
}

#[test]
fn a_machine_that_is_off_keeps_its_datasets_until_it_is_on_again() {
    isolated(async |directory| {
        let (cluster, era) = start(&directory, SOON).await;
        let (stays, moves) = (cluster.create_mounted(1).await, cluster.create_mounted(1).await);
        fs::write(cluster.path(1, stays).join("file"), "content").unwrap();
        let before = loop_devices(&directory);
        let off = |node: &mut NodeFault| node.machine = MachineState::Off;
        cluster.change_node(1, off).await;
        assert_eq!(loop_devices(&directory), []);
        assert!(!mount_points().contains(&cluster.path(1, stays)));
        eventually("the node expires", async || cluster.listed().await == [2]).await;
        assert_eq!(cluster.client.get(STATE).await.json(), json!([]));

        cluster.relocate(moves, 2).await;
        for_a_while("the move waits", async || {
            loop_devices(&directory).is_empty() && cluster.state(moves).await.is_none()
        })
        .await;

        cluster.change_node(1, |node| *node = NodeFault::default()).await;
        cluster.wait_until_on(1, stays).await;
        cluster.wait_until_on(2, moves).await;
        assert_eq!(
            fs::read_to_string(cluster.path(1, stays).join("file")).unwrap(),
            "content"
        );
        let after = loop_devices(&directory);
        let of_stays = |devices: &[(_, std::path::PathBuf)]| {
            let mut found = devices
                .iter()
                .filter(|(_, file)| file.ends_with(stays.to_string()));
            found
                .next()
                .map(|(device, _): &(std::path::PathBuf, _)| device.clone())
        };
        assert_ne!(of_stays(&before), of_stays(&after), "the number has changed");
        let new = cluster.flocker.eras(1);
        assert_eq!(new.len(), 1);
        assert_eq!(cluster.node_of_era(new[0]).await, Some(cluster.node(1).uuid));
        assert_eq!(cluster.node_of_era(era).await, None, "that boot is over");
    });
}

#[test]
fn a_dataset_of_a_machine_known_to_be_off_is_attached_by_its_new_primary() {
    isolated(async |directory| {
        let (cluster, _) = start(&directory, SOON).await;
        let (dataset, deleted) = (cluster.create_mounted(1).await, cluster.create_mounted(1).await);
        fs::write(cluster.path(1, dataset).join("file"), "content").unwrap();
        cluster
            .change_node(1, |node| node.machine = MachineState::Off)
            .await;
        cluster.relocate(dataset, 2).await;
        cluster.relocate(deleted, 2).await;
        cluster.delete(deleted).await;
        for_a_while("no node knows that it is off", async || {
            loop_devices(&directory).is_empty()
        })
        .await;
        cluster
            .flocker
            .faults()
            .change(|plan| plan.dead_nodes_known = true);
        cluster.wait_until_on(2, dataset).await;
        assert_eq!(
            fs::read_to_string(cluster.path(2, dataset).join("file")).unwrap(),
            "content"
        );
        eventually("the deleted one is destroyed", async || {
            fs::read_dir(directory.join("data/volumes")).unwrap().count() == 1
        })
        .await;

        cluster.flocker.faults().clear();
        cluster.flocker.faults().until_in_force().await;
        eventually("the node is back", async || cluster.listed().await == [1, 2]).await;
        for_a_while("it leaves the other what it has taken", async || {
            mount_points().contains(&cluster.path(2, dataset)) && loop_devices(&directory).len() == 1
        })
        .await;
    });
}

#[test]
fn what_another_process_has_mounted_or_open_stays_with_a_machine_that_is_off() {
    isolated(async |directory| {
        let (cluster, _) = start(&directory, SOON).await;
        let (mounted, open) = (cluster.create_mounted(1).await, cluster.create_mounted(1).await);
        let target = alias(&cluster.path(1, mounted), &directory);
        let file = File::create(cluster.path(1, open).join("file")).unwrap();
        let devices = loop_devices(&directory);
        cluster
            .flocker
            .faults()
            .change(|plan| plan.dead_nodes_known = true);
        cluster
            .change_node(1, |node| node.machine = MachineState::Off)
            .await;
        for dataset in [mounted, open] {
            assert!(!mount_points().contains(&cluster.path(1, dataset)));
            cluster.relocate(dataset, 2).await;
        }
        for_a_while("no node gets them", async || {
            loop_devices(&directory) == devices
                && !mount_points().contains(&cluster.path(2, mounted))
                && !mount_points().contains(&cluster.path(2, open))
        })
        .await;

        unmount(&target);
        cluster.wait_until_on(2, mounted).await;
        assert!(!mount_points().contains(&cluster.path(2, open)));
        drop(file);
        cluster.wait_until_on(2, open).await;
    });
}

#[test]
fn a_loop_device_that_outlives_a_reboot_is_used_again_and_no_second_one_is_attached() {
    isolated(async |directory| {
        let (cluster, _) = start(&directory, DAY).await;
        let dataset = cluster.create_mounted(1).await;
        let target = alias(&cluster.path(1, dataset), &directory);
        let devices = loop_devices(&directory);
        cluster.change_node(1, |node| node.reboots += 1).await;
        eventually("it is mounted again", async || {
            mount_points().contains(&cluster.path(1, dataset))
        })
        .await;
        assert_eq!(loop_devices(&directory), devices);
        unmount(&target);
        cluster.relocate(dataset, 2).await;
        cluster.wait_until_on(2, dataset).await;
    });
}

#[test]
fn a_reboot_appears_in_state_when_the_agent_reports_and_leases_do_not_delay_it() {
    isolated(async |directory| {
        let (cluster, old) = start(&directory, DAY).await;
        let dataset = cluster.create_mounted(1).await;
        assert_eq!(cluster.lease(dataset, 1).await.status, 201);
        let (before, devices) = (cluster.state(dataset).await, loop_devices(&directory));
        let (node, new) = (cluster.node(1).uuid, Uuid::new_v4());
        let reboot = |node: &mut NodeFault| {
            *node = NodeFault {
                reboots: 1,
                era: Some(new),
                agent: AgentState::Stopped,
                ..NodeFault::default()
            };
        };
        cluster.change_node(1, reboot).await;
        assert!(!mount_points().contains(&cluster.path(1, dataset)));
        assert_eq!(loop_devices(&directory).len(), 1);
        assert_ne!(loop_devices(&directory), devices, "the number has changed");
        assert_eq!(
            cluster.state(dataset).await,
            before,
            "no node has reported otherwise"
        );
        assert_eq!(cluster.node_of_era(old).await, Some(node));
        assert_eq!(cluster.node_of_era(new).await, None);

        cluster
            .change_node(1, |node| node.agent = AgentState::Running)
            .await;
        eventually("the new era is known", async || {
            cluster.node_of_era(new).await == Some(node)
        })
        .await;
        assert_eq!(cluster.node_of_era(old).await, None);
        cluster.wait_until_on(1, dataset).await;
        assert!(mount_points().contains(&cluster.path(1, dataset)));
    });
}

#[test]
fn a_restarted_control_service_lists_its_nodes_only_when_they_report() {
    isolated(async |directory| {
        let (cluster, era) = start(&directory, DAY).await;
        let dataset = cluster.create_mounted(1).await;
        let mounted = cluster.state(dataset).await;
        let faults = cluster.flocker.faults();
        faults.add(RequestFault::new("held", Effect::HoldReply).on("GET", "/v1/version"));
        let held = {
            let client = cluster.client.clone();
            tokio::spawn(async move {
                client
                    .attempt(Method::GET, "/v1/version", |request| request)
                    .await
            })
        };
        faults.until_met("held", 1).await;
        let connections = cluster.flocker.counters().connections;
        faults.change(|plan| {
            plan.control_restarts += 1;
            plan.reconnect_after = DAY;
        });
        faults.until_in_force().await;
        assert!(held.await.unwrap().is_err(), "connections are closed");
        // The client may still find a connection in its pool that has just been closed.
        eventually("a new connection exists", async || {
            let leases = cluster
                .client
                .attempt(Method::GET, "/v1/configuration/leases", |request| request);
            leases.await.is_ok() && cluster.flocker.counters().connections > connections
        })
        .await;
        let configured = cluster.client.get("/v1/configuration/datasets").await.json();
        assert_eq!(configured[0]["dataset_id"], json!(dataset));
        for_a_while("nodes and state are empty", async || {
            cluster.listed().await.is_empty()
                && cluster.client.get(STATE).await.json() == json!([])
                && cluster.node_of_era(era).await.is_none()
        })
        .await;
        assert!(mount_points().contains(&cluster.path(1, dataset)));

        faults.clear();
        eventually("the agents report", async || {
            cluster.listed().await == [1, 2]
                && cluster.state(dataset).await == mounted
                && cluster.node_of_era(era).await == Some(cluster.node(1).uuid)
        })
        .await;
    });
}

#[test]
fn a_control_service_that_is_stopped_refuses_connections_until_it_starts_on_the_same_port() {
    isolated(async |directory| {
        let (cluster, _) = start(&directory, DAY).await;
        let dataset = cluster.create_mounted(1).await;
        let faults = cluster.flocker.faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        let ask = async || {
            cluster
                .client
                .attempt(Method::GET, "/v1/version", |request| request)
                .await
        };
        // The first one may still find its old connection in the pool.
        eventually("connections are refused", async || {
            ask().await.is_err_and(|error| error.is_connect())
        })
        .await;
        assert!(mount_points().contains(&cluster.path(1, dataset)));

        faults.clear();
        faults.until_in_force().await;
        assert_eq!(ask().await.unwrap().status, 200);
        cluster.wait_until_on(1, dataset).await;
        cluster.flocker.stop().await.unwrap();
    });
}

#[test]
fn a_node_may_be_off_from_the_start() {
    isolated(async |directory| {
        let dead = NodeFault {
            machine: MachineState::Off,
            ..NodeFault::default()
        };
        let faults = FaultPlan {
            nodes: BTreeMap::from([(2, dead)]),
            ..FaultPlan::default()
        };
        let cluster = Cluster::start_with(Options {
            nodes: 2,
            faults,
            ..options(&directory)
        })
        .await;
        assert_eq!(cluster.listed().await, [1]);
        cluster.flocker.faults().clear();
        eventually("it starts", async || cluster.listed().await == [1, 2]).await;
    });
}
