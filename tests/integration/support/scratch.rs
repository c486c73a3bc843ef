//! A temporary directory for real file systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use super::mounts::Mounts;

/// A temporary directory that removes the mounts below it and the loop devices on its files with it.
pub(crate) struct Scratch {
    _directory: TempDir,
    /// Free of symbolic links.
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    /// Returns the directory, free of symbolic links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clean_up(&self.path);
        USED.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.path.clone());
    }
}

/// The directories of tests that have ended.
static USED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes files of blocking steps that still ran when a test left its directory.
///
/// Called when the test's runtime has ended, and with it those steps, in the test's namespace.
pub(crate) fn clean_up_after_runtime() {
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for directory in used {
        clean_up(&directory);
    }
}

fn clean_up(directory: &Path) {
    // Before the unmount: files on a mount of their own lose the names under which they were opened.
    let devices = loop_devices_on(directory);
    // The last one first: mounts may be stacked.
    for mount in Mounts::read().below(directory).iter().rev() {
        unmount(&mount.point, UnmountFlags::DETACH).ok();
    }
    for device in devices {
        Command::new("losetup").arg("--detach").arg(device).status().ok();
    }
}

/// Returns the loop devices whose file is below `directory`, deleted or not.
pub(crate) fn loop_devices_on(directory: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap());
    let on_directory = devices.filter(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(directory))
    });
    on_directory
        .map(|device| Path::new("/dev").join(device.file_name()))
        .collect()
}
