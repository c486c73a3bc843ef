//! The storage of all nodes: which dataset has which loop device.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::content::{Expected, ToAttach, file_system};
use super::error::{Outcomes, StepError};
use super::followed_mounts::FollowedMounts;
use super::loop_device::{
    AttachedDevice, BLOCK_DEVICES, LOOP_CONTROL, Survey, attach, is_direct, refuse_discards,
};
use super::program::Programs;
use super::volumes::{Stage, Volumes};
use crate::Error;
use crate::data_dir::DataDir;
use crate::error::chain;
use crate::options::{Allocation, Io};

/// How volumes are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageOptions {
    /// The total capacity in bytes, if it is set.
    pub(crate) capacity: Option<u64>,
    pub(crate) allocation: Allocation,
    pub(crate) io: Io,
}

#[cfg(test)]
impl StorageOptions {
    /// Those of a data directory whose volumes use what they have.
    pub(crate) const THIN: Self = Self {
        capacity: None,
        allocation: Allocation::Thin,
        io: Io::Direct,
    };
}

/// The storage of all nodes.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(super) volumes: Volumes,
    pub(super) programs: Programs,
    pub(super) mounts: FollowedMounts,
    /// The loop device of every dataset that has one, or had one when it was last examined.
    devices: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// What machines that are off had attached, and its loop device: no other node gets it.
    pub(super) held: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// Held from the check that a backing file is not attached until it is.
    pub(super) attaching: Mutex<()>,
    /// Whether a device counts as detached although something still uses it, as in Flocker's loopback backend.
    double_attach: bool,
    pub(super) storage: StorageOptions,
    /// Whether the log says already that the file system below cannot be read and written directly.
    buffered: AtomicBool,
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
    pub(crate) fn open(
        data_dir: Arc<DataDir>,
        storage: StorageOptions,
        double_attach: bool,
    ) -> Result<Self, Error> {
        let programs = Programs::find()?;
        let volumes = Volumes::open(data_dir.volumes(), storage.capacity, storage.allocation)?;
        let survey = Survey::new().map_err(Error::file("examine", Path::new(BLOCK_DEVICES)))?;
        let mut devices = BTreeMap::new();
        for dataset in volumes.sizes().into_keys() {
            let path = volumes.path(dataset);
            match only_device_of(&path, &survey) {
                Ok(device) => devices.extend(device.map(|device| (dataset, device.to_owned()))),
                // It is not attached before this is known.
                Err(error) => tracing::warn!(
                    dataset.id = %dataset,
                    error = %chain(&error),
                    "Cannot determine which loop device has the backing file of dataset {dataset}; it is not mounted until then"
                ),
            }
        }
        let backend = Self {
            volumes,
            programs,
            mounts: FollowedMounts::default(),
            devices: Mutex::new(devices),
            held: Mutex::default(),
            attaching: Mutex::new(()),
            double_attach,
            storage,
            buffered: AtomicBool::new(false),
            _data_dir: data_dir,
        };
        // An earlier run may have died between attaching a device and this.
        for (dataset, device) in &*backend.devices() {
            backend.keep_blocks(*dataset, device);
        }
        Ok(backend)
    }

    pub(crate) fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Attaches backing files that are what is expected, except those that any loop device has already, and returns the
    /// outcome of each.
    ///
    /// `record` receives the datasets that are about to be attached, so that a crash leaves no device whose node is
    /// unknown; nothing is attached if it fails.
    pub(crate) fn attach(
        &self,
        datasets: &BTreeMap<Uuid, Expected>,
        record: impl FnOnce(&[Uuid]) -> Result<(), StepError>,
    ) -> Result<Outcomes<()>, StepError> {
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        let survey = Survey::of_all_but(&self.known_files(datasets));
        let survey = survey.map_err(StepError::io("examine", Path::new(BLOCK_DEVICES)))?;
        let mut free = Vec::new();
        let mut outcomes = Vec::new();
        for (dataset, expected) in datasets {
            match self.open_free(*dataset, expected, &survey) {
                Ok(to_attach) => free.push((*dataset, to_attach)),
                Err(error) => outcomes.push((*dataset, Err(error))),
            }
        }
        let ids: Vec<_> = free.iter().map(|(dataset, _)| *dataset).collect();
        record(&ids)?;
        outcomes.extend(
            free.into_iter()
                .map(|(dataset, to_attach)| (dataset, self.attach_file(dataset, &to_attach))),
        );
        Ok(outcomes)
    }

    /// Returns the devices that this process knows, with their files, without those of datasets that are about to be attached.
    fn known_files(&self, attaching: &BTreeMap<Uuid, Expected>) -> HashMap<PathBuf, PathBuf> {
        let devices = self.devices().clone().into_iter();
        devices
            .filter(|(dataset, _)| !attaching.contains_key(dataset))
            .map(|(dataset, device)| (device, self.volumes.path(dataset)))
            .collect()
    }

    /// Opens the backing file of a dataset. Fails if it is not what is expected, or any loop device has it.
    fn open_free(&self, dataset: Uuid, expected: &Expected, survey: &Survey) -> Result<ToAttach, StepError> {
        let to_attach = self.open_file(dataset, expected)?;
        match self.attached_device(dataset, survey)? {
            Some(device) => Err(StepError::AttachedByOthers(device)),
            None => Ok(to_attach),
        }
    }

    /// Returns the loop device that has the backing file of a dataset, no matter which process attached it.
    pub(super) fn attached_device(
        &self,
        dataset: Uuid,
        survey: &Survey,
    ) -> Result<Option<PathBuf>, StepError> {
        if self.double_attach {
            return Ok(self.devices().get(&dataset).cloned());
        }
        let device = only_device_of(&self.volumes.path(dataset), survey)?.map(Path::to_owned);
        if let Some(device) = &device {
            self.devices().insert(dataset, device.clone());
        }
        Ok(device)
    }

    fn attach_file(&self, dataset: Uuid, to_attach: &ToAttach) -> Result<(), StepError> {
        let path = self.volumes.path(dataset);
        let device = attach(&to_attach.file, to_attach.attachment).map_err(StepError::io("attach", &path))?;
        self.attached(dataset, device);
        Ok(())
    }

    /// Notes the loop device of a dataset that has just been attached.
    pub(super) fn attached(&self, dataset: Uuid, device: PathBuf) {
        self.keep_blocks(dataset, &device);
        let is_buffered = self.storage.io == Io::Direct && is_direct(&device).is_ok_and(|direct| !direct);
        if is_buffered && !self.buffered.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                dataset.id = %dataset,
                "{} cannot be read and written directly, as the file system that has it cannot in units of its blocks; \
                 its data is cached twice",
                self.volumes.path(dataset).display()
            );
        }
        self.devices().insert(dataset, device);
    }

    /// Makes the loop device of a dataset refuse discards, if the volume is to keep its blocks.
    fn keep_blocks(&self, dataset: Uuid, device: &Path) {
        let keeps_blocks = self.storage.allocation == Allocation::Thick;
        if let Some(error) = keeps_blocks.then(|| refuse_discards(device).err()).flatten() {
            tracing::warn!(
                dataset.id = %dataset,
                %error,
                "Cannot make {} refuse discards, as sysfs is not writable; fstrim on dataset {dataset} would give blocks back \
                 that the volume is to keep",
                device.display()
            );
        }
    }

    /// Frees the loop device of a dataset and verifies that it is free.
    pub(crate) fn detach(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        // A concurrent survey has every device open for a moment, which would keep this one attached.
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        match self.clear_device(dataset, device) {
            // The kernel frees it after the last use; the file is attached to another device before that.
            Err(StepError::StillAttached(_)) if self.double_attach => {
                self.devices().remove(&dataset);
                Ok(())
            }
            cleared => cleared,
        }
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

    /// Creates the file system of a dataset that has never had one, and returns its UUID when all of it is on disk.
    ///
    /// Only a file that has the name of an unformatted one is written to; it loses that name here.
    pub(crate) fn make_file_system(&self, dataset: Uuid, device: &Path) -> Result<Uuid, StepError> {
        if self.volumes.stage(dataset) != Some(Stage::Formatting) {
            return Err(StepError::NotFormatting(device.to_owned()));
        }
        let held = self.hold(dataset, device)?;
        let keep_blocks = self.storage.allocation == Allocation::Thick;
        self.programs.make_file_system(device, keep_blocks)?;
        // First what the kernel holds for the device, then what that has become in the file.
        File::open(device)
            .and_then(|device| device.sync_all())
            .map_err(StepError::io("write to disk", device))?;
        let path = self.volumes.path_at(dataset, Stage::Formatting);
        let file = File::open(&path).map_err(StepError::io("open", &path))?;
        file.sync_all().map_err(StepError::io("write to disk", &path))?;
        let file_system = file_system(&file, &path)?.uuid;
        drop(held);
        self.volumes.finish_formatting(dataset)?;
        Ok(file_system)
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
        self.volumes.destroy(dataset)
    }

    pub(super) fn devices(&self) -> MutexGuard<'_, BTreeMap<Uuid, PathBuf>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the loop device that has a file. Fails if several have it.
fn only_device_of<'a>(path: &Path, survey: &'a Survey) -> Result<Option<&'a Path>, StepError> {
    let device = survey.device_of(path).map_err(StepError::io("examine", path))?;
    match device.and_then(|device| Some((device, survey.other_device(device)?))) {
        Some((one, other)) => Err(StepError::AttachedTwice(one.to_owned(), other.to_owned())),
        None => Ok(device),
    }
}
