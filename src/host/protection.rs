//! Whether another node may have a volume that is staged here, and stopping what this node writes to it then.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use host_fs::mount::{Device, Mount, MountHandle, MountTable, StopError, open_mount, stop_writes};
use uuid::Uuid;

use super::Host;
use super::evidence::{Staged, layers, mount_table};
use crate::error::{Error, Result, chain};

/// Whether this node can write to a volume that another node may have mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// No other node has it: Flocker's mount of it has been in place without interruption since this node's lease was read,
    /// and is pinned, so that Flocker's agent has not unmounted it and cannot.
    Pinned,
    /// The pin was lost, or Flocker's mount no longer exists or was mounted again, and this node can write to it.
    Lost,
    /// The same, and what this node can write to is no longer what Flocker has mounted here: that is on another device.
    Replaced,
    /// The pin was lost, but the file system that this node has mounted has been shut down.
    Stopped,
    /// The pin was lost, and the file system cannot be shut down.
    Unstoppable,
}

/// Which file systems of a volume are shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopScope {
    /// All that are mounted here without protection.
    All,
    /// Those that are on another device than Flocker's mount of the volume.
    Replaced,
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

    /// Forgets a device from which the dataset has been staged.
    pub(super) fn forget(&self, dataset: Uuid, device: Device) {
        self.lock().remove(&(dataset, device));
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
        Ok(self.protection_in(&mount_table()?, dataset))
    }

    /// Returns which of these volumes, whose leases are this node's, it must not write to all the same: Flocker has mounted
    /// them here from other devices since, or their file systems have been shut down. The table of mounts is read only where a
    /// pin was lost.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn replaced_or_stopped(&self, datasets: &[Uuid]) -> Result<Vec<Uuid>> {
        let mut unproven = datasets.to_vec();
        unproven.retain(|dataset| self.pins.unbroken(*dataset).is_none());
        if unproven.is_empty() {
            return Ok(unproven);
        }
        let table = mount_table()?;
        unproven.retain(|dataset| {
            matches!(
                self.protection_in(&table, *dataset),
                Protection::Replaced | Protection::Stopped
            )
        });
        Ok(unproven)
    }

    fn protection_in(&self, table: &MountTable, dataset: Uuid) -> Protection {
        let mut unprotected = self.unprotected(dataset, table);
        let is_stopped = |mounts: &Vec<Mount>| {
            mounts
                .first()
                .is_some_and(|mount| self.stopped.contains(dataset, mount))
        };
        self.stopped
            .keep(dataset, |device| unprotected.contains_key(&device));
        if unprotected.is_empty() {
            return Protection::Pinned;
        }
        unprotected.retain(|_, mounts| !is_stopped(mounts));
        if unprotected.is_empty() {
            Protection::Stopped
        } else if unprotected
            .keys()
            .any(|device| self.is_replaced(table, dataset, *device))
        {
            Protection::Replaced
        } else {
            Protection::Lost
        }
    }

    /// Whether Flocker has a volume mounted here, and not from this device. A mount of Flocker's that does not exist proves
    /// nothing.
    fn is_replaced(&self, table: &MountTable, dataset: Uuid, device: Device) -> bool {
        if self.pins.unbroken(dataset).is_some() {
            return false;
        }
        let layers = table.layers_at(&self.settings.mount_root.join(dataset.to_string()));
        // Only the visible one may be Flocker's; one below it on this device may be, covered by another process.
        layers
            .last()
            .is_some_and(|mount| self.check_flockers_mount(table, mount, dataset).is_ok())
            && layers.iter().all(|mount| mount.device != device)
    }

    /// Shuts down file systems of a volume that are mounted here without protection, and returns whether that was possible:
    /// all of them, or where the lease is this node's, those that Flocker's mount has replaced. The caller holds the dataset's
    /// lock, and has read since then what makes that necessary.
    ///
    /// # Errors
    /// The kernel refused, or still accepts writes.
    pub(crate) fn stop_writes(&self, dataset: Uuid, scope: StopScope) -> Result<Protection> {
        let mut outcome = Ok(Protection::Stopped);
        let table = mount_table()?;
        for (device, mounts) in self.unprotected(dataset, &table) {
            if scope == StopScope::Replaced && !self.is_replaced(&table, dataset, device) {
                continue;
            }
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

    /// Whether the file system of the plugin's mount at a staging path has been shut down.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub(crate) fn is_shut_down(&self, staged: &Staged) -> Result<bool> {
        let origins = self.origins(staged.dataset);
        let mut layers = layers(&staged.alias())?;
        layers.retain(|mount| origins.own(mount));
        Ok(layers
            .iter()
            .any(|mount| self.stopped.contains(staged.dataset, mount)))
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
