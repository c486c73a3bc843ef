//! Room on the disk that is kept for changes of the state.
//!
//! On a full disk nothing could be deleted otherwise: that needs a transaction, which needs some free blocks. So a file holds
//! some. When a change finds none, the file is shortened by a part, and the change is carried out again. What only makes the
//! disk fuller, such as a new dataset, is refused until the file is whole again.
//!
//! The database has holes where it has grown and not been written yet. They are filled with what was free, so that a change
//! that needs no longer database needs no part of the room either: others may have taken each part by the next change.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The length of the whole file in bytes.
const WHOLE: u64 = 4 << 20;
/// By how much it is shortened at a time. A transaction needs less.
const PART: u64 = 512 << 10;
/// How much the file system must have free beside it, in bytes, so that the file is not made at the cost of the last blocks.
const MARGIN: u64 = 1 << 20;
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// The file that holds the room.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    database: PathBuf,
}

impl Ballast {
    /// Describes the file of a database.
    pub(super) fn new(path: PathBuf, database: PathBuf) -> Self {
        Self { path, database }
    }

    /// Makes the file whole again, if it is not and the disk has the room.
    pub(super) fn restore(&self) -> io::Result<()> {
        self.fill_holes()?;
        let held = self.held()?;
        if held >= WHOLE {
            return Ok(());
        }
        let directory = self.path.parent().ok_or(ErrorKind::InvalidInput)?;
        let space = statvfs(directory)?;
        if space.f_bavail * space.f_frsize < WHOLE - held + MARGIN {
            return Err(ErrorKind::StorageFull.into());
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags.bits().cast_signed())
            .open(&self.path)?;
        if !allocate(&file, WHOLE)? {
            io::copy(&mut io::repeat(0).take(WHOLE), &mut file)?;
        }
        file.sync_all()
    }

    /// Frees a part of the room; `false` if none is left.
    pub(super) fn release(&self) -> io::Result<bool> {
        let length = match self.path.symlink_metadata() {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if length == 0 {
            return Ok(false);
        }
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(length.saturating_sub(PART))?;
        // Some file systems free the blocks only then.
        file.sync_all()?;
        match self.fill_holes() {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(true),
        }
    }

    /// Allocates the blocks of the database that it has not been given yet.
    fn fill_holes(&self) -> io::Result<()> {
        let found = fs::symlink_metadata(&self.database)?;
        if !found.is_file() || found.blocks() * BLOCK >= found.len() {
            return Ok(());
        }
        let database = OpenOptions::new().write(true).open(&self.database)?;
        allocate(&database, found.len()).map(drop)
    }

    /// Returns how much it holds.
    fn held(&self) -> io::Result<u64> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_file() => Ok(found.len().min(found.blocks() * BLOCK)),
            Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, "it is not a regular file")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Allocates the blocks of the first `length` bytes of a file; `false` if the file system cannot.
fn allocate(file: impl AsFd, length: u64) -> io::Result<bool> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        allocated => Ok(allocated.map(|()| true)?),
    }
}

/// Whether an error is that of a full disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
