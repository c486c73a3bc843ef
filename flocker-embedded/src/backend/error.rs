//! Why a step was not carried out.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

/// Why a step was not carried out. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(
        "the volume needs {size} bytes, and of the capacity of {capacity} bytes only {free} are free; \
         delete other volumes or raise the capacity"
    )]
    OverCapacity { size: u64, capacity: u64, free: u64 },
    #[error(
        "the loop device {0} still has the backing file (a mount or an open descriptor keeps it); no other \
         loop device may have it until that one is free"
    )]
    StillAttached(PathBuf),
    #[error(
        "the loop device {0} has the backing file already, and nobody knows for which node; no other loop \
         device may have it until that one is free"
    )]
    AttachedByOthers(PathBuf),
    #[error(
        "the loop device {0} no longer has the backing file: another process has detached it, and may have attached \
         another file; the agent attaches the backing file again"
    )]
    NotAttached(PathBuf),
    #[error("cannot unmount {0}: something on it is in use")]
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
    #[error("cannot record it in the state file")]
    State(#[source] io::Error),
    #[error("the step broke down")]
    Task(#[source] tokio::task::JoinError),
    /// One error that stopped several datasets.
    #[error(transparent)]
    Common(Arc<StepError>),
}

impl StepError {
    /// Tells whether the next try is likely to succeed: somebody may only have looked at the device.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::StillAttached(_) | Self::Busy(_))
    }

    /// Returns a closure that wraps an error of the system with what was being done to what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What became of each of several datasets.
pub(crate) type Outcomes<T> = Vec<(Uuid, Result<T, StepError>)>;
