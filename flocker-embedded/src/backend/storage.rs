//! The storage of all nodes: which dataset has which loop device.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::error::{Outcomes, StepError};
use super::loop_device::{AttachedDevice, BLOCK_DEVICES, LOOP_CONTROL, Survey, attach};
use super::program::Programs;
use super::volumes::Volumes;
use crate::Error;
use crate::data_dir::DataDir;

/// The storage of all nodes.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(super) volumes: Volumes,
    pub(super) programs: Programs,
    /// The loop device of every dataset that has one, or had one when it was last examined.
    devices: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// What machines that are off had attached, and its loop device: no other node gets it.
    pub(super) held: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// Held from the check that a backing file is not attached until it is.
    pub(super) attaching: Mutex<()>,
    /// Datasets that are known to have a file system.
    pub(super) formatted: Mutex<BTreeSet<Uuid>>,
    /// No other process may attach or mount as long as this exists.
    _data_dir: Arc<DataDir>,
}

impl Backend {
    /// Fails unless this process may attach loop devices and mount them.
    pub(crate) fn check_system() -> Result<(), Error> {
        let user = rustix::process::geteuid().as_raw();
        if user != 0 {
            return Err(Error::NotRoot(user));
        }
        let path = PathBuf::from(LOOP_CONTROL);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(_) => Programs::find().map(drop),
            Err(source) => Err(Error::NoLoopDevices { path, source }),
        }
    }

    /// Finds the backing files of an earlier run, and the loop devices that have them.
    pub(crate) fn open(data_dir: Arc<DataDir>, capacity: Option<u64>) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let volumes = Volumes::open(data_dir.volumes(), capacity)?;
        let survey = Survey::new().map_err(Error::file("examine", Path::new(BLOCK_DEVICES)))?;
        let mut devices = BTreeMap::new();
        for dataset in volumes.sizes().into_keys() {
            match survey.device_of(&volumes.path(dataset)) {
                Ok(device) => devices.extend(device.map(|device| (dataset, device.to_owned()))),
                // It is not attached before this is known.
                Err(error) => tracing::warn!(
                    dataset.id = %dataset,
                    %error,
                    "Cannot determine which loop device has the backing file of dataset {dataset}; it is not mounted until then"
                ),
            }
        }
        Ok(Self {
            volumes,
            programs,
            devices: Mutex::new(devices),
            held: Mutex::default(),
            attaching: Mutex::new(()),
            formatted: Mutex::default(),
            _data_dir: data_dir,
        })
    }

    pub(crate) fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Attaches backing files, except those that any loop device has already, and returns the outcome of each.
    ///
    /// `record` receives the datasets that are about to be attached, so that a crash leaves no device whose node is
    /// unknown; nothing is attached if it fails.
    pub(crate) fn attach(
        &self,
        datasets: &[Uuid],
        record: impl FnOnce(&[Uuid]) -> Result<(), StepError>,
    ) -> Result<Outcomes<()>, StepError> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let survey = Survey::new().map_err(StepError::io("examine", Path::new(BLOCK_DEVICES)))?;
        let mut free = Vec::new();
        let mut outcomes = Vec::new();
        for dataset in datasets {
            match self.check_free(*dataset, &survey) {
                Ok(()) => free.push(*dataset),
                Err(error) => outcomes.push((*dataset, Err(error))),
            }
        }
        record(&free)?;
        outcomes.extend(
            free.into_iter()
                .map(|dataset| (dataset, self.attach_free(dataset))),
        );
        Ok(outcomes)
    }

    /// Fails if any loop device has the backing file of a dataset.
    fn check_free(&self, dataset: Uuid, survey: &Survey) -> Result<(), StepError> {
        match self.attached_device(dataset, survey)? {
            Some(device) => Err(StepError::AttachedByOthers(device)),
            None => Ok(()),
        }
    }

    /// Returns the loop device that has the backing file of a dataset, no matter which process attached it.
    pub(super) fn attached_device(
        &self,
        dataset: Uuid,
        survey: &Survey,
    ) -> Result<Option<PathBuf>, StepError> {
        let path = self.volumes.path(dataset);
        let device = survey.device_of(&path).map_err(StepError::io("examine", &path))?;
        let device = device.map(Path::to_owned);
        if let Some(device) = &device {
            self.devices().insert(dataset, device.clone());
        }
        Ok(device)
    }

    fn attach_free(&self, dataset: Uuid) -> Result<(), StepError> {
        let path = self.volumes.path(dataset);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let device = file
            .and_then(|file| attach(&file))
            .map_err(StepError::io("attach", &path))?;
        self.devices().insert(dataset, device);
        Ok(())
    }

    /// Frees the loop device of a dataset and verifies that it is free.
    pub(crate) fn detach(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        // A concurrent survey has every device open for a moment, which would keep this one attached.
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear_device(dataset, device)
    }

    /// Verifies that a loop device has the backing file of a dataset. It keeps that file until the result is dropped.
    ///
    /// Everything that is done to a device by its name holds this: another process may have freed the device, and
    /// attached another file to it, since the agent saw it.
    pub(super) fn hold(&self, dataset: Uuid, device: &Path) -> Result<AttachedDevice, StepError> {
        let path = self.volumes.path(dataset);
        let attached = AttachedDevice::open(device, &path).map_err(StepError::io("examine", device))?;
        attached.ok_or_else(|| {
            self.devices().remove(&dataset);
            StepError::NotAttached(device.to_owned())
        })
    }

    /// Creates a file system, unless the device has one.
    pub(crate) fn make_file_system(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        let _held = self.hold(dataset, device)?;
        if !self.programs.has_file_system(device)? {
            self.programs.make_file_system(device)?;
        }
        self.formatted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(dataset);
        Ok(())
    }

    /// Returns whether the loop device of a dataset still has the backing file.
    pub(crate) fn lingers(&self, dataset: Uuid) -> Result<bool, StepError> {
        let device = self.devices().get(&dataset).cloned();
        device.map_or(Ok(false), |device| self.is_attached(dataset, &device))
    }

    /// Removes the backing file of a dataset that is not attached.
    pub(crate) fn destroy(&self, dataset: Uuid) -> Result<(), StepError> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = self.devices().get(&dataset) {
            return Err(StepError::StillAttached(device.clone()));
        }
        self.volumes.destroy(dataset)?;
        self.formatted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&dataset);
        Ok(())
    }

    pub(super) fn devices(&self) -> MutexGuard<'_, BTreeMap<Uuid, PathBuf>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
