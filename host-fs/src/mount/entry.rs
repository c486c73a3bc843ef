//! One mount as the kernel describes it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;
use serde::{Deserialize, Serialize};

/// Identifies the device that holds a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The number of the driver.
    pub major: u32,
    /// The number of the device within its driver.
    pub minor: u32,
}

impl Device {
    /// Splits the `dev_t` of a stat call.
    pub fn from_raw(raw: rustix::fs::Dev) -> Device {
        Device {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }

    /// Returns the `dev_t` the system calls want.
    pub fn to_raw(self) -> rustix::fs::Dev {
        rustix::fs::makedev(self.major, self.minor)
    }

    /// Returns whether the file system lies on a block device.
    ///
    /// The kernel numbers file systems without one (ZFS, btrfs, tmpfs, NFS) under major 0.
    pub fn is_block(self) -> bool {
        self.major != 0
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.major, self.minor)
    }
}

/// How a mount takes part in the propagation of mounts made below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Propagation {
    /// The group it is shared with (`shared:N`).
    pub peer_group: Option<u64>,
    /// The group it receives from (`master:N`).
    pub master: Option<u64>,
    /// The nearest visible group it receives from (`propagate_from:N`).
    pub propagate_from: Option<u64>,
    /// Whether it may not be bound elsewhere.
    pub unbindable: bool,
}

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// The id of the mount; the kernel gives it to another one after the unmount.
    pub id: u64,
    /// The id of the mount it lies on.
    pub parent: u64,
    /// The device of the file system, as `st_dev` shows it.
    pub device: Device,
    /// The directory of the file system that forms the root of the mount.
    pub root: PathBuf,
    /// Where it is mounted, relative to the root directory of the process.
    pub point: PathBuf,
    /// Its own flags, as opposed to those of the file system.
    pub attributes: MountAttrFlags,
    /// How it propagates.
    pub propagation: Propagation,
    /// The type of the file system with its subtype, such as `ext4` or `fuse.sshfs`.
    pub fs_type: String,
    /// The source as the mounting process spelled it.
    pub source: OsString,
    /// The options of the file system, comma-separated and escaped as in the mount table.
    pub super_options: OsString,
}

impl Mount {
    /// Returns whether writing through this mount is refused.
    pub fn read_only(&self) -> bool {
        self.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Returns whether the file system itself refuses writes, usually after an I/O error.
    ///
    /// Since Linux 6.15 ext4 shows that as `emergency_ro` and leaves `rw` in place.
    pub fn file_system_read_only(&self) -> bool {
        self.super_options
            .as_encoded_bytes()
            .split(|&byte| byte == b',')
            .any(|option| matches!(option, b"ro" | b"emergency_ro" | b"shutdown"))
    }

    /// Returns whether the file system was shut down, as far as the kernel shows that: of ext4 since Linux 6.9.
    pub fn file_system_shut_down(&self) -> bool {
        self.super_options
            .as_encoded_bytes()
            .split(|&byte| byte == b',')
            .any(|option| option == b"shutdown")
    }

    /// Returns whether mounts made below it appear in other mount namespaces too.
    pub fn shared(&self) -> bool {
        self.propagation.peer_group.is_some()
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} of {} at {} (mount {}, device {})",
            self.fs_type,
            self.source.display(),
            self.point.display(),
            self.id,
            self.device
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_survives_the_kernel_encoding() {
        for device in [
            Device { major: 0, minor: 39 },
            Device {
                major: 259,
                minor: 1_048_575,
            },
        ] {
            assert_eq!(Device::from_raw(device.to_raw()), device);
        }
    }

    #[test]
    fn only_a_real_driver_means_a_block_device() {
        assert!(Device { major: 7, minor: 0 }.is_block());
        assert!(!Device { major: 0, minor: 51 }.is_block());
    }
}
