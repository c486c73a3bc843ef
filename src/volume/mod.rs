//! A volume's properties: its name, its id, its size and the metadata that Flocker stores about it.

mod id;
mod labels;
mod lease_advice;
mod metadata;
mod mount_flags;
mod name;
mod parameters;
mod parse_size;
mod reference;
mod size;
mod suggest;
mod topology;

pub(crate) use id::Generation;
pub use id::{Namespace, dataset_of};
pub(crate) use labels::{KubernetesClaim, VolumeLabels};
pub(crate) use lease_advice::{end_of_use, release_of_any};
#[cfg(test)]
pub(crate) use metadata::PROFILE_KEY;
pub use metadata::metadata;
pub(crate) use metadata::{DRIVER_KEY, FLOCKER_ID_KEY, GENERATION_KEY, NAME_KEY, profile_of};
pub(crate) use mount_flags::{FlagError, MountFlags};
pub use name::VolumeName;
pub use parameters::Parameters;
pub(crate) use parse_size::parse_size;
pub(crate) use reference::FirstUse;
pub use reference::VolumeReference;
pub use size::{MINIMUM_SIZE, SizePolicy};
pub(crate) use size::{SizeRange, size_text};
pub(crate) use suggest::did_you_mean;
pub use topology::{Topology, TopologyKey};

/// The size that Flocker gives to a dataset configured without one: 75 GiB.
pub(crate) const FLOCKER_DEFAULT_SIZE: u64 = 75 << 30;

/// The key of the publish context with the node to which a volume is attached.
pub const NODE_CONTEXT_KEY: &str = "flocker.csi.clusterhq.com/node";

/// The key of the publish context of a volume that was attached for reading only; its value is `true`.
pub(crate) const READONLY_CONTEXT_KEY: &str = "flocker.csi.clusterhq.com/readonly";

/// Returns the size of a dataset in bytes: as configured, else as its node reports it, else Flocker's default.
pub(crate) fn size_of(configured: Option<u64>, reported: Option<u64>) -> u64 {
    configured.or(reported).unwrap_or(FLOCKER_DEFAULT_SIZE)
}
