//! What is kept in memory beside the configuration, and what is read from the database when it is needed.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::model::{Dataset, Storage};
use super::tag::TagSum;

/// The metadata by which the plugin names a dataset: who created it, the volume's name, and how many datasets of that name
/// were deleted before.
const CREATOR: &str = "csi.driver";
const NAME: &str = "name";
const GENERATION: &str = "csi.generation";

/// What is kept in memory beside the configuration.
#[derive(Clone, Debug)]
pub(super) struct Records {
    /// The cluster's UUID: organizational unit of all certificates.
    pub(super) cluster: Uuid,
    /// UUIDs of the nodes, in the order of their numbers.
    pub(super) nodes: Vec<Uuid>,
    /// The node each dataset was last attached to. It has no meaning unless a loop device has the backing file.
    pub(super) attachments: BTreeMap<Uuid, Uuid>,
    /// How far the storage of each dataset is.
    pub(super) storage: BTreeMap<Uuid, Storage>,
    /// When the deleted datasets of the configuration were deleted, in seconds since 1970; 0 if that is not known.
    pub(super) deleted_at: BTreeMap<Uuid, u64>,
    /// The number of deleted datasets that the configuration in memory does not have.
    pub(super) hidden: u64,
    pub(super) sum: TagSum,
    /// The number of changes since the database was made.
    pub(super) sequence: u64,
}

impl Records {
    /// Returns those of a new cluster.
    pub(super) fn new(cluster: Uuid, nodes: Vec<Uuid>) -> Self {
        Self {
            cluster,
            nodes,
            attachments: BTreeMap::new(),
            storage: BTreeMap::new(),
            deleted_at: BTreeMap::new(),
            hidden: 0,
            sum: TagSum::default(),
            sequence: 0,
        }
    }
}

/// The deleted dataset of the highest generation of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HighestDeleted {
    pub(crate) generation: u64,
    pub(crate) dataset_id: Uuid,
}

impl Dataset {
    /// Returns what all generations of a volume have in common, and the generation, of a dataset that the plugin created.
    pub(super) fn lineage(&self) -> Option<(String, u64)> {
        let [creator, name, generation] = [CREATOR, NAME, GENERATION].map(|key| self.metadata.get(key));
        let generation = generation?.parse().ok()?;
        Some((format!("{}\0{}", creator?, name?), generation))
    }
}
