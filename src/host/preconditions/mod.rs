//! What has to be so before a node is served: all of it, in one place.
//!
//! - The process has the capabilities its work takes (see `capabilities`).
//! - In a pod, which we know to be in where a kubelet is to learn of the plugin, it has the host's directories that it
//!   needs, with the propagation that it needs (see `places`). Elsewhere a plugin may come to have them later, and what
//!   nobody else would see is refused when it is asked for.
//!
//! What is missing is told at once, each with what to add where, instead of by each volume in turn.

mod capabilities;
mod places;

use std::path::Path;

use super::mount::Vantage;
use crate::host::HostSettings;

/// Returns what is not as it has to be, a sentence each with what to do; a kubelet may be to learn of the plugin in
/// `registration_dir`. Blocks.
pub fn unmet(paths: &HostSettings, registration_dir: Option<&Path>) -> Vec<String> {
    let mut unmet = capabilities::missing();
    if let Some(registration_dir) = registration_dir {
        unmet.extend(places::unmet(Vantage::of_this_process(), paths, registration_dir));
    }
    unmet
}
