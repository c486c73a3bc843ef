//! An open mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};
use rustix::io::Errno;

use super::entry::{Device, Mount};
use super::lookup::{self, Mounted};
use super::statmount;
use super::table::{MountTable, TableError};

/// Why a mount could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its root directory cannot be opened or examined.
    #[error("cannot open the mount at {}", .path.display())]
    Io {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Another mount is at its place.
    #[error("expected {expected}, but there is mount {found_id} of device {found_device} at that path")]
    Replaced {
        /// The mount that was to be opened.
        expected: Box<Mount>,
        /// The id of the mount found.
        found_id: u64,
        /// The device of the mount found.
        found_device: Device,
    },
    /// The mount table could not be read.
    #[error("cannot describe the mount at {}", .path.display())]
    Table {
        /// Where the mount is.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

/// A mount whose root directory is open, without any access to its contents (`O_PATH`).
///
/// The descriptor keeps the mount from being unmounted, and leads to it even when another mount covers it later.
#[derive(Debug)]
pub struct MountHandle {
    mount: Mount,
    root: OwnedFd,
}

impl MountHandle {
    /// Returns the mount, as it was when it was opened.
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Takes a descriptor that another process has opened for the root of a mount of the table; `None` when it leads to no
    /// such mount, or not to its root.
    ///
    /// While it is open, the kernel gives the id of its mount to no other one, in any namespace.
    pub fn of_kept(root: OwnedFd, table: &MountTable) -> Option<MountHandle> {
        let (id, device) = identify(&root).ok()?;
        let mount = table.by_id(id).filter(|mount| mount.device == device)?.clone();
        let opened = open_mount(&mount).ok()?;
        let inode = |of: &OwnedFd| rustix::fs::fstat(of).ok().map(|status| status.st_ino);
        (inode(&opened.root) == inode(&root)).then_some(MountHandle { mount, root })
    }

    /// Takes a directory that was opened at a path for the root of the mount there; `None` when nothing is mounted
    /// there.
    pub(super) fn at(opened: Result<OwnedFd, Errno>, path: &Path) -> Result<Option<MountHandle>, OpenError> {
        let failed = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let root = match opened {
            Ok(root) => root,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let described = match lookup::look(&root, "")
            .map_err(|error| failed(error.into()))?
            .mounted
        {
            Mounted::No(_) => return Ok(None),
            Mounted::Yes(id) => statmount::describe(id),
            Mounted::Unknown => None,
        };
        if let Some(described) = described {
            let mount = described.mount;
            return Ok(Some(MountHandle { mount, root }));
        }
        let (id, _) = identify(&root).map_err(failed)?;
        let table = MountTable::read().map_err(|source| OpenError::Table {
            path: path.to_owned(),
            source,
        })?;
        // A directory that is no root has the id of the mount that holds it, which is at another path.
        let mount = table.by_id(id).filter(|mount| mount.point == path).cloned();
        Ok(mount.map(|mount| MountHandle { mount, root }))
    }
}

impl AsFd for MountHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Opens a mount that is the visible one at its point.
///
/// # Errors
/// [`OpenError::Replaced`] when another mount is the visible one; [`OpenError::Io`] when the kernel refuses.
pub fn open_mount(mount: &Mount) -> Result<MountHandle, OpenError> {
    let failed = |source| OpenError::Io {
        path: mount.point.clone(),
        source,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(&mount.point, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let (found_id, found_device) = identify(&root).map_err(failed)?;
    // An id is free for another mount once its mount no longer exists, so it proves nothing alone.
    let same = || -> Result<bool, TableError> {
        if mount.device.is_block() {
            return Ok(found_device == mount.device);
        }
        // Such a file system may show other device numbers than the mount table does (btrfs), so the table decides. What
        // is open keeps its id.
        let found = lookup::top_of(lookup::look(&root, ""), &mount.point)?;
        Ok(found.is_some_and(|found| {
            let found = found.mount;
            (found.id, found.device, &found.root) == (mount.id, mount.device, &mount.root)
        }))
    };
    let table = |source| OpenError::Table {
        path: mount.point.clone(),
        source,
    };
    if found_id == mount.id && same().map_err(table)? {
        Ok(MountHandle {
            mount: mount.clone(),
            root,
        })
    } else {
        Err(OpenError::Replaced {
            expected: Box::new(mount.clone()),
            found_id,
            found_device,
        })
    }
}

/// Returns the id of the mount a descriptor leads to, and the device of the file system.
pub(super) fn identify(root: impl AsFd) -> io::Result<(u64, Device)> {
    let root = root.as_fd();
    let status = statx(
        root,
        "",
        // Neither number comes from a server, which may hang.
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?;
    let device = Device {
        major: status.stx_dev_major,
        minor: status.stx_dev_minor,
    };
    if status.stx_mask & StatxFlags::MNT_ID.bits() != 0 {
        return Ok((status.stx_mnt_id, device));
    }
    Ok((id_from_fdinfo(&root)?, device))
}

/// Reads the id where statx(2) does not return it, before Linux 5.8.
fn id_from_fdinfo(root: &impl AsRawFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", root.as_raw_fd()))?;
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not name the mount of an open file"))
}

#[cfg(test)]
mod tests {
    use super::super::lookup::layers_at;
    use super::super::testing::{in_own_namespace, tmpfs};
    use super::*;

    #[test]
    fn both_ways_to_learn_the_id_agree() {
        in_own_namespace(|scratch| {
            tmpfs(&scratch.join("a"));
            let mount = layers_at(&scratch.join("a")).unwrap().pop().unwrap();
            let root = open_mount(&mount).unwrap();
            assert_eq!(identify(&root).unwrap(), (mount.id, mount.device));
            assert_eq!(id_from_fdinfo(&root.root).unwrap(), mount.id);
            assert_eq!(root.mount(), &mount);
        });
    }

    #[test]
    fn another_mount_at_the_place_is_refused() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            tmpfs(&point);
            let mount = layers_at(&point).unwrap().pop().unwrap();
            tmpfs(&point);
            assert!(matches!(open_mount(&mount), Err(OpenError::Replaced { .. })));
        });
    }

    #[test]
    fn an_id_that_was_given_to_another_device_is_refused() {
        in_own_namespace(|scratch| {
            tmpfs(&scratch.join("a"));
            let mut mount = layers_at(&scratch.join("a")).unwrap().pop().unwrap();
            mount.device = Device { major: 7, minor: 0 };
            assert!(matches!(open_mount(&mount), Err(OpenError::Replaced { .. })));
        });
    }
}
