//! Staging records: what is staged on this node, written to disk before anything is mounted.
//!
//! One JSON file for each staging path and dataset. `NodeUnpublishVolume` and `NodeUnstageVolume` read them, so that both
//! work without Flocker and after a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::mount::Origin;
use crate::telemetry::log_names;
use crate::volume::{KubernetesClaim, VolumeLabels};
use error::io_error;
pub(super) use file::digest_of;
use file::{file_name, render};
pub(super) use file::{path_in, read_all, written_at};
use host_fs::durable::{make_directory, overwrite_file, remove_file, remove_unfinished, replace_file};
use host_fs::mount::MountId;
use unreadable::Unreadable;

/// The version of the format; a change that an older plugin would misread raises it.
const VERSION: u32 = 3;

/// The last step of staging or unstaging that is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RecordState {
    /// The volume may be mounted; the last check of lease and primary has not succeeded.
    Staging,
    /// The volume is mounted and pinned.
    Staged,
    /// The volume is unmounted; the lease that staging took is still to be released.
    ReleasePending,
}

/// One volume at one staging path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The staging path, free of symbolic links.
    pub(crate) staging_path: PathBuf,
    /// The volume id that the orchestrator uses: a dataset id, or a name.
    pub(crate) volume_id: String,
    /// The name of the volume, for the log, once Flocker has been asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume_name: Option<String>,
    /// The claim of Kubernetes that the volume was created for, for the log. It is read and not yet written: earlier releases
    /// refuse a record with a field that they do not know, and would keep the lease after a rollback.
    #[serde(default, skip_serializing)]
    pub(crate) claim: Option<KubernetesClaim>,
    /// The dataset it stands for.
    pub(crate) dataset_id: Uuid,
    /// The node under whose lease it is staged. Records of version 1 do not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_id: Option<Uuid>,
    /// The boot of the machine in which it was staged; after a reboot nothing is mounted.
    pub(crate) boot_id: Uuid,
    /// Whether staging took the lease, so that unstaging releases it.
    pub(crate) takes_lease: bool,
    /// What distinguishes the plugin's mounts of it from other mounts, the device directory included; written before
    /// the first mount.
    pub(crate) origin: Option<Origin>,
    /// The origins that its mounts of this boot had before: a target may show one of them still.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier_origins: Vec<Origin>,
    /// Flocker's mount of it, where the kernel has ids for mounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flocker: Option<MountId>,
    /// How many directories at the end of the staging path the plugin made, or was about to make.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) made_directories: usize,
    /// The last step that is on disk.
    #[serde(rename = "progress")]
    pub(crate) state: RecordState,
}

impl Record {
    /// Returns the record with which staging begins.
    pub(crate) fn staging(
        staging_path: &Path,
        volume_id: &str,
        dataset_id: Uuid,
        node_id: Uuid,
        boot_id: Uuid,
        takes_lease: bool,
    ) -> Record {
        Record {
            staging_path: staging_path.to_owned(),
            volume_id: volume_id.to_owned(),
            volume_name: None,
            claim: None,
            dataset_id,
            node_id: Some(node_id),
            boot_id,
            takes_lease,
            origin: None,
            earlier_origins: Vec::new(),
            flocker: None,
            made_directories: 0,
            state: RecordState::Staging,
        }
    }

    /// Whether the volume may be mounted for this staging in this boot of the machine.
    pub(crate) fn may_be_mounted(&self, boot: Uuid) -> bool {
        self.boot_id == boot && self.state != RecordState::ReleasePending
    }

    /// Returns what distinguishes the plugin's mounts of it, if this staging may have any in this boot.
    pub(crate) fn origins(&self, boot: Uuid) -> impl Iterator<Item = &Origin> {
        let all = self.origin.iter().chain(&self.earlier_origins);
        all.filter(move |_| self.may_be_mounted(boot))
    }

    /// Returns what people call the volume, if that is known.
    pub(crate) fn labels(&self) -> Option<VolumeLabels> {
        let Self {
            volume_name, claim, ..
        } = self;
        (volume_name.is_some() || claim.is_some()).then(|| VolumeLabels {
            name: volume_name.clone(),
            claim: claim.clone(),
        })
    }

    fn key(&self) -> Key {
        (self.dataset_id, self.staging_path.clone())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The key of a record.
type Key = (Uuid, PathBuf);

/// All records, on disk and in memory.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
    known: Mutex<BTreeMap<Key, Record>>,
    unreadable: Unreadable,
}

impl Records {
    /// Reads all records in a directory, which is created if it does not exist.
    ///
    /// Files that cannot be read stay unchanged and are returned as errors that name them, with those that earlier
    /// processes set aside. No other process may use the directory.
    pub(crate) fn open(directory: &Path) -> Result<(Records, Vec<RecordError>), RecordError> {
        make_directory(directory).map_err(io_error("make", directory))?;
        // Files that a killed process was writing. No process needs them.
        if let Err(error) = remove_unfinished(directory) {
            tracing::warn!(%error, "Cannot remove what an earlier process has not finished writing");
        }
        let (records, damaged) = read_all(directory)?;
        let known: BTreeMap<_, _> = records.into_iter().map(|record| (record.key(), record)).collect();
        known.values().for_each(name_in_log);
        Ok((
            Records {
                directory: directory.to_owned(),
                known: Mutex::new(known),
                unreadable: Unreadable::of(&damaged),
            },
            damaged,
        ))
    }

    /// Writes a record durably, replacing the one of the same dataset and staging path. A file of that name that could
    /// not be read is set aside.
    ///
    /// One caller at a time may change the same dataset.
    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let key = record.key();
        let path = self.file(&key);
        let text = self.render(record)?;
        self.unreadable.set_aside(&path)?;
        replace_file(&path, &text).map_err(io_error("write", &path))?;
        self.insert(record.clone());
        Ok(())
    }

    /// Notes a record in memory only, where writing it is not worth an error.
    pub(crate) fn note(&self, record: Record) {
        self.insert(record);
    }

    /// As [`Self::write`], for a record of what has already happened: it holds in this process whatever the disk
    /// answers. On a full disk the file is overwritten in place.
    ///
    /// # Errors
    /// The file holds the earlier record.
    pub(crate) fn write_or_remember(&self, record: &Record) -> Result<(), RecordError> {
        let written = self.write(record).or_else(|error| {
            let path = self.file(&record.key());
            let text = self.render(record)?;
            overwrite_file(&path, &text).map_err(|_| error)
        });
        self.insert(record.clone());
        written
    }

    /// Removes the record of a dataset and staging path, if there is one.
    pub(crate) fn remove(&self, dataset_id: Uuid, staging_path: &Path) -> Result<(), RecordError> {
        let key = (dataset_id, staging_path.to_owned());
        if !self.lock().contains_key(&key) {
            return Ok(());
        }
        let path = self.file(&key);
        remove_file(&path).map_err(io_error("remove", &path))?;
        self.take(&key);
        Ok(())
    }

    /// Removes the record of a staging that is over: this process forgets it whatever the disk answers.
    ///
    /// # Errors
    /// The file remains, for [`Self::remove_forgotten`].
    pub(crate) fn forget(&self, dataset_id: Uuid, staging_path: &Path) -> Result<(), RecordError> {
        match self.take(&(dataset_id, staging_path.to_owned())) {
            Some(_) => self.remove_forgotten(dataset_id, staging_path),
            None => Ok(()),
        }
    }

    /// Removes the file of a record that was forgotten, unless a later staging has written it again.
    pub(crate) fn remove_forgotten(&self, dataset_id: Uuid, staging_path: &Path) -> Result<(), RecordError> {
        let key = (dataset_id, staging_path.to_owned());
        if self.lock().contains_key(&key) {
            return Ok(());
        }
        let path = self.file(&key);
        remove_file(&path).map_err(io_error("remove", &path))
    }

    /// Returns the datasets whose records for a staging path cannot be read.
    pub(crate) fn unreadable_at(&self, staging_path: &Path) -> Vec<Uuid> {
        self.unreadable.datasets_at(staging_path)
    }

    /// Sets a record aside that cannot be read, and returns the reason, which names the file. `None` where there is no
    /// such record, or this process has returned the reason before.
    pub(crate) fn set_aside(&self, dataset_id: Uuid, staging_path: &Path) -> Option<String> {
        let path = self.file(&(dataset_id, staging_path.to_owned()));
        let reason = self.unreadable.report(&path)?;
        Some(match self.unreadable.set_aside(&path) {
            Ok(Some(kept)) => format!("{reason}; it is kept as {}", kept.display()),
            _ => format!("{reason}; it is kept"),
        })
    }

    /// Returns the record of a dataset and staging path.
    pub(crate) fn get(&self, dataset_id: Uuid, staging_path: &Path) -> Option<Record> {
        self.lock().get(&(dataset_id, staging_path.to_owned())).cloned()
    }

    /// Returns the records of a dataset, ordered by path.
    pub(crate) fn of(&self, dataset_id: Uuid) -> Vec<Record> {
        self.lock()
            .range((dataset_id, PathBuf::new())..)
            .take_while(|((of, _), _)| *of == dataset_id)
            .map(|(_, record)| record.clone())
            .collect()
    }

    /// Returns the records that pass a test, ordered by dataset and path.
    pub(crate) fn select(&self, test: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.lock()
            .values()
            .filter(|record| test(record))
            .cloned()
            .collect()
    }

    fn insert(&self, record: Record) {
        name_in_log(&record);
        self.lock().insert(record.key(), record);
    }

    /// Removes a record in memory only.
    fn take(&self, key: &Key) -> Option<Record> {
        let taken = self.lock().remove(key);
        if self.of(key.0).is_empty() {
            log_names::set_staged(key.0, Vec::new());
        }
        taken
    }

    fn render(&self, record: &Record) -> Result<Vec<u8>, RecordError> {
        render(record).map_err(|source| RecordError::Damaged {
            path: self.file(&record.key()),
            source,
        })
    }

    /// Returns the file of a record. The file name has a digest of the path, which may be long and hold any byte.
    fn file(&self, (dataset_id, staging_path): &Key) -> PathBuf {
        self.directory.join(file_name(*dataset_id, staging_path))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets every line of the log about a volume that is staged here say what people call it.
fn name_in_log(record: &Record) {
    if let Some(labels) = record.labels() {
        log_names::set_staged(record.dataset_id, labels.fields());
    }
}

mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
mod unreadable;

pub(crate) use error::RecordError;
pub(crate) use unreadable::dataset_in_name;
