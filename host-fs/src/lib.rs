//! Linux mounts, and files that survive a crash.
//!
//! - [`mount`]: the mount table and single mounts, binds that are complete when they appear, unmounting what is known,
//!   and who keeps a mount busy.
//! - [`durable`]: files that hold what they held or the new content, whatever happens.
//! - [`LockedDirectory`]: a directory that one process at a time may use.
//!
//! All functions block, and act in the mount namespace of the calling thread.

pub mod durable;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod locked_directory;
pub mod mount;

pub use locked_directory::{LockError, LockedDirectory};
