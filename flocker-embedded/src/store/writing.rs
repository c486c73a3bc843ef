//! Transactions that change the database.

use std::collections::BTreeMap;
use std::io;

use redb::{ReadableTable, WriteTransaction};
use serde::Serialize;
use uuid::Uuid;

use super::edits::Edits;
use super::records::Records;
use super::tables::{
    ATTACHMENTS, CLUSTER, ClusterEntry, DATASETS, DELETED, Entries, FORMAT, GENERATIONS, InDatabase, LEASES,
    LISTED, META, REGISTERED, SEQUENCE, STORAGE, TAG,
};
use super::tag::TagSum;

/// A transaction that changes the database.
pub(super) struct Writing<'a>(pub(super) &'a WriteTransaction);

impl Writing<'_> {
    pub(super) fn make_tables(&self) -> io::Result<()> {
        self.0.open_table(META).in_database()?;
        for entries in [DATASETS, DELETED, LEASES, STORAGE] {
            self.0.open_table(entries).in_database()?;
        }
        self.0.open_table(LISTED).in_database()?;
        self.0.open_table(GENERATIONS).in_database()?;
        self.0.open_table(REGISTERED).in_database()?;
        self.0.open_table(ATTACHMENTS).in_database()?;
        Ok(())
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> io::Result<()> {
        self.0
            .open_table(META)
            .in_database()?
            .insert(key, value)
            .in_database()?;
        Ok(())
    }

    pub(super) fn set_position(&self, sum: TagSum, sequence: u64) -> io::Result<()> {
        self.set(TAG, &sum.to_bytes())?;
        self.set(SEQUENCE, &sequence.to_be_bytes())
    }

    /// Writes entries. A dataset that is deleted is listed with the time `now`, and with none is not listed.
    pub(super) fn change(
        &self,
        edits: &Edits,
        next: &Records,
        now: impl Into<Option<u64>>,
    ) -> io::Result<()> {
        self.change_datasets(edits, now.into())?;
        if edits.has_nodes() {
            let entry = ClusterEntry {
                format: FORMAT,
                cluster: next.cluster,
                nodes: next.nodes.clone(),
            };
            self.set(CLUSTER, &serde_json::to_vec(&entry)?)?;
        }
        self.change_entries(LEASES, &edits.leases)?;
        self.change_entries(STORAGE, &edits.storage)?;
        let mut registered = self.0.open_table(REGISTERED).in_database()?;
        for id in &edits.registered {
            registered.insert(id, ()).in_database()?;
        }
        let mut attachments = self.0.open_table(ATTACHMENTS).in_database()?;
        for (id, node) in &edits.attachments {
            match node {
                Some(node) => attachments.insert(id, node).in_database()?,
                None => attachments.remove(id).in_database()?,
            };
        }
        Ok(())
    }

    fn change_datasets(&self, edits: &Edits, now: Option<u64>) -> io::Result<()> {
        let mut live = self.0.open_table(DATASETS).in_database()?;
        let mut deleted = self.0.open_table(DELETED).in_database()?;
        let mut listed = self.0.open_table(LISTED).in_database()?;
        let mut generations = self.0.open_table(GENERATIONS).in_database()?;
        for (id, dataset) in &edits.datasets {
            let bytes = serde_json::to_vec(&**dataset)?;
            if !dataset.deleted {
                live.insert(id, &*bytes).in_database()?;
                continue;
            }
            live.remove(id).in_database()?;
            deleted.insert(id, &*bytes).in_database()?;
            if let Some(now) = now {
                listed.insert(id, now).in_database()?;
            }
            if let Some((lineage, generation)) = dataset.lineage() {
                let known = generations
                    .get(&*lineage)
                    .in_database()?
                    .map(|entry| entry.value().0);
                if known.is_none_or(|known| known < generation) {
                    generations.insert(&*lineage, (generation, *id)).in_database()?;
                }
            }
        }
        for id in &edits.unlisted {
            listed.remove(id).in_database()?;
        }
        Ok(())
    }

    fn change_entries<T: Serialize>(
        &self,
        table: Entries,
        changes: &BTreeMap<Uuid, Option<T>>,
    ) -> io::Result<()> {
        let mut table = self.0.open_table(table).in_database()?;
        for (id, entry) in changes {
            match entry {
                Some(entry) => table.insert(id, &*serde_json::to_vec(entry)?).in_database()?,
                None => table.remove(id).in_database()?,
            };
        }
        Ok(())
    }

    /// Adds a deleted dataset to those that are loaded at a start.
    pub(super) fn list(&self, id: Uuid) -> io::Result<()> {
        self.0
            .open_table(LISTED)
            .in_database()?
            .insert(id, 0)
            .in_database()?;
        Ok(())
    }
}
