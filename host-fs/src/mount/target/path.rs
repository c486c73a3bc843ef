//! The spelling of a path in a request.

use std::path::{Component, Path, PathBuf};

use super::{Target, TargetError};
use crate::mount::CachedParent;

/// The longest path a system call takes, without the final NUL (`PATH_MAX`).
const MAX_PATH: usize = 4095;

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
        let refuse = |reason| {
            Err(TargetError::Invalid {
                path: path.chars().take(200).collect(),
                reason,
            })
        };
        if path.is_empty() {
            return refuse("is empty");
        }
        if path.contains('\0') {
            return refuse("contains a NUL character");
        }
        if path.len() > MAX_PATH {
            return refuse("is longer than the 4095 bytes the kernel takes");
        }
        if !path.starts_with('/') {
            return refuse("is not absolute");
        }
        let mut clean = PathBuf::from("/");
        for component in Path::new(path).components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) if name.len() > MAX_NAME => {
                    return refuse("has a component longer than the 255 bytes a file system takes");
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

    /// Returns the path as spelled, without its redundant parts.
    pub fn as_path(&self) -> &Path {
        &self.0
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
