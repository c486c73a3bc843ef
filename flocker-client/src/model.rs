//! The objects that the control service accepts and returns.
//!
//! Ids may arrive in any case; unknown keys are ignored, so that a newer service does not break an older client.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entry::Unreadable;

/// A dataset as it is configured: what Flocker was asked for, not what it has done yet.
///
/// A deleted dataset stays in the configuration permanently, with [`deleted`](Self::deleted) set. Such tombstones
/// accumulate, and only their ids matter, so their metadata is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Id of the dataset.
    pub dataset_id: Uuid,
    /// Node on which the dataset is meant to be mounted; Flocker does not check that such a node exists. Nil for a deleted
    /// dataset without a readable one.
    pub primary: Uuid,
    /// Whether the dataset has been deleted; its id cannot be used again.
    pub deleted: bool,
    /// Requested size in bytes; without one Flocker creates 75 GiB.
    pub maximum_size: Option<u64>,
    /// Free texts given at creation, which cannot be changed. Empty for a deleted dataset.
    pub metadata: BTreeMap<String, String>,
    /// The parts of it that cannot be decoded.
    pub unreadable: UnreadableParts,
}

/// The parts of a dataset that cannot be decoded. Flocker stores them as any client sends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnreadableParts {
    /// Whether it has a size that is no number of bytes below 2^64; then it has no
    /// [`maximum_size`](Dataset::maximum_size).
    pub size: bool,
    /// Whether the metadata has a key or value that is not Unicode, in which U+FFFD replaces what is not, or a value that
    /// is no text and is missing.
    pub metadata: bool,
}

/// The whole configuration of datasets at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datasets {
    /// All datasets ever configured, deleted ones included, in no particular order, but those in `unreadable`.
    pub datasets: Vec<Dataset>,
    /// What cannot be decoded.
    pub unreadable: Unreadable,
    /// Opaque tag of this configuration (leases included); services older than Flocker 1.9 send none.
    pub tag: Option<String>,
}

/// A request for a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDataset {
    /// Id of the dataset, which must have the form of a version 4 UUID; without one Flocker generates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_id: Option<Uuid>,
    /// Node on which the dataset is meant to be mounted.
    pub primary: Uuid,
    /// Size in bytes: a multiple of 1024, at least 64 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_size: Option<u64>,
    /// Free texts: at most 16, keys of 1 to 256 characters, values of at most 256.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A dataset as the nodes report it.
///
/// A dataset that no node has mounted has neither [`primary`](Self::primary) nor [`path`](Self::path). While datasets
/// are created or moved the list flickers: an entry may be missing for one or two polls, or appear twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatasetState {
    /// Id of the dataset.
    pub dataset_id: Uuid,
    /// Size in bytes of the volume behind it, which may be larger than the configured one.
    pub maximum_size: Option<u64>,
    /// Node that has it mounted.
    pub primary: Option<Uuid>,
    /// Path at which that node has it mounted.
    pub path: Option<PathBuf>,
    /// Whether a node has it mounted whose id cannot be decoded.
    pub unreadable_primary: bool,
}

/// A node whose agent reports to the control service.
///
/// A dead node stays listed for about two minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Id of the node, from its certificate.
    pub uuid: Uuid,
    /// Address from which its agent connects; several nodes may have the same one. Empty if it cannot be decoded.
    pub host: String,
}

/// The node that reported an era.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeOfEra {
    pub(crate) uuid: Uuid,
}

/// What a control service can do beyond Flocker. Names that are not known are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Extensions {
    extensions: BTreeSet<String>,
}

impl Extensions {
    /// The extension in which datasets that were deleted long ago are not listed, and a conflict says what has the id.
    pub const TOMBSTONES: &str = "tombstones";

    /// Returns whether the control service has the extension of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.extensions.contains(name)
    }

    /// Returns the names of all extensions, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(String::as_str)
    }
}

/// The dataset that has the id of a dataset which was to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenId {
    /// Whether it has been deleted.
    pub deleted: bool,
    /// The last deleted dataset of the same name (`name`) and creator (`csi.driver` in its metadata), if it has a generation.
    pub highest_deleted: Option<DeletedGeneration>,
}

/// A deleted dataset that was one of several of the same name and creator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DeletedGeneration {
    /// Its `csi.generation`.
    pub generation: u64,
    /// Its id.
    pub dataset_id: Uuid,
}

/// The version of the control service.
#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) flocker: String,
}

/// A lease: as long as it exists, its node does not unmount the dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// Id of the dataset, which has at most one lease.
    pub dataset_id: Uuid,
    /// Node that holds the lease.
    pub node_uuid: Uuid,
    /// Seconds until the lease expires, which may be negative for a moment; `None` means that it does not expire. 0 in a
    /// list for a time that cannot be decoded.
    pub expires: Option<f64>,
}

/// The result of acquiring a lease.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Acquired {
    /// The lease.
    pub lease: Lease,
    /// Whether the node already held it.
    pub kind: AcquiredKind,
}

/// Whether an acquired lease is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcquiredKind {
    /// No node held a lease (status 201).
    New,
    /// The same node held it, and its expiry was replaced (status 200).
    Renewed,
}
