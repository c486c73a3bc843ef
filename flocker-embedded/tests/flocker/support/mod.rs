//! What every test needs: a mount namespace of its own, a Flocker in it, and a client.

mod client;
mod edit_state;
mod isolation;
mod namespace;
mod state;

use std::path::{Path, PathBuf};
use std::time::Duration;

use flocker_embedded::faults::NodeFault;
use flocker_embedded::{Allocation, Embedded, NodeInfo, Options};
use host_fs::LockedDirectory;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub(crate) use client::{Answer, Client};
pub(crate) use isolation::{alias, isolated, loop_devices, mount_points};

/// The minimum size of a dataset: 64 MiB.
pub(crate) const SIZE: u64 = 64 << 20;

/// How long a test waits for a condition. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running Flocker with a connected client.
pub(crate) struct Cluster {
    pub(crate) flocker: Embedded,
    pub(crate) client: Client,
}

impl Cluster {
    /// Starts one on `directory/data`, with its client's files in `directory/certificates`.
    pub(crate) async fn start(directory: &Path, nodes: usize) -> Self {
        Self::start_with(Options {
            nodes,
            ..options(directory)
        })
        .await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let flocker = Embedded::start(options).await.unwrap();
        let client = Client::new(flocker.address(), flocker.certificates());
        Self { flocker, client }
    }

    pub(crate) fn node(&self, number: usize) -> &NodeInfo {
        &self.flocker.nodes()[number - 1]
    }

    /// Where a dataset is mounted on a node.
    pub(crate) fn path(&self, number: usize, dataset: Uuid) -> PathBuf {
        self.node(number).mount_root.join(dataset.to_string())
    }

    pub(crate) async fn create(&self, number: usize, size: u64) -> Uuid {
        let dataset = Uuid::new_v4();
        let body = json!({"dataset_id": dataset, "primary": self.node(number).uuid, "maximum_size": size});
        assert_eq!(
            self.client.post("/v1/configuration/datasets", &body).await.status,
            201
        );
        dataset
    }

    /// Creates a dataset and waits until state shows it mounted.
    pub(crate) async fn create_mounted(&self, number: usize) -> Uuid {
        self.create_mounted_of(number, SIZE).await
    }

    /// The same, with this size in bytes.
    pub(crate) async fn create_mounted_of(&self, number: usize, size: u64) -> Uuid {
        let dataset = self.create(number, size).await;
        self.wait_until_on(number, dataset).await;
        dataset
    }

    pub(crate) async fn relocate(&self, dataset: Uuid, number: usize) {
        let path = format!("/v1/configuration/datasets/{dataset}");
        let answer = self
            .client
            .post(&path, &json!({"primary": self.node(number).uuid}))
            .await;
        assert_eq!(answer.status, 200);
    }

    pub(crate) async fn delete(&self, dataset: Uuid) {
        let path = format!("/v1/configuration/datasets/{dataset}");
        assert_eq!(self.client.delete(&path).await.status, 200);
    }

    /// The numbers of the listed nodes.
    pub(crate) async fn listed(&self) -> Vec<usize> {
        let list = self.client.get("/v1/state/nodes").await.json();
        let uuids: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["uuid"].clone())
            .collect();
        let nodes = self.flocker.nodes().iter();
        nodes
            .filter(|node| uuids.contains(&json!(node.uuid)))
            .map(|node| node.number)
            .collect()
    }

    /// The node of an era.
    pub(crate) async fn node_of_era(&self, era: Uuid) -> Option<Uuid> {
        let answer = self.client.get(&format!("/v1/state/nodes/by_era/{era}")).await;
        (answer.status == 200).then(|| answer.json()["uuid"].as_str().unwrap().parse().unwrap())
    }

    /// Changes the fault of a node, and waits until it has taken effect.
    pub(crate) async fn change_node(&self, number: usize, change: impl FnOnce(&mut NodeFault)) {
        let faults = self.flocker.faults();
        faults.change(|plan| change(plan.nodes.entry(number).or_default()));
        faults.until_in_force().await;
    }

    pub(crate) async fn lease(&self, dataset: Uuid, number: usize) -> Answer {
        let node = self.node(number).uuid;
        let body = json!({"dataset_id": dataset, "node_uuid": node, "expires": null});
        self.client.post("/v1/configuration/leases", &body).await
    }

    pub(crate) async fn release(&self, dataset: Uuid) -> Answer {
        self.client
            .delete(&format!("/v1/configuration/leases/{dataset}"))
            .await
    }

    /// The entry of a dataset in state.
    pub(crate) async fn state(&self, dataset: Uuid) -> Option<Value> {
        let list = self.client.get("/v1/state/datasets").await.json();
        let list = list.as_array().unwrap().clone();
        list.into_iter()
            .find(|entry| entry["dataset_id"] == json!(dataset))
    }

    pub(crate) async fn wait_until_on(&self, number: usize, dataset: Uuid) {
        let expected = |size: &Value| {
            json!({
                "dataset_id": dataset,
                "maximum_size": size,
                "primary": self.node(number).uuid,
                "path": self.path(number, dataset),
            })
        };
        eventually(&format!("{dataset} is on node {number}"), async || {
            let found = self.state(dataset).await;
            found.is_some_and(|found| {
                found["maximum_size"].is_u64() && found == expected(&found["maximum_size"])
            })
        })
        .await;
    }

    pub(crate) async fn wait_until_state(&self, dataset: Uuid, expected: Option<Value>) {
        eventually(&format!("state shows {expected:?}"), async || {
            self.state(dataset).await == expected
        })
        .await;
    }
}

/// Settings for a test: any free port, everything below one directory.
pub(crate) fn options(directory: &Path) -> Options {
    Options::new(directory.join("data"), directory.join("certificates"))
}

/// The same, for volumes that are larger than what this machine may have free.
pub(crate) fn thin(directory: &Path) -> Options {
    Options {
        allocation: Allocation::Thin,
        ..options(directory)
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not so after {PATIENCE:?}: {what}");
        sleep(POLL).await;
    }
}

/// Asserts that a condition holds for a while, which is all that can be observed of what must never happen.
pub(crate) async fn for_a_while(what: &str, condition: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < end {
        assert!(condition().await, "no longer so: {what}");
        sleep(POLL).await;
    }
}

/// Changes what the database in `directory/data` has, as soon as the Flocker that was stopped or dropped has closed it.
pub(crate) async fn edit_state(directory: &Path, edit: impl FnOnce(&mut Value)) {
    let data = directory.join("data");
    eventually("the data directory is released", async || {
        LockedDirectory::claim(&data).is_ok()
    })
    .await;
    edit_state::edit_state(&data.join("state.redb"), edit);
}
