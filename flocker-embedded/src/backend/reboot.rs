//! Machines that lose power and start again, on a host that does neither.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use uuid::Uuid;

use super::content::{Expected, ToAttach};
use super::error::{Outcomes, StepError};
use super::loop_device::{
    AttachedDevice, BLOCK_DEVICES, Survey, attach_to_another, has_file, remove_if_refusing,
};
use super::mounting::unmount_all_from;
use super::storage::Backend;
use crate::options::NodeInfo;

impl Backend {
    /// Does to the storage of a node what a power cut does: the mounts of its agent end, and its loop devices are
    /// freed. What was attached still belongs to the node, and no other node gets it.
    ///
    /// A device that another process still uses keeps its file; the outcome reports that.
    pub(crate) fn cut_power(&self, node: &NodeInfo, attachments: &BTreeMap<Uuid, Uuid>) -> Outcomes<()> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let devices = self.devices().clone();
        devices
            .into_iter()
            .filter(|(dataset, _)| attachments.get(dataset) == Some(&node.uuid))
            .map(|(dataset, device)| (dataset, self.cut_off(node, dataset, &device)))
            .collect()
    }

    fn cut_off(&self, node: &NodeInfo, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        if !self.is_attached(dataset, device)? {
            return Ok(());
        }
        self.held().insert(dataset, device.to_owned());
        unmount_all_from(&node.mount_path(dataset))?;
        self.clear_device(dataset, device)
    }

    /// Attaches what still belongs to a node that starts, to other loop devices than before.
    ///
    /// A device that kept its file is used as it is: no file may have two.
    pub(crate) fn boot(&self, node: &NodeInfo, attachments: &BTreeMap<Uuid, Uuid>) -> Outcomes<()> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held().clone();
        held.into_iter()
            .filter(|(dataset, _)| attachments.get(dataset) == Some(&node.uuid))
            .map(|(dataset, former)| {
                let outcome = self.attach_again(dataset, &former);
                self.held().remove(&dataset);
                (dataset, outcome)
            })
            .collect()
    }

    fn attach_again(&self, dataset: Uuid, former: &Path) -> Result<(), StepError> {
        self.check_not_attached(dataset)?;
        let expected = Expected {
            size: 0,
            file_system: None,
        };
        let ToAttach { file, attachment } = self.open_file(dataset, &expected)?;
        let path = self.volumes.path(dataset);
        let device = attach_to_another(&file, attachment, former).map_err(StepError::io("attach", &path))?;
        self.attached(dataset, device);
        Ok(())
    }

    /// Detaches a dataset from a machine that is off, unless a loop device of that machine still has its file.
    pub(crate) fn detach_from_dead(&self, dataset: Uuid) -> Result<(), StepError> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_not_attached(dataset)?;
        self.held().remove(&dataset);
        Ok(())
    }

    fn check_not_attached(&self, dataset: Uuid) -> Result<(), StepError> {
        let survey = Survey::new().map_err(StepError::io("examine", Path::new(BLOCK_DEVICES)))?;
        match self.attached_device(dataset, &survey)? {
            Some(device) => Err(StepError::StillAttached(device)),
            None => Ok(()),
        }
    }

    /// Frees the loop device of a dataset, and fails if it is not free afterwards. A device that has another file is
    /// left unchanged.
    pub(super) fn clear_device(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        let path = self.volumes.path(dataset);
        let attached = AttachedDevice::open(device, &path).map_err(StepError::io("examine", device))?;
        if let Some(attached) = attached {
            attached.clear().map_err(StepError::io("detach", device))?;
        }
        if has_file(device, &path).map_err(StepError::io("examine", device))? {
            return Err(StepError::StillAttached(device.to_owned()));
        }
        remove_if_refusing(device);
        self.devices().remove(&dataset);
        Ok(())
    }

    pub(super) fn held(&self) -> MutexGuard<'_, BTreeMap<Uuid, PathBuf>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
