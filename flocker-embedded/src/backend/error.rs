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
        "the file system of {path} has no room for the {size} bytes of the volume, which are taken when it is made; free some, \
         or allocate volumes thin"
    )]
    NoSpace { path: PathBuf, size: u64 },
    #[error(
        "the file system of {0} cannot reserve room for a volume (fallocate(2) is not supported); use another file system, or \
         allocate volumes thin"
    )]
    CannotAllocate(PathBuf),
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
    #[error(
        "two loop devices, {0} and {1}, have the backing file, and two kernels' views of one file system destroy it; it \
         is not mounted until one of them is detached (`losetup --detach`)"
    )]
    AttachedTwice(PathBuf, PathBuf),
    #[error(
        "its backing file {path} is missing{}. The volume was formatted and may have data, so it is not made again. \
         Mount the file system that has the file, or restore it from a backup: the agent then finds it. If the data are \
         not needed, delete the volume", describe_device(device.as_deref())
    )]
    Missing {
        path: PathBuf,
        /// A loop device that still has the file, which has no name any more.
        device: Option<PathBuf>,
    },
    #[error(
        "no storage is made in {directory}, because none of the {missing} volume(s) that were made there is found, as if \
         its file system were not mounted. Mount it; if the volumes are lost, delete them"
    )]
    NotMounted { directory: PathBuf, missing: usize },
    #[error(
        "{0} exists, and the state file knows no storage of this dataset, as if the state file were older than the \
         volumes: the file may have data, so it is neither used nor replaced. Restore the state file that belongs to \
         the volumes, or move the file away; then the volume is made"
    )]
    Unknown(PathBuf),
    #[error(
        "{0} is not a regular file, as a volume is: nothing is done to it or to what it leads to. Put the file itself \
         there, or remove what is there"
    )]
    NotAFile(PathBuf),
    #[error(
        "{path} has {found} bytes, and {expected} were expected: its end is lost, so it is not mounted. Restore it from a \
         backup; if the data are not needed, delete the volume"
    )]
    Shortened {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error(
        "{path} was formatted, and no ext4 file system is found on it ({found}): it is damaged, and it is not formatted \
         again. The copies of its superblock may save it: `e2fsck -b 32768 {path}` (`-b 8193` for one of less than 512 MiB that \
         an earlier version has made); else restore it from a backup. If the data are not needed, delete the volume"
    )]
    Damaged { path: PathBuf, found: &'static str },
    #[error(
        "{path} has the file system {found}, and {expected} was made there: it is another volume's, or was copied over, \
         so it is not mounted. Put the right file there; if this is the right one, `tune2fs -U {expected} {path}` says so"
    )]
    OtherFileSystem {
        path: PathBuf,
        found: Uuid,
        expected: Uuid,
    },
    #[error("the storage is not recorded as being formatted, so no file system is made on {0}")]
    NotFormatting(PathBuf),
    #[error(
        "the kernel refuses to mount {device} ({source}): its file system is damaged; `dmesg` has the reason, and \
         `e2fsck {device}` may repair it. It is not formatted again"
    )]
    MountRefused { device: PathBuf, source: io::Error },
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

fn describe_device(device: Option<&Path>) -> String {
    device.map_or_else(String::new, |device| {
        format!(
            ", and the loop device {} still has it: copy the content of that device before it is detached",
            device.display()
        )
    })
}

/// The result of a step for each of several datasets.
pub(crate) type Outcomes<T> = Vec<(Uuid, Result<T, StepError>)>;
