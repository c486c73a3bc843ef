//! Records that cannot be read: damaged ones, and those of a newer release.
//!
//! It is not known which lease such a record is about, so nothing is released because of it, and it is never removed: a
//! staging or an unstaging of its volume and path renames it, so that the next record can have its name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::{RecordError, digest_of, io_error};
use crate::error::chain;

/// The end of the name of a record that is set aside; a number follows where there are several.
const ASIDE: &str = ".unreadable";

/// The number of characters of a dataset id.
const ID: usize = 36;

/// The files that cannot be read and have their names.
#[derive(Debug)]
pub(super) struct Unreadable(Mutex<BTreeMap<PathBuf, Reason>>);

#[derive(Debug)]
struct Reason {
    text: String,
    is_reported: bool,
}

impl Unreadable {
    pub(super) fn of(errors: &[RecordError]) -> Self {
        let errors = errors
            .iter()
            .filter(|error| !matches!(error, RecordError::SetAside { .. }))
            .map(|error| {
                let text = chain(error);
                let is_reported = false;
                (error.path().to_owned(), Reason { text, is_reported })
            });
        Self(Mutex::new(errors.collect()))
    }

    /// Returns why a file cannot be read, if that is so and was not returned before.
    pub(super) fn report(&self, path: &Path) -> Option<String> {
        let mut files = self.lock();
        let reason = files.get_mut(path).filter(|reason| !reason.is_reported)?;
        reason.is_reported = true;
        Some(reason.text.clone())
    }

    /// Returns the datasets that the names of files for a staging path name.
    pub(super) fn datasets_at(&self, staging_path: &Path) -> Vec<Uuid> {
        let end = format!("-{}.json", digest_of(staging_path));
        let files = self.lock();
        let names = files.keys().filter_map(|path| path.file_name()?.to_str());
        names
            .filter_map(|name| name.strip_suffix(&end)?.parse().ok())
            .collect()
    }

    /// Renames a file that cannot be read, and returns its new path; a file that can be read stays.
    ///
    /// # Errors
    /// The file system refused, and the file has its name.
    pub(super) fn set_aside(&self, path: &Path) -> Result<Option<PathBuf>, RecordError> {
        let mut files = self.lock();
        if !files.contains_key(path) {
            return Ok(None);
        }
        let kept = free_name(path);
        fs::rename(path, &kept).map_err(io_error("rename the unreadable", path))?;
        files.remove(path);
        Ok(Some(kept))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Reason>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file is a record that was set aside.
pub(super) fn is_set_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.contains(&format!(".json{ASIDE}")))
}

/// Returns the dataset that the name of a record names, also of one that is set aside.
pub(crate) fn dataset_in_name(path: &Path) -> Option<Uuid> {
    path.file_name()?.to_str()?.get(..ID)?.parse().ok()
}

/// Returns a name for a file to be set aside that no other file has. One process at a time uses the directory.
fn free_name(path: &Path) -> PathBuf {
    let numbered = |number: u32| {
        let mut name = OsString::from(path);
        name.push(ASIDE);
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    (0..u32::MAX)
        .map(numbered)
        .find(|name| fs::symlink_metadata(name).is_err())
        .unwrap_or_else(|| numbered(0))
}
