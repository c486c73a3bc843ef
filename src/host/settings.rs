//! The settings of a volume's directories on this machine.

use std::path::PathBuf;

use crate::telemetry::Counters;

/// The directories of a node, and what counts there.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The directory below which Flocker mounts datasets.
    pub mount_root: PathBuf,
    /// The directory of the staging records.
    pub state_dir: PathBuf,
    /// The directory of the device nodes that the plugin's mounts are named after.
    pub device_dir: PathBuf,
    /// Counts what happens to volumes on this node.
    pub counters: Counters,
}
