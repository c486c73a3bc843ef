//! Whether another node may have a volume that is staged here, and stopping what this node writes to it then.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_fs::mount::{Device, Mount, MountHandle, MountTable, StopError, open_mount, stop_writes};
use uuid::Uuid;

use super::Host;
use super::evidence::mount_table;
use crate::error::{Error, Result, chain};

/// Whether this node can write to a volume that another node may have mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// No other node has it: Flocker's mount of it has been in place without interruption since this node's lease was read,
    /// and is pinned, so that Flocker's agent has not unmounted it and cannot.
    Pinned,
    /// The pin was lost, or Flocker's mount no longer exists or was replaced, and this node can write to it.
    Lost,
    /// The same, but its file system has been shut down.
    Stopped,
    /// The same, and its file system cannot be shut down.
    Unstoppable,
}

/// The file systems that this process has shut down. Not every kernel shows that of a mount.
#[derive(Debug, Default)]
pub(super) struct StoppedWrites {
    known: Mutex<HashSet<(Uuid, Device)>>,
}

impl StoppedWrites {
    fn contains(&self, dataset: Uuid, mount: &Mount) -> bool {
        mount.file_system_shut_down() || self.lock().contains(&(dataset, mount.device))
    }

    fn add(&self, dataset: Uuid, device: Device) {
        self.lock().insert((dataset, device));
    }

    /// Forgets the devices on which nothing of the dataset is mounted any more: their numbers are given to others.
    fn keep(&self, dataset: Uuid, mounted: impl Fn(Device) -> bool) {
        self.lock()
            .retain(|(of, device)| *of != dataset || mounted(*device));
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(Uuid, Device)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Returns whether another node may have a volume that is staged here.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn protection(&self, dataset: Uuid) -> Result<Protection> {
        let unprotected = self.unprotected(dataset, &mount_table()?);
        let is_stopped = |mounts: &Vec<Mount>| {
            mounts
                .first()
                .is_some_and(|mount| self.stopped.contains(dataset, mount))
        };
        self.stopped
            .keep(dataset, |device| unprotected.contains_key(&device));
        Ok(if unprotected.is_empty() {
            Protection::Pinned
        } else if unprotected.values().all(is_stopped) {
            Protection::Stopped
        } else {
            Protection::Lost
        })
    }

    /// Shuts down every file system of a volume that is mounted here without protection, and returns whether that was
    /// possible. The caller holds the dataset's lock, and has read since then that the lease is another node's.
    ///
    /// # Errors
    /// The kernel refused, or still accepts writes.
    pub(crate) fn stop_writes(&self, dataset: Uuid) -> Result<Protection> {
        let mut outcome = Ok(Protection::Stopped);
        for (device, mounts) in self.unprotected(dataset, &mount_table()?) {
            match stop_through_one_of(&mounts) {
                Ok(()) => self.stopped.add(dataset, device),
                Err(StopError::Unsupported(kind)) => {
                    tracing::debug!(volume.id = %dataset, "Cannot shut down the {kind} on device {device}");
                    outcome = outcome.map(|_| Protection::Unstoppable);
                }
                // The others are shut down all the same.
                Err(error) => {
                    outcome = Err(Error::internal(
                        format!("stop writes to dataset {dataset} on device {device}"),
                        error,
                    ));
                }
            }
        }
        outcome
    }

    /// Returns the mounts of a volume, by their devices, that Flocker's agent may have unmounted its own mount of: all of a
    /// device but that of a mount of Flocker's which was pinned without interruption, and is still attached.
    fn unprotected(&self, dataset: Uuid, table: &MountTable) -> BTreeMap<Device, Vec<Mount>> {
        let origins = self.origins(dataset);
        // Covered by another mount it stays: the agent's umount is refused all the same.
        let is_attached = |held: &Mount| {
            let found = table.by_id(held.id);
            found.is_some_and(|found| found.device == held.device)
        };
        let protected = self.pins.unbroken(dataset).filter(is_attached);
        let protected = protected.map(|held| held.device);
        let mut unprotected: BTreeMap<Device, Vec<Mount>> = BTreeMap::new();
        for mount in table.mounts().iter().filter(|mount| origins.are_used_by(mount)) {
            if Some(mount.device) != protected {
                unprotected.entry(mount.device).or_default().push(mount.clone());
            }
        }
        unprotected
    }
}

/// Shuts down a file system through the first of its mounts that can be opened: another one may cover it.
fn stop_through_one_of(mounts: &[Mount]) -> std::result::Result<(), StopError> {
    let opened = |mount: &Mount| -> Option<MountHandle> {
        open_mount(mount)
            .inspect_err(|error| tracing::debug!(error = %chain(error), "Cannot open {mount}"))
            .ok()
    };
    let Some(handle) = mounts.iter().find_map(opened) else {
        return Err(StopError::Hidden(
            mounts
                .first()
                .map(|mount| mount.point.clone())
                .unwrap_or_default(),
        ));
    };
    stop_writes(&handle)
}

#[cfg(test)]
mod tests;
