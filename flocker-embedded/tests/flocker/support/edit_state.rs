//! Changing the state database of a data directory that no process uses.

use std::path::Path;

use redb::Database;
use serde_json::Value;
use uuid::Uuid;

use super::state::{ATTACHMENTS, ENTRIES, REGISTERED, entries, read_state};

/// Changes what the database has. Fails if it is open.
pub(crate) fn edit_state(database: &Path, edit: impl FnOnce(&mut Value)) {
    let mut state = read_state(database);
    edit(&mut state);
    let database = Database::open(database).unwrap();
    let writing = database.begin_write().unwrap();
    for name in ENTRIES {
        let mut table = writing.open_table(entries(name)).unwrap();
        table.retain(|_, _| false).unwrap();
        for (id, entry) in state[name].as_object().unwrap() {
            let entry = entry.to_string();
            table.insert(id_of(id), entry.as_bytes()).unwrap();
        }
    }
    {
        let mut registered = writing.open_table(REGISTERED).unwrap();
        registered.retain(|_, ()| false).unwrap();
        for id in state["registered"].as_array().unwrap() {
            registered.insert(id_of(id.as_str().unwrap()), ()).unwrap();
        }
        let mut attachments = writing.open_table(ATTACHMENTS).unwrap();
        attachments.retain(|_, _| false).unwrap();
        for (id, node) in state["attachments"].as_object().unwrap() {
            attachments
                .insert(id_of(id), id_of(node.as_str().unwrap()))
                .unwrap();
        }
    }
    writing.commit().unwrap();
}

fn id_of(text: &str) -> Uuid {
    text.parse().unwrap()
}
