//! The content of Flocker's lists at one moment.

use std::collections::{BTreeMap, HashMap};

use flocker_client::{Dataset, DatasetState, EntryFault, Lease, Listed, Node, Unreadable, UnreadableEntry};
use tokio::time::Instant;
use uuid::Uuid;

use super::current_client::Flocker;
use super::lists::Lists;
use super::unreadable::ListKind;
use crate::error::{Error, Result, Situation};
use crate::operation::Context;
use crate::volume::VolumeLabels;

/// The lists of one read. Only those that were requested may be accessed.
///
/// The lists are fetched one after the other, so they may contradict each other for a moment. A decision on two of them
/// is confirmed by another read before it is acted on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    began: Instant,
    lists: Lists,
    datasets: BTreeMap<Uuid, Dataset>,
    unreadable_datasets: BTreeMap<Uuid, UnreadableDataset>,
    states: HashMap<Uuid, Vec<DatasetState>>,
    nodes: BTreeMap<Uuid, Node>,
    has_unknown_nodes: bool,
    leases: HashMap<Uuid, Lease>,
    /// The leases of which only the dataset is known, with the reason where it is described.
    unreadable_leases: HashMap<Uuid, Option<String>>,
}

/// A dataset whose entry cannot be read.
#[derive(Clone, Debug)]
struct UnreadableDataset {
    primary: Option<Uuid>,
    reason: Option<String>,
}

/// The reason for entries that exclude each other.
const TWICE: &str = "it is listed twice, and the entries differ";
/// The maximum number of faults of a list that are described.
const DESCRIBED: usize = 100;
/// Stands for the reason where a list has too many faults for all to be described.
const SEE_LOG: &str = "as are more than 100 others: see this plugin's log";

impl Snapshot {
    /// Fetches `lists`. One failure fails the whole read; an entry that cannot be read costs only that entry.
    pub(super) async fn fetch(
        flocker: Flocker,
        lists: Lists,
        note: impl Fn(ListKind, &Unreadable) + Send,
    ) -> Result<Self, flocker_client::Error> {
        let began = Instant::now();
        let client = flocker.client().await?;
        let mut snapshot = Self::empty(began, lists);
        // One at a time: the control service has one core, and one connection is enough.
        if lists.contains(Lists::CONFIGURATION) {
            let configuration = client.list_datasets().await?;
            let unreadable = snapshot.set_datasets(configuration.datasets, configuration.unreadable);
            note(ListKind::Configuration, &unreadable);
        }
        if lists.contains(Lists::NODES) {
            let nodes = client.list_nodes().await?;
            note(ListKind::Nodes, &nodes.unreadable);
            snapshot.set_nodes(nodes);
        }
        if lists.contains(Lists::STATE) {
            let states = client.list_dataset_states().await?;
            note(ListKind::State, &states.unreadable);
            snapshot.set_states(states);
        }
        // Last: what a lease allows is done right after the read.
        if lists.contains(Lists::LEASES) {
            let leases = client.list_leases().await?;
            note(ListKind::Leases, &snapshot.set_leases(leases));
        }
        Ok(snapshot)
    }

    pub(super) fn empty(began: Instant, lists: Lists) -> Self {
        Self {
            began,
            lists,
            datasets: BTreeMap::new(),
            unreadable_datasets: BTreeMap::new(),
            states: HashMap::new(),
            nodes: BTreeMap::new(),
            has_unknown_nodes: false,
            leases: HashMap::new(),
            unreadable_leases: HashMap::new(),
        }
    }

    /// Returns what cannot be read, with entries that exclude each other.
    fn set_datasets(&mut self, datasets: Vec<Dataset>, mut unreadable: Unreadable) -> Unreadable {
        let reasons = reasons(&unreadable);
        for UnreadableEntry { dataset_id, node } in &unreadable.entries {
            let reason = reasons.get(dataset_id).map(|reason| (*reason).to_owned());
            let entry = UnreadableDataset {
                primary: *node,
                reason,
            };
            self.unreadable_datasets.insert(*dataset_id, entry);
        }
        for dataset in datasets {
            let id = dataset.dataset_id;
            match self.datasets.get(&id) {
                Some(other) if *other != dataset => {
                    let entry = UnreadableDataset {
                        primary: (other.primary == dataset.primary).then_some(dataset.primary),
                        reason: Some(TWICE.to_owned()),
                    };
                    if self.unreadable_datasets.insert(id, entry).is_none() {
                        describe_twice(&mut unreadable, id);
                    }
                }
                Some(_) => {}
                None => {
                    self.datasets.insert(id, dataset);
                }
            }
        }
        for id in self.unreadable_datasets.keys() {
            self.datasets.remove(id);
        }
        unreadable
    }

    /// As [`Self::set_datasets`].
    fn set_leases(&mut self, leases: Listed<Lease>) -> Unreadable {
        let Listed {
            entries,
            mut unreadable,
        } = leases;
        let reasons = reasons(&unreadable);
        for UnreadableEntry { dataset_id, .. } in &unreadable.entries {
            let reason = reasons.get(dataset_id).map(|reason| (*reason).to_owned());
            self.unreadable_leases.insert(*dataset_id, reason);
        }
        for lease in entries {
            let id = lease.dataset_id;
            match self.leases.get(&id) {
                Some(other) if other.node_uuid != lease.node_uuid => {
                    if self
                        .unreadable_leases
                        .insert(id, Some(TWICE.to_owned()))
                        .is_none()
                    {
                        describe_twice(&mut unreadable, id);
                    }
                }
                // One that expires is acquired again without an end.
                Some(other) if other.expires.is_some() => {}
                Some(_) | None => {
                    self.leases.insert(id, lease);
                }
            }
        }
        for id in self.unreadable_leases.keys() {
            self.leases.remove(id);
        }
        unreadable
    }

    fn set_nodes(&mut self, nodes: Listed<Node>) {
        self.has_unknown_nodes = nodes.unreadable.without_id > 0;
        self.nodes = nodes.into_iter().map(|node| (node.uuid, node)).collect();
    }

    fn set_states(&mut self, states: Listed<DatasetState>) {
        for state in states {
            self.states.entry(state.dataset_id).or_default().push(state);
        }
    }

    /// Returns when the first of the lists was requested.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Returns which lists it has.
    pub(crate) fn lists(&self) -> Lists {
        self.lists
    }

    /// Returns the configured dataset, also when it is deleted.
    ///
    /// # Errors
    /// [`Situation::FlockerUnavailable`]: it exists, but its entry cannot be read, so it may be of any content.
    pub(crate) fn dataset(&self, id: Uuid) -> Result<Option<&Dataset>> {
        self.expect(Lists::CONFIGURATION);
        match self.unreadable_datasets.get(&id) {
            None => Ok(self.datasets.get(&id)),
            Some(UnreadableDataset { reason, .. }) => Err(Error::new(
                Situation::FlockerUnavailable,
                format!(
                    "dataset {id} exists, but its entry in Flocker's configuration cannot be read ({}), so nothing is \
                     done with it; if it is not needed, send DELETE /v1/configuration/datasets/{id} to Flocker",
                    reason.as_deref().unwrap_or(SEE_LOG)
                ),
            )),
        }
    }

    /// Returns the configured dataset unless it is deleted.
    ///
    /// # Errors
    /// Those of [`Self::dataset`].
    pub(crate) fn live_dataset(&self, id: Uuid) -> Result<Option<&Dataset>> {
        let dataset = self.dataset(id)?;
        Ok(dataset.filter(|dataset| !dataset.deleted))
    }

    /// Returns the ids of the datasets whose entries cannot be read, which may be deleted, with their primaries where those
    /// are known, ordered by id.
    pub(crate) fn unreadable_datasets(&self) -> impl Iterator<Item = (Uuid, Option<Uuid>)> {
        self.expect(Lists::CONFIGURATION);
        let entries = self.unreadable_datasets.iter();
        entries.map(|(id, entry)| (*id, entry.primary))
    }

    /// Returns every configured dataset that can be read, deleted ones included, ordered by id.
    pub(crate) fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        self.expect(Lists::CONFIGURATION);
        self.datasets.values()
    }

    /// Gives an operation what people call its volume, for the log, if the volume is here.
    pub(super) fn name_volume_of(&self, context: &Context) {
        if let Some(dataset) = context.nameless()
            && let Some(found) = self.datasets.get(&dataset)
            && let Some(labels) = VolumeLabels::in_metadata(&found.metadata)
        {
            context.called(labels);
        }
    }

    /// Returns the datasets that are not deleted and have `value` under `key` in their metadata, ordered by id.
    pub(crate) fn live_datasets_with(&self, key: &str, value: &str) -> Vec<&Dataset> {
        // What is not Unicode has been replaced in the text, and is equal to no text.
        let is_exact =
            |dataset: &Dataset| !dataset.unreadable.metadata || !value.contains(char::REPLACEMENT_CHARACTER);
        let carries = |dataset: &&Dataset| {
            let stored = dataset.metadata.get(key);
            !dataset.deleted && is_exact(dataset) && stored.is_some_and(|stored| stored == value)
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

    /// Whether Flocker lists nodes whose ids cannot be read. Then every node that is not listed may be one of them.
    pub(crate) fn has_unknown_nodes(&self) -> bool {
        self.expect(Lists::NODES);
        self.has_unknown_nodes
    }

    /// Returns the lease on a dataset.
    ///
    /// # Errors
    /// [`Situation::FlockerUnavailable`]: the dataset is leased, but the lease cannot be read, so any node may hold it.
    pub(crate) fn lease(&self, id: Uuid) -> Result<Option<&Lease>> {
        self.expect(Lists::LEASES);
        match self.unreadable_leases.get(&id) {
            None => Ok(self.leases.get(&id)),
            Some(reason) => Err(Error::new(
                Situation::FlockerUnavailable,
                format!(
                    "dataset {id} is leased, but its lease cannot be read ({}), so another node may hold it; if no node uses \
                     the volume, send DELETE /v1/configuration/leases/{id} to Flocker",
                    reason.as_deref().unwrap_or(SEE_LOG)
                ),
            )),
        }
    }

    /// Returns every lease that can be read, in no order.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.expect(Lists::LEASES);
        self.leases.values()
    }

    /// Returns the datasets whose leases cannot be read, in no order.
    pub(crate) fn unreadable_leases(&self) -> impl Iterator<Item = Uuid> {
        self.expect(Lists::LEASES);
        self.unreadable_leases.keys().copied()
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
        let node = |uuid: &Uuid| Node {
            uuid: *uuid,
            host: "127.0.0.1".to_owned(),
        };
        Self::of_listed(
            datasets,
            Unreadable::default(),
            listed(states),
            listed(nodes.iter().map(node).collect()),
            listed(leases),
        )
    }

    /// Makes a snapshot for unit tests in which entries cannot be read.
    #[cfg(test)]
    pub(crate) fn of_listed(
        datasets: Vec<Dataset>,
        unreadable_datasets: Unreadable,
        states: Listed<DatasetState>,
        nodes: Listed<Node>,
        leases: Listed<Lease>,
    ) -> Self {
        let mut snapshot = Self::empty(Instant::now(), Lists::all());
        snapshot.set_datasets(datasets, unreadable_datasets);
        snapshot.set_states(states);
        snapshot.set_nodes(nodes);
        snapshot.set_leases(leases);
        snapshot
    }
}

/// Makes a list without faults.
#[cfg(test)]
pub(crate) fn listed<T>(entries: Vec<T>) -> Listed<T> {
    Listed {
        entries,
        unreadable: Unreadable::default(),
    }
}

/// Adds the fault of entries that exclude each other.
fn describe_twice(unreadable: &mut Unreadable, id: Uuid) {
    if unreadable.faults.len() < DESCRIBED {
        unreadable.faults.push(EntryFault {
            id: Some(id),
            reason: TWICE.to_owned(),
        });
    }
}

/// Returns the reasons that a list describes, by the ids of its entries.
fn reasons(unreadable: &Unreadable) -> HashMap<Uuid, &str> {
    let described = unreadable.faults.iter();
    described
        .filter_map(|fault| Some((fault.id?, fault.reason.as_str())))
        .collect()
}

#[cfg(test)]
mod tests;
