//! Staging paths that the orchestrator did not make (Docker Swarm makes none): the plugin makes them, notes that in the
//! record first, and removes them when nothing is staged below them any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use host_fs::mount::{Target, TargetError};

use super::Host;
use super::leftovers::LeftoverKind;
use super::records::Record;
use crate::error::{Error, Result};

impl Host {
    /// Returns how many directories at the end of a staging path are, or will be, the plugin's: those that do not exist,
    /// and those that it made for this staging or another one.
    pub(super) fn directories_to_make(&self, staging: &Path) -> Result<usize> {
        let made = self.made_directories(None);
        let mut count = 0;
        let mut first = None;
        for directory in staging.ancestors() {
            let exists = directory.exists();
            if exists && !made.contains(directory) {
                break;
            }
            if !exists {
                first = Some(directory);
            }
            count += 1;
        }
        // A container's own directory ends with the container, and the host sees nothing that is mounted in it.
        if let Some(first) = first {
            self.visibility.check(first)?;
        }
        Ok(count)
    }

    /// Makes the directories that a record notes, from the top.
    pub(super) fn make_directories(record: &Record) -> Result<()> {
        let directories: Vec<_> = noted(record).collect();
        for directory in directories.into_iter().rev() {
            let made = Target::open_resolved(directory).and_then(|target| target.ensure_directory());
            made.map_err(|error| Error::from(error).context("staging_target_path"))?;
        }
        Ok(())
    }

    /// Removes the directories that a record notes, from the bottom, except those that another record notes as well. What
    /// is not empty stays; no failure keeps a volume here.
    pub(super) fn remove_made_directories(&self, record: &Record) {
        let others = self.made_directories(Some(record));
        for directory in noted(record).filter(|directory| !others.contains(*directory)) {
            let removed = Target::open_resolved(directory).and_then(|target| target.remove_directory());
            match removed {
                Ok(()) | Err(TargetError::NoParent(_)) => {}
                Err(error @ TargetError::Io { .. }) => {
                    self.leave(record.dataset_id, LeftoverKind::Directory, directory, &error);
                }
                Err(error) => {
                    tracing::warn!(
                        path = %directory.display(),
                        error = %crate::error::chain(&error),
                        "Could not remove a directory that was made for staging a volume; remove it if nothing needs it"
                    );
                    return;
                }
            }
        }
    }

    /// Returns the directories that the records note, `except` one.
    fn made_directories(&self, except: Option<&Record>) -> BTreeSet<PathBuf> {
        let same = |record: &Record, other: &Record| {
            (record.dataset_id, &record.staging_path) == (other.dataset_id, &other.staging_path)
        };
        let records = self.records.select(|record| {
            record.made_directories > 0 && !except.is_some_and(|except| same(record, except))
        });
        records.iter().flat_map(noted).map(Path::to_owned).collect()
    }
}

/// Returns the directories that a record notes, from the bottom.
pub(super) fn noted(record: &Record) -> impl Iterator<Item = &Path> {
    record.staging_path.ancestors().take(record.made_directories)
}
