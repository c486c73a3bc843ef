//! The directory above a target, opened once and named as the mount table names it.

use std::fs::canonicalize;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, readlinkat, statx};
use rustix::io::Errno;

/// What the kernel puts after the path of a directory that was removed.
const REMOVED: &[u8] = b" (deleted)";

/// No access to the contents, and nothing else than a directory.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory by a path in which symbolic links are followed, and returns its path without them.
///
/// Two system calls, however long the path is: openat2(2) and readlink(2) on the descriptor. Where openat2(2) does not
/// exist (before Linux 5.6) or a seccomp filter refuses it, the path is resolved component by component.
pub(super) fn open_parent(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    match openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(directory) => named(directory),
        Err(Errno::NOSYS | Errno::PERM) => open_by_components(path),
        Err(error) => Err(error.into()),
    }
}

/// Returns an open directory with its path, free of symbolic links.
pub(super) fn named(directory: OwnedFd) -> io::Result<(OwnedFd, PathBuf)> {
    let path = path_of(directory.as_fd())?;
    Ok((directory, path))
}

/// Does what [`open_parent`] does on every Linux.
pub(super) fn open_by_components(path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let path = canonicalize(path)?;
    let directory = openat(CWD, &path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    Ok((directory, path))
}

/// Opens a directory by names below an open one, no symbolic link among them; mounts on the way are crossed.
pub(super) fn open_below(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(directory, path, DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => open_name_by_name(directory, path),
        opened => opened,
    }
}

/// Does what [`open_below`] does on every Linux.
pub(super) fn open_name_by_name(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let mut names = path.iter();
    let next = |directory: BorrowedFd<'_>, name| {
        openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    };
    let first = next(directory, names.next().ok_or(Errno::NOENT)?)?;
    names.try_fold(first, |above, name| next(above.as_fd(), name))
}

/// Returns the path of an open directory, as the mount table of this thread's namespace would spell it.
///
/// A directory that was removed, or that this process cannot reach from its root, is not found.
pub(super) fn path_of(directory: BorrowedFd<'_>) -> io::Result<PathBuf> {
    // The descriptor table is this thread's; the first thread of the process may have ended.
    let path = readlinkat(CWD, super::path_of_descriptor(directory), Vec::new())?.into_bytes();
    // "(unreachable)" stands before the path of a directory outside of the root.
    if !path.starts_with(b"/") || path.ends_with(REMOVED) && is_removed(directory)? {
        return Err(ErrorKind::NotFound.into());
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// Returns whether an open directory was removed; its name may end as the kernel marks removed ones.
fn is_removed(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(directory, "", flags, StatxFlags::NLINK)?.stx_nlink == 0)
}
