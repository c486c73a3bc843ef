//! Real storage on this machine: sparse files, loop devices, ext4. All calls block.

mod discovery;
mod loop_device;
mod mount_table;
mod mounting;
mod power;
mod program;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

pub(crate) use discovery::{Condition, Seen};
pub(crate) use mount_table::MOUNT_TABLE;
#[cfg(test)]
pub(crate) use mounting::is_mounted;
pub(crate) use mounting::{mount, unmount};

use crate::Error;
use crate::data_dir::DataDir;
use loop_device::{BLOCK_DEVICES, LOOP_CONTROL, Survey, attach};
use mount_table::MountTable;
use mounting::unmount_from;
use program::Programs;
use volumes::Volumes;

/// Why a step was not carried out. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(
        "the volume needs {size} bytes, and of the capacity of {capacity} bytes only {free} are free; \
         delete other volumes or raise the capacity"
    )]
    OverCapacity { size: u64, capacity: u64, free: u64 },
    #[error(
        "the loop device {0} still has the backing file (a mount or an open descriptor keeps it); no other \
         loop device may have it until that one is free"
    )]
    StillAttached(PathBuf),
    #[error(
        "the loop device {0} has the backing file already, and nobody knows for which node; no other loop \
         device may have it until that one is free"
    )]
    AttachedByOthers(PathBuf),
    #[error("cannot unmount {0}: something on it is in use")]
    Busy(PathBuf),
    #[error("{program} failed for {device} ({outcome})")]
    Program {
        program: PathBuf,
        device: PathBuf,
        outcome: String,
    },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot record it in the state file")]
    State(#[source] io::Error),
    #[error("the step broke down")]
    Task(#[source] tokio::task::JoinError),
    /// One error that stopped several datasets.
    #[error(transparent)]
    Common(Arc<StepError>),
}

impl StepError {
    /// Tells whether the next try is likely to succeed: somebody may only have looked at the device.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::StillAttached(_) | Self::Busy(_))
    }

    /// Returns a closure that wraps an error of the system with what was being done to what.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What became of each of several datasets.
pub(crate) type Outcomes<T> = Vec<(Uuid, Result<T, StepError>)>;

/// What became of a dataset that is to be released.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Released {
    /// It is published or in use, so it stays attached.
    Kept,
    /// It is unmounted, and the kernel frees the device as soon as the last opener is gone.
    Lingering,
    Detached,
}

/// The storage of all nodes.
#[derive(Debug)]
pub(crate) struct Backend {
    volumes: Volumes,
    programs: Programs,
    /// The loop device of every dataset that has one, or had one when it was last looked at.
    devices: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// What machines that are off had attached, and the loop device it had: no other node gets it.
    held: Mutex<BTreeMap<Uuid, PathBuf>>,
    /// Held from looking whether a backing file is attached until it is.
    attaching: Mutex<()>,
    /// Datasets that are known to have a file system.
    formatted: Mutex<BTreeSet<Uuid>>,
    /// Nobody else may attach or mount as long as this is alive.
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
            let path = volumes.path(dataset);
            let device = survey.device_of(&path).map_err(Error::file("examine", &path))?;
            devices.extend(device.map(|device| (dataset, device.to_owned())));
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

    /// Attaches backing files, except those that any loop device has already, and returns what became of each.
    ///
    /// `record` is told which files are about to be attached, so that a crash leaves no device whose node is
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

    /// Fails if any loop device at all has the backing file of a dataset.
    fn check_free(&self, dataset: Uuid, survey: &Survey) -> Result<(), StepError> {
        match self.attached_device(dataset, survey)? {
            Some(device) => Err(StepError::AttachedByOthers(device)),
            None => Ok(()),
        }
    }

    /// Returns the loop device that has the backing file of a dataset, whoever attached it.
    fn attached_device(&self, dataset: Uuid, survey: &Survey) -> Result<Option<PathBuf>, StepError> {
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
        // A survey at the same time has every device open for a moment, which would keep this one.
        let _attaching = self.attaching.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear_device(dataset, device)
    }

    /// Makes a file system, unless there is one.
    pub(crate) fn make_file_system(&self, dataset: Uuid, device: &Path) -> Result<(), StepError> {
        if !self.programs.has_file_system(device)? {
            self.programs.make_file_system(device)?;
        }
        self.formatted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(dataset);
        Ok(())
    }

    /// Tells whether the loop device of a dataset still has the backing file.
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

    /// Unmounts and detaches datasets as the agent of their node saw them. What is mounted anywhere else too,
    /// under whatever name, or is in use, stays as it is.
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
        let unmounted = mount_point.map_or(Ok(()), unmount_from);
        match unmounted.and_then(|()| self.detach(dataset, device)) {
            Ok(()) => Ok(Released::Detached),
            Err(StepError::Busy(_)) => Ok(Released::Kept),
            Err(StepError::StillAttached(_)) => Ok(Released::Lingering),
            Err(error) => Err(error),
        }
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<Uuid, PathBuf>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
