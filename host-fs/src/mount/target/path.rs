//! The spelling of a path in a request.

use std::path::{Component, Path, PathBuf};

use super::{Target, TargetError};
use crate::mount::CachedParent;

/// The longest path a system call takes, without the final NUL (`PATH_MAX`).
pub(super) const MAX_PATH: usize = 4095;

/// Why a path is refused whose symbolic links make it longer than that.
pub(super) const TOO_LONG: &str = "is longer than the 4095 bytes the kernel takes";

/// Why a path is refused below which no path would be short enough.
pub(super) const NO_ROOM: &str =
    "is too long: with the name of the mount below it, it has more than the 4095 bytes the kernel takes";

/// Whether a path below another one, with a name of this length, is short enough.
pub(super) fn has_room(path: &Path, name: usize) -> bool {
    path.as_os_str().len() + 1 + name <= MAX_PATH
}

/// Why a path is refused with a name that is too long.
pub(super) const LONG_NAME: &str = "has a component longer than the 255 bytes a file system takes";

/// The longest name in a directory (`NAME_MAX`).
const MAX_NAME: usize = 255;

/// An absolute path without `..`, as a request spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetPath(PathBuf);

impl TargetPath {
    /// Checks the spelling of a path; repeated and trailing slashes and `.` are dropped.
    ///
    /// # Errors
    /// [`TargetError::Invalid`], with what is wrong.
    pub fn parse(path: &str) -> Result<TargetPath, TargetError> {
        let refuse = |reason| Err(TargetError::invalid(path, reason));
        if path.is_empty() {
            return refuse("is empty");
        }
        if path.contains('\0') {
            return refuse("contains a NUL character");
        }
        if path.len() > MAX_PATH {
            return refuse(TOO_LONG);
        }
        if !path.starts_with('/') {
            return refuse("is not absolute");
        }
        let mut clean = PathBuf::from("/");
        for component in Path::new(path).components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) if name.len() > MAX_NAME => {
                    return refuse(LONG_NAME);
                }
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => return refuse("contains \"..\""),
                Component::Prefix(_) => return refuse("is not a path of this system"),
            }
        }
        if clean.parent().is_none() {
            return refuse("is the root directory");
        }
        Ok(TargetPath(clean))
    }

    /// As [`Self::parse`], for a directory in which something is to be mounted at a name of this length.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_above(path: &str, name: usize) -> Result<TargetPath, TargetError> {
        let parsed = TargetPath::parse(path)?;
        if has_room(parsed.as_path(), name) {
            Ok(parsed)
        } else {
            Err(TargetError::invalid(path, NO_ROOM))
        }
    }

    /// Returns the path as spelled, without its redundant parts.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Checks that there is room for a name of this length below a path without symbolic links.
    ///
    /// # Errors
    /// [`TargetError::Invalid`].
    pub fn check_room(path: &Path, name: usize) -> Result<(), TargetError> {
        if has_room(path, name) {
            Ok(())
        } else {
            Err(TargetError::invalid(&path.to_string_lossy(), NO_ROOM))
        }
    }

    /// Returns the path without symbolic links, where directories above it may not exist: those that do are resolved.
    ///
    /// # Errors
    /// As [`Target::open`], for the directories that exist.
    pub fn resolve_missing(&self) -> Result<PathBuf, TargetError> {
        for path in self.0.ancestors() {
            match Target::open(path) {
                Ok(found) => {
                    let below = self.0.strip_prefix(path).unwrap_or(Path::new(""));
                    // Joining nothing would add a slash.
                    let is_all = below.as_os_str().is_empty();
                    return Ok(if is_all {
                        found.path
                    } else {
                        found.path.join(below)
                    });
                }
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.0.clone())
    }

    /// Opens the directory above the path, and reads what the path leads to; see [`Target::open`].
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn resolve(&self) -> Result<Target, TargetError> {
        Target::open(&self.0)
    }

    /// As [`TargetPath::resolve`]; see [`Target::open_from`].
    ///
    /// # Errors
    /// As [`Target::open`].
    pub fn resolve_from(&self, cached: Option<CachedParent>) -> Result<Target, TargetError> {
        Target::open_from(&self.0, cached)
    }
}
