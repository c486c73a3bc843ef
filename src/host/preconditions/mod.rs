//! The conditions that must hold before a node is served.
//!
//! - The process has the capabilities that its work requires (see `capabilities`).
//! - Mounts that the host makes below `mount_root` reach the process: without a pod, [`cut_off`] is a warning, because a
//!   plugin that does not start could unmount nothing either.
//! - In a pod, which is known from the registration with a kubelet, it has the required directories of the host with
//!   the required propagation (see `directories`). Elsewhere the directories may be mounted later, and a mount that no
//!   other process would see is refused when it is requested.
//!
//! - No other user can change what is in the plugin's own directories: [`exposed`] is a warning, because what is mounted has to
//!   be unmounted all the same.
//!
//! All that is missing is reported together at the start, each with what to add where, instead of once for each volume.

mod capabilities;
mod directories;

use std::path::Path;

use host_fs::exposure;

pub(crate) use capabilities::MissingCapabilities;

use crate::host::HostSettings;

/// Returns what is missing, a sentence each with what to do; `registration_dir` is where the plugin registers with a
/// kubelet, if it does. Blocks.
pub(crate) fn unmet(paths: &HostSettings, registration_dir: Option<&Path>) -> Vec<String> {
    let MissingCapabilities { needed, useful } = MissingCapabilities::here();
    let mut unmet = needed;
    if let Some(missed) = useful {
        tracing::warn!("{missed}");
    }
    if let Some(registration_dir) = registration_dir {
        unmet.extend(directories::unmet(&paths.visibility(), paths, registration_dir));
    }
    unmet
}

/// Returns what a pod lacks of the directories of the host, beside the state directory. Blocks, and changes nothing.
pub(crate) fn unmet_in_pod(paths: &HostSettings, registration_dir: &Path) -> Vec<String> {
    directories::hidden(&paths.visibility(), paths, registration_dir)
}

/// Returns why no volume can be staged that Flocker mounts from now on, if that is so: the mounts do not reach this process.
/// Blocks.
pub(crate) fn cut_off(paths: &HostSettings) -> Option<String> {
    directories::cut_off(&paths.visibility(), &paths.mount_root).unwrap_or_else(Some)
}

/// Returns which of these directories, each with the setting that names it, other users can change. One that does not exist is
/// made for root alone. Blocks.
pub(crate) fn exposed(directories: &[(&str, &Path)]) -> Vec<String> {
    let describe = |(setting, directory): &(&str, &Path)| {
        let exposure = exposure(directory).ok().flatten()?;
        Some(format!(
            "Other users can change what is in the {setting} {}, on which the plugin relies: {exposure}",
            directory.display()
        ))
    };
    directories.iter().filter_map(describe).collect()
}
