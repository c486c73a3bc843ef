//! What the last read of the leases showed about the volumes that are staged here, where it is not as it should be.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::Protection;

/// Why a staged volume is not protected by a lease of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseCondition {
    /// No node holds the lease.
    NotLeased,
    /// Another node holds it, and waits for this one, which holds Flocker's mount.
    HeldBy(Uuid),
    /// Another node holds it and may have the volume mounted; its file system has been shut down here.
    Stopped(Uuid),
    /// Another node holds it and may have the volume mounted, and writes to it here cannot be stopped.
    Unstoppable(Uuid),
}

impl LeaseCondition {
    /// Returns the other node that holds the lease.
    pub(crate) fn holder(self) -> Option<Uuid> {
        match self {
            Self::NotLeased => None,
            Self::HeldBy(holder) | Self::Stopped(holder) | Self::Unstoppable(holder) => Some(holder),
        }
    }

    /// Returns the condition of a volume that is staged here although another node holds its lease.
    pub(crate) fn of_other(holder: Uuid, protection: Protection) -> Self {
        match protection {
            Protection::Pinned => Self::HeldBy(holder),
            Protection::Stopped => Self::Stopped(holder),
            Protection::Lost | Protection::Unstoppable => Self::Unstoppable(holder),
        }
    }
}

impl fmt::Display for LeaseCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeased => write!(
                f,
                "no node holds the lease of the volume, although it is staged on this one: it was unpublished from this node \
                 too early; end its use here and unstage it, or publish it to this node again"
            ),
            Self::HeldBy(node) => write!(
                f,
                "node {node} holds the lease of the volume, although it is staged on this one, which holds Flocker's mount in \
                 place until it is unstaged; end its use here and unstage it"
            ),
            Self::Stopped(node) => write!(
                f,
                "node {node} holds the lease of the volume and may have it mounted, as Flocker's mount of it was not held on \
                 this node without interruption: its file system has been shut down here, and nothing that is written here \
                 reaches it any more; end its use here, then unpublish and unstage it. The data is where node {node} has it"
            ),
            Self::Unstoppable(node) => write!(
                f,
                "node {node} holds the lease of the volume and may have it mounted, as Flocker's mount of it was not held on \
                 this node without interruption, and writes to it could not be stopped here: two nodes may be writing to it. \
                 End its use here at once, or switch this machine off; then unpublish and unstage it, and check its data"
            ),
        }
    }
}

/// The conditions of the volumes that have one.
#[derive(Debug, Default)]
pub(super) struct LeaseConditions {
    known: Mutex<HashMap<Uuid, LeaseCondition>>,
}

impl LeaseConditions {
    /// Notes the condition of a dataset, or that it has none, and returns whether that is new.
    pub(super) fn set(&self, dataset: Uuid, condition: Option<LeaseCondition>) -> bool {
        let mut known = self.lock();
        let earlier = match condition {
            Some(condition) => known.insert(dataset, condition),
            None => known.remove(&dataset),
        };
        earlier != condition
    }

    /// Returns the condition of a dataset.
    pub(super) fn get(&self, dataset: Uuid) -> Option<LeaseCondition> {
        self.lock().get(&dataset).copied()
    }

    /// Forgets the datasets that a function returns false for.
    pub(super) fn retain(&self, keeps: impl Fn(Uuid) -> bool) {
        self.lock().retain(|dataset, _| keeps(*dataset));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, LeaseCondition>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
