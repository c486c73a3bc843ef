//! The tables of the database, and how their entries are read.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use redb::{ReadTransaction, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) type Entries = TableDefinition<'static, Uuid, &'static [u8]>;

/// Everything that is not an entry of its own.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const DATASETS: Entries = TableDefinition::new("datasets");
/// The deleted datasets, permanently.
pub(super) const DELETED: Entries = TableDefinition::new("deleted");
/// The deleted datasets that are loaded at a start, and when they were deleted, in seconds since 1970.
pub(super) const LISTED: TableDefinition<'_, Uuid, u64> = TableDefinition::new("listed");
/// The generation and the id of the last deleted dataset, by the key of its lineage.
pub(super) const GENERATIONS: TableDefinition<'_, &str, (u64, Uuid)> = TableDefinition::new("generations");
pub(super) const REGISTERED: TableDefinition<'_, Uuid, ()> = TableDefinition::new("registered");
pub(super) const LEASES: Entries = TableDefinition::new("leases");
pub(super) const ATTACHMENTS: TableDefinition<'_, Uuid, Uuid> = TableDefinition::new("attachments");
pub(super) const STORAGE: Entries = TableDefinition::new("storage");

/// The keys of [`META`].
pub(super) const CLUSTER: &str = "cluster";
pub(super) const TAG: &str = "tag";
pub(super) const SEQUENCE: &str = "sequence";
pub(super) const ORIGIN: &str = "origin";

/// The form of the tables that this version writes. A program refuses a later one.
pub(super) const FORMAT: u32 = 1;

/// The nodes, and the form of the tables.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ClusterEntry {
    pub(super) format: u32,
    pub(super) cluster: Uuid,
    pub(super) nodes: Vec<Uuid>,
}

/// Reads a whole table.
pub(super) fn collect<V: redb::Value + 'static, T>(
    reading: &ReadTransaction,
    table: TableDefinition<'static, Uuid, V>,
    decode: impl for<'a> Fn(V::SelfType<'a>) -> io::Result<T>,
) -> io::Result<BTreeMap<Uuid, T>> {
    let table = reading.open_table(table).in_database()?;
    let entries = table.iter().in_database()?;
    let decoded = entries.map(|entry| {
        let (id, value) = entry.in_database()?;
        Ok((id.value(), decode(value.value())?))
    });
    decoded.collect()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(undecodable)
}

pub(super) fn undecodable(error: serde_json::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

pub(super) fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// Turns the errors of the database into those of the file system, which most of them are.
pub(super) trait InDatabase<T> {
    fn in_database(self) -> io::Result<T>;
}

impl<T, E: Into<redb::Error>> InDatabase<T> for Result<T, E> {
    fn in_database(self) -> io::Result<T> {
        self.map_err(|error| match error.into() {
            redb::Error::Io(error) => error,
            error @ redb::Error::Corrupted(_) => io::Error::new(ErrorKind::InvalidData, error),
            error => io::Error::other(error),
        })
    }
}
