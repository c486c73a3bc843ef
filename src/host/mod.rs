//! A volume on this machine: records, pins and mounts. Knows neither CSI nor Flocker's API.

pub(crate) mod boot;
mod failures;
mod known;
pub(crate) mod machine;
pub mod mount;
pub(crate) mod pins;
pub mod preconditions;
pub(crate) mod records;
mod restore;
mod settings;
mod soundness;
pub mod state_dir;

pub(crate) use machine::{Host, InTheWay, Staged};
#[cfg(any(test, fuzzing))]
pub use records::fuzz::record;
pub use settings::HostSettings;
pub(crate) use soundness::mount_table;
