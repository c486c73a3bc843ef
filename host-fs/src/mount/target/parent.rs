//! The directory above a target, opened once and named as the mount table names it.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, StatxFlags, fstatfs, openat,
    openat2, readlinkat, statx,
};
use rustix::io::Errno;

/// What the kernel puts after the path of a directory that was removed.
const REMOVED: &[u8] = b" (deleted)";

/// No access to the contents, and nothing else than a directory.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The most symbolic links on one way, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// The permission to replace what is in a directory, for users that may not be root.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The bit that leaves that to the owner of each entry, and of the directory.
const STICKY: u32 = 0o1000;

/// What happens at a symbolic link on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// It is followed, unless a user other than root could replace it.
    Trusted,
    /// It is refused: the path was free of links once.
    Refused,
}

/// Why a directory was not opened.
#[derive(Debug)]
pub(super) enum LookupError {
    /// A link is on the way that may not be followed.
    Link {
        link: PathBuf,
        /// Whether it is the directory that holds the link which forbids it.
        untrusted: bool,
    },
    Io(io::Error),
}

impl<E: Into<io::Error>> From<E> for LookupError {
    fn from(error: E) -> Self {
        LookupError::Io(error.into())
    }
}

/// Opens a directory by an absolute path, and returns its path without symbolic links.
///
/// One system call where there are no links: openat2(2). Otherwise, and where openat2(2) does not exist (before Linux
/// 5.6) or a seccomp filter refuses it, one or a few for each component.
pub(super) fn open_parent(path: &Path, links: Links) -> Result<(OwnedFd, PathBuf), LookupError> {
    match openat2(CWD, path, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(directory) if is_plain(path) => Ok((directory, path.to_owned())),
        Ok(directory) => Ok(named(directory)?),
        Err(Errno::LOOP | Errno::NOSYS | Errno::PERM) => open_by_components(path, links),
        Err(error) => Err(error.into()),
    }
}

/// Whether a path without links is as the mount table spells it.
pub(super) fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// Returns an open directory with its path, free of symbolic links.
fn named(directory: OwnedFd) -> io::Result<(OwnedFd, PathBuf)> {
    let path = path_of(directory.as_fd())?;
    Ok((directory, path))
}

/// Does what [`open_parent`] does on every Linux: each component is opened in the directory before it, and nothing is
/// looked up twice.
pub(super) fn open_by_components(path: &Path, links: Links) -> Result<(OwnedFd, PathBuf), LookupError> {
    let mut left = components_of(path);
    let mut directory = openat(CWD, "/", DIRECTORY, Mode::empty())?;
    let mut followed = 0;
    while let Some(name) = left.pop() {
        match openat(&directory, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) => directory = next,
            // Of a link, the flag for directories alone is refused.
            Err(Errno::NOTDIR | Errno::LOOP) => {
                followed += 1;
                if followed > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let text = follow(directory.as_fd(), &name, links)?;
                if text.is_absolute() {
                    directory = openat(CWD, "/", DIRECTORY, Mode::empty())?;
                }
                left.extend(components_of(&text));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if followed == 0 && is_plain(path) {
        return Ok((directory, path.to_owned()));
    }
    Ok(named(directory)?)
}

/// Returns the components of a path, the last one first, without the root directory.
fn components_of(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(_) | Component::ParentDir => Some(part.as_os_str().to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

/// Reads a symbolic link that may be followed.
fn follow(directory: BorrowedFd<'_>, name: &OsString, links: Links) -> Result<PathBuf, LookupError> {
    let link = openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let (kind, _, owner) = examine(link.as_fd())?;
    if kind != FileType::Symlink {
        return Err(Errno::NOTDIR.into());
    }
    // A magic link leads to an open file of a process, whatever its text says. Only procfs has them.
    if fstatfs(&link)?.f_type == PROC_SUPER_MAGIC {
        return Err(Errno::LOOP.into());
    }
    let refused = |untrusted| {
        let above = path_of(directory).unwrap_or_default();
        LookupError::Link {
            link: above.join(name),
            untrusted,
        }
    };
    if links == Links::Refused {
        return Err(refused(false));
    }
    let (_, mode, owner_of_directory) = examine(directory)?;
    let shared = mode & WRITABLE_BY_OTHERS != 0;
    let kept_by_root = mode & STICKY != 0 && owner == 0;
    if owner_of_directory != 0 || shared && !kept_by_root {
        return Err(refused(true));
    }
    Ok(PathBuf::from(OsString::from_vec(
        readlinkat(&link, "", Vec::new())?.into_bytes(),
    )))
}

/// Returns the type, the mode and the owner of what is open.
fn examine(open: BorrowedFd<'_>) -> Result<(FileType, u32, u32), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID;
    let status = statx(open, "", flags, wanted)?;
    let mode = u32::from(status.stx_mode);
    Ok((FileType::from_raw_mode(mode), mode, status.stx_uid))
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

/// Whether two descriptors lead to one directory of one file system.
pub(super) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(identity(one)? == identity(other)?)
}

/// Returns device and inode of an open directory.
pub(super) fn identity(directory: BorrowedFd<'_>) -> Result<(u32, u32, u64), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = statx(directory, "", flags, StatxFlags::INO)?;
    Ok((status.stx_dev_major, status.stx_dev_minor, status.stx_ino))
}
