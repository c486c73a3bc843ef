//! What the kernel knows of mounts, and what it does with them.

mod attributes;
mod bind;
mod cached;
mod entry;
mod events;
mod handle;
mod holders;
mod index;
mod kernel;
mod lookup;
mod mount_id;
pub(crate) mod mountinfo;
mod scratch;
mod search;
mod statmount;
mod stop_writes;
mod table;
mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod unmount;
mod users;

pub use attributes::AttributeChange;
pub use bind::{BindError, Binder};
pub use cached::{CachedParent, is_in_memory};
pub use entry::{Device, Mount, Propagation};
pub use events::{MountEvents, wait_readable};
pub use handle::{MountHandle, OpenError, open_mount};
pub use holders::{Holders, MountHolder, find_holders};
pub use index::MountIndex;
pub use lookup::{holding, layers_at, visible_at};
pub use mount_id::{MountId, file_system_id};
pub use mountinfo::ParseError;
pub use scratch::ScratchError;
pub use stop_writes::{StopError, stop_writes};
pub use table::{MountTable, TableError};
pub use target::{Relation, Target, TargetError, TargetPath};
pub use unmount::{Patience, UnmountError, unmount_owned};
pub use users::{FileSystemUse, UseSearch};
