//! Linux mounts, and files that survive a crash.
//!
//! - [`mount`]: the mount table and single mounts, binds that are complete when they appear, unmounting what is known,
//!   and which processes keep a mount busy.
//! - [`durable`]: files that hold the earlier or the new content after any crash.
//! - [`remove_name`] and [`remove_directory`]: a name that does not exist counts as removed on every file system.
//! - [`exposure()`]: whether other users can replace what is in a directory.
//! - [`read_regular`]: reads a regular file of bounded size, and opens nothing else.
//! - [`DescriptorStore`]: descriptors that a service manager keeps while a process is restarted.
//! - [`LockedDirectory`]: a directory that one process at a time may use.
//!
//! All functions block, and act in the mount namespace of the calling thread.

#![warn(clippy::missing_errors_doc)]

mod descriptor_store;
pub mod durable;
mod exposure;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod locked_directory;
pub mod mount;
mod regular;
mod removal;

pub use descriptor_store::{DescriptorStore, take_kept_paths};
pub use exposure::{Exposure, exposure};
pub use locked_directory::{LockError, LockedDirectory};
pub use regular::{Links, read_regular};
pub use removal::{remove_directory, remove_name};
