//! Why a step was not carried out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_fs::mount::TableError;
use uuid::Uuid;

/// Why a step was not carried out. The agent tries it again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(
        "the volume needs {size} bytes, and only {free} of the capacity of {capacity} bytes are free; \
         delete other volumes or raise the capacity"
    )]
    OverCapacity { size: u64, capacity: u64, free: u64 },
    #[error(
        "the loop device {0} still has the backing file (a mount or an open descriptor keeps it); it is attached to \
         no other loop device until that one is free"
    )]
    StillAttached(PathBuf),
    #[error(
        "the loop device {0} has the backing file already, for an unknown node; it is attached to no other loop \
         device until that one is free"
    )]
    AttachedByOthers(PathBuf),
    #[error(
        "the loop device {0} no longer has the backing file: another process has detached it, and may have attached \
         another file; the agent attaches the backing file again"
    )]
    NotAttached(PathBuf),
    #[error("cannot unmount {0}: a process uses a file or directory on it")]
    Busy(PathBuf),
    #[error("{program} failed for {device} ({outcome})")]
    Program {
        program: PathBuf,
        device: PathBuf,
        outcome: String,
    },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("cannot write the state file")]
    State(#[source] io::Error),
    #[error("the step panicked")]
    Task(#[source] tokio::task::JoinError),
    /// One error that stopped the steps of several datasets.
    #[error(transparent)]
    Common(Arc<StepError>),
}

impl StepError {
    /// Returns whether the next attempt is likely to succeed: another process may only have probed the device.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::StillAttached(_) | Self::Busy(_))
    }

    /// Returns a closure that adds to an error of the system what was being done to which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The result of a step for each of several datasets.
pub(crate) type Outcomes<T> = Vec<(Uuid, Result<T, StepError>)>;
