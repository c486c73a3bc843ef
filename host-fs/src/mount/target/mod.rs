//! Paths an orchestrator names: where it wants a volume to appear.

mod attach;
mod content;
mod error;
mod parent;
mod path;
mod relation;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::cached::CachedParent;
use super::entry::Mount;
use super::handle::{self, MountHandle, OpenError};
use super::lookup::{self, Mounted, Visible};
use super::table::{MountTable, TableError};
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
