//! The content of Flocker's lists at one moment.

use std::collections::{BTreeMap, HashMap};

use flocker_client::{Dataset, DatasetState, Lease, Node};
use tokio::time::Instant;
use uuid::Uuid;

use super::current_client::Flocker;
use super::lists::Lists;

/// The lists of one read. Only those that were requested may be accessed.
///
/// The lists are fetched one after the other, so they may contradict each other for a moment. A decision on two of them
/// is confirmed by another read before it is acted on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    began: Instant,
    lists: Lists,
    datasets: BTreeMap<Uuid, Dataset>,
    states: HashMap<Uuid, Vec<DatasetState>>,
    nodes: BTreeMap<Uuid, Node>,
    leases: HashMap<Uuid, Lease>,
}

impl Snapshot {
    /// Fetches `lists`. One failure fails the whole read.
    pub(super) async fn fetch(flocker: Flocker, lists: Lists) -> Result<Self, flocker_client::Error> {
        let began = Instant::now();
        let client = flocker.client().await?;
        let mut snapshot = Self::empty(began, lists);
        // One at a time: the control service has one core, and one connection is enough.
        if lists.contains(Lists::LEASES) {
            let leases = client.list_leases().await?;
            snapshot.leases = leases
                .into_iter()
                .map(|lease| (lease.dataset_id, lease))
                .collect();
        }
        if lists.contains(Lists::CONFIGURATION) {
            let datasets = client.list_datasets().await?.datasets;
            snapshot.datasets = datasets
                .into_iter()
                .map(|dataset| (dataset.dataset_id, dataset))
                .collect();
        }
        if lists.contains(Lists::NODES) {
            snapshot.nodes = client
                .list_nodes()
                .await?
                .into_iter()
                .map(|node| (node.uuid, node))
                .collect();
        }
        if lists.contains(Lists::STATE) {
            for state in client.list_dataset_states().await? {
                snapshot.states.entry(state.dataset_id).or_default().push(state);
            }
        }
        Ok(snapshot)
    }

    pub(super) fn empty(began: Instant, lists: Lists) -> Self {
        Self {
            began,
            lists,
            datasets: BTreeMap::new(),
            states: HashMap::new(),
            nodes: BTreeMap::new(),
            leases: HashMap::new(),
        }
    }

    /// Returns when the first of the lists was requested.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(super) fn lists(&self) -> Lists {
        self.lists
    }

    /// Returns the configured dataset, also when it is deleted.
    pub(crate) fn dataset(&self, id: Uuid) -> Option<&Dataset> {
        self.expect(Lists::CONFIGURATION);
        self.datasets.get(&id)
    }

    /// Returns the configured dataset unless it is deleted.
    pub(crate) fn live_dataset(&self, id: Uuid) -> Option<&Dataset> {
        self.dataset(id).filter(|dataset| !dataset.deleted)
    }

    /// Returns every configured dataset, deleted ones included, ordered by id.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        self.expect(Lists::CONFIGURATION);
        self.datasets.values()
    }

    /// Returns the datasets that are not deleted and have `value` under `key` in their metadata, ordered by id.
    pub(crate) fn live_datasets_with(&self, key: &str, value: &str) -> Vec<&Dataset> {
        let carries = |dataset: &&Dataset| {
            !dataset.deleted && dataset.metadata.get(key).is_some_and(|stored| stored == value)
        };
        self.datasets().filter(carries).collect()
    }

    /// Returns what nodes report about a dataset. Two nodes may report one dataset at the same time.
    pub(crate) fn states(&self, id: Uuid) -> &[DatasetState] {
        self.expect(Lists::STATE);
        self.states.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Whether Flocker lists the node. A node is listed for two minutes after it died.
    pub(crate) fn lists_node(&self, node: Uuid) -> bool {
        self.expect(Lists::NODES);
        self.nodes.contains_key(&node)
    }

    /// Returns the listed nodes, ordered by id.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.expect(Lists::NODES);
        self.nodes.values()
    }

    /// Returns the lease on a dataset.
    pub(crate) fn lease(&self, id: Uuid) -> Option<&Lease> {
        self.expect(Lists::LEASES);
        self.leases.get(&id)
    }

    /// Returns every lease, in no order.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.expect(Lists::LEASES);
        self.leases.values()
    }

    fn expect(&self, list: Lists) {
        debug_assert!(
            self.lists.contains(list),
            "a list was accessed that was not requested"
        );
    }

    /// Makes a snapshot for unit tests.
    #[cfg(test)]
    pub(crate) fn of(
        datasets: Vec<Dataset>,
        states: Vec<DatasetState>,
        nodes: &[Uuid],
        leases: Vec<Lease>,
    ) -> Self {
        let lists = Lists::CONFIGURATION | Lists::STATE | Lists::NODES | Lists::LEASES;
        let mut snapshot = Self::empty(Instant::now(), lists);
        snapshot.datasets = datasets
            .into_iter()
            .map(|dataset| (dataset.dataset_id, dataset))
            .collect();
        for state in states {
            snapshot.states.entry(state.dataset_id).or_default().push(state);
        }
        snapshot.nodes = nodes
            .iter()
            .map(|uuid| {
                (
                    *uuid,
                    Node {
                        uuid: *uuid,
                        host: "127.0.0.1".to_owned(),
                    },
                )
            })
            .collect();
        snapshot.leases = leases
            .into_iter()
            .map(|lease| (lease.dataset_id, lease))
            .collect();
        snapshot
    }
}
