//! What a graceful stop does to the datasets of a node.

use std::collections::BTreeMap;
use std::path::Path;

use uuid::Uuid;

use super::discovery::{Condition, Seen};
use super::error::{Outcomes, StepError};
use super::mount_table::{MOUNT_TABLE, MountTable};
use super::mounting::unmount_from;
use super::storage::Backend;

/// What a graceful stop did with a dataset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Released {
    /// It is published or in use, so it stays attached.
    Kept,
    /// It is unmounted, and the kernel frees the device when the last process closes it.
    Lingering,
    Detached,
}

impl Backend {
    /// Unmounts and detaches datasets as the agent of their node saw them. A dataset that is mounted elsewhere too,
    /// under any device name, or in use, stays as it is.
    pub(crate) fn release(&self, seen: &BTreeMap<Uuid, Seen>) -> Result<Outcomes<Released>, StepError> {
        let table = MountTable::read().map_err(StepError::io("read", Path::new(MOUNT_TABLE)))?;
        let (mount_points, shared) = (table.by_device(), table.of_shared_devices());
        let mut outcomes = Vec::new();
        for (dataset, seen) in seen {
            let Some(device) = seen.condition.device() else {
                continue;
            };
            let mount_point = mount_points.get(device).copied();
            let is_ours = matches!(seen.condition, Condition::Mounted(_));
            let outcome = match mount_point {
                Some(mount_point) if !is_ours || shared.contains(mount_point) => Ok(Released::Kept),
                _ => self.release_one(*dataset, device, mount_point),
            };
            outcomes.push((*dataset, outcome));
        }
        Ok(outcomes)
    }

    fn release_one(
        &self,
        dataset: Uuid,
        device: &Path,
        mount_point: Option<&Path>,
    ) -> Result<Released, StepError> {
        let unmounted = match mount_point {
            Some(mount_point) => self
                .hold(dataset, device)
                .and_then(|_held| unmount_from(mount_point)),
            None => Ok(()),
        };
        match unmounted.and_then(|()| self.detach(dataset, device)) {
            Ok(()) => Ok(Released::Detached),
            Err(StepError::Busy(_)) => Ok(Released::Kept),
            Err(StepError::StillAttached(_)) => Ok(Released::Lingering),
            Err(error) => Err(error),
        }
    }
}
