//! Nodes that die and return, and their volumes during that time.

use host_fs::mount::testing::unmount;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use csi_proto::v1::ListVolumesRequest;
use flocker_csi::flocker::attach::Takeover;
use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, MachineState};
use tokio::time::{Instant, sleep};
use tonic::Code;
use uuid::Uuid;

use super::handover::{SHORT, read_back};
use super::{DATASET, LONG, Pair, attach, delete, detach, stage, wait_until_staging};
use crate::node::assert_refused;
use crate::support::csi::Csi;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// How long Flocker lists a silent node, and how long after that the plugin considers it dead.
const SOON: Duration = Duration::from_secs(1);

/// Starts a Flocker of two nodes that soon stops listing silent ones.
async fn forgetful() -> Flocker {
    Flocker::with(|options| Options {
        nodes: 2,
        node_expiry: Some(SOON),
        ..options
    })
    .await
}

/// Starts such a Flocker; the plugin of its second node soon considers missing nodes dead.
async fn mortals(takeover: Takeover) -> Pair {
    Pair::on(forgetful().await, |second| {
        second.config.node_loss.takeover = takeover;
        second.config.node_loss.takeover_grace = SOON;
    })
    .await
}

/// Makes a plugin list the nodes: for half a minute it believes an earlier list, as Flocker lists a dead node for two.
async fn read_nodes(csi: &Csi) {
    let listed = csi.controller().list_volumes(ListVolumesRequest::default()).await;
    listed.unwrap();
}

/// Makes the first node's agent die or run.
fn set_agent(flocker: &Flocker, state: AgentState) {
    let faults = flocker.embedded().faults();
    faults.change(|plan| plan.nodes.entry(1).or_default().agent = state);
}

/// Waits until Flocker lists the first node, or does not.
async fn until_first_listed(flocker: &Flocker, wanted: bool) {
    let (client, node) = (flocker.client().await, flocker.node(1));
    eventually(&format!("the node is listed: {wanted}"), async || {
        let nodes = client.list_nodes().await.unwrap();
        let listed = nodes.iter().any(|listed| listed.uuid == node);
        (listed == wanted).then_some(())
    })
    .await;
}

/// Lets the first node's agent die, and waits until Flocker no longer lists it.
async fn kill_agent(flocker: &Flocker) {
    set_agent(flocker, AgentState::Stopped);
    until_first_listed(flocker, false).await;
}

async fn revive_agent(flocker: &Flocker) {
    set_agent(flocker, AgentState::Running);
    until_first_listed(flocker, true).await;
}

fn is_on(flocker: &Flocker, number: usize, volume: Uuid) -> bool {
    !Mounts::read().at(&flocker.mount_of(number, volume)).is_empty()
}

#[test]
fn a_node_that_is_not_listed_yet_gets_its_volume_when_it_is() {
    in_own_namespace(|| async {
        let pair = mortals(Takeover::Never).await;
        let (csi, first) = (pair.two.csi.clone(), pair.first.node());
        let volume = pair.volume("data").await;
        kill_agent(&pair.flocker).await;
        assert_refused(
            attach(&csi, volume, first, SHORT).await,
            Code::Unavailable,
            &["\"node reporting\"", &first.to_string()],
        );
        let attached = tokio::spawn(async move { attach(&csi, volume, first, LONG).await });
        revive_agent(&pair.flocker).await;
        attached.await.unwrap().unwrap();
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(first));
    });
}

#[test]
fn a_node_that_returns_from_the_dead_with_its_pin_keeps_the_volume_until_it_releases_it() {
    in_own_namespace(|| async {
        let pair = mortals(Takeover::Never).await;
        let (one, two) = (&pair.one.csi, &pair.two.csi);
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        let context = attach(one, volume, first, LONG).await.unwrap();
        let here = pair.first.usage("data", volume, &context);
        one.stage(&here).await.unwrap();
        one.publish(&here).await.unwrap();
        let mut task = File::create(here.target.join("file")).unwrap();
        kill_agent(&pair.flocker).await;
        // The orchestrator considers the node dead, by force, but it is alive.
        detach(two, volume, &first.to_string()).await.unwrap();
        let context = attach(two, volume, second, LONG).await.unwrap();
        let there = pair.second.usage("data", volume, &context);
        for back in [false, true] {
            if back {
                revive_agent(&pair.flocker).await;
            }
            task.write_all(b"precious").unwrap();
            task.sync_all().unwrap();
            assert_refused(
                stage(two, &there, SHORT).await,
                Code::DeadlineExceeded,
                &["\"mounted here\"", &volume.to_string()],
            );
            assert!(is_on(&pair.flocker, 1, volume) && !is_on(&pair.flocker, 2, volume));
        }
        drop(task);
        one.unpublish(&here).await.unwrap();
        one.unstage(&here).await.unwrap();
        stage(two, &there, LONG).await.unwrap();
        assert_eq!(read_back(&there), "preciousprecious");
        assert!(!is_on(&pair.flocker, 1, volume));
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
    });
}

#[test]
fn a_lease_that_was_taken_over_is_left_alone_by_the_node_that_had_it() {
    in_own_namespace(|| async {
        let pair = mortals(Takeover::NodeGone).await;
        let (one, second) = (&pair.one.csi, pair.second.node());
        let volume = pair.volume("data").await;
        let here = pair.first.usage("data", volume, &HashMap::new());
        stage(one, &here, LONG).await.unwrap();
        fs::write(here.alias().join("file"), "precious").unwrap();
        let there = pair.second.usage("data", volume, &HashMap::new());
        let (csi, usage) = (pair.two.csi.clone(), there.clone());
        let staging = tokio::spawn(async move { stage(&csi, &usage, LONG).await });
        wait_until_staging(&pair.two.csi, &there, "lease of node").await;
        kill_agent(&pair.flocker).await;
        eventually("the volume is taken over", async || {
            (pair.flocker.leaseholder(volume).await == Some(second)).then_some(())
        })
        .await;
        wait_until_staging(&pair.two.csi, &there, "mounted here").await;
        assert!(
            !is_on(&pair.flocker, 2, volume),
            "it is in use on the node that was taken for dead"
        );

        revive_agent(&pair.flocker).await;
        one.unstage(&here).await.unwrap();
        staging.await.unwrap().unwrap();
        assert_eq!(read_back(&there), "precious");
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
        assert!(pair.first.records().is_empty());
    });
}

#[test]
fn a_volume_of_a_machine_that_is_off_is_used_elsewhere_and_stays_there_when_that_is_back() {
    in_own_namespace(|| async {
        let flocker = forgetful().await;
        let (first, mut second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        second.config.node_loss.takeover = Takeover::NodeGone;
        second.config.node_loss.takeover_grace = SOON;
        let (one, two) = (first.process(&[]).await, second.plugin().await);
        let volume = one.csi.create("data").await;
        let here = first.usage("data", volume, &HashMap::new());
        stage(&one.csi, &here, LONG).await.unwrap();
        fs::write(here.alias().join("file"), "precious").unwrap();
        // The power cut: the backend detects it, as on AWS and OpenStack, and detaches the volume from the machine.
        one.kill().await;
        unmount(here.alias());
        fs::remove_dir_all(&first.config.plugin.device_dir).unwrap();
        first.age_records();
        flocker.embedded().faults().change(|plan| {
            plan.dead_nodes_known = true;
            plan.nodes.entry(1).or_default().machine = MachineState::Off;
        });
        let there = second.usage("data", volume, &HashMap::new());
        stage(&two.csi, &there, LONG).await.unwrap();
        assert_eq!(read_back(&there), "precious");

        flocker
            .embedded()
            .faults()
            .change(|plan| plan.nodes.entry(1).or_default().machine = MachineState::On);
        let one = first.process(&[]).await;
        eventually("the record of the earlier boot is done with", async || {
            first.records().is_empty().then_some(())
        })
        .await;
        assert_eq!(flocker.leaseholder(volume).await, Some(second.node()));
        assert_eq!(read_back(&there), "precious");
        one.kill().await;
    });
}

#[test]
fn a_control_service_that_starts_again_starts_the_wait_for_a_missing_node_again() {
    in_own_namespace(|| async {
        let grace = Duration::from_secs(8);
        let pair = Pair::on(forgetful().await, |second| {
            second.config.node_loss.takeover = Takeover::NodeGone;
            second.config.node_loss.takeover_grace = grace;
        })
        .await;
        let (two, first, second) = (&pair.two.csi, pair.first.node(), pair.second.node());
        let volume = pair.volume("data").await;
        attach(&pair.one.csi, volume, first, LONG).await.unwrap();
        kill_agent(&pair.flocker).await;
        // Long enough for the plugin to see the node.
        pair.faults()
            .change(|plan| plan.reconnect_after = Duration::from_secs(1));
        let began = Instant::now();
        while began.elapsed() < grace * 2 {
            pair.faults().change(|plan| plan.control_restarts += 1);
            // The interval of missing reports is interrupted when a plugin reads the list, and one always does.
            let answer = attach(two, volume, second, LONG).await;
            assert!(answer.is_err(), "taken over after {:?}", began.elapsed());
            sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(first));
        eventually("the volume is taken over", async || {
            sleep(Duration::from_millis(200)).await;
            attach(two, volume, second, LONG).await.ok()
        })
        .await;
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
    });
}

#[test]
fn a_deletion_waits_for_the_node_that_is_to_destroy_the_volume() {
    in_own_namespace(|| async {
        let pair = Pair::on(forgetful().await, |_| {}).await;
        let (csi, first) = (pair.two.csi.clone(), pair.first.node());
        let volume = pair.volume("data").await;
        kill_agent(&pair.flocker).await;
        read_nodes(&csi).await;
        assert_refused(
            delete(&csi, volume, SHORT).await,
            Code::Unavailable,
            &["\"node reporting\"", &first.to_string(), &volume.to_string()],
        );
        assert_eq!(pair.asked("DELETE", DATASET), 0);
        let deleted = tokio::spawn(async move { delete(&csi, volume, LONG).await });
        revive_agent(&pair.flocker).await;
        deleted.await.unwrap().unwrap();
        pair.file_goes().await;
    });
}

#[test]
fn a_volume_of_a_dead_node_is_deleted_by_another_node_once_possible() {
    in_own_namespace(|| async {
        let pair = mortals(Takeover::Never).await;
        let volume = pair.volume("data").await;
        kill_agent(&pair.flocker).await;
        read_nodes(&pair.two.csi).await;
        delete(&pair.two.csi, volume, LONG).await.unwrap();
        let configured = pair.configured(volume).await;
        assert_eq!(
            (configured.deleted, configured.primary),
            (true, pair.second.node())
        );
        // The machine is on, and still has the volume attached.
        only_mount_at(&pair.flocker.mount_of(1, volume));
        revive_agent(&pair.flocker).await;
        pair.file_goes().await;
    });
}
