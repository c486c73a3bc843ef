//! Where the host side finds and keeps things.

use std::path::PathBuf;

/// The places of a node.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Below which Flocker mounts datasets.
    pub mount_root: PathBuf,
    /// Where the records of what is staged are kept.
    pub state_dir: PathBuf,
    /// Where the device nodes are that the plugin's mounts are named after.
    pub device_dir: PathBuf,
}
