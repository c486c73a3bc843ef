//! Why a record could not be written or read.

use std::io;
use std::path::{Path, PathBuf};

use super::VERSION;

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The file system refused a step.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// The step.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// The file holds no record.
    #[error("the staging record {} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Another release of the plugin wrote the file.
    #[error(
        "the staging record {} has version {version}, but this flocker-csi reads versions up to {VERSION}; \
         run the release that wrote it", .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        version: u64,
    },
    /// An earlier process could not read the file, and has set it aside.
    #[error("the staging record {} could not be read when its volume was staged or unstaged", .path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
    },
    /// The record belongs to another file.
    #[error("the staging record {} describes another volume or path than its name says; it was copied or renamed",
        .path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
    },
}

impl RecordError {
    /// Whether the file does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns the file, or the directory of all files, that the error is about.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Damaged { path, .. }
            | Self::Version { path, .. }
            | Self::SetAside { path }
            | Self::Misplaced { path } => path,
        }
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    move |source| RecordError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
