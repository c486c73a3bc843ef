//! What a change of the state sees, and what it asks to be changed.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::database::Database;
use super::edits::Edits;
use super::model::{Dataset, Lease, Snapshot, Storage};
use super::records::{HighestDeleted, Records};

/// A change in progress: it reads the state as it was before, and collects what it replaces. What stays as it is costs
/// nothing.
pub(crate) struct Transaction<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) records: &'a Records,
    pub(super) database: &'a Database,
    pub(super) edits: Edits,
}

impl Transaction<'_> {
    /// Returns the tag of the configuration that is about to be changed.
    pub(crate) fn tag(&self) -> &str {
        &self.snapshot.tag
    }

    /// Returns a dataset, also if it was deleted long ago, as this change leaves it.
    pub(crate) fn dataset(&self, id: Uuid) -> io::Result<Option<Arc<Dataset>>> {
        let edited = self.edits.datasets.get(&id);
        match edited.or_else(|| self.snapshot.configuration.datasets.get(&id)) {
            Some(found) => Ok(Some(Arc::clone(found))),
            None => Ok(self.database.deleted(id)?.map(Arc::new)),
        }
    }

    /// Stores a dataset.
    pub(crate) fn put_dataset(&mut self, id: Uuid, dataset: Dataset) -> io::Result<Arc<Dataset>> {
        let before = self.dataset(id)?;
        if let Some(before) = before.filter(|before| **before == dataset) {
            return Ok(before);
        }
        let dataset = Arc::new(dataset);
        self.edits.datasets.insert(id, Arc::clone(&dataset));
        Ok(dataset)
    }

    /// Returns the deleted dataset of the highest generation among those of the same name and creator, if `dataset` is
    /// one of the plugin's.
    pub(crate) fn highest_deleted(&self, dataset: &Dataset) -> io::Result<Option<HighestDeleted>> {
        match dataset.lineage() {
            Some((lineage, _)) => self.database.highest_deleted(&lineage),
            None => Ok(None),
        }
    }

    pub(crate) fn lease(&self, dataset: Uuid) -> Option<Lease> {
        self.snapshot.configuration.leases.get(&dataset).copied()
    }

    /// Stores the lease of a dataset, or removes it.
    pub(crate) fn put_lease(&mut self, dataset: Uuid, lease: Option<Lease>) {
        if self.lease(dataset) != lease {
            self.edits.leases.insert(dataset, lease);
        }
    }

    /// Records that the backing volumes of datasets exist.
    pub(super) fn register(&mut self, datasets: &[Uuid]) {
        let known = &self.snapshot.configuration.registered;
        let new = datasets.iter().filter(|dataset| !known.contains(dataset));
        self.edits.registered.extend(new);
    }

    /// Records which node a dataset is attached to, or that it is attached to none.
    pub(super) fn put_attachment(&mut self, dataset: Uuid, node: Option<Uuid>) {
        if self.records.attachments.get(&dataset) != node.as_ref() {
            self.edits.attachments.insert(dataset, node);
        }
    }

    /// Records how far the storage of a dataset is.
    pub(super) fn put_storage(&mut self, dataset: Uuid, storage: Option<Storage>) {
        if self.records.storage.get(&dataset) != storage.as_ref() {
            self.edits.storage.insert(dataset, storage);
        }
    }

    /// Drops the records of the storage of deleted datasets that have none.
    pub(super) fn prune_storage(&mut self, exists: impl Fn(Uuid) -> bool) {
        let datasets = &self.snapshot.configuration.datasets;
        let is_deleted = |id: &Uuid| datasets.get(id).is_none_or(|dataset| dataset.deleted);
        let storage = self.records.storage.keys().copied();
        let gone: Vec<_> = storage.filter(|id| is_deleted(id) && !exists(*id)).collect();
        for id in gone {
            self.put_storage(id, None);
        }
    }
}
