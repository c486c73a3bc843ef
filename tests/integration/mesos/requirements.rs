//! What Mesos requires of a plugin, or else abandons it: above all answers while Flocker is down.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use csi_proto::v1::ListVolumesRequest;
use csi_proto::v1::volume_capability::access_mode::Mode;
use flocker_embedded::faults::{Effect, RequestFault};
use serde_json::json;
use uuid::Uuid;

use super::agent::{Agent, CAPACITY, MIB, profiles};
use super::provider::{Changes, Profile};
use super::types::{Api, Capability, VolumeInfo};
use super::{Fixture, LOOK, START, assert_failed, both, calls};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

const DATASETS: &str = "/v1/configuration/datasets";

both!(
    impossible_volumes_have_no_capacity,
    validation_confirms_exactly_the_request,
    a_provider_starts_as_it_was_while_flocker_is_down,
    a_provider_starts_while_flocker_does_not_answer,
    a_plugin_knows_its_node_without_flocker,
    disks_made_and_destroyed_just_before_flocker_is_down_are_reported_as_such,
);

/// A Flocker behind a proxy, and an agent whose plugin reaches it through that.
struct Proxied {
    flocker: Flocker,
    proxy: TcpProxy,
    agent: Agent,
}

impl Proxied {
    async fn start(api: Api) -> Self {
        let flocker = Flocker::start(1).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let agent = Agent::on(Machine::through(proxy.address(), &flocker, 1), api);
        Self {
            flocker,
            proxy,
            agent,
        }
    }
}

/// Mesos requests the capacity of each of its profiles, whether the plugin knows the profile or not.
async fn impossible_volumes_have_no_capacity(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut profiles = profiles(&["bronze", "iron"]);
    let bronze = profiles["bronze"].clone();
    let many = Capability::with_mode(Mode::MultiNodeMultiWriter);
    let other = Capability {
        fs_type: "xfs".to_owned(),
        ..Capability::writer()
    };
    for (name, capability) in [("many", many), ("xfs", other)] {
        let profile = Profile {
            capability,
            ..bronze.clone()
        };
        profiles.insert(name.to_owned(), profile);
    }
    let mistyped = Profile {
        parameters: [("profil".to_owned(), "bronze".to_owned())].into(),
        ..bronze
    };
    profiles.insert("mistyped".to_owned(), mistyped);
    let provider = fixture.agent.provider_with(profiles).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    for name in ["iron", "many", "xfs", "mistyped"] {
        assert_eq!(provider.pool(name), 0, "{name}");
    }
    assert_eq!(provider.offers().len(), 1);
    fixture.plugin.stop().await;
}

/// Mesos compares the confirmation with its request, field by field.
async fn validation_confirms_exactly_the_request(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    // The provider's state is lost, so it must ask the plugin.
    fs::remove_dir_all(fixture.agent.plan("slrp", true).root).unwrap();
    let parameters = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        pairs.collect()
    };
    let flags = Capability {
        mount_flags: vec!["noatime".to_owned(), "nodev".to_owned()],
        ..Capability::with_mode(Mode::SingleNodeReaderOnly)
    };
    let context = parameters(&[("storage", "fast"), ("", "empty")]);
    let wanted = parameters(&[("profile", "bronze"), ("metadata.team", "db")]);
    for (capability, context, parameters, refusal) in [
        (Capability::writer(), &[].into(), &wanted, None),
        (flags, &context, &[].into(), None),
        (
            Capability::with_mode(Mode::MultiNodeSingleWriter),
            &[].into(),
            &[].into(),
            Some("MULTI_NODE_SINGLE_WRITER"),
        ),
    ] {
        let mut provider = fixture.agent.provider().await.unwrap();
        provider.calls();
        let volume = VolumeInfo {
            id: id.clone(),
            bytes: 64 * MIB,
            context: context.clone(),
        };
        let validated = provider.manager.validate(&volume, &capability, parameters).await;
        match refusal {
            None => validated.unwrap(),
            Some(words) => assert_failed(validated, &["Validation failed for volume", &id, words]),
        }
        assert_eq!(provider.calls(), ["ValidateVolumeCapabilities"]);
        fs::remove_dir_all(fixture.agent.plan("slrp", true).root).ok();
    }
    fixture.plugin.stop().await;
}

/// Any failure while a provider starts ends it, until an operator starts the agent again.
async fn a_provider_starts_as_it_was_while_flocker_is_down(api: Api) {
    let proxied = Proxied::start(api).await;
    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    provider.reconcile().await.unwrap();
    let offers = provider.offers().to_owned();
    plugin.stop().await;
    proxied.proxy.close();

    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    assert_eq!(provider.calls(), calls(&[&START, &LOOK]));
    assert_eq!(provider.offers(), offers);
    assert_eq!(provider.launch(&id).await.unwrap(), target);
    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());
    only_mount_at(&target);

    proxied.proxy.open();
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());
    provider.destroy_disk(&id).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    plugin.stop().await;
}

/// The same where the plugin has no list yet, and where the connection is not refused but stalls.
async fn a_provider_starts_while_flocker_does_not_answer(api: Api) {
    let mut proxied = Proxied::start(api).await;
    // An answer arrives before the caller's deadline, which for Mesos is a minute.
    proxied.agent.deadline = Some(Duration::from_secs(3));
    proxied.proxy.stall();
    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    assert_eq!(provider.offers(), [], "nothing is known, and that is no error");
    proxied.proxy.open();
    provider.reconcile().await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    plugin.stop().await;
}

/// A node without a configured id is identified once and its id stored.
async fn a_plugin_knows_its_node_without_flocker(api: Api) {
    let mut proxied = Proxied::start(api).await;
    let node = proxied.agent.machine.node();
    proxied.agent.machine.config.node.node_id = None;
    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let offers = provider.offers().to_owned();
    plugin.stop().await;
    proxied.proxy.close();
    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    assert_eq!(provider.offers(), offers);
    proxied.proxy.open();
    provider.launch(&id).await.unwrap();
    assert_eq!(proxied.flocker.leaseholder(id.parse().unwrap()).await, Some(node));
    plugin.stop().await;
}

/// Mesos reads the plugin's resources after each operation, and Flocker may be down by then.
async fn disks_made_and_destroyed_just_before_flocker_is_down_are_reported_as_such(api: Api) {
    let proxied = Proxied::start(api).await;
    let plugin = proxied.agent.machine.plugin().await;
    let mut provider = proxied.agent.provider().await.unwrap();
    let destroyed = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let client = plugin.csi.clone();
    let mut request = crate::support::csi::to_create("made");
    request
        .parameters
        .insert("profile".to_owned(), "bronze".to_owned());
    let made = client.try_create(request).await.unwrap().to_string();
    client.delete(destroyed.parse().unwrap()).await.unwrap();
    proxied.proxy.close();
    let ids = |listed: Vec<VolumeInfo>| {
        listed
            .into_iter()
            .map(|volume| (volume.id, volume.bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(provider.manager.list().await.unwrap()),
        [(made.clone(), 64 * MIB)]
    );
    plugin.stop().await;
    let plugin = proxied.agent.machine.plugin().await;
    assert_eq!(ids(provider.manager.list().await.unwrap()), [(made, 64 * MIB)]);
    plugin.stop().await;
}

#[test]
fn a_list_that_does_not_fit_into_one_reply_is_cut_and_that_is_logged() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let agent = Agent::new(&flocker, 1, Api::V1);
        let datasets = (0..40_000_u128).map(|id| {
            json!({
                "dataset_id": Uuid::from_u128(id), "primary": agent.machine.node(), "deleted": false,
                "maximum_size": 64 * MIB, "metadata": {},
            })
        });
        let answer = Effect::Answer {
            status: 200,
            body: datasets.collect::<serde_json::Value>().to_string(),
        };
        let faults = flocker.embedded().faults();
        faults.add(RequestFault::new("many", answer).on("GET", DATASETS));
        let plugin = agent.process().await;
        let page = |token: String| ListVolumesRequest {
            max_entries: 0,
            starting_token: token,
        };
        let mut controller = plugin.csi.controller();
        let first = controller
            .list_volumes(page(String::new()))
            .await
            .unwrap()
            .into_inner();
        assert!(first.entries.len() > 20_000, "{}", first.entries.len());
        assert!(!first.next_token.is_empty());
        plugin.logged("does not fit into one reply").await;
        let rest = controller
            .list_volumes(page(first.next_token))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(first.entries.len() + rest.entries.len(), 40_000);
        assert_eq!(rest.next_token, "");
        plugin.kill().await;
    });
}
