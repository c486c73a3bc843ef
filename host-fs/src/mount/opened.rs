//! Taking hold of one particular mount.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, open, statx};

use super::entry::{Device, Mount};

/// Why a mount could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its root directory cannot be opened or looked at.
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
        /// The id of what is there.
        found_id: u64,
        /// The device of what is there.
        found_device: Device,
    },
}

/// Opens the root of a mount without any access to its contents (`O_PATH`).
///
/// The descriptor keeps the mount from being unmounted, and leads to it whatever is mounted over it later.
pub fn open_mount(mount: &Mount) -> Result<OwnedFd, OpenError> {
    let failed = |source| OpenError::Io {
        path: mount.point.clone(),
        source,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(&mount.point, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let (found_id, found_device) = identify(&root).map_err(failed)?;
    // An id is free for others once its mount has gone, so it proves nothing alone. Without a block device the
    // file system may show other device numbers than the mount table does (btrfs).
    if found_id == mount.id && (found_device == mount.device || !mount.device.is_block()) {
        Ok(root)
    } else {
        Err(OpenError::Replaced {
            expected: Box::new(mount.clone()),
            found_id,
            found_device,
        })
    }
}

/// Returns the id of the mount a descriptor leads to, and the device of the file system.
fn identify(root: impl AsFd) -> io::Result<(u64, Device)> {
    let root = root.as_fd();
    let status = statx(
        root,
        "",
        // Neither number is for a server to tell, which may hang.
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

/// Reads the id where statx(2) does not tell it, before Linux 5.8.
fn id_from_fdinfo(root: &impl AsRawFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", root.as_raw_fd()))?;
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell the mount of an open file"))
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
            assert_eq!(id_from_fdinfo(&root).unwrap(), mount.id);
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
