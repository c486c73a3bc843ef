//! A change of the state: the entries that it replaces, and what they are in memory afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::model::{Configuration, Dataset, Lease, Snapshot, Storage};
use super::records::Records;
use super::tag::EntryDigest;

/// The entries that a change replaces, by their datasets; `None` where it removes them.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) datasets: BTreeMap<Uuid, Arc<Dataset>>,
    pub(super) leases: BTreeMap<Uuid, Option<Lease>>,
    pub(super) registered: BTreeSet<Uuid>,
    pub(super) attachments: BTreeMap<Uuid, Option<Uuid>>,
    pub(super) storage: BTreeMap<Uuid, Option<Storage>>,
    /// Deleted datasets that are no longer kept in memory.
    pub(super) unlisted: BTreeSet<Uuid>,
    /// Nodes that are added.
    pub(super) nodes: Vec<Uuid>,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.datasets.is_empty()
            && self.leases.is_empty()
            && self.registered.is_empty()
            && self.attachments.is_empty()
            && self.storage.is_empty()
            && self.unlisted.is_empty()
            && self.nodes.is_empty()
    }

    pub(super) fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Whether the configuration in memory changes.
    pub(super) fn change_configuration(&self) -> bool {
        !(self.datasets.is_empty()
            && self.leases.is_empty()
            && self.registered.is_empty()
            && self.unlisted.is_empty())
    }

    /// Changes the records and the configuration. `now` is the time of the change in seconds since 1970.
    pub(super) fn carry_out(
        &self,
        configuration: &mut Configuration,
        records: &mut Records,
        now: u64,
    ) -> serde_json::Result<()> {
        let sum = &mut records.sum;
        for (id, dataset) in &self.datasets {
            if let Some(before) = configuration.datasets.insert(*id, Arc::clone(dataset)) {
                sum.subtract(EntryDigest::of_dataset(*id, &before)?);
            }
            sum.add(EntryDigest::of_dataset(*id, dataset)?);
            if dataset.deleted {
                records.deleted_at.insert(*id, now);
            }
        }
        for (id, lease) in &self.leases {
            if let Some(before) = configuration.leases.remove(id) {
                sum.subtract(EntryDigest::of_lease(*id, &before)?);
            }
            if let Some(lease) = lease {
                sum.add(EntryDigest::of_lease(*id, lease)?);
                configuration.leases.insert(*id, *lease);
            }
        }
        for id in &self.registered {
            if configuration.registered.insert(*id) {
                sum.add(EntryDigest::of_registration(*id)?);
            }
        }
        for id in &self.unlisted {
            // It stays configured, so the sum has it still.
            configuration.datasets.remove(id);
            configuration.registered.remove(id);
            if records.deleted_at.remove(id).is_some() {
                records.hidden += 1;
            }
        }
        replace(&mut records.attachments, &self.attachments);
        replace(&mut records.storage, &self.storage);
        records.nodes.extend(&self.nodes);
        records.sequence += 1;
        Ok(())
    }
}

fn replace<T: Copy>(entries: &mut BTreeMap<Uuid, T>, changes: &BTreeMap<Uuid, Option<T>>) {
    for (id, entry) in changes {
        match entry {
            Some(entry) => entries.insert(*id, *entry),
            None => entries.remove(id),
        };
    }
}

impl Snapshot {
    pub(super) fn new(configuration: Configuration, records: &Records) -> Self {
        Self {
            datasets: records.hidden + configuration.datasets.len() as u64,
            configuration,
            tag: records.sum.tag(),
        }
    }
}
