//! The mount namespace and the directory of the measurements, which leave nothing behind.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

use crate::Result;

const LOOP_CTL_REMOVE: libc::Ioctl = 0x4C81;

/// Gives the calling thread, and the threads it starts from now on, a mount namespace of its own. As on a host, its
/// mounts are shared within it, but not with any other namespace.
#[allow(
    unsafe_code,
    reason = "the descriptor table, which is what makes unshare unsafe, stays shared"
)]
pub(crate) fn enter_own_namespace() -> Result<()> {
    // SAFETY: without CLONE_FILES every descriptor stays valid in every thread.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
    unshared.map_err(|error| format!("cannot create a mount namespace (it needs root): {error}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

/// A directory for all files of the measurements, partly in memory and partly on a disk.
pub(crate) struct Workspace {
    directory: TempDir,
    /// The loop devices that existed before.
    devices_before: BTreeSet<PathBuf>,
}

impl Workspace {
    /// Creates the directory below TMPDIR.
    pub(crate) fn make() -> Result<Self> {
        let parent = std::env::temp_dir().canonicalize()?;
        let directory = tempfile::Builder::new()
            .prefix("flocker-csi-bench-")
            .tempdir_in(parent)?;
        let workspace = Self {
            devices_before: loop_devices()?,
            directory,
        };
        let memory = workspace.memory();
        fs::create_dir(&memory)?;
        mount(
            "flocker-csi-bench",
            &memory,
            "tmpfs",
            MountFlags::empty(),
            Some(c"mode=0700"),
        )?;
        Ok(workspace)
    }

    /// Returns the directory itself, which is below TMPDIR.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns a directory in memory, so that no disk affects the measurement.
    pub(crate) fn memory(&self) -> PathBuf {
        self.directory().join("memory")
    }

    /// Returns a directory on the disk, for volumes that would take too much memory.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory().join("disk")
    }

    /// Unmounts, detaches and removes everything that a measurement has created. Its processes have ended.
    pub(crate) fn clear(&self) -> Result<()> {
        // Read before the unmount, because afterwards the names of the files no longer show where they were.
        let devices = self.attached()?;
        // An object that is already removed is no error. Every removal is tried, and an object that remains is the error.
        for point in self.mount_points()? {
            unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).ok();
        }
        for devices in devices.chunks(100) {
            Command::new("losetup").arg("--detach").args(devices).status()?;
        }
        let left = self.attached()?;
        if !left.is_empty() {
            return Err(format!("loop devices are left attached: {left:?}").into());
        }
        self.remove_devices()?;
        for directory in [self.memory(), self.disk()] {
            empty(&directory)?;
        }
        Ok(())
    }

    /// Returns the mounts inside, the last mount first; the file system in memory stays.
    fn mount_points(&self) -> Result<Vec<PathBuf>> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
        let points = table
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(4))
            .map(PathBuf::from);
        Ok(points
            .filter(|point| point.starts_with(self.directory()) && *point != self.memory())
            .collect())
    }

    /// Returns the loop devices whose file is inside.
    fn attached(&self) -> Result<Vec<PathBuf>> {
        let inside = |device: &PathBuf| {
            let name = device.file_name().unwrap_or_default();
            let file = fs::read_to_string(Path::new("/sys/block").join(name).join("loop/backing_file"));
            file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(self.directory()))
        };
        Ok(loop_devices()?.into_iter().filter(inside).collect())
    }

    /// Removes the devices that the kernel has made meanwhile, also those that were detached before: looking through a thousand
    /// free devices takes each later attachment milliseconds. A device that another process uses stays.
    fn remove_devices(&self) -> Result<()> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let devices = loop_devices()?;
        let ours = devices.difference(&self.devices_before);
        for number in
            ours.filter_map(|device| device.to_str()?.strip_prefix("/dev/loop")?.parse::<i32>().ok())
        {
            match remove_device(control.as_raw_fd(), number) {
                Err(error) if ![Errno::BUSY, Errno::NODEV].iter().any(|errno| is(&error, *errno)) => {
                    return Err(error.into());
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let cleared = self.clear();
        let memory = unmount(self.memory(), UnmountFlags::DETACH);
        if let Err(error) = cleared.and(memory.map_err(Into::into)) {
            eprintln!(
                "bench: {} is not cleaned up: {}",
                self.directory().display(),
                crate::chain(&*error)
            );
        }
    }
}

/// Returns every loop device, used or not.
fn loop_devices() -> Result<BTreeSet<PathBuf>> {
    let names = fs::read_dir("/sys/block")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    let loops = names
        .into_iter()
        .filter(|name| name.to_string_lossy().starts_with("loop"));
    Ok(loops.map(|name| Path::new("/dev").join(name)).collect())
}

#[allow(unsafe_code, reason = "no crate wraps the ioctls of loop devices")]
fn remove_device(control: i32, number: i32) -> io::Result<()> {
    // SAFETY: the request takes an integer and writes no memory of this process.
    let result = unsafe { libc::ioctl(control, LOOP_CTL_REMOVE, number) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Empties a directory and keeps it.
fn empty(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
