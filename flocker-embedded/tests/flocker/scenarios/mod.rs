//! The recorded changes of a real cluster, repeated at the timing of the real agents, only faster.
//!
//! Where real agents let two nodes mount the same file system, these do not: there the last recorded observation is
//! repeated only after all mounts have ended.

mod binds;
mod failures;
mod leases;
mod moves;
mod other_namespace;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flocker_embedded::faults::AgentState;
use flocker_embedded::{Options, Timing};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::{Kind, exchanges, handshakes, observations};
use crate::support::{Cluster, SIZE, options};
use watch::{Subject, Watch};

/// How many times faster than with real agents each scenario runs.
const FACTOR: u32 = 10;
const NODES: usize = 3;

/// The sources of all scenarios.
const SOURCES: [&str; 4] = [
    include_str!("moves.rs"),
    include_str!("leases.rs"),
    include_str!("binds.rs"),
    include_str!("failures.rs"),
];

#[test]
fn every_recorded_exchange_is_compared_and_every_recorded_scenario_is_repeated() {
    let mut kinds = BTreeMap::new();
    let kinds_of_all = exchanges().into_iter().map(|exchange| exchange.kind);
    for kind in kinds_of_all.chain(observations().into_iter().map(|observation| observation.kind)) {
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let expected = [(Kind::Standalone, 120), (Kind::Scenario, 159), (Kind::Client, 13)];
    assert_eq!(kinds, BTreeMap::from(expected));
    assert_eq!(handshakes().len(), 16);

    let cases: BTreeSet<_> = observations()
        .into_iter()
        .map(|observation| observation.case)
        .collect();
    let missing: Vec<_> = cases
        .iter()
        .filter(|case| !SOURCES.iter().any(|source| source.contains(&format!("{case:?}"))))
        .collect();
    assert!(missing.is_empty(), "no scenario repeats {missing:?}");
}

/// The initial era of a node.
fn era(number: usize) -> Uuid {
    format!("e0000000-0000-4000-8000-{number:012}").parse().unwrap()
}

/// A cluster like the recorded one.
struct Scenario {
    cluster: Cluster,
}

impl Scenario {
    async fn start(directory: &Path) -> Self {
        let cluster = Cluster::start_with(Options {
            nodes: NODES,
            timing: Timing::Shortened(FACTOR),
            eras: (1..=NODES).map(|number| (number, era(number))).collect(),
            ..options(directory)
        })
        .await;
        Self { cluster }
    }

    async fn watch<'a>(&'a self, case: &'a str, dataset: Uuid) -> Watch<'a> {
        Watch::begin(self, case, Subject::Dataset(dataset)).await
    }

    /// Requests a dataset on a node.
    async fn request_dataset(&self, dataset: Uuid, node: Uuid) {
        let body = json!({"dataset_id": dataset, "primary": node, "maximum_size": SIZE});
        let answer = self
            .cluster
            .client
            .post("/v1/configuration/datasets", &body)
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }

    async fn request_move(&self, dataset: Uuid, node: Uuid) {
        let path = format!("/v1/configuration/datasets/{dataset}");
        let answer = self.cluster.client.post(&path, &json!({"primary": node})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Stops the agent of a node, or starts it again.
    fn agent(&self, number: usize, state: AgentState) {
        let faults = self.cluster.flocker.faults();
        faults.change(|plan| plan.nodes.entry(number).or_default().agent = state);
    }

    fn node(&self, number: usize) -> Uuid {
        self.cluster.node(number).uuid
    }

    /// Creates a dataset, and observes the changes of a recorded case.
    async fn create(&self, case: &str, number: usize) -> Uuid {
        let dataset = Uuid::new_v4();
        let mut watch = self.watch(case, dataset).await;
        self.request_dataset(dataset, self.node(number)).await;
        watch.end().await;
        dataset
    }

    /// Moves a dataset, and observes the changes of a recorded case.
    async fn relocate(&self, case: &str, dataset: Uuid, number: usize) {
        let mut watch = self.watch(case, dataset).await;
        self.cluster.relocate(dataset, number).await;
        watch.end().await;
    }

    async fn lease(&self, dataset: Uuid, number: usize) {
        let answer = self.cluster.lease(dataset, number).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
    }

    async fn release(&self, dataset: Uuid) {
        let answer = self.cluster.release(dataset).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// The configured primary.
    async fn configured(&self, dataset: Uuid) -> Value {
        let list = self.cluster.client.get("/v1/configuration/datasets").await.json();
        let entries = list.as_array().unwrap().iter();
        let mut entries = entries.filter(|entry| entry["dataset_id"] == json!(dataset));
        entries.next().unwrap()["primary"].clone()
    }
}
