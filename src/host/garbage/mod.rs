//! What earlier processes left on this machine although nothing needs it, and its removal while no plugin runs.
//!
//! Whether a record is needed depends on Flocker, which the caller asks. Only what was seen to be unused counts as unused.

mod find;
mod identity;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use host_fs::durable::{is_abandoned, remove_abandoned, remove_file};
use host_fs::mount::{FileSystemUse, Target, UseSearch};
use host_fs::remove_name;
use uuid::Uuid;

use super::local_view::LocalView;
use super::made_directories::noted;
use super::mount::{alias_path, device_of_node};
use super::records::Record;
use crate::error::chain;
pub(crate) use find::find;
use find::is_empty_directory;
use identity::Identity;

/// Something that may be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Garbage {
    pub(crate) kind: GarbageKind,
    pub(crate) path: PathBuf,
    /// The volume it was made for, if it names one.
    pub(crate) dataset: Option<Uuid>,
    /// The records for which it exists, or which it is: it is left only if all of them are.
    pub(crate) records: Vec<Record>,
    /// The plugin's note that it is still to be removed.
    pub(crate) note: Option<PathBuf>,
    identity: Identity,
}

/// What it is, in the order of removal: a record is removed after everything that is found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GarbageKind {
    /// A file or device node that a process has not finished making.
    UnfinishedFile,
    /// The directory at which a volume was mounted.
    Directory,
    /// The note of a directory that no longer exists.
    Note,
    /// The plugin's device node of a volume.
    DeviceNode,
    /// The record of a staging.
    Record,
}

impl GarbageKind {
    /// Returns the name in output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UnfinishedFile => "unfinished-file",
            Self::Directory => "directory",
            Self::Note => "note",
            Self::DeviceNode => "device-node",
            Self::Record => "record",
        }
    }
}

impl Garbage {
    /// Whether it is still what it was when it was found: the same file with the same content.
    pub(crate) fn is_unchanged(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Returns what uses it, in words, or why that cannot be known; `None` if nothing does. Blocks for some seconds at most
    /// for each device.
    pub(crate) fn use_of(&self, view: &LocalView) -> Option<String> {
        match (self.kind, self.dataset) {
            (GarbageKind::UnfinishedFile, None) => match is_abandoned(&self.path) {
                Ok(true) => None,
                Ok(false) => Some("a process writes it".to_owned()),
                Err(error) => Some(format!("it cannot be read: {error}")),
            },
            (GarbageKind::Note, _) | (_, None) => None,
            (_, Some(dataset)) => self.use_of_volume(view, dataset),
        }
    }

    fn use_of_volume(&self, view: &LocalView, dataset: Uuid) -> Option<String> {
        if let Some(target) = view.of(dataset).targets.first() {
            return Some(format!("the volume is published at {}", target.display()));
        }
        let origins = self
            .records
            .iter()
            .flat_map(|record| record.origins(view.boot_id()));
        let (mut devices, mut paths) = (Vec::new(), Vec::new());
        for origin in origins {
            devices.extend(origin.device());
            devices.extend(origin.source().and_then(device_of_node));
        }
        devices.extend(device_of_node(&view.device_node(dataset)));
        devices.extend(device_of_node(&self.path));
        devices.sort_unstable_by_key(|device| (device.major, device.minor));
        devices.dedup();
        for record in &self.records {
            paths.push(alias_path(&record.staging_path, dataset));
        }
        if self.kind == GarbageKind::Directory {
            paths.push(self.path.clone());
        }
        // Flocker's own mount needs no device node of the plugin; but a record is kept as long as anything is mounted.
        let known = if self.records.is_empty() {
            view.flockers_mounts(dataset)
        } else {
            Vec::new()
        };
        let devices = match &devices[..] {
            [] => vec![None],
            known => known.iter().copied().map(Some).collect(),
        };
        devices.into_iter().find_map(|device| {
            let subject = FileSystemUse {
                device,
                node_name: dataset.to_string().into(),
                by_name: true,
                paths: paths.clone(),
                known: known.clone(),
            };
            UseSearch::default().find(&subject)
        })
    }

    /// Removes it, if it is still what it was; with a record, the directories that were made for its staging. The caller holds
    /// the locks of the directories, and has just seen in `view` that nothing uses it.
    ///
    /// # Errors
    /// Why it is still there, in words.
    pub(crate) fn remove(&self, view: &LocalView) -> Result<(), String> {
        if !self.is_unchanged() {
            return Err("it has changed since it was found".to_owned());
        }
        let is_device =
            || fs::symlink_metadata(&self.path).is_ok_and(|found| found.file_type().is_block_device());
        let removed = match self.kind {
            GarbageKind::UnfinishedFile if !is_device() => match remove_abandoned(&self.path) {
                Ok(false) => return Err("a process writes it".to_owned()),
                removed => removed.map(drop),
            },
            GarbageKind::Directory => {
                remove_directory(&self.path)?;
                self.note
                    .as_deref()
                    .map_or(Ok(()), |note| remove_name(note).map(drop))
            }
            GarbageKind::Record => {
                // Before the record, which is all that says that they were made.
                for record in &self.records {
                    remove_made_directories(record, view)?;
                }
                remove_file(&self.path)
            }
            GarbageKind::UnfinishedFile | GarbageKind::Note | GarbageKind::DeviceNode => {
                remove_name(&self.path).map(drop)
            }
        };
        removed.map_err(|error| error.to_string())
    }
}

/// Removes the directories that were made for a staging, from the bottom, except those that another record notes as well. What
/// is not empty stays.
fn remove_made_directories(record: &Record, view: &LocalView) -> Result<(), String> {
    let others = view.records().filter(|other| *other != record);
    let others: BTreeSet<_> = others.flat_map(noted).collect();
    for directory in noted(record).filter(|directory| !others.contains(directory)) {
        if is_empty_directory(directory) {
            remove_directory(directory)?;
        } else if directory.symlink_metadata().is_ok() {
            break;
        }
    }
    Ok(())
}

/// Removes an empty directory at which nothing is mounted.
fn remove_directory(path: &Path) -> Result<(), String> {
    let target = Target::open_resolved(path).map_err(|error| chain(&error))?;
    match target.visible() {
        Ok(None) => target.remove_directory().map_err(|error| chain(&error)),
        Ok(Some(mount)) => Err(format!("{mount} is mounted there")),
        Err(error) => Err(chain(&error)),
    }
}

/// Whether the staging path of a record does not exist. A path that cannot be reached is no proof of that.
pub(crate) fn staging_is_missing(record: &Record) -> bool {
    fs::symlink_metadata(&record.staging_path)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
