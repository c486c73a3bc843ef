//! What the last read of the leases showed about the volumes that are staged here, where it is not as it should be.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::Protection;

/// Why this node must not write to a volume that is staged on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// This other node holds the lease.
    LeaseOf(Uuid),
    /// No other node is known to hold the lease, and Flocker is configured to have the volume on this one.
    PrimaryIs(Uuid),
    /// Another file system of the volume is mounted in place of the one that is used here, or was stopped for.
    Replaced,
}

/// Why a staged volume is not protected by a lease of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseCondition {
    /// No node holds the lease.
    NotLeased,
    /// A node holds the lease, but the entry of the lease cannot be read.
    Unreadable,
    /// Another node holds it, and waits for this one, which holds Flocker's mount.
    HeldBy(Uuid),
    /// Another node may have the volume mounted; its file system has been shut down here.
    Stopped(StopReason),
    /// Another node may have the volume mounted, and writes to it here cannot be stopped.
    Unstoppable(StopReason),
}

impl LeaseCondition {
    /// Whether another node may need the volume, so that it is not published here again.
    pub(crate) fn excludes_publication(self) -> bool {
        match self {
            Self::NotLeased | Self::Unreadable => false,
            Self::HeldBy(_) | Self::Stopped(_) | Self::Unstoppable(_) => true,
        }
    }

    /// Returns the condition of a volume after its writes were to be stopped.
    pub(crate) fn after_stop(reason: StopReason, protection: Protection) -> Self {
        match protection {
            Protection::Stopped => Self::Stopped(reason),
            Protection::Pinned | Protection::Lost | Protection::Replaced | Protection::Unstoppable => {
                Self::Unstoppable(reason)
            }
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseOf(node) => write!(
                f,
                "node {node} holds the lease of the volume and may have it mounted, as Flocker's mount of it was not held on \
                 this node without interruption"
            ),
            Self::PrimaryIs(node) => write!(
                f,
                "Flocker is configured to have the volume on node {node}, which may have it mounted, as this node has no lease \
                 that can be read and Flocker's mount of the volume was not held on it without interruption"
            ),
            Self::Replaced => f.write_str(
                "the file system of the volume that is used on this node is no longer the one that Flocker mounts: Flocker's \
                 mount of it was not held here without interruption, and another node may have written to the volume since",
            ),
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
            Self::Unreadable => write!(
                f,
                "the volume is leased, but its lease cannot be read, so another node may hold it, although the volume is \
                 staged on this one; this plugin's log describes the entry"
            ),
            Self::HeldBy(node) => write!(
                f,
                "node {node} holds the lease of the volume, although it is staged on this one, which holds Flocker's mount in \
                 place until it is unstaged; end its use here and unstage it"
            ),
            Self::Stopped(reason) => {
                write!(
                    f,
                    "{reason}: its file system has been shut down here, and nothing that is written here reaches it any more; \
                     end its use here, then unpublish and unstage it"
                )?;
                match reason {
                    StopReason::LeaseOf(node) | StopReason::PrimaryIs(node) => {
                        write!(f, ". The data is where node {node} has it")
                    }
                    StopReason::Replaced => Ok(()),
                }
            }
            Self::Unstoppable(reason) => write!(
                f,
                "{reason}, and writes to it could not be stopped here: two nodes may be writing to it. End its use here at \
                 once, or switch this machine off; then unpublish and unstage it, and check its data"
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
