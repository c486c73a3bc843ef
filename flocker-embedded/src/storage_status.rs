//! What an embedded Flocker stores at one moment, for metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::Error;
use crate::agent::Shared;

/// The only pool of this release: all volumes are in the data directory.
const POOL: &str = "default";

/// What is stored at one moment, and how often steps of the agents have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageStatus {
    /// The space of each pool.
    pub pools: Vec<PoolStatus>,
    /// The number of datasets in each state; every state occurs.
    pub datasets: BTreeMap<DatasetState, u64>,
    /// The number of loop devices that have a backing file of this Flocker, also those that wait for their last mount to
    /// end.
    pub loop_devices: u64,
    /// How often each step of the agents has failed since the start; every step occurs.
    pub failed_steps: BTreeMap<AgentStep, u64>,
}

/// The space of a pool, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The name of the pool.
    pub name: String,
    /// What the sizes of all volumes may add up to.
    pub capacity: u64,
    /// What the sizes of all volumes add up to, with those that are configured and not made yet.
    pub allocated: u64,
    /// What the backing files occupy of the file system.
    pub used: u64,
    /// What the file system has free. Less than `capacity - used` where something else fills it.
    pub free: u64,
}

/// Declares a fieldless enum with the names that its values have in metrics.
macro_rules! named {
    ($(#[doc = $about:literal])+ $of:ident { $($(#[doc = $doc:literal])+ $value:ident = $name:literal,)+ }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $of {
            $($(#[doc = $doc])+ $value,)+
        }

        impl $of {
            /// All values, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// Returns the name that it has in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }
    };
}

named! {
    /// The state of a dataset.
    DatasetState {
        /// It is configured, and its volume is not made yet.
        Creating = "creating",
        /// It is mounted on a node.
        Mounted = "mounted",
        /// Its volume exists, and is mounted nowhere.
        Unmounted = "unmounted",
        /// Its volume is missing, is not the one that was recorded, or cannot be examined: it is not mounted.
        Unavailable = "unavailable",
        /// It is deleted, and its volume exists still.
        Deleting = "deleting",
        /// It is deleted, and its volume no longer exists.
        Deleted = "deleted",
    }
}

named! {
    /// A step of an agent.
    AgentStep {
        /// It observes all datasets.
        Observe = "observe",
        /// It examines one dataset.
        Examine = "examine",
        /// It makes the volume.
        Create = "create",
        /// It records that the volume exists.
        Register = "register",
        /// It attaches the volume to a loop device.
        Attach = "attach",
        /// It makes the file system.
        Format = "format",
        /// It mounts the file system.
        Mount = "mount",
        /// It unmounts the file system.
        Unmount = "unmount",
        /// It frees the loop device.
        Detach = "detach",
        /// It frees the loop device of a machine that is off.
        DetachFromDead = "detach_from_dead",
        /// It removes the volume.
        Destroy = "destroy",
    }
}

/// How often each step has failed.
#[derive(Debug)]
pub(crate) struct FailedSteps(Vec<AtomicU64>);

impl Default for FailedSteps {
    fn default() -> Self {
        Self(AgentStep::ALL.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl FailedSteps {
    pub(crate) fn count(&self, step: AgentStep, times: usize) {
        if let Some(counted) = self.0.get(step as usize) {
            counted.fetch_add(times as u64, Ordering::Relaxed);
        }
    }

    fn all(&self) -> BTreeMap<AgentStep, u64> {
        let counted = self.0.iter().map(|times| times.load(Ordering::Relaxed));
        AgentStep::ALL.iter().copied().zip(counted).collect()
    }
}

impl StorageStatus {
    /// Asks the file system below, so this blocks.
    pub(crate) fn of(shared: &Shared) -> Result<Self, Error> {
        let volumes = shared.backend.volumes();
        let space = volumes
            .space()
            .map_err(Error::file("examine", volumes.directory()))?;
        Ok(Self {
            pools: vec![PoolStatus {
                name: POOL.to_owned(),
                capacity: volumes.capacity(),
                allocated: shared
                    .sizes()
                    .values()
                    .fold(0, |sum, size| sum.saturating_add(*size)),
                used: space.used,
                free: space.free,
            }],
            datasets: datasets(shared),
            loop_devices: volumes
                .loop_devices()
                .map_err(Error::file("examine the loop devices of", volumes.directory()))?,
            failed_steps: shared.failed_steps.all(),
        })
    }
}

fn datasets(shared: &Shared) -> BTreeMap<DatasetState, u64> {
    let files = shared.backend.volumes().files();
    let seen = shared.cluster.datasets();
    let mounted: BTreeSet<Uuid> = seen
        .iter()
        .filter(|seen| seen.mounted.is_some())
        .map(|seen| seen.id)
        .collect();
    let unavailable = shared.cluster.unavailable();
    let mut states: BTreeMap<_, _> = DatasetState::ALL.iter().map(|state| (*state, 0)).collect();
    let snapshot = shared.store.snapshot();
    let listed = &snapshot.configuration.datasets;
    // What is not kept in memory was destroyed long ago.
    let hidden = snapshot.datasets.saturating_sub(listed.len() as u64);
    states.insert(DatasetState::Deleted, hidden);
    for (id, dataset) in listed {
        let state = match (dataset.deleted, files.contains_key(id)) {
            (true, true) => DatasetState::Deleting,
            (true, false) => DatasetState::Deleted,
            (false, _) if mounted.contains(id) => DatasetState::Mounted,
            (false, _) if unavailable.contains(id) => DatasetState::Unavailable,
            (false, true) => DatasetState::Unmounted,
            (false, false) => DatasetState::Creating,
        };
        *states.entry(state).or_insert(0) += 1;
    }
    states
}
