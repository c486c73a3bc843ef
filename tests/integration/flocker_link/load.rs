//! The number of requests that Flocker gets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{ControllerPublishVolumeRequest, GetPluginInfoRequest, NodeGetInfoRequest, ProbeRequest};
use flocker_embedded::Options;
use flocker_embedded::faults::{Effect, RequestFault};
use rustix::mount::{MountFlags, mount};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;
use uuid::Uuid;

use super::{CONFIGURATION, LEASES, NODES, STATE, at_flockers_own_pace, reads_since};
use crate::support::csi::{Csi, capability};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// The number of volumes that are attached concurrently.
const CALLERS: usize = 1000;
/// The least duration of a read of a list.
const SLOW: Duration = Duration::from_millis(100);

#[test]
fn calls_that_need_no_flocker_send_it_no_request() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let csi = &plugin.csi;
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        csi.stage(&usage).await.unwrap();

        let before = flocker.embedded().counters();
        for _ in 0..20 {
            csi.stage(&usage).await.unwrap();
            csi.publish(&usage).await.unwrap();
            csi.stats(&usage).await.unwrap();
            csi.unpublish(&usage).await.unwrap();
            csi.identity().probe(ProbeRequest {}).await.unwrap();
            csi.identity()
                .get_plugin_info(GetPluginInfoRequest {})
                .await
                .unwrap();
            csi.node().node_get_info(NodeGetInfoRequest {}).await.unwrap();
        }
        assert_eq!(
            flocker.embedded().counters(),
            before,
            "not a request, not a connection"
        );
        plugin.stop().await;
    });
}

#[test]
fn staging_waits_for_the_mount_and_asks_flocker_only_before_it_mounts() {
    in_own_namespace(|| async {
        let flocker = at_flockers_own_pace(|options| options).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.plugin.provision_wait = flocker_csi::flocker::provisioning::ProvisionWait::Declared;
        let plugin = machine.plugin().await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);

        let (before, began) = (flocker.embedded().counters(), Instant::now());
        plugin.csi.stage(&usage).await.unwrap();
        // Once after five seconds, and every ten from then on.
        let again = (began.elapsed().as_secs() + 5) / 10;
        let [configuration, state, nodes, leases] = reads_since(&before, &flocker.embedded().counters());
        assert!(state <= again, "{state} in {:?}", began.elapsed());
        assert!((1..=1 + again).contains(&configuration) && (1..=1 + again).contains(&leases));
        assert_eq!(nodes, 0, "only the lists that are needed");
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.stop().await;
    });
}

/// Flocker's answers cost little here, so it is asked often while something is waited for, and not at all afterwards.
#[test]
fn a_flocker_that_answers_quickly_is_asked_nothing_more_once_the_volume_is_gone() {
    const VERSION: &str = "/v1/version";
    in_own_namespace(|| async {
        let flocker = Flocker::with(|options| options).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let csi = &plugin.csi;
        let counters = || flocker.embedded().counters();
        let all = || counters().requests.values().sum::<u64>();
        let versions = || counters().asked("GET", VERSION);

        let before = all();
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        csi.detach(volume, machine.node()).await;
        csi.delete(volume).await.unwrap();
        println!("{} requests for the life of a volume", all() - before);

        // What is asked in the background shows that time has passed.
        let (asked, background) = (all(), versions());
        eventually("the version is asked for in the background", async || {
            (versions() > background).then_some(())
        })
        .await;
        // Once more may have been counted since.
        let others = (all() - asked).saturating_sub(versions() - background);
        assert_eq!(others, 0, "{:?}", counters().requests);
        plugin.stop().await;
    });
}

/// Attaches a volume as an orchestrator does, which repeats the call while the operation continues.
async fn attach(csi: &Csi, volume: Uuid, node: Uuid) {
    let request = ControllerPublishVolumeRequest {
        volume_id: volume.to_string(),
        node_id: node.to_string(),
        volume_capability: Some(capability(Mode::SingleNodeWriter)),
        ..Default::default()
    };
    loop {
        match csi.controller().controller_publish_volume(request.clone()).await {
            Ok(_) => return,
            Err(slow) => {
                let goes_on = matches!(slow.code(), Code::DeadlineExceeded | Code::Unavailable);
                assert!(
                    goes_on && slow.message().contains("the work continues"),
                    "{slow:?}"
                );
            }
        }
    }
}

/// Writes the state file of a Flocker that has these volumes on its only node: a request for each would take longer than
/// the test itself.
fn declare(data: &Path, volumes: &[Uuid]) {
    let node = Uuid::new_v4();
    let dataset = json!({"primary": node, "deleted": false, "maximum_size": 64 << 20, "metadata": {}});
    let datasets: BTreeMap<_, _> = volumes.iter().map(|volume| (volume, &dataset)).collect();
    let state = json!({
        "cluster": Uuid::new_v4(),
        "nodes": [node],
        "configuration": {"datasets": datasets, "leases": {}, "registered": []},
        "attachments": {},
    });
    fs::write(data.join("state.json"), state.to_string()).unwrap();
}

/// This needs no storage: the controller's part ends where no other node has the volume.
#[test]
fn a_thousand_volumes_attached_at_once_read_each_list_a_few_times() {
    in_own_namespace(|| async {
        let volumes: Vec<Uuid> = (0..CALLERS).map(|_| Uuid::new_v4()).collect();
        let flocker = at_flockers_own_pace(|options| {
            // Two thousand writes to a disk would take longer than the test itself.
            fs::create_dir(&options.data_dir).unwrap();
            mount("memory", &options.data_dir, "tmpfs", MountFlags::empty(), None).unwrap();
            declare(&options.data_dir, &volumes);
            Options {
                capacity: Some(0),
                ..options
            }
        })
        .await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        for list in [CONFIGURATION, STATE, NODES, LEASES] {
            flocker
                .embedded()
                .faults()
                .add(RequestFault::new(list, Effect::Delay(SLOW)).on("GET", list));
        }

        let (before, began) = (flocker.embedded().counters(), Instant::now());
        let mut calls = JoinSet::new();
        for volume in volumes {
            let (csi, node) = (plugin.csi.clone(), machine.node());
            calls.spawn(async move { attach(&csi, volume, node).await });
        }
        let attached = calls.join_all().await;
        let (after, took) = (flocker.embedded().counters(), began.elapsed());
        assert_eq!(attached.len(), CALLERS);
        assert_eq!(
            after.answered("POST", LEASES, 201) - before.answered("POST", LEASES, 201),
            1000
        );
        let reads = reads_since(&before, &after);
        eprintln!(
            "{CALLERS} attached in {took:?}; configuration, state, nodes, leases were read {reads:?} times"
        );
        let lists: u64 = reads.iter().sum();
        let one_after_the_other = u64::try_from(took.as_millis() / SLOW.as_millis()).unwrap();
        assert!(
            lists <= one_after_the_other + 1,
            "one flight at a time: {reads:?} in {took:?}"
        );
        assert!(
            lists <= u64::try_from(CALLERS).unwrap(),
            "less than one list for each call: {reads:?}"
        );
        plugin.stop().await;
    });
}
