//! Data directories with a past: datasets that were deleted long ago.

use std::fs;
use std::path::Path;

use flocker_csi::volume::{Namespace, VolumeName};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Result;
use crate::flocker::VOLUME_SIZE;

/// The name space of volume names by default, and the creator of datasets.
const DRIVER: &str = "flocker.csi.clusterhq.com";

/// Which datasets were deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deleted<'a> {
    /// As many of names of their own.
    Names(usize),
    /// As many of one name, one after the other.
    Generations(&'a str, usize),
}

impl Deleted<'_> {
    fn count(self) -> usize {
        match self {
            Self::Names(count) | Self::Generations(_, count) => count,
        }
    }

    fn name(self, number: usize) -> (String, u32) {
        match self {
            Self::Names(_) => (format!("pvc-{}", Uuid::new_v4()), 0),
            // Far fewer than 2^32.
            Self::Generations(name, _) => (name.to_owned(), u32::try_from(number).unwrap_or(u32::MAX)),
        }
    }
}

/// Writes a data directory in which datasets were created and deleted, as the release before the database left it. The
/// start that follows moves it into the database, where they are past the time for which they are listed.
///
/// To create and delete as many would take most of an hour.
pub(crate) fn write(data_dir: &Path, deleted: Deleted<'_>) -> Result<()> {
    let (namespace, node) = (Namespace::new(DRIVER), Uuid::new_v4());
    let mut datasets = Map::new();
    for number in 0..deleted.count() {
        let (name, generation) = deleted.name(number);
        let id = namespace.dataset_id(&VolumeName::parse(&name)?, generation);
        let dataset = json!({
            "primary": node,
            "deleted": true,
            "maximum_size": VOLUME_SIZE,
            "metadata": {"name": name, "csi.driver": DRIVER, "csi.generation": generation.to_string()},
        });
        datasets.insert(id.to_string(), dataset);
    }
    let registered: Vec<_> = datasets.keys().cloned().map(Value::from).collect();
    let state = json!({
        "cluster": Uuid::new_v4(),
        "nodes": [node],
        "configuration": {"datasets": datasets, "leases": {}, "registered": registered},
        "attachments": {},
        "storage": {},
    });
    fs::create_dir_all(data_dir)?;
    fs::write(data_dir.join("state.json"), serde_json::to_vec(&state)?)?;
    Ok(())
}
