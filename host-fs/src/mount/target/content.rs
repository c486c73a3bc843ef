//! The directory of a target, and what is in it besides a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};
use rustix::io::Errno;

use super::{Target, TargetError, lookup};
use crate::removal::remove_at;

/// How many directories of one name are set aside.
const SET_ASIDE: u32 = 100;
/// The longest part of a name that has room for what is added when it is set aside.
const LONGEST_SET_ASIDE: usize = 240;

/// How many names of what is in a directory an error has.
const NAMED: usize = 3;

impl Target {
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
}
