//! The plugin's own mounts of a volume, and what the kernel reports of them.
//!
//! Plain blocking functions, called through `spawn_blocking`; only [`MountWatch`] and [`UsageProbe`] are asynchronous.
//! All act in the mount namespace of the calling thread.

mod alias;
mod device_nodes;
mod flockers_mount;
mod health;
mod origin;
mod usage;
mod visibility;
mod watch;

pub(crate) use alias::{AliasError, Aliases, alias_path};
pub(crate) use device_nodes::{DeviceNodes, device_of_node};
pub(crate) use flockers_mount::{NotFlockers, check_flockers_mount, is_named_after};
pub(crate) use health::{FileSystemFault, device_is_missing, file_system_fault};
pub(crate) use origin::{KnownDevices, Origin, Ownership};
pub(crate) use usage::{ProbeVia, Usage, UsageError, UsageProbe};
pub(crate) use visibility::{MountVisibility, VisibilityError, on_root_of_host};
pub(crate) use watch::MountWatch;
