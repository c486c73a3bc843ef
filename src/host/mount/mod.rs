//! Everything the plugin knows of the kernel's mounts.
//!
//! Plain blocking functions, called through `spawn_blocking`; only [`MountWatch`] and [`UsageProbe`] are asynchronous.
//! All act in the mount namespace of the calling thread.

mod alias;
mod bind;
mod device_nodes;
mod entry;
mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod health;
mod holders;
mod kernel;
mod lookup;
mod mountinfo;
mod opened;
mod origin;
mod statmount;
mod table;
mod target;
#[cfg(test)]
pub(crate) mod testing;
mod unmount;
mod usage;
mod visibility;
mod watch;
mod workbench;

pub use alias::{AliasError, Aliases, alias_path};
pub use bind::{BindError, Binder};
pub use device_nodes::{DeviceNodeError, DeviceNodes};
pub use entry::{Device, Mount, Propagation};
pub use health::{device_has_gone, file_system_ailment};
pub use holders::{Holder, Holders};
pub use lookup::{holding, layers_at};
pub use mountinfo::ParseError;
pub use opened::OpenError;
pub(crate) use opened::open_mount;
pub use origin::Origin;
pub use table::{MountTable, TableError};
pub use target::{Target, TargetError, TargetPath};
pub use unmount::{Patience, UnmountError, unmount_owned};
pub use usage::{Through, Usage, UsageError, UsageProbe};
pub use visibility::{Vantage, VisibilityError, on_root_of_host};
pub use watch::{MountChanges, MountWatch, WatchError};
pub use workbench::WorkbenchError;
