//! The settings of a volume's directories on this machine.

use std::path::PathBuf;

use super::PinStore;
use super::mount::MountVisibility;
use crate::telemetry::Metrics;

/// Returns the types of file systems without a block device that Flocker's own agents mount: those of its ZFS backend.
pub fn agent_file_systems() -> Vec<String> {
    vec!["zfs".to_owned()]
}

/// The directories of a node, and what counts there.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The directory below which Flocker mounts datasets.
    pub mount_root: PathBuf,
    /// The directory of the staging records.
    pub state_dir: PathBuf,
    /// The directory of the device nodes that the plugin's mounts are named after.
    pub device_dir: PathBuf,
    /// Whether volumes are published on every shared mount, without verifying that the host sees it.
    pub accept_unverified_propagation: bool,
    /// The directory of the socket on which the plugin is reached, if it is reached on one.
    pub socket_dir: Option<PathBuf>,
    /// The types of file systems without a block device that Flocker's agents mount.
    pub agent_file_systems: Vec<String>,
    /// Keeps the pins while the plugin is restarted.
    pub pin_store: PinStore,
    /// Measures what happens to volumes on this node.
    pub metrics: Metrics,
}

impl HostSettings {
    /// Detects which of this process's mounts the host sees. Blocks.
    pub(crate) fn visibility(&self) -> MountVisibility {
        MountVisibility::of_this_process(self.accept_unverified_propagation)
    }
}
