//! A volume on this machine: its state, records, pins and mounts. Knows neither CSI nor Flocker's API.
//!
//! [`lifecycle`] defines the states of a volume and the steps between them. All functions here block and are called via
//! [`Host::blocking`]; those that change a dataset are called by one operation at a time, which holds the dataset's
//! lock.

mod abandoned;
mod boot;
mod census;
mod evidence;
mod failures;
pub(crate) mod garbage;
mod host_name;
mod kept_pins;
mod lease_conditions;
mod leftovers;
pub(crate) mod lifecycle;
mod local_view;
mod made_directories;
pub mod mount;
mod own_places;
mod path_gate;
mod pending_release;
mod pin_store;
mod pins;
pub mod preconditions;
mod protection;
mod publish;
pub(crate) mod records;
mod refusals;
mod restore;
mod settings;
mod stage;
pub mod state_dir;
mod stats;
mod targets;
mod unstage;
mod volume_fault;
mod volume_ids;
mod volume_mounts;

use std::sync::Arc;

use host_fs::LockedDirectory;
use host_fs::mount::{Binder, UseSearch};
use tokio::task::JoinError;
use tracing::Span;
use uuid::Uuid;

pub use path_gate::PathGate;
pub use pin_store::PinStore;
pub use publish::TargetDirectory;
#[cfg(any(test, fuzzing))]
pub use records::fuzz::record;
pub use settings::{HostSettings, agent_file_systems};

pub(crate) use abandoned::{RecordedDataset, VolumeUse};
pub(crate) use boot::{BOOT_ID_FILE, boot_id};
pub(crate) use census::VolumeCensus;
pub(crate) use evidence::Staged;
pub(crate) use host_name::host_name;
pub(crate) use lease_conditions::{LeaseCondition, StopReason};
pub(crate) use leftovers::{Leftover, Leftovers};
pub(crate) use lifecycle::Goal;
pub(crate) use local_view::{LocalDirectories, LocalView, LocalVolume, Staging, StagingState};
pub(crate) use path_gate::{HANGS, PathPermit};
pub(crate) use protection::{Protection, StopScope};
pub(crate) use publish::{Publication, Unpublication};
pub(crate) use stats::MountedVolume;
pub(crate) use unstage::{Ended, Unmounted};
pub(crate) use volume_fault::{FaultReason, VolumeFault};
pub(crate) use volume_mounts::VolumeMount;

use crate::error::{Error, Result, Situation};
use lease_conditions::LeaseConditions;
use mount::{Aliases, DeviceNodes, MountVisibility};
use own_places::OwnPlaces;
use pins::Pins;
use protection::StoppedWrites;
use records::{RecordError, Records};
use targets::Targets;

use crate::telemetry::{Counter, spawn_blocking};
use crate::volume::release_of_any;

fn joined<T>(ended: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    match ended {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(Error::stopping("working on this machine")),
        },
    }
}

/// Logs a record that cannot be read: what is staged there may hold a lease, which is never released because of it.
fn report_unreadable(error: &RecordError) {
    let dataset = records::dataset_in_name(error.path());
    let how = dataset.map_or_else(String::new, |dataset| format!("; {}", release_of_any(dataset)));
    tracing::error!(
        volume.id = dataset.map(tracing::field::display),
        error = %crate::error::chain(error),
        "A staging record cannot be read and is kept: {}{how}",
        error.path().display()
    );
}

/// The part of the machine that this process may change.
pub(crate) struct Host {
    settings: HostSettings,
    boot_id: Uuid,
    aliases: Aliases,
    binder: Binder,
    visibility: MountVisibility,
    records: Records,
    pins: Pins,
    targets: Targets,
    own_places: OwnPlaces,
    leftovers: Leftovers,
    leases: LeaseConditions,
    stopped: StoppedWrites,
    uses: UseSearch,
    /// The locks are declared last, so that they are released after everything else.
    _device_dir: LockedDirectory,
    _state_dir: LockedDirectory,
}

impl Host {
    /// Locks the state and the device directory, pins every staged volume again, and returns the leases to release.
    ///
    /// # Errors
    /// [`Situation::NotTheNodePlugin`] while another process owns one of the directories.
    pub(crate) fn open(settings: &HostSettings) -> Result<(Self, Vec<Staged>)> {
        let state_dir = state_dir::claim("state_dir", &settings.state_dir)?;
        let device_dir = state_dir::claim("device_dir", &settings.device_dir)?.transient();
        let boot_id = boot_id(BOOT_ID_FILE.as_ref())
            .map_err(|error| Error::internal("read the boot id of this machine", error))?;
        let (records, damaged) = Records::open(&state_dir::stages(&settings.state_dir))
            .map_err(|error| Error::of(Situation::Internal, &error))?;
        for error in &damaged {
            settings.metrics.counters().count(Counter::RecordsUnreadable);
            report_unreadable(error);
        }
        let binder = Binder::for_this_kernel(&settings.state_dir.join("mounts"));
        binder
            .clear_unfinished()
            .map_err(|error| Error::internal("remove unfinished mounts of an earlier process", error))?;
        let host = Self {
            settings: settings.clone(),
            boot_id,
            aliases: Aliases::new(DeviceNodes::new(&settings.device_dir), binder.clone()),
            binder,
            visibility: settings.visibility(),
            records,
            pins: Pins::new(settings.pin_store.clone()),
            targets: Targets::default(),
            own_places: OwnPlaces::of(settings),
            leftovers: Leftovers::open(state_dir::leftovers(&settings.state_dir)),
            leases: LeaseConditions::default(),
            stopped: StoppedWrites::default(),
            uses: UseSearch::default(),
            _device_dir: device_dir,
            _state_dir: state_dir,
        };
        let pending = host.restore()?;
        Ok((host, pending))
    }

    /// Measures a mount that an operation made or removed.
    fn measured<T, E>(&self, operation: &'static str, outcome: std::result::Result<T, E>) -> Result<T>
    where
        Error: From<E>,
    {
        let outcome = outcome.map_err(Error::from);
        let name = match outcome.as_ref().err().map(Error::situation) {
            None => "done",
            Some(Situation::MountBusy) => "busy",
            Some(Situation::ForeignMount) => "foreign",
            Some(_) => "failed",
        };
        self.settings.metrics.mounted(operation, name);
        outcome
    }

    /// As [`Self::measured`], of how many mounts were removed.
    fn unmounted<E>(&self, operation: &'static str, outcome: std::result::Result<usize, E>) -> Result<usize>
    where
        Error: From<E>,
    {
        match outcome {
            Ok(0) => Ok(0),
            outcome => self.measured(operation, outcome),
        }
    }

    /// Runs blocking work on a thread that may block, in the span of its caller.
    pub(crate) async fn blocking<T, W>(self: &Arc<Self>, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let (host, call) = (Arc::clone(self), Span::current());
        joined(spawn_blocking(move || call.in_scope(|| work(&host))).await)
    }

    /// As [`Self::blocking`], for work that looks up the paths for which `permit` was given.
    pub(crate) async fn blocking_on_paths<T, W>(self: &Arc<Self>, permit: PathPermit, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(&Self, &mut PathPermit) -> Result<T> + Send + 'static,
    {
        let (host, call) = (Arc::clone(self), Span::current());
        let work = move || {
            // It ends with the thread, whether anything still waits for that or not.
            let mut permit = permit;
            work(&host, &mut permit)
        };
        joined(spawn_blocking(move || call.in_scope(work)).await)
    }
}
