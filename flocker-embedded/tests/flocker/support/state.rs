//! The state database of a data directory that no process uses, as JSON.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The tables whose entries are JSON.
pub(super) const ENTRIES: [&str; 4] = ["datasets", "deleted", "leases", "storage"];
pub(super) const REGISTERED: TableDefinition<'_, Uuid, ()> = TableDefinition::new("registered");
pub(super) const ATTACHMENTS: TableDefinition<'_, Uuid, Uuid> = TableDefinition::new("attachments");

pub(super) fn entries(table: &str) -> TableDefinition<'_, Uuid, &'static [u8]> {
    TableDefinition::new(table)
}

/// Returns what the database has: an object for each table, and a list for the one that has only ids.
pub(crate) fn read_state(database: &Path) -> Value {
    let database = Database::open(database).expect("it is a database that no process has open");
    let reading = database.begin_read().unwrap();
    let mut state = Map::new();
    for name in ENTRIES {
        let mut object = Map::new();
        for entry in reading.open_table(entries(name)).unwrap().iter().unwrap() {
            let (id, value) = entry.unwrap();
            let value = serde_json::from_slice(value.value()).unwrap();
            object.insert(id.value().to_string(), value);
        }
        state.insert(name.to_owned(), object.into());
    }
    let registered = reading.open_table(REGISTERED).unwrap();
    let ids: Vec<_> = registered
        .iter()
        .unwrap()
        .map(|entry| entry.unwrap().0.value())
        .collect();
    state.insert("registered".to_owned(), json!(ids));
    let mut attachments = Map::new();
    for entry in reading.open_table(ATTACHMENTS).unwrap().iter().unwrap() {
        let (id, node) = entry.unwrap();
        attachments.insert(id.value().to_string(), json!(node.value()));
    }
    state.insert("attachments".to_owned(), attachments.into());
    state.into()
}
