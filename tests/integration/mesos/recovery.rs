//! Resource providers whose agent, plugin or machine restarts.

use std::fs;

use flocker_embedded::faults::{Effect, RequestFault};
use serde_json::json;

use super::agent::{Agent, CAPACITY, MIB};
use super::provider::{Changes, Kind, Provider};
use super::types::Api;
use super::volume_state::State;
use super::{Fixture, LOOK, PUBLISH, START, UNPUBLISH, both, calls};
use crate::support::flocker::Flocker;
use crate::support::mounts::only_mount_at;
use crate::support::{csi::Csi, eventually};

const DATASETS: &str = "/v1/configuration/datasets";
const STATES: &str = "/v1/state/datasets";

both!(
    disks_are_the_same_after_the_agent_has_started_again,
    a_disk_that_was_being_created_when_the_agent_died_is_the_same_one,
    the_context_of_a_disk_is_independent_of_the_plugins_parameters,
    a_volume_that_flocker_lists_twice_is_one_disk,
    a_plugin_that_was_killed_leaves_everything_as_it_was,
    disks_of_an_agent_with_a_new_id_are_volumes_that_were_there_before,
    a_published_disk_needs_no_call_when_the_agent_starts_again,
    calls_that_were_interrupted_are_made_again,
    a_disk_is_staged_and_published_again_after_a_reboot,
);

/// Covers `StorageLocalResourceProviderTest.CreateDestroyDiskWithRecovery`.
async fn disks_are_the_same_after_the_agent_has_started_again(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let offers = provider.offers().to_owned();
    let mut provider = fixture.agent.provider().await.unwrap();
    assert_eq!(provider.calls(), calls(&[&START, &LOOK]));
    assert_eq!(provider.offers(), offers);
    provider.destroy_disk(&id).await.unwrap();
    let provider = fixture.agent.provider().await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    assert_eq!(provider.offers().len(), 1);
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.CreateDestroyDiskWithRecovery`: a pending operation is resumed under the
/// same name.
async fn a_disk_that_was_being_created_when_the_agent_died_is_the_same_one(api: Api) {
    let fixture = Fixture::start(api).await;
    let faults = fixture.flocker.embedded().faults();
    for effect in [Effect::HoldRequest, Effect::HoldReply] {
        let mut provider = fixture.agent.provider().await.unwrap();
        let before = provider.offers().len();
        faults.add(RequestFault::new("slow", effect).on("POST", DATASETS).once());
        let creating = tokio::spawn(async move { provider.create_disk("bronze", 64 * MIB).await });
        faults.until_met("slow", 1).await;
        creating.abort();
        assert!(creating.await.is_err());
        faults.remove("slow");

        let provider = fixture.agent.provider().await.unwrap();
        assert_eq!(provider.offers().len(), before + 1);
        assert_eq!(
            fixture.flocker.datasets().await.len(),
            before,
            "one for each disk, beside the pool"
        );
    }
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.RecoverDiskWithChangedMetadata`: there the metadata does not change.
async fn the_context_of_a_disk_is_independent_of_the_plugins_parameters(api: Api) {
    let mut fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let disk = provider.disk(&id);
    provider.launch(&id).await.unwrap();
    for driver in ["other.example.com", "third.example.com"] {
        fixture.plugin.stop().await;
        fixture.agent.machine.config.plugin.driver_name = driver.to_owned();
        fixture.plugin = fixture.agent.machine.plugin().await;
        assert_eq!(provider.reconcile().await.unwrap(), Changes::default());
        let recovered = fixture.agent.provider().await.unwrap();
        assert_eq!(recovered.disk(&id), disk);
    }
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.RecoverDuplicatedVolumes`: here Flocker lists duplicates.
async fn a_volume_that_flocker_lists_twice_is_one_disk(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let dataset = fixture.flocker.datasets().await.remove(0);
    let configured = json!({
        "dataset_id": id, "primary": dataset.primary, "deleted": false, "maximum_size": dataset.maximum_size,
        "metadata": dataset.metadata,
    });
    let state = |node: usize| {
        json!({
            "dataset_id": id, "primary": fixture.flocker.node(node), "path": format!("/flocker/{id}"),
            "maximum_size": dataset.maximum_size,
        })
    };
    for (route, body) in [
        (DATASETS, json!([configured, configured])),
        (STATES, json!([state(1), state(2), state(1)])),
    ] {
        let answer = Effect::Answer {
            status: 200,
            body: body.to_string(),
        };
        let faults = fixture.flocker.embedded().faults();
        faults.add(RequestFault::new(route, answer).on("GET", route));
        assert_eq!(provider.reconcile().await.unwrap(), Changes::default());
    }
    let recovered = fixture.agent.provider().await.unwrap();
    assert_eq!(recovered.offers(), provider.offers());
    fixture.flocker.embedded().faults().clear();
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.AgentFailoverPluginKilled` and `ROOT_PublishUnpublishResourcesPluginKilled`.
async fn a_plugin_that_was_killed_leaves_everything_as_it_was(api: Api) {
    let flocker = Flocker::start(1).await;
    let agent = Agent::new(&flocker, 1, api);
    let plugin = agent.process().await;
    let mut provider = agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    plugin.kill().await;
    only_mount_at(&target);

    // Mesos starts it again at once, and only probes it.
    let plugin = agent.process().await;
    provider.calls();
    assert_eq!(provider.launch(&id).await.unwrap(), target);
    assert_eq!(provider.calls(), Vec::<&str>::new());
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());

    // The agent dies as well, and both are started.
    plugin.kill().await;
    let plugin = agent.process().await;
    let mut provider = agent.provider().await.unwrap();
    assert_eq!(provider.calls(), calls(&[&START, &LOOK]));
    assert_eq!(provider.launch(&id).await.unwrap(), target);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    provider.destroy(&id).unwrap();
    provider.destroy_disk(&id).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    plugin.kill().await;
}

/// Covers `StorageLocalResourceProviderTest.ROOT_AgentRegisteredWithNewId`.
async fn disks_of_an_agent_with_a_new_id_are_volumes_that_were_there_before(api: Api) {
    let mut fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let kept = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let unwanted = provider.create_disk("bronze", 80 * MIB).await.unwrap();
    let target = provider.launch(&kept).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    let room = provider.pool("bronze");

    fixture.agent.register_again();
    let mut provider = fixture.agent.provider().await.unwrap();
    for (id, bytes) in [(&kept, 64 * MIB), (&unwanted, 80 * MIB)] {
        let disk = provider.disk(id);
        assert_eq!((disk.kind, disk.profile, disk.bytes), (Kind::Raw, None, bytes));
    }
    assert_eq!(provider.pool("bronze"), room, "they still take their room");
    provider.calls();
    provider.adopt_disk(&kept, "bronze").await.unwrap();
    assert_eq!(
        provider.calls(),
        Vec::<&str>::new(),
        "what is on the disk will do"
    );
    assert_eq!(provider.launch(&kept).await.unwrap(), target);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    provider.destroy_disk(&unwanted).await.unwrap();
    provider.destroy_disk(&kept).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.ROOT_CreateDestroyPersistentMountVolumeWithRecovery`.
async fn a_published_disk_needs_no_call_when_the_agent_starts_again(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    let mut provider = fixture.agent.provider().await.unwrap();
    provider.launch(&id).await.unwrap();
    assert_eq!(provider.calls(), calls(&[&START, &LOOK]));
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    provider.destroy(&id).unwrap();
    let mut provider = fixture.agent.provider().await.unwrap();
    provider.calls();
    provider.destroy_disk(&id).await.unwrap();
    let destroyed = ["ControllerUnpublishVolume", "DeleteVolume"];
    assert_eq!(provider.calls(), calls(&[&UNPUBLISH, &destroyed, &LOOK]));
    fixture.plugin.stop().await;
}

/// The states in which an agent may die, apart from those between calls: the call is repeated, or its inverse is made.
async fn calls_that_were_interrupted_are_made_again(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    let file = fixture
        .agent
        .plan("slrp", true)
        .root
        .join("volumes")
        .join(&id)
        .join("volume.state");
    // Each call has been carried out, but its answer was lost with the agent.
    for (state, repeated) in [
        (State::NodePublish, calls(&[&["NodePublishVolume"]])),
        (
            State::NodeUnpublish,
            calls(&[&["NodeUnpublishVolume", "NodePublishVolume"]]),
        ),
        (State::NodeStage, calls(&[&PUBLISH])),
        (State::NodeUnstage, calls(&[&["NodeUnstageVolume"], &PUBLISH])),
        (
            State::ControllerPublish,
            calls(&[&["ControllerPublishVolume"], &PUBLISH]),
        ),
        (
            State::ControllerUnpublish,
            calls(&[
                &["ControllerUnpublishVolume", "ControllerPublishVolume"],
                &PUBLISH,
            ]),
        ),
    ] {
        let mut volume = provider.manager.volume(&id).clone();
        match state {
            State::NodeUnpublish => fixture.unpublish(&provider, &id).await,
            State::NodeUnstage | State::ControllerUnpublish => {
                fixture.unpublish(&provider, &id).await;
                fixture.unstage(&provider, &id).await;
            }
            _ => {}
        }
        volume.state = state;
        volume.checkpoint(&file);
        provider = fixture.agent.provider().await.unwrap();
        assert_eq!(
            provider.calls(),
            calls(&[&START[..7], &repeated, &START[7..], &LOOK]),
            "{state:?}"
        );
        only_mount_at(&target);
        assert_eq!(
            fs::read_to_string(target.join("file")).unwrap(),
            "precious",
            "{state:?}"
        );
    }
    fixture.plugin.stop().await;
}

impl Fixture {
    /// Makes the call of an agent that dies before it gets the answer.
    async fn unpublish(&self, provider: &Provider, id: &str) {
        let request = csi_proto::v1::NodeUnpublishVolumeRequest {
            volume_id: id.to_owned(),
            target_path: provider.manager.target(id).to_str().unwrap().to_owned(),
        };
        self.csi().node().node_unpublish_volume(request).await.unwrap();
        // Mesos makes it again for `csi.v0` before anything is published.
        fs::create_dir_all(provider.manager.target(id)).unwrap();
    }

    async fn unstage(&self, provider: &Provider, id: &str) {
        let request = csi_proto::v1::NodeUnstageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: provider.manager.staging(id).to_str().unwrap().to_owned(),
        };
        self.csi().node().node_unstage_volume(request).await.unwrap();
    }

    fn csi(&self) -> &Csi {
        &self.plugin.csi
    }
}

/// Covers `StorageLocalResourceProviderTest.ROOT_CreateDestroyPersistentMountVolumeWithReboot`.
async fn a_disk_is_staged_and_published_again_after_a_reboot(api: Api) {
    let flocker = Flocker::start(1).await;
    let mut agent = Agent::new(&flocker, 1, api);
    let plugin = agent.process().await;
    let mut provider = agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let unused = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    let context = provider.manager.volume(&id).publish_context.clone();
    assert!(!context.is_empty());
    plugin.kill().await;
    agent.reboot(&flocker);

    let plugin = agent.process().await;
    let mut provider = agent.provider().await.unwrap();
    assert_eq!(
        provider.calls(),
        calls(&[&START[..7], &PUBLISH, &START[7..], &LOOK]),
        "nothing is attached again, and what no task has used is left unchanged"
    );
    assert_eq!(provider.manager.volume(&id).publish_context, context);
    only_mount_at(&target);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    let volume = id.parse().unwrap();
    eventually("the lease is still this node's", async || {
        (flocker.leaseholder(volume).await == Some(agent.machine.node())).then_some(())
    })
    .await;
    for id in [id, unused] {
        provider.destroy(&id).unwrap();
        provider.destroy_disk(&id).await.unwrap();
    }
    assert_eq!(*flocker.client().await.list_leases().await.unwrap(), []);
    assert_eq!(provider.pool("bronze"), CAPACITY);
    plugin.kill().await;
}
