//! Real storage on this machine: sparse files, loop devices, ext4. All calls block.

mod content;
mod direct_io;
mod discovery;
mod error;
mod followed_mounts;
mod loop_device;
mod mounting;
mod program;
mod reboot;
mod release;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;

pub(crate) use content::Expected;
pub(crate) use discovery::{Condition, Discovery, Seen};
pub(crate) use error::StepError;
#[cfg(test)]
pub(crate) use mounting::is_mounted;
pub(crate) use release::Released;
pub(crate) use storage::{Backend, StorageOptions};
