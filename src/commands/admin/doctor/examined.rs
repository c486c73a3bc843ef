//! What checks leave for later ones: the first answer of the control service, and the volume that is asked about.

use std::time::{Duration, SystemTime};

use flocker_client::{Dataset, Error};
use host_fs::mount::MountHolder;
use uuid::Uuid;

use crate::host::{LocalVolume, Staging, StagingState, VolumeMount};

/// The name of the plugin's program, as the kernel has it.
const PROGRAM: &str = "flocker-csi";

/// The answer of the control service to the first request.
pub(super) struct FirstAnswer {
    pub(super) version: Result<String, Error>,
    /// Its clock, and that of this machine at the same time.
    pub(super) clocks: Option<(SystemTime, SystemTime)>,
    pub(super) took: Duration,
}

/// What is known of the volume that is asked about.
pub(super) struct ExaminedVolume {
    pub(super) id: Uuid,
    pub(super) name: Option<String>,
    /// As a sentence names it.
    pub(super) label: String,
    /// `None` where Flocker has none, or its entry cannot be read.
    pub(super) dataset: Option<Dataset>,
    /// `None` where this machine's records or mounts cannot be read.
    pub(super) here: Option<LocalVolume>,
    pub(super) mounts: Vec<VolumeMount>,
}

impl ExaminedVolume {
    /// Returns what processes do with Flocker's mount, and the process ids.
    pub(super) fn holders_of_flockers_mount(&self) -> (Vec<String>, Vec<u32>) {
        holders(self.mounts.iter().filter(|mount| mount.is_flockers))
    }

    /// Whether something here uses it through the plugin.
    pub(super) fn is_used_here(&self) -> bool {
        self.here.as_ref().is_some_and(LocalVolume::is_used)
    }

    /// Whether a call to stage it has begun here and is not complete.
    pub(super) fn is_being_staged(&self) -> bool {
        self.staging_in(&[StagingState::Staging]).is_some()
    }

    /// Returns a staging of the volume that is in one of these states.
    pub(super) fn staging_in(&self, states: &[StagingState]) -> Option<&Staging> {
        let stagings = &self.here.as_ref()?.stagings;
        stagings.iter().find(|staging| states.contains(&staging.state))
    }
}

/// Removes the plugin from what uses mounts: it holds a staged volume by design, and is never to be ended for it. `plugin` is the
/// process that answers on the endpoint, if it is known.
pub(super) fn leave_out_the_plugin(mounts: &mut [VolumeMount], plugin: Option<u32>) {
    let is_plugin = |holder: &MountHolder| match holder {
        MountHolder::Process { pid, command, .. } => Some(*pid) == plugin || command == PROGRAM,
        _ => false,
    };
    for mount in mounts {
        mount.holders.retain(|holder| !is_plugin(holder));
    }
}

/// Returns what uses mounts, in words, and the ids of the processes that can be ended.
pub(super) fn holders<'a>(mounts: impl Iterator<Item = &'a VolumeMount>) -> (Vec<String>, Vec<u32>) {
    let mut uses = Vec::new();
    let mut processes = Vec::new();
    for holder in mounts.flat_map(|mount| &mount.holders) {
        let text = holder.to_string();
        if let MountHolder::Process { pid, .. } = holder {
            if processes.contains(pid) {
                continue;
            }
            processes.push(*pid);
        }
        uses.push(text);
    }
    // Without the first process, the machine or the container ends.
    processes.retain(|pid| *pid != 1);
    (uses, processes)
}

/// Returns the command that ends processes.
pub(super) fn kill(processes: &[u32]) -> String {
    let ids: Vec<_> = processes.iter().map(u32::to_string).collect();
    format!("kill {}", ids.join(" "))
}
