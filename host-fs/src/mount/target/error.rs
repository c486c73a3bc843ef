//! Why a path cannot be used as a mount point.

use std::io;
use std::path::PathBuf;

use super::path::{LONG_NAME, NO_ROOM, TOO_LONG};

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The path cannot be a mount point on any machine.
    #[error("path {path:?} {reason}")]
    Invalid {
        /// The path as it came, cut if it is long.
        path: String,
        /// What is wrong with it, as the end of a sentence.
        reason: &'static str,
    },
    /// A directory above the path does not exist.
    #[error("the directory {} does not exist; the orchestrator must make it before the volume is mounted in it", .0.display())]
    NoParent(PathBuf),
    /// Something above the path is no directory.
    #[error("{} is not a directory, so there can be no mount point below it", .0.display())]
    ParentNotDirectory(PathBuf),
    /// The path itself is a symbolic link: mounting would happen somewhere else.
    #[error("{} is a symbolic link; the path of a mount must be the directory itself", .0.display())]
    SymbolicLink(PathBuf),
    /// A symbolic link on the way could be replaced by a user other than root, to lead somewhere else.
    #[error("{} is a symbolic link in a directory that users other than root may write, so it is not followed; use the path \
             that it leads to, or make the directory root's alone", .0.display())]
    UntrustedLink(PathBuf),
    /// What was a directory has become a symbolic link.
    #[error("{} has become a symbolic link since the volume was staged below it, so it is not followed; put the directory \
             back", .0.display())]
    LinkOnTheWay(PathBuf),
    /// The path itself is something else than a directory.
    #[error("{} exists and is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The directory is not empty, so it is not removed.
    #[error("the directory {} is not empty after the unmount, so it is kept; check what is in it", .0.display())]
    NotEmpty(PathBuf),
    /// Something is in the directory, which a mount would hide.
    #[error("the directory {} is not empty: {content}; a volume mounted over it would hide that, so move it elsewhere first",
        .path.display())]
    HoldsData {
        /// The directory.
        path: PathBuf,
        /// What is in it, in words.
        content: String,
    },
    /// The file system refused a step.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    /// Makes the error of a path that can be no mount point, which is cut in the message if it is long.
    pub(super) fn invalid(path: &str, reason: &'static str) -> TargetError {
        TargetError::Invalid {
            path: path.chars().take(200).collect(),
            reason,
        }
    }

    /// Returns whether the path is longer than the kernel takes.
    pub fn is_too_long(&self) -> bool {
        matches!(self, TargetError::Invalid { reason, .. } if matches!(*reason, TOO_LONG | NO_ROOM | LONG_NAME))
    }

    /// Returns whether nothing can be mounted at the path because a directory above it does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, TargetError::NoParent(_))
    }
}
