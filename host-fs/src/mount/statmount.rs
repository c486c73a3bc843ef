//! The description of a single mount, statmount(2).

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;

use super::entry::{Device, Mount, Propagation};
use super::kernel::{self, want};

const WANTED: u64 = want::SB_BASIC
    | want::MNT_BASIC
    | want::PROPAGATE_FROM
    | want::MNT_ROOT
    | want::MNT_POINT
    | want::FS_TYPE
    | want::MNT_NS_ID
    | want::MNT_OPTS
    | want::FS_SUBTYPE
    | want::SB_SOURCE;

/// What every description must hold, or the kernel is too old; empty strings leave no bit behind.
const NEEDED: u64 =
    want::SB_BASIC | want::MNT_BASIC | want::MNT_ROOT | want::MNT_POINT | want::FS_TYPE | want::SB_SOURCE;

/// The fixed part of `struct statmount`, in bytes; the strings follow.
const HEADER: usize = 512;

/// `MS_UNBINDABLE`.
const UNBINDABLE: u64 = 1 << 17;

/// The flags of a superblock that the mount table lists among its options.
const SUPER_FLAGS: [(u32, &str); 4] = [
    (1 << 4, ",sync"),
    (1 << 7, ",dirsync"),
    (1 << 6, ",mand"),
    (1 << 25, ",lazytime"),
];

/// A mount together with the ids that the kernel never gives to another mount.
pub(super) struct Described {
    pub(super) mount: Mount,
    pub(super) unique_id: u64,
    pub(super) unique_parent: u64,
    /// The id of its namespace, which is never used again either.
    pub(super) namespace: Option<u64>,
}

/// Describes a mount, or returns `None` when the kernel cannot: too old, not allowed, or the mount no longer exists.
pub(super) fn describe(unique_id: u64) -> Option<Described> {
    let mut buffer = vec![0; 1024];
    loop {
        match kernel::statmount(unique_id, WANTED, &mut buffer) {
            Ok(()) => return Description(&buffer).decode(),
            Err(error) if too_small(&error) && buffer.len() < 1 << 20 => buffer = vec![0; buffer.len() * 4],
            Err(_) => return None,
        }
    }
}

fn too_small(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOVERFLOW)
}

/// The bytes of a `struct statmount`, read by offset.
struct Description<'a>(&'a [u8]);

impl Description<'_> {
    fn decode(&self) -> Option<Described> {
        let mask = self.wide(8)?;
        if mask & NEEDED != NEEDED {
            return None;
        }
        let mut fs_type = self.string(36)?.to_string_lossy().into_owned();
        if mask & want::FS_SUBTYPE != 0 {
            let subtype = self.string(120)?;
            fs_type = format!("{fs_type}.{}", subtype.to_string_lossy());
        }
        let group = |offset| self.wide(offset).filter(|&group| group != 0);
        let mount = Mount {
            id: self.narrow(56)?.into(),
            parent: self.narrow(60)?.into(),
            device: Device {
                major: self.narrow(16)?,
                minor: self.narrow(20)?,
            },
            root: PathBuf::from(self.string(104)?),
            point: PathBuf::from(self.string(108)?),
            attributes: MountAttrFlags::from_bits_truncate(u32::try_from(self.wide(64)?).ok()?),
            propagation: Propagation {
                peer_group: group(80),
                master: group(88),
                // The table leaves it out when it says nothing beyond `master`.
                propagate_from: group(96)
                    .filter(|_| mask & want::PROPAGATE_FROM != 0)
                    .filter(|&from| Some(from) != group(88)),
                unbindable: self.wide(72)? & UNBINDABLE != 0,
            },
            fs_type,
            source: self.string(124)?,
            super_options: self.super_options(mask)?,
        };
        Some(Described {
            mount,
            unique_id: self.wide(40)?,
            unique_parent: self.wide(48)?,
            namespace: self.wide(112).filter(|_| mask & want::MNT_NS_ID != 0),
        })
    }

    /// Puts the file system's options together the way the mount table does.
    fn super_options(&self, mask: u64) -> Option<OsString> {
        let flags = self.narrow(32)?;
        let mut options = OsString::from(if flags & 1 == 0 { "rw" } else { "ro" });
        for (flag, name) in SUPER_FLAGS {
            if flags & flag != 0 {
                options.push(name);
            }
        }
        if mask & want::MNT_OPTS != 0 {
            options.push(",");
            options.push(self.string(4)?);
        }
        Some(options)
    }

    fn wide(&self, offset: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(*self.0.get(offset..)?.first_chunk()?))
    }

    fn narrow(&self, offset: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.0.get(offset..)?.first_chunk()?))
    }

    /// Returns the string whose position among the strings stands at this offset.
    fn string(&self, offset: usize) -> Option<OsString> {
        let text = self
            .0
            .get(HEADER + usize::try_from(self.narrow(offset)?).ok()?..)?;
        let text = CStr::from_bytes_until_nul(text).ok()?;
        Some(OsStr::from_bytes(text.to_bytes()).to_owned())
    }
}
