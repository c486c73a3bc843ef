//! Holding Flocker's mounts in place.
//! A lease is a row that any client of Flocker may delete. Flocker's agent cannot unmount a volume in use because the
//! kernel refuses its umount: an open descriptor on the root of the mount keeps it busy, and reads nothing of the
//! volume.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::PinStore;
use super::lifecycle::Pinned;

use host_fs::mount::{Device, Mount, MountHandle, MountId, OpenError, TableError, open_mount, visible_at};

/// The mounts of Flocker that this process holds, one for each dataset in use.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    pins: Mutex<HashMap<Uuid, Pin>>,
    /// Keeps them while the plugin is restarted.
    store: PinStore,
}

#[derive(Debug)]
struct Pin {
    held: MountHandle,
    /// Whether the mount has been in place without interruption since the lease and the primary were read as this node's.
    unbroken: bool,
}

impl Pins {
    /// Holds nothing yet.
    pub(crate) fn new(store: PinStore) -> Self {
        Self {
            pins: Mutex::default(),
            store,
        }
    }

    /// Holds a mount that the store has kept since it was pinned.
    pub(crate) fn adopt(&self, dataset_id: Uuid, held: MountHandle) {
        let unbroken = true;
        self.lock().insert(dataset_id, Pin { held, unbroken });
    }

    /// Holds Flocker's mount of a dataset, instead of an earlier one of the same dataset.
    ///
    /// Fails when the mount no longer exists or another is in its place. Holding the same mount again changes nothing.
    pub(crate) fn pin(&self, dataset_id: Uuid, mount: &Mount) -> Result<(), OpenError> {
        let held = open_mount(mount)?;
        let mut pins = self.lock();
        let same = |earlier: &Pin| {
            let earlier = earlier.held.mount();
            (earlier.id, earlier.device) == (mount.id, mount.device)
        };
        if pins.get(&dataset_id).is_some_and(same) {
            return Ok(());
        }
        let kept = held.as_fd().try_clone_to_owned();
        let unbroken = false;
        let earlier = pins.insert(dataset_id, Pin { held, unbroken });
        drop(pins);
        if let Ok(kept) = kept {
            self.store.keep(dataset_id, kept.as_fd());
        }
        // The earlier one is dropped here, after the new one is in place.
        drop(earlier);
        Ok(())
    }

    /// Notes that the mount which is held for a dataset has been in place without interruption since lease and primary were
    /// read as this node's.
    pub(crate) fn is_proven(&self, dataset_id: Uuid) {
        if let Some(pin) = self.lock().get_mut(&dataset_id) {
            pin.unbroken = true;
        }
    }

    /// Returns the mount that is held for a dataset, if it is known to have been in place without interruption.
    pub(crate) fn unbroken(&self, dataset_id: Uuid) -> Option<Mount> {
        let pins = self.lock();
        let pin = pins.get(&dataset_id).filter(|pin| pin.unbroken)?;
        Some(pin.held.mount().clone())
    }

    /// Releases the mount of a dataset, and returns whether one was held.
    pub(crate) fn unpin(&self, dataset_id: Uuid) -> bool {
        let pin = self.lock().remove(&dataset_id);
        // The manager first: the agent can unmount it only when both have closed it.
        if pin.is_some() {
            self.store.remove(dataset_id);
        }
        pin.is_some()
    }

    /// Returns the mount that is held for a dataset, as it was when it was pinned.
    pub(crate) fn get(&self, dataset_id: Uuid) -> Option<Mount> {
        self.lock().get(&dataset_id).map(|pin| pin.held.mount().clone())
    }

    /// Returns the device of the mount that is held for a dataset: as long as it is held, no other file system has that
    /// number.
    pub(crate) fn device(&self, dataset_id: Uuid) -> Option<Device> {
        self.lock().get(&dataset_id).map(|pin| pin.held.mount().device)
    }

    /// Returns the id of the mount that is held for a dataset.
    pub(crate) fn id(&self, dataset_id: Uuid) -> Option<MountId> {
        self.lock()
            .get(&dataset_id)
            .and_then(|pin| MountId::of(&pin.held))
    }

    /// Returns another descriptor on the root of the mount that is held for a dataset, to query its file system.
    pub(crate) fn root(&self, dataset_id: Uuid) -> Option<OwnedFd> {
        self.lock()
            .get(&dataset_id)?
            .held
            .as_fd()
            .try_clone_to_owned()
            .ok()
    }

    /// Returns the mount held for a dataset, and whether it is still the visible one at its place.
    ///
    /// Only a lazy unmount, or a mount over it, changes that.
    pub(crate) fn view(&self, dataset_id: Uuid) -> Result<Pinned, TableError> {
        let Some(held) = self.get(dataset_id) else {
            return Ok(Pinned::No);
        };
        let visible = visible_at(&held.point)?;
        let in_place = visible.is_some_and(|mount| (mount.id, mount.device) == (held.id, held.device));
        let held = Box::new(held);
        Ok(if in_place {
            Pinned::InPlace(held)
        } else {
            Pinned::Displaced(held)
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Pin>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host_fs::mount::testing::{LoopDevice, in_own_namespace, run, tmpfs, unmount};
    use std::path::Path;
    use std::process::Command;

    fn mount_at(point: &Path) -> Mount {
        visible_at(point).unwrap().unwrap()
    }

    /// Unmounts by device, as Flocker's agent does, and returns whether that worked.
    fn agent_unmounts(device: &LoopDevice) -> bool {
        Command::new("umount")
            .arg(&device.path)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    #[test]
    fn the_agent_cannot_unmount_what_is_pinned_until_it_is_unpinned() {
        in_own_namespace(|scratch| {
            let (device, point, dataset_id) = (LoopDevice::new(), scratch.join("flocker"), Uuid::new_v4());
            device.mount(&point);
            let pins = Pins::default();
            pins.pin(dataset_id, &mount_at(&point)).unwrap();
            pins.pin(dataset_id, &mount_at(&point)).unwrap();
            assert!(!agent_unmounts(&device));
            assert!(matches!(pins.view(dataset_id).unwrap(), Pinned::InPlace(_)));
            assert!(pins.unpin(dataset_id));
            unmount(&point);
            assert!(!pins.unpin(dataset_id));
        });
    }

    #[test]
    fn a_mount_that_another_process_detached_is_not_in_place() {
        in_own_namespace(|scratch| {
            let (point, dataset_id) = (scratch.join("flocker"), Uuid::new_v4());
            tmpfs(&point);
            let pins = Pins::default();
            assert_eq!(pins.view(dataset_id).unwrap(), Pinned::No);
            pins.pin(dataset_id, &mount_at(&point)).unwrap();
            run("umount", &["--lazy", point.to_str().unwrap()]);
            assert!(matches!(pins.view(dataset_id).unwrap(), Pinned::Displaced(_)));
            tmpfs(&point);
            assert!(matches!(pins.view(dataset_id).unwrap(), Pinned::Displaced(_)));
            pins.pin(dataset_id, &mount_at(&point)).unwrap();
            assert!(matches!(pins.view(dataset_id).unwrap(), Pinned::InPlace(_)));
        });
    }

    #[test]
    fn a_mount_that_was_replaced_is_not_pinned() {
        in_own_namespace(|scratch| {
            let (point, dataset_id) = (scratch.join("flocker"), Uuid::new_v4());
            tmpfs(&point);
            let expected = mount_at(&point);
            tmpfs(&point);
            let pins = Pins::default();
            assert!(matches!(
                pins.pin(dataset_id, &expected),
                Err(OpenError::Replaced { .. })
            ));
            assert_eq!(pins.get(dataset_id), None);
        });
    }
}
