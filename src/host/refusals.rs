//! The messages of the state machine's refusals.

use std::path::Path;

use host_fs::mount::Mount;

use super::evidence::Staged;
use super::lifecycle::{Fault, Refusal};
use crate::error::{Error, Situation};
use crate::volume::MountFlags;

/// The volume and the path that a goal concerns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The volume id that the caller uses.
    pub(super) volume_id: &'a str,
    /// The staging path or the target.
    pub(super) path: &'a Path,
    /// The requested mount flags.
    pub(super) flags: MountFlags,
}

impl<'a> Subject<'a> {
    /// Returns the subject of a goal for a path.
    pub(super) fn at(volume_id: &'a str, path: &'a Path) -> Self {
        Self {
            volume_id,
            path,
            flags: MountFlags::default(),
        }
    }

    /// Returns the subject of a goal for a staging path.
    pub(super) fn staging(volume_id: &'a str, staged: &'a Staged) -> Self {
        Self::at(volume_id, &staged.staging)
    }

    /// Makes the error of a refusal.
    pub(super) fn refuse(self, refusal: Refusal) -> Error {
        let (volume, path) = (self.volume_id, self.path.display());
        let (situation, text) = match refusal {
            Refusal::ForeignAlias(found) => (
                Situation::ForeignMount,
                format!(
                    "{} is in use by a mount that is not this plugin's and is left unchanged: {found}; unmount it, or, \
                     if another plugin has staged the volume there, unstage it with that one",
                    found.point.display()
                ),
            ),
            Refusal::Hidden { mount, over } => (
                Situation::ForeignMount,
                format!(
                    "volume {volume} is mounted at {}, but hidden under {over}, which is not this plugin's and is left \
                     unchanged; unmount that mount",
                    mount.point.display()
                ),
            ),
            // What is staged stays, so the answer is not final: after a final one no orchestrator unstages the volume.
            Refusal::StagedAs(node) => (
                Situation::Busy,
                format!(
                    "volume {volume} is staged at {path} for node {node}, and this plugin serves another node now; call \
                     NodeUnstageVolume first, which releases the lease of node {node}"
                ),
            ),
            Refusal::ReleaseDueTo(node) => (
                Situation::Busy,
                format!(
                    "the lease of node {node} on volume {volume}, which was staged at {path}, is still to be released; \
                     try again"
                ),
            ),
            Refusal::StillPublished(at) => (
                Situation::MountBusy,
                format!(
                    "volume {volume} is still published at {}; call NodeUnpublishVolume for that before the volume is \
                     unstaged",
                    at.display()
                ),
            ),
            Refusal::NotStaged(fault) => (
                Situation::NotStaged,
                not_staged(volume, self.path, fault.as_ref()),
            ),
            Refusal::Broken(why) => (
                Situation::NotStaged,
                format!("volume {volume} cannot be published{why}"),
            ),
            Refusal::SecondTarget(at) => (
                Situation::SingleWriter,
                format!(
                    "volume {volume} cannot be published at {path} with SINGLE_NODE_SINGLE_WRITER: it is published at {} \
                     already",
                    at.display()
                ),
            ),
            Refusal::PublishedOtherwise(found) => (
                Situation::Incompatible,
                format!(
                    "volume {volume} is published at {path} already, {}, and {}; unpublish it first",
                    mode(&found),
                    asked(self.flags)
                ),
            ),
            Refusal::PublishedFromOtherDevice(found) => (
                Situation::ForeignMount,
                format!(
                    "volume {volume} is published at {path} already, but from device {}, and it is on another device now; \
                     unpublish it first",
                    found.device
                ),
            ),
            Refusal::ForeignTarget(found) => (
                Situation::ForeignMount,
                format!(
                    "{path} does not hold volume {volume} but {found}, which is not this plugin's and is left \
                     unchanged; unmount it or use another target_path"
                ),
            ),
            Refusal::NotMounted(found) => {
                let instead = found.map_or_else(String::new, |found| {
                    format!(": {found} is mounted there, which is not this plugin's")
                });
                (
                    Situation::NotMountedThere,
                    format!("volume {volume} is not mounted at {path}{instead}"),
                )
            }
        };
        Error::new(situation, text)
    }
}

fn not_staged(volume: &str, path: &Path, fault: Option<&Fault>) -> String {
    let path = path.display();
    match fault {
        None => {
            format!(
                "volume {volume} is not staged at {path}: nothing is mounted there; call NodeStageVolume first"
            )
        }
        // The message does not advise to stage again, which fails until the other mount is unmounted.
        Some(fault @ Fault::Hidden { .. }) => format!("volume {volume} is staged at {path}, but {fault}"),
        Some(fault) => {
            format!("volume {volume} is not staged at {path}: {fault}; call NodeStageVolume first")
        }
    }
}

fn asked(flags: MountFlags) -> String {
    let flags = flags.to_string();
    if flags.is_empty() {
        "is requested without mount flags, for reading and writing".to_owned()
    } else {
        format!("does not satisfy the flags \"{flags}\"")
    }
}

fn mode(mount: &Mount) -> &'static str {
    if mount.read_only() {
        "read-only"
    } else {
        "read-write"
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Unmounted => write!(f, "nothing is mounted there"),
            Fault::Unpinned => write!(
                f,
                "this process does not hold Flocker's mount of the volume in place: stage the volume again"
            ),
            Fault::OtherDevice { found, pinned } => write!(
                f,
                "the volume is on device {}, but Flocker's mount is on {}",
                found.device, pinned.device
            ),
            Fault::FlockerUnmounted { pinned } => write!(
                f,
                "Flocker's mount at {} no longer exists or is hidden, so nothing keeps the volume on this node",
                pinned.point.display()
            ),
            Fault::Hidden { over, .. } => {
                write!(
                    f,
                    "hidden under {over}, which is not this plugin's; unmount that mount"
                )
            }
            Fault::Foreign { found } => write!(f, "{found} is mounted there"),
        }
    }
}
