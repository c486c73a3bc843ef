//! The operations of the node, which equal calls join and which exclude each other.

use std::fmt;
use std::path::PathBuf;

use crate::host::TargetDirectory;
use crate::operation::{Operation, Subject};
use crate::volume::MountFlags;
use crate::volume::VolumeReference;
use host_fs::mount::TargetPath;

/// What an operation does at a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NodeOperation {
    /// Make a volume usable on this node.
    Stage(Stage),
    /// The inverse of staging.
    Unstage(Unstage),
    /// Mount a staged volume at a target.
    Publish(Publish),
    /// The inverse of publishing.
    Unpublish(Unpublish),
}

/// A `NodeStageVolume` whose fields have been checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stage {
    pub(super) volume_id: String,
    pub(super) volume: VolumeReference,
    pub(super) staging: TargetPath,
    /// Whether no controller has attached the volume to this node, so that staging attaches and unstaging detaches it.
    pub(super) takes_lease: bool,
}

/// A `NodeUnstageVolume` whose fields have been checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unstage {
    pub(super) volume_id: String,
    pub(super) staging: TargetPath,
}

/// A `NodePublishVolume` whose fields have been checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Publish {
    pub(super) volume_id: String,
    pub(super) staging: TargetPath,
    pub(super) target: TargetPath,
    pub(super) directory: TargetDirectory,
    pub(super) flags: MountFlags,
    /// Whether the volume may have no second target.
    pub(super) single_target: bool,
}

/// A `NodeUnpublishVolume` whose fields have been checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unpublish {
    pub(super) volume_id: String,
    pub(super) target: TargetPath,
    pub(super) directory: TargetDirectory,
}

/// The path an operation works on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    Staging(PathBuf),
    Target(PathBuf),
}

impl Operation for NodeOperation {
    type Slot = Slot;

    fn name(&self) -> &'static str {
        match self {
            Self::Stage(_) => "stage",
            Self::Unstage(_) => "unstage",
            Self::Publish(_) => "publish",
            Self::Unpublish(_) => "unpublish",
        }
    }

    fn subject(&self) -> Subject<'_> {
        let (volume_id, staging, target) = match self {
            Self::Stage(stage) => (&stage.volume_id, Some(&stage.staging), None),
            Self::Unstage(unstage) => (&unstage.volume_id, Some(&unstage.staging), None),
            Self::Publish(publish) => (&publish.volume_id, Some(&publish.staging), Some(&publish.target)),
            Self::Unpublish(unpublish) => (&unpublish.volume_id, None, Some(&unpublish.target)),
        };
        Subject {
            volume_id: Some(volume_id.into()),
            staging: staging.map(TargetPath::as_path),
            target: target.map(TargetPath::as_path),
            ..Subject::default()
        }
    }

    fn slot(&self) -> Slot {
        let staging = |path: &TargetPath| Slot::Staging(path.as_path().to_owned());
        let target = |path: &TargetPath| Slot::Target(path.as_path().to_owned());
        match self {
            Self::Stage(stage) => staging(&stage.staging),
            Self::Unstage(unstage) => staging(&unstage.staging),
            Self::Publish(publish) => target(&publish.target),
            Self::Unpublish(unpublish) => target(&unpublish.target),
        }
    }

    fn is_inverse_of(&self, running: &Self) -> bool {
        matches!(
            (self, running),
            (Self::Unstage(_), Self::Stage(_)) | (Self::Unpublish(_), Self::Publish(_))
        )
    }
}

impl fmt::Display for NodeOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(Stage {
                volume_id, staging, ..
            }) => {
                write!(f, "staging volume {volume_id} at {}", staging.as_path().display())
            }
            Self::Unstage(Unstage { volume_id, staging }) => {
                write!(
                    f,
                    "unstaging volume {volume_id} from {}",
                    staging.as_path().display()
                )
            }
            Self::Publish(Publish {
                volume_id, target, ..
            }) => {
                write!(
                    f,
                    "publishing volume {volume_id} at {}",
                    target.as_path().display()
                )
            }
            Self::Unpublish(Unpublish {
                volume_id, target, ..
            }) => {
                write!(
                    f,
                    "unpublishing volume {volume_id} from {}",
                    target.as_path().display()
                )
            }
        }
    }
}
