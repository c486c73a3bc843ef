//! The content of the state file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Everything that survives a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// The cluster's UUID: organizational unit of all certificates.
    pub(crate) cluster: Uuid,
    /// UUIDs of the nodes, in the order of their numbers.
    pub(crate) nodes: Vec<Uuid>,
    pub(crate) configuration: Configuration,
    /// The node each dataset was last attached to. It has no meaning unless a loop device has the backing file.
    pub(crate) attachments: BTreeMap<Uuid, Uuid>,
    /// How far the storage of each dataset is. The state files of earlier versions lack it: see
    /// [`State::storage_of`].
    #[serde(default)]
    pub(crate) storage: BTreeMap<Uuid, Storage>,
}

impl State {
    /// Returns the state of a cluster that has never been started.
    pub(crate) fn new() -> Self {
        Self {
            cluster: Uuid::new_v4(),
            nodes: Vec::new(),
            configuration: Configuration::default(),
            attachments: BTreeMap::new(),
            storage: BTreeMap::new(),
        }
    }

    /// Returns how far the storage of a dataset is; `None` if it was never begun.
    ///
    /// What an earlier version has recorded as a volume counts as formatted: it may have data.
    pub(crate) fn storage_of(&self, dataset: Uuid) -> Option<Storage> {
        let older = || self.configuration.registered.contains(&dataset);
        let recorded = self.storage.get(&dataset).copied();
        recorded.or_else(|| older().then_some(Storage::Formatted { file_system: None }))
    }

    /// Returns what is recorded of the storage of all datasets.
    pub(crate) fn records(&self) -> StorageRecords {
        let datasets = &self.configuration.datasets;
        let storage = datasets
            .keys()
            .filter_map(|id| Some((*id, self.storage_of(*id)?)));
        StorageRecords {
            attachments: self.attachments.clone(),
            storage: storage.collect(),
            deleted: datasets
                .iter()
                .filter(|(_, dataset)| dataset.deleted)
                .map(|(id, _)| *id)
                .collect(),
        }
    }
}

/// What is recorded of the storage of all datasets at one moment.
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

/// What clients asked for. The configuration tag covers exactly this.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    /// All datasets that ever existed: deleted ones stay permanently.
    pub(crate) datasets: BTreeMap<Uuid, Dataset>,
    pub(crate) leases: BTreeMap<Uuid, Lease>,
    /// Datasets whose backing volume an agent has recorded. They are never removed.
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
