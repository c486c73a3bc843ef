//! Where the demo takes place: a mount namespace and a directory of its own.

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

/// How long what is in use is waited for at the end, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Gives the calling thread, and those it starts from here on, a mount namespace in which mounts are shared among
/// themselves, as they are on a host, and with nobody else.
///
/// # Errors
/// The process is not root, or may not do so for another reason.
pub fn enter_own_namespace() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Failed(
            "the demo attaches loop devices and mounts file systems, so it has to be run by root: sudo flocker-csi demo"
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
        let text = "get a mount namespace of its own for the demo (in a container it has to be privileged)";
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

/// A temporary directory that is a file system of its own, in memory.
pub(super) struct Workplace {
    directory: TempDir,
}

impl Workplace {
    pub(super) async fn make() -> Result<Self, Failure> {
        blocking(|| {
            let directory = tempfile::Builder::new()
                .prefix("flocker-csi-demo-")
                .tempdir()
                .map_err(|error| Failure::while_doing("make a temporary directory", &error))?;
            // The plugins make device nodes in it, which a temporary directory need not allow.
            mount(
                "flocker-csi-demo",
                directory.path(),
                "tmpfs",
                MountFlags::empty(),
                Some(c"mode=0700"),
            )
            .map_err(|error| {
                let doing = format!("mount a file system in memory at {}", directory.path().display());
                Failure::while_doing(doing, &io::Error::from(error))
            })?;
            Ok(Self { directory })
        })
        .await?
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it as soon as nothing in it is in use any more.
    pub(super) async fn remove(self) -> Result<(), String> {
        let give_up = Instant::now() + PATIENCE;
        // Tasks that have been told to end may still hold a file for a moment.
        while let Err(problem) = self.release().await {
            if Instant::now() > give_up {
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

/// Runs what blocks off the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::Failed(error::chain(&error)))
}
