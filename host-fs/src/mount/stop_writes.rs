//! Shutting down the file system of a mount without a flush.
//!
//! A read-only remount does not do that: the kernel refuses it while a file is open for writing, it does not reach copies of
//! the mount in other namespaces, and it writes everything that is cached. The shutdown concerns the file system itself,
//! whatever shows it, and drops what is cached.
#![allow(
    unsafe_code,
    reason = "no crate wraps the ioctl that shuts a file system down"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, XattrFlags, fsetxattr, openat};
use rustix::io::Errno;

use super::handle::MountHandle;

/// `EXT4_IOC_SHUTDOWN`, which has the number of `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587D_u32 as libc::Ioctl;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH` and `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`.
const WITHOUT_FLUSH: u32 = 2;
/// An attribute that no file has.
const ABSENT: &str = "trusted.flocker-csi.absent";

/// Why writes to a file system could not be stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The kernel cannot shut this kind of file system down; ext4 and XFS it can.
    #[error("the kernel cannot shut down a file system of type {0}")]
    Unsupported(String),
    /// The kernel refused.
    #[error("cannot {step} the file system on device {device}")]
    Io {
        /// What was refused.
        step: &'static str,
        /// Its device.
        device: super::Device,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Every mount of the file system is covered by another one.
    #[error("no mount of the file system can be opened: another one covers {}", .0.display())]
    Hidden(PathBuf),
    /// The shutdown succeeded, and a write is still accepted.
    #[error("the file system on device {0} accepts writes although it was shut down")]
    StillWritable(super::Device),
}

/// Shuts down the file system of a mount: from then on it writes nothing of what is cached, and every read, write and sync
/// through any mount of it, in any namespace, fails. Repeating it changes nothing.
///
/// Two things of ext4 are still written: the superblock of its journal, by the shutdown, and the metadata that it had committed
/// to the journal, which the kernel writes to its place within `vm.dirty_expire_centisecs` or at the unmount. Nothing prevents
/// that, so a device that another machine writes to by then is damaged all the same.
///
/// # Errors
/// [`StopError::Unsupported`] where the file system has no shutdown; [`StopError::StillWritable`] when it did not help.
pub fn stop_writes(mount: &MountHandle) -> Result<(), StopError> {
    let device = mount.mount().device;
    let failed = |step| {
        move |source: Errno| StopError::Io {
            step,
            device,
            source: source.into(),
        }
    };
    // A number that another driver might understand otherwise.
    if !matches!(mount.mount().fs_type.as_str(), "ext4" | "ext3" | "ext2" | "xfs") {
        return Err(StopError::Unsupported(mount.mount().fs_type.clone()));
    }
    // The descriptor of the mount itself is one of a path, through which the kernel accepts no request.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(mount, ".", flags, Mode::empty()).map_err(failed("open the root of"))?;
    match shut_down(root.as_fd()) {
        Ok(()) => {}
        // An ext2 or ext3 that its own driver serves.
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => {
            return Err(StopError::Unsupported(mount.mount().fs_type.clone()));
        }
        Err(errno) => return Err(failed("shut down")(errno)),
    }
    match try_to_write(root.as_fd()) {
        Err(Errno::IO | Errno::ROFS | Errno::SHUTDOWN) => Ok(()),
        _ => Err(StopError::StillWritable(device)),
    }
}

/// Attempts a write that changes nothing where it is possible: it replaces an attribute that does not exist. The file system
/// begins a transaction for that before it looks for the attribute.
fn try_to_write(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fsetxattr(root, ABSENT, b"", XattrFlags::REPLACE)
}

fn shut_down(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let how = WITHOUT_FLUSH;
    // SAFETY: the kernel reads a `__u32` at this address, and writes nothing.
    let answer = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
    if answer == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;

    use super::super::lookup::visible_at;
    use super::super::open_mount;
    use super::super::testing::{LoopDevice, bind, in_own_namespace, tmpfs, unmount};
    use super::*;

    #[test]
    fn a_file_system_that_is_shut_down_takes_no_write_through_any_mount_or_open_file() {
        in_own_namespace(|scratch| {
            let (device, point, copy) = (LoopDevice::new(), scratch.join("a"), scratch.join("copy"));
            device.mount(&point);
            bind(&point, &copy);
            fs::write(point.join("file"), "before").unwrap();
            let mut open = OpenOptions::new().append(true).open(copy.join("file")).unwrap();
            open.write_all(b"cached").unwrap();
            let root = File::open(&point).unwrap();
            assert_eq!(try_to_write(root.as_fd()), Err(Errno::NODATA), "it is writable");

            let mount = visible_at(&point).unwrap().unwrap();
            let handle = open_mount(&mount).unwrap();
            stop_writes(&handle).unwrap();
            stop_writes(&handle).unwrap();
            assert_eq!(try_to_write(root.as_fd()), Err(Errno::IO));
            for outcome in [
                open.write_all(b"after"),
                open.sync_all(),
                fs::write(copy.join("new"), "after"),
            ] {
                assert_eq!(
                    outcome.unwrap_err().raw_os_error(),
                    Some(Errno::IO.raw_os_error())
                );
            }
            // It can still be unmounted.
            drop((handle, root, open));
            for path in [&copy, &point] {
                unmount(path);
            }
        });
    }

    #[test]
    fn a_file_system_without_a_shutdown_is_reported_and_stays_as_it_is() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            tmpfs(&point);
            let handle = open_mount(&visible_at(&point).unwrap().unwrap()).unwrap();
            let error = stop_writes(&handle).unwrap_err();
            assert!(
                matches!(&error, StopError::Unsupported(kind) if kind == "tmpfs"),
                "{error}"
            );
            fs::write(point.join("file"), "").unwrap();
        });
    }
}
