//! The demo's mount namespace and directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::commands::failure::Failure;
use crate::error;

/// How long the removal waits for files in use, and how often it tries again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Gives the calling thread, and the threads it starts from now on, a mount namespace of its own. As on a host, its
/// mounts are shared within it, but not with any other namespace.
///
/// # Errors
/// The process is not root, or lacks permission for another reason.
pub fn enter_own_namespace() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Failed(
            "the demo attaches loop devices and mounts file systems, so it must be run by root: sudo flocker-csi demo"
                .to_owned(),
        ));
    }
    let enter = || -> rustix::io::Result<()> {
        unshare_mounts()?;
        let all = MountPropagationFlags::REC;
        mount_change("/", MountPropagationFlags::PRIVATE | all)?;
        mount_change("/", MountPropagationFlags::SHARED | all)
    };
    enter().map_err(|error| {
        let text = "create a mount namespace for the demo (a container must be privileged)";
        Failure::while_doing(text, &io::Error::from(error))
    })
}

#[allow(
    unsafe_code,
    reason = "rustix marks all of unshare as unsafe for the sake of CLONE_FILES alone"
)]
fn unshare_mounts() -> rustix::io::Result<()> {
    // SAFETY: without CLONE_FILES the descriptors of all threads stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
}

/// A temporary directory with a tmpfs mounted on it.
pub(super) struct Workspace {
    directory: TempDir,
}

impl Workspace {
    pub(super) async fn make() -> Result<Self, Failure> {
        blocking(|| {
            let directory = tempfile::Builder::new()
                .prefix("flocker-csi-demo-")
                .tempdir()
                .map_err(|error| Failure::while_doing("create a temporary directory", &error))?;
            // The plugins create device nodes in it, which the file system of temporary directories may forbid.
            mount(
                "flocker-csi-demo",
                directory.path(),
                "tmpfs",
                MountFlags::empty(),
                Some(c"mode=0700"),
            )
            .map_err(|error| {
                let doing = format!("mount a tmpfs at {}", directory.path().display());
                Failure::while_doing(doing, &io::Error::from(error))
            })?;
            Ok(Self { directory })
        })
        .await?
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it as soon as nothing in it is in use.
    pub(super) async fn remove(self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        // Tasks that are stopping may still hold a file for a moment.
        while let Err(problem) = self.release().await {
            if Instant::now() > deadline {
                return Err(problem);
            }
            sleep(PAUSE).await;
        }
        let path = self.path().to_owned();
        let removed = blocking(move || self.directory.close())
            .await
            .map_err(|failure| failure.lines().join("; "))?;
        removed.map_err(|error| format!("cannot remove {}: {error}", path.display()))
    }

    /// Unmounts it unless a file in it is in use.
    async fn release(&self) -> Result<(), String> {
        let path = self.path().to_owned();
        let released = blocking(move || {
            let loops = loop_devices_on(&path);
            if !loops.is_empty() {
                return Err(format!(
                    "{} still uses a file in {}",
                    loops.join(", "),
                    path.display()
                ));
            }
            unmount(&path, UnmountFlags::empty())
                .map_err(|error| format!("cannot unmount {}: {}", path.display(), io::Error::from(error)))
        });
        released.await.map_err(|failure| failure.lines().join("; "))?
    }
}

/// Returns the loop devices whose backing file is in `directory`.
fn loop_devices_on(directory: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let backing_file = |device: &PathBuf| fs::read_to_string(device.join("loop/backing_file")).ok();
    devices
        .filter_map(|device| Some(device.ok()?.path()))
        .filter(|device| {
            backing_file(device).is_some_and(|file| Path::new(file.trim_end()).starts_with(directory))
        })
        .filter_map(|device| Some(format!("/dev/{}", device.file_name()?.display())))
        .collect()
}

/// Runs blocking work off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Failed(error::chain(&error)))
}
