//! What the kernel knows of mounts, and what it does with them.

mod attributes;
mod bind;
mod entry;
mod events;
mod holders;
mod kernel;
mod lookup;
pub(crate) mod mountinfo;
mod opened;
mod statmount;
mod table;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod unmount;
mod workbench;

pub use attributes::AttributeChange;
pub use bind::{BindError, Binder};
pub use entry::{Device, Mount, Propagation};
pub use events::{MountEvents, wait_readable};
pub use holders::{Holder, Holders, find_holders};
pub use lookup::{holding, layers_at};
pub use mountinfo::ParseError;
pub use opened::{OpenError, open_mount};
pub use table::{MountTable, TableError};
pub use target::{Target, TargetError, TargetPath};
pub use unmount::{Patience, UnmountError, unmount_owned, unmount_top};
pub use workbench::WorkbenchError;
