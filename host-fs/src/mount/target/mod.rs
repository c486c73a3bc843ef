//! Paths an orchestrator names: where it wants a volume to appear.

mod attach;
mod error;
mod parent;
mod path;
mod relation;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use rustix::io::Errno;

use super::cached::CachedParent;
use super::entry::Mount;
use super::handle::{self, MountHandle, OpenError};
use super::lookup::{self, Mounted, Visible};
use super::table::{MountTable, TableError};
use crate::removal::remove_at;
use parent::{Links, LookupError};

pub use error::TargetError;
pub use path::TargetPath;
pub use relation::Relation;

/// A directory where something is or can be mounted, as it was found at one moment: the open directory above it, and a
/// name in that.
///
/// Everything is done relative to the open directory, so no directory on the way can be swapped afterwards. The
/// descriptor keeps the mount that holds the directory above busy, not what is mounted at the target.
#[derive(Debug, Clone)]
pub struct Target {
    parent: Arc<OwnedFd>,
    path: PathBuf,
    found: Found,
}

/// How many directories of one name are set aside.
const SET_ASIDE: u32 = 100;
/// The longest part of a name that has room for what is added when it is set aside.
const LONGEST_SET_ASIDE: usize = 240;

/// How many names of what is in a directory an error has.
const NAMED: usize = 3;

/// What was found at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It was not examined.
    Unknown,
    Nothing,
    Directory(Mounted),
}

impl Target {
    /// Opens the directory above a path, and reads what the path leads to.
    ///
    /// Symbolic links above the path are followed where only root can replace them, so that [`Target::path`] compares with
    /// the mount table; magic links never are. The path itself must be a directory or not exist. Two system calls where
    /// there are no links: openat2(2) and statx(2); otherwise, before Linux 5.6, and where a seccomp filter refuses
    /// openat2(2), one or a few for each component. No file system that is mounted at the path is asked: its server may be
    /// dead.
    ///
    /// # Errors
    /// [`TargetError::Invalid`], [`TargetError::NoParent`], [`TargetError::ParentNotDirectory`], [`TargetError::SymbolicLink`],
    /// [`TargetError::UntrustedLink`], [`TargetError::NotDirectory`]; [`TargetError::Io`] when the kernel refuses.
    pub fn open(path: &Path) -> Result<Target, TargetError> {
        Target::open_unexamined(path, Links::Trusted, None)?.refresh()
    }

    /// As [`Target::open`], for a path that had no symbolic links when it was resolved: what has become one since is
    /// refused.
    ///
    /// # Errors
    /// As [`Target::open`], and [`TargetError::LinkOnTheWay`].
    pub fn open_resolved(path: &Path) -> Result<Target, TargetError> {
        Target::open_unexamined(path, Links::Refused, None)?.refresh()
    }

    /// As [`Target::open`]; the directory above may have been opened already, which saves the first system call.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn open_from(path: &Path, cached: Option<CachedParent>) -> Result<Target, TargetError> {
        Target::open_unexamined(path, Links::Trusted, cached)?.refresh()
    }

    /// Opens the directory above a path, and nothing else.
    fn open_unexamined(
        path: &Path,
        links: Links,
        cached: Option<CachedParent>,
    ) -> Result<Target, TargetError> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            let reason = "is the root directory or ends in \"..\"";
            return Err(TargetError::invalid(&path.to_string_lossy(), reason));
        };
        let opened = match cached.and_then(CachedParent::into_directory) {
            // No link led to it, so the path is its name.
            Some(directory) if parent::is_plain(above) => Ok((directory, above.to_owned())),
            _ => parent::open_parent(above, links),
        };
        let (parent, above) = opened.map_err(|error| lookup_error(above, error))?;
        if !path::has_room(&above, name.len()) {
            return Err(TargetError::invalid(&path.to_string_lossy(), path::TOO_LONG));
        }
        Ok(Target {
            parent: Arc::new(parent),
            path: above.join(name),
            found: Found::Unknown,
        })
    }

    /// Reads again what the path leads to, with one statx(2): for a caller who has waited since the target was opened.
    ///
    /// # Errors
    /// As [`Target::open`], for the path itself.
    pub fn refresh(self) -> Result<Target, TargetError> {
        let found = match lookup::look(&*self.parent, self.name()) {
            Ok(seen) => {
                self.check_directory(seen.file_type)?;
                Found::Directory(seen.mounted)
            }
            Err(Errno::NOENT) => Found::Nothing,
            Err(error) => return Err(self.io_error("examine", error)),
        };
        Ok(Target { found, ..self })
    }

    /// Checks that a path below this one, with a name of this length, is short enough for the kernel.
    ///
    /// # Errors
    /// [`TargetError::Invalid`].
    pub fn check_room_for(&self, name: usize) -> Result<(), TargetError> {
        if path::has_room(&self.path, name) {
            Ok(())
        } else {
            Err(TargetError::invalid(&self.path.to_string_lossy(), path::NO_ROOM))
        }
    }

    /// Returns the path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the directory existed when the target was opened or refreshed.
    pub fn exists(&self) -> bool {
        match self.found {
            Found::Unknown => lookup::look(&*self.parent, self.name()).is_ok(),
            Found::Nothing => false,
            Found::Directory(_) => true,
        }
    }

    /// Returns the visible mount at the path, of the moment when the target was opened or refreshed.
    ///
    /// Where nothing was mounted, that costs no system call; otherwise one, where the kernel has statmount(2).
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn visible(&self) -> Result<Option<Mount>, TableError> {
        Ok(self.top()?.map(|top| top.mount))
    }

    pub(super) fn top(&self) -> Result<Option<Visible>, TableError> {
        match self.found {
            Found::Unknown => self.top_now(),
            Found::Nothing => Ok(None),
            Found::Directory(mounted) => self.top_of(mounted),
        }
    }

    /// Returns the visible mount at the path at this moment.
    ///
    /// # Errors
    /// The mount table cannot be read.
    pub fn visible_now(&self) -> Result<Option<Mount>, TableError> {
        Ok(self.top_now()?.map(|top| top.mount))
    }

    pub(super) fn top_now(&self) -> Result<Option<Visible>, TableError> {
        match lookup::look(&*self.parent, self.name()) {
            Ok(seen) => self.top_of(seen.mounted),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            // A dead FUSE or NFS mount refuses statx(2), yet it exists.
            Err(_) => self.top_of(Mounted::Unknown),
        }
    }

    fn top_of(&self, mounted: Mounted) -> Result<Option<Visible>, TableError> {
        match lookup::described(mounted) {
            Ok(described) => Ok(described),
            Err(lookup::OnlyInTable) => self.top_by_table(),
        }
    }

    /// Finds the visible mount where the kernel describes only all of them: by the id of what is at the name in the open
    /// directory, wherever that directory is by now.
    fn top_by_table(&self) -> Result<Option<Visible>, TableError> {
        let table = MountTable::read()?;
        let here = self.open_directory().ok();
        let here = here.and_then(|here| handle::identify(&here).ok());
        let above = handle::identify(&*self.parent).ok();
        let found = match (here, above) {
            (Some((here, _)), Some((above, _))) if here == above => None,
            (Some((here, _)), Some(_)) => table.by_id(here),
            // What cannot be opened may be a mount whose server is dead.
            _ => table.layers_at(&self.path).pop(),
        };
        Ok(found.cloned().map(|mount| Visible { mount, unique: None }))
    }

    /// Returns the unique id of the mount that holds the directory, if nothing was mounted on it and the kernel has
    /// such ids.
    pub(super) fn holder(&self) -> Option<u64> {
        let mounted = match self.found {
            Found::Unknown | Found::Nothing => lookup::look(&*self.parent, "").ok()?.mounted,
            Found::Directory(mounted) => return mounted.holder(),
        };
        // The directory above may itself be the root of a mount.
        mounted.holder().or(mounted.unique_id())
    }

    /// Opens the visible mount at the path, if there is one.
    ///
    /// # Errors
    /// The directory or the mount table cannot be opened.
    pub fn open_mount(&self) -> Result<Option<MountHandle>, OpenError> {
        MountHandle::at(
            parent::open_below(self.parent(), Path::new(self.name())),
            &self.path,
        )
    }

    /// Opens the visible mount one level below the path, if there is one; no symbolic link is followed.
    ///
    /// # Errors
    /// The directory or the mount table cannot be opened.
    pub fn open_mount_below(&self, name: &str) -> Result<Option<MountHandle>, OpenError> {
        let below = Path::new(self.name()).join(name);
        MountHandle::at(parent::open_below(self.parent(), &below), &self.join(name))
    }

    /// Makes the directory where it is missing, for root and its group only: the mount will cover it.
    ///
    /// Returns whether it was made.
    ///
    /// # Errors
    /// [`TargetError::SymbolicLink`] and [`TargetError::NotDirectory`] for what exists instead; [`TargetError::Io`].
    pub fn ensure_directory(&self) -> Result<bool, TargetError> {
        match mkdirat(&*self.parent, self.name(), Mode::from_raw_mode(0o750)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                let seen = lookup::look(&*self.parent, self.name());
                let seen = seen.map_err(|error| self.io_error("examine", error))?;
                self.check_directory(seen.file_type).map(|()| false)
            }
            Err(error) => Err(self.io_error("make the directory", error)),
        }
    }

    /// Checks that there is nothing in the directory, where another program removes it; it may not exist any more.
    ///
    /// # Errors
    /// [`TargetError::NotEmpty`]; [`TargetError::Io`].
    pub fn check_empty(&self) -> Result<(), TargetError> {
        match self.is_empty() {
            Ok(true) | Err(Errno::NOENT) => Ok(()),
            Ok(false) => Err(TargetError::NotEmpty(self.path.clone())),
            Err(error) => Err(self.io_error("read", error)),
        }
    }

    /// Checks that a mount at the directory would hide nothing.
    ///
    /// # Errors
    /// [`TargetError::HoldsData`], with what is in it; [`TargetError::Io`].
    pub fn refuse_content(&self) -> Result<(), TargetError> {
        let names = self
            .names(NAMED + 1)
            .map_err(|error| self.io_error("read", error))?;
        if names.is_empty() {
            return Ok(());
        }
        let and_more = if names.len() > NAMED { " and more" } else { "" };
        let quoted: Vec<_> = names.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
        Err(TargetError::HoldsData {
            path: self.path.clone(),
            content: format!("it holds {}{and_more}", quoted.join(", ")),
        })
    }

    /// Gives the directory, with all that is in it, a name beside its own, and returns that path.
    ///
    /// # Errors
    /// [`TargetError::Io`]; the directory is as it was then.
    pub fn set_aside(&self) -> Result<PathBuf, TargetError> {
        let own = self.name().as_encoded_bytes();
        let start = own.get(..own.len().min(LONGEST_SET_ASIDE)).unwrap_or_default();
        let mut result = Err(Errno::EXIST);
        for number in 1..=SET_ASIDE {
            let mut name = OsString::from_vec(start.to_vec());
            name.push(format!(".kept-{number}"));
            result = renameat_with(
                &*self.parent,
                self.name(),
                &*self.parent,
                &name,
                RenameFlags::NOREPLACE,
            );
            match result {
                Ok(()) => return Ok(self.path.with_file_name(name)),
                Err(Errno::EXIST) => {}
                Err(_) => break,
            }
        }
        let error = result.err().unwrap_or(Errno::EXIST);
        Err(self.io_error("set aside what is in", error))
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        Ok(self.names(1)?.is_empty())
    }

    /// Returns the names of some of what is in the directory.
    fn names(&self, count: usize) -> Result<Vec<String>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&*self.parent, self.name(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name.to_string_lossy().into_owned());
            }
            if names.len() == count {
                break;
            }
        }
        Ok(names)
    }

    /// Removes the directory if it exists, never anything in it.
    ///
    /// # Errors
    /// [`TargetError::NotEmpty`]; [`TargetError::Io`].
    pub fn remove_directory(&self) -> Result<(), TargetError> {
        match remove_at(&*self.parent, Path::new(self.name()), AtFlags::REMOVEDIR) {
            Ok(_) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(TargetError::NotEmpty(self.path.clone())),
            Err(error) => Err(self.io_error("remove the directory", error)),
        }
    }

    /// Returns a path below this directory; nothing is checked on the disk.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Returns the name in the directory above.
    pub(super) fn name(&self) -> &std::ffi::OsStr {
        // A path without one is refused by `open`.
        self.path.file_name().unwrap_or_default()
    }

    /// Opens the directory itself, without access to its contents; that keeps what is mounted on it busy.
    pub(super) fn open_directory(&self) -> Result<OwnedFd, Errno> {
        parent::open_below(self.parent(), Path::new(self.name()))
    }

    /// Returns a path that leads to the target through the open directory, for system calls that take only a path.
    pub(super) fn path_by_descriptor(&self) -> PathBuf {
        path_of_descriptor(self.parent()).join(self.name())
    }

    fn check_directory(&self, found: FileType) -> Result<(), TargetError> {
        match found {
            FileType::Directory => Ok(()),
            FileType::Symlink => Err(TargetError::SymbolicLink(self.path.clone())),
            _ => Err(TargetError::NotDirectory(self.path.clone())),
        }
    }

    fn io_error(&self, action: &'static str, source: Errno) -> TargetError {
        TargetError::Io {
            action,
            path: self.path.clone(),
            source: source.into(),
        }
    }
}

fn lookup_error(above: &Path, error: LookupError) -> TargetError {
    match error {
        LookupError::Link {
            link,
            untrusted: true,
        } => TargetError::UntrustedLink(link),
        LookupError::Link { link, .. } => TargetError::LinkOnTheWay(link),
        LookupError::Io(source) => match source.kind() {
            io::ErrorKind::NotFound => TargetError::NoParent(above.to_owned()),
            io::ErrorKind::NotADirectory => TargetError::ParentNotDirectory(above.to_owned()),
            _ => TargetError::Io {
                action: "look up",
                path: above.to_owned(),
                source,
            },
        },
    }
}

/// Returns a path that leads to what a descriptor of this thread leads to.
pub(super) fn path_of_descriptor(descriptor: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/thread-self/fd/{}", descriptor.as_raw_fd()).into()
}

#[cfg(test)]
mod tests;
