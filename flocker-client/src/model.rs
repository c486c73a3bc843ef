//! What the control service tells and is told.
//!
//! Ids may arrive in any case; keys that are not known here are ignored, so that a newer service does not
//! break an older client.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A dataset as it is configured: what Flocker has been asked for, not what it has done yet.
///
/// A deleted dataset stays in the configuration for ever, with [`deleted`](Self::deleted) set. They are many after a
/// while, and only their ids matter any more, so their metadata is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Told")]
pub struct Dataset {
    /// Id of the dataset.
    pub dataset_id: Uuid,
    /// Node on which the dataset is meant to be mounted; Flocker does not check that such a node exists.
    pub primary: Uuid,
    /// Whether the dataset has been deleted; its id is never free again.
    pub deleted: bool,
    /// Size in bytes that was asked for; without one Flocker makes 75 GiB.
    pub maximum_size: Option<u64>,
    /// Free texts given at creation; they cannot be changed afterwards. Empty once the dataset is deleted.
    pub metadata: BTreeMap<String, String>,
}

/// A dataset as it is told.
#[derive(Deserialize)]
struct Told {
    dataset_id: Uuid,
    primary: Uuid,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    maximum_size: Option<u64>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl From<Told> for Dataset {
    fn from(told: Told) -> Self {
        let metadata = if told.deleted {
            BTreeMap::new()
        } else {
            told.metadata
        };
        Self {
            dataset_id: told.dataset_id,
            primary: told.primary,
            deleted: told.deleted,
            maximum_size: told.maximum_size,
            metadata,
        }
    }
}

/// The whole configuration of datasets at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datasets {
    /// All datasets ever configured, the deleted ones too, in no particular order.
    pub datasets: Vec<Dataset>,
    /// Opaque tag of this configuration (leases included); services older than Flocker 1.9 send none.
    pub tag: Option<String>,
}

/// A dataset to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewDataset {
    /// Id of the dataset, which must have the form of a version 4 UUID; Flocker makes one up if there is
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_id: Option<Uuid>,
    /// Node on which the dataset is to be mounted.
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
/// A dataset that nobody has mounted has neither [`primary`](Self::primary) nor [`path`](Self::path). While
/// datasets are made or moved this flickers: an entry can be missing for a poll or two, or be there twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DatasetState {
    /// Id of the dataset.
    pub dataset_id: Uuid,
    /// Size in bytes of the volume behind it, which may be above the configured one.
    #[serde(default)]
    pub maximum_size: Option<u64>,
    /// Node that has mounted it.
    #[serde(default)]
    pub primary: Option<Uuid>,
    /// Where that node has mounted it.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// A node whose agent reports to the control service.
///
/// A node that has died stays listed for about two minutes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Id of the node, from its certificate.
    pub uuid: Uuid,
    /// Address from which its agent connects; several nodes may share one.
    pub host: String,
}

/// The answer to the question which node runs in an era.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeOfEra {
    pub(crate) uuid: Uuid,
}

/// The answer to the question which version runs.
#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) flocker: String,
}

/// A lease: while it lasts, its node does not let go of the dataset once it has mounted it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Lease {
    /// Id of the dataset; there is at most one lease for each.
    pub dataset_id: Uuid,
    /// Node that holds the lease.
    pub node_uuid: Uuid,
    /// Seconds that are left, which may be below zero for a moment; `None` means for ever.
    #[serde(default)]
    pub expires: Option<f64>,
}

/// The result of acquiring a lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Acquired {
    /// The lease that is now held.
    pub lease: Lease,
    /// Whether the node held it before.
    pub kind: AcquiredKind,
}

/// Whether an acquired lease is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcquiredKind {
    /// Nobody held a lease (status 201).
    New,
    /// The same node held it, and its expiry has been replaced (status 200).
    Renewed,
}
