//! What the state database has in memory and on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The configuration at one moment, with the tag that identifies it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) configuration: Configuration,
    /// 32 hexadecimal digits that differ for any two configurations.
    pub(crate) tag: String,
    /// The number of all datasets, deleted ones included.
    pub(crate) datasets: u64,
}

/// What is recorded of the storage of datasets at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorageRecords {
    /// The node each dataset was last attached to.
    pub(crate) attachments: BTreeMap<Uuid, Uuid>,
    /// How far the storage of each dataset is whose storage was begun.
    pub(crate) storage: BTreeMap<Uuid, Storage>,
    /// The datasets that are deleted.
    pub(crate) deleted: BTreeSet<Uuid>,
}

impl StorageRecords {
    /// Returns the datasets whose storage may have data, without those that are deleted.
    pub(crate) fn formatted(&self) -> impl Iterator<Item = Uuid> {
        let storage = self.storage.iter().filter(|(id, _)| !self.deleted.contains(id));
        storage
            .filter(|(_, storage)| matches!(storage, Storage::Formatted { .. }))
            .map(|(id, _)| *id)
    }
}

/// How far the storage of a dataset is. Nothing but what is [`Storage::Formatting`] is ever made or formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Storage {
    /// It may be made and formatted, also again: it was never mounted. Recorded before its file is made.
    Formatting,
    /// It may have data. Recorded before the first mount.
    Formatted {
        /// The UUID of its file system; `None` if an earlier version made it.
        file_system: Option<Uuid>,
    },
}

/// What clients asked for, without the datasets that were deleted long ago. The configuration tag covers those too.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Configuration {
    /// The datasets, and the deleted ones that were deleted lately or whose volume may exist.
    pub(crate) datasets: BTreeMap<Uuid, Arc<Dataset>>,
    pub(crate) leases: BTreeMap<Uuid, Lease>,
    /// Those of the datasets whose backing volume an agent has recorded.
    pub(crate) registered: BTreeSet<Uuid>,
}

impl Configuration {
    /// Returns the node that holds the lease of a dataset.
    pub(crate) fn leaseholder(&self, dataset: Uuid) -> Option<Uuid> {
        self.leases.get(&dataset).map(|lease| lease.node)
    }
}

/// A dataset as configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dataset {
    pub(crate) primary: Uuid,
    pub(crate) deleted: bool,
    pub(crate) maximum_size: Option<Size>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Dataset {
    /// The size of a dataset without a configured size: 75 GiB, the minimum of one of Flocker's backends.
    const DEFAULT_SIZE: u64 = 75 << 30;

    /// Returns the size of the backing volume.
    pub(crate) fn size(&self) -> u64 {
        match &self.maximum_size {
            Some(Size::Bytes(size)) => *size,
            // No backend has as much.
            Some(Size::Long(_)) => u64::MAX,
            None => Self::DEFAULT_SIZE,
        }
    }
}

/// A configured size, which has no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Size {
    /// A number of bytes below 2^64.
    Bytes(u64),
    /// The decimal digits of a larger one.
    Long(String),
}

/// A node's right to keep a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lease {
    pub(crate) node: Uuid,
    /// When it ends, in seconds since 1970; `None` if it does not.
    pub(crate) expires: Option<f64>,
}

impl Lease {
    /// Returns the remaining seconds, to the microsecond; negative if the lease has ended but not been removed yet.
    pub(crate) fn remaining(&self, now: f64) -> Option<f64> {
        self.expires.map(|end| ((end - now) * 1e6).round() / 1e6)
    }
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
