//! The example of a resource provider's offers, run against the plugin with the shipped files.

use std::collections::BTreeMap;

use csi_proto::v1::{CapacityRange, CreateVolumeRequest, GetCapacityRequest, ListVolumesRequest};
use flocker_client::NewDataset;
use flocker_embedded::Options;
use serde_json::{Value, json};
use uuid::Uuid;

use super::commands::start;
use super::pages::blocks;
use super::tree::{Parsed, Tree};
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

const PAGE: &str = "deploy/mesos/resource-provider-example.md";
const MIB: i64 = 1 << 20;

/// Creates the datasets that the page assumes; the first dataset's primary is the agent's node.
async fn make_datasets(flocker: &Flocker, datasets: &Value) {
    let client = flocker.client().await;
    let datasets = datasets.as_array().unwrap();
    for dataset in datasets {
        let number = if dataset["primary"] == datasets[0]["primary"] {
            1
        } else {
            2
        };
        let id: Uuid = dataset["dataset_id"].as_str().unwrap().parse().unwrap();
        let new = NewDataset {
            dataset_id: Some(id),
            primary: flocker.node(number),
            maximum_size: dataset["maximum_size"].as_u64(),
            metadata: serde_json::from_value(dataset["metadata"].clone()).unwrap(),
        };
        client.create_dataset(&new).await.unwrap();
        flocker.reports(number, id).await;
    }
}

/// An agent, which turns the answers of its plugin into resources.
struct Agent<'a> {
    parsed: &'a Parsed,
    plugin: &'a Process,
    /// The id of its provider.
    provider: Value,
    /// The profiles of the created volumes, by id.
    made: BTreeMap<String, String>,
}

impl Agent<'_> {
    /// Makes the disk of a `CREATE_DISK`.
    async fn create(&mut self, operation: &Value) {
        let source = &operation["create_disk"]["source"];
        let name = source["disk"]["source"]["profile"].as_str().unwrap();
        let profile = &self.parsed.mappings[0].1.profile_matrix[name];
        let bytes = bytes(&source["scalar"]["value"]);
        let request = CreateVolumeRequest {
            name: operation["uuid"].as_str().unwrap().to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: bytes,
            }),
            volume_capabilities: vec![profile.volume_capabilities.to_csi().0],
            parameters: profile.create_parameters.clone(),
            ..Default::default()
        };
        let id = self.plugin.csi.try_create(request).await.unwrap();
        self.made.insert(id.to_string(), name.to_owned());
    }

    /// Returns its offers: its pools, and its disks in the order of the list.
    async fn offers(&self) -> Value {
        let mut controller = self.plugin.csi.controller();
        let mut offers = Vec::new();
        for (name, profile) in &self.parsed.mappings[0].1.profile_matrix {
            let request = GetCapacityRequest {
                volume_capabilities: vec![profile.volume_capabilities.to_csi().0],
                parameters: profile.create_parameters.clone(),
                ..Default::default()
            };
            let capacity = controller.get_capacity(request).await.unwrap().into_inner();
            let source = json!({"type": "RAW", "vendor": self.vendor(), "profile": name});
            offers.push(self.resource(capacity.available_capacity, &source));
        }
        // One request for everything: Mesos does not support pages.
        let listed = controller.list_volumes(ListVolumesRequest::default()).await;
        let listed = listed.unwrap().into_inner();
        assert_eq!(listed.next_token, "");
        for volume in listed.entries.into_iter().map(|entry| entry.volume.unwrap()) {
            assert!(volume.volume_context.is_empty(), "it has no metadata");
            let id = &volume.volume_id;
            let source = match self.made.get(id) {
                None => json!({"type": "RAW", "vendor": self.vendor(), "id": id}),
                Some(profile) => json!({
                    "type": "MOUNT", "vendor": self.vendor(), "profile": profile, "id": id,
                    "mount": {"root": self.mount_root()},
                }),
            };
            offers.push(self.resource(volume.capacity_bytes, &source));
        }
        Value::Array(offers)
    }

    fn resource(&self, bytes: i64, source: &Value) -> Value {
        assert_eq!(bytes % MIB, 0, "{bytes}");
        let reservations = &self.parsed.providers[0].1.default_reservations;
        let reservations: Vec<_> = reservations
            .iter()
            .map(|reservation| json!({"type": "DYNAMIC", "role": reservation.role}))
            .collect();
        json!({
            "name": "disk", "type": "SCALAR", "scalar": {"value": bytes / MIB},
            "provider_id": self.provider,
            "reservations": reservations,
            "disk": {"source": source},
        })
    }

    fn vendor(&self) -> String {
        let plugin = &self.parsed.providers[0].1.storage.plugin;
        format!("{}.{}", plugin.r#type, plugin.name())
    }

    fn mount_root(&self) -> String {
        let plugin = &self.parsed.providers[0].1.storage.plugin;
        format!("./csi/{}/{}/mounts", plugin.r#type, plugin.name())
    }
}

fn bytes(scalar: &Value) -> i64 {
    scalar.as_i64().unwrap() * MIB
}

#[test]
fn the_example_of_a_resource_provider_shows_what_the_plugin_answers() {
    in_own_namespace(|| async {
        let tree = Tree::shipped();
        let blocks: Vec<Value> = blocks(&tree.0[PAGE], "json")
            .iter()
            .map(|block| serde_json::from_str(block).unwrap())
            .collect();
        let [datasets, first, operations, next] = blocks.as_slice() else {
            panic!("{PAGE} has datasets, an offer, operations and the next offer");
        };
        let (parsed, _) = tree.parse();
        let flocker = Flocker::with(|options| Options {
            nodes: 2,
            capacity: Some(2 << 40),
            ..options
        })
        .await;
        make_datasets(&flocker, datasets).await;
        let plugin = start(&parsed, &parsed.providers[0].0, &flocker, 1).await;
        let mut agent = Agent {
            parsed: &parsed,
            plugin: &plugin,
            provider: first[0]["provider_id"].clone(),
            made: BTreeMap::new(),
        };
        assert_eq!(&agent.offers().await, first);
        for operation in operations.as_array().unwrap() {
            let source = &operation["create_disk"]["source"];
            let pools = first.as_array().unwrap();
            let offered = pools.iter().find(|pool| pool["disk"] == source["disk"]);
            assert!(offered.is_some(), "{source} is of what was offered");
            agent.create(operation).await;
        }
        assert_eq!(&agent.offers().await, next);
    });
}
