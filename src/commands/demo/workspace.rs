//! The mount namespace and the temporary directory of the demo.

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
use crate::telemetry::spawn_blocking;

/// How long to wait at the end for files in use, and how often to try.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Moves the calling thread, and those that it starts later, to a mount namespace whose mounts are shared within it, as on
/// a host, but not with the host.
///
/// # Errors
/// The process is not root, or the kernel refuses.
pub fn enter_own_namespace() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Failed(
            "the demo attaches loop devices and mounts file systems, which needs root: run sudo flocker-csi demo"
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
        let text = "create a mount namespace for the demo (in a container, that has to be privileged)";
        Failure::context(text, &io::Error::from(error))
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

/// A temporary directory with a file system in memory.
pub(super) struct Workspace {
    directory: TempDir,
}

impl Workspace {
    pub(super) async fn create() -> Result<Self, Failure> {
        blocking(|| {
            let directory = tempfile::Builder::new()
                .prefix("flocker-csi-demo-")
                .tempdir()
                .map_err(|error| Failure::context("create a temporary directory", &error))?;
            // The plugins create device nodes in it, which the file system of a temporary directory may not allow.
            mount(
                "flocker-csi-demo",
                directory.path(),
                "tmpfs",
                MountFlags::empty(),
                Some(c"mode=0700"),
            )
            .map_err(|error| {
                let doing = format!("mount a file system in memory at {}", directory.path().display());
                Failure::context(doing, &io::Error::from(error))
            })?;
            Ok(Self { directory })
        })
        .await?
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it as soon as no file in it is in use.
    pub(super) async fn remove(self) -> Result<(), String> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        // Cancelled tasks may still hold a file for a moment.
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

    /// Unmounts it unless something in it is in use.
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

/// Runs blocking work on a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Failure::Failed(error::chain(&error)))
}
