//! What a refusal of the state machine says to people.

use std::path::Path;

use host_fs::mount::Mount;

use super::evidence::Staged;
use super::lifecycle::{Fault, Refusal};
use crate::error::{Error, Situation};
use crate::volume::MountFlags;

/// Which volume a wish was about, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The volume as the caller names it.
    pub(super) volume_id: &'a str,
    /// The staging path or the target.
    pub(super) path: &'a Path,
    /// The mount flags that are asked for.
    pub(super) flags: MountFlags,
}

impl<'a> Subject<'a> {
    /// The subject of a wish that is about a path.
    pub(super) fn at(volume_id: &'a str, path: &'a Path) -> Self {
        Self {
            volume_id,
            path,
            flags: MountFlags::default(),
        }
    }

    /// The subject of a wish that is about a staging path.
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
                    "{} is in use by a mount that is not this plugin's and is left alone: {found}; unmount it, or, if \
                     another plugin has staged the volume there, unstage it with that one",
                    found.point.display()
                ),
            ),
            Refusal::Hidden { mount, over } => (
                Situation::ForeignMount,
                format!(
                    "volume {volume} is mounted at {}, but hidden under {over}, which is not ours and is left alone; \
                     unmount that",
                    mount.point.display()
                ),
            ),
            // What is staged stays, so the answer is not final: after a final one no orchestrator unstages the volume.
            Refusal::StagedAs(node) => (
                Situation::Busy,
                format!(
                    "volume {volume} was staged at {path} for node {node}, and this plugin serves another node now; the \
                     volume is unstaged from there unless it is published, and the call has to be repeated"
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
                    "{path} does not hold volume {volume} but {found}, which is not ours and is left alone; unmount it or \
                     use another target_path"
                ),
            ),
            Refusal::NotMounted(found) => {
                let instead = found.map_or_else(String::new, |found| {
                    format!(": {found} is there instead, which is not ours")
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
        // Staging it again does not help as long as the other mount is there, and says so.
        Some(fault @ Fault::Hidden { .. }) => format!("volume {volume} is staged at {path}, but {fault}"),
        Some(fault) => {
            format!("volume {volume} is not staged at {path}: {fault}; call NodeStageVolume first")
        }
    }
}

fn asked(flags: MountFlags) -> String {
    let flags = flags.to_string();
    if flags.is_empty() {
        "is asked for without mount flags, for reading and writing".to_owned()
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
                "Flocker's mount at {} is gone or hidden, so nothing keeps the volume on this node",
                pinned.point.display()
            ),
            Fault::Hidden { over, .. } => {
                write!(f, "hidden under {over}, which is not ours; unmount that")
            }
            Fault::Foreign { found } => write!(f, "{found} is there instead"),
        }
    }
}
