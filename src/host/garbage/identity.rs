//! Whether a file is still the one that was found.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use host_fs::{Links, read_regular};

/// The largest file in bytes whose content is compared; of a larger one, length and times are.
const LARGEST: u64 = 1 << 20;

/// What a file was like at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    mode: u32,
    length: u64,
    number: u64,
    changed: (i64, i64),
    content: Option<Vec<u8>>,
}

impl Identity {
    /// Examines a file, which is not followed if it is a link.
    ///
    /// # Errors
    /// The file system refused.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let kind = found.file_type();
        let content = if kind.is_symlink() {
            Some(fs::read_link(path)?.into_os_string().into_vec())
        } else if kind.is_file() {
            read_regular(path, LARGEST, Links::Refuse).ok()
        } else {
            None
        };
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            mode: found.mode(),
            length: found.len(),
            number: found.rdev(),
            changed: (found.ctime(), found.ctime_nsec()),
            content,
        })
    }
}
