//! What is left after an undo: directories, device nodes and records that a full, read-only or failing disk keeps.
//!
//! Unmounting, lease and pin never wait for these. Each is logged and counted once, and removed in the background as soon
//! as the disk allows. A directory is noted in the state directory, if that can be written, so that the next process finds
//! it too: as a symbolic link to it, which is made in one step and is only read, never followed. The next process finds
//! device nodes in the device directory, and records among the records.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_fs::durable::make_directory;
use host_fs::mount::{Target, TargetError};
use host_fs::remove_name;
use tokio::sync::Notify;
use uuid::Uuid;

use super::Host;
use super::mount::alias_path;
use super::records::{Record, digest_of};
use crate::error::{Error, Result, Situation, chain};
use crate::telemetry::Counter;

/// Something that an undo could not remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leftover {
    /// The volume it was made for.
    pub(crate) dataset: Uuid,
    pub(crate) kind: LeftoverKind,
    /// Where it is; of a record, the staging path.
    pub(crate) path: PathBuf,
}

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeftoverKind {
    /// The directory at which the volume was mounted.
    Directory,
    /// The plugin's device node.
    DeviceNode,
    /// The record of a staging that is over.
    Record,
}

/// All leftovers that this process knows.
#[derive(Debug)]
pub(crate) struct Leftovers {
    known: Mutex<BTreeSet<Leftover>>,
    /// The directory of the notes.
    notes: PathBuf,
    added: Arc<Notify>,
}

impl Leftovers {
    /// Reads the notes of earlier processes. None is looked up here: a file system on the way may hang.
    pub(super) fn open(notes: PathBuf) -> Self {
        let entries = fs::read_dir(&notes).into_iter().flatten().flatten();
        let directories = entries.filter_map(|entry| {
            let dataset = entry.file_name().to_str()?.split_once('.')?.0.parse().ok()?;
            Some(Leftover {
                dataset,
                kind: LeftoverKind::Directory,
                path: fs::read_link(entry.path()).ok()?,
            })
        });
        Self {
            known: Mutex::new(directories.collect()),
            notes,
            added: Arc::default(),
        }
    }

    /// Returns what is left.
    pub(crate) fn all(&self) -> Vec<Leftover> {
        self.lock().iter().cloned().collect()
    }

    /// Returns what is notified when there is more, and when the host is closed.
    pub(crate) fn added(&self) -> Arc<Notify> {
        Arc::clone(&self.added)
    }

    /// Returns whether it was not known.
    fn add(&self, leftover: &Leftover) -> bool {
        let is_new = self.lock().insert(leftover.clone());
        if is_new {
            self.note(leftover);
            self.added.notify_one();
        }
        is_new
    }

    fn remove(&self, leftover: &Leftover) {
        self.lock().remove(leftover);
        if leftover.kind == LeftoverKind::Directory {
            // The next process finds that the directory does not exist.
            remove_name(&self.note_of(leftover)).ok();
        }
    }

    /// Notes a directory for the next process. Nothing waits for that to succeed.
    fn note(&self, leftover: &Leftover) {
        if leftover.kind != LeftoverKind::Directory {
            return;
        }
        let noted =
            make_directory(&self.notes).and_then(|()| symlink(&leftover.path, self.note_of(leftover)));
        if let Err(error) = noted
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            tracing::warn!(
                %error,
                "Cannot note in {} that {} is still to be removed: only this process will do that",
                self.notes.display(),
                leftover.path.display()
            );
        }
    }

    fn note_of(&self, leftover: &Leftover) -> PathBuf {
        let name = format!("{}.{}", leftover.dataset, digest_of(&leftover.path));
        self.notes.join(name)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Leftover>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.added.notify_one();
    }
}

impl Host {
    /// Returns what earlier undos could not remove.
    pub(crate) fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Keeps in mind that something could not be removed, so that it is removed later.
    pub(super) fn leave(
        &self,
        dataset: Uuid,
        kind: LeftoverKind,
        path: &Path,
        error: &dyn std::error::Error,
    ) {
        let path = path.to_owned();
        let leftover = Leftover { dataset, kind, path };
        if self.leftovers.add(&leftover) {
            self.settings.metrics.counters().count(Counter::LeftBehind);
            tracing::warn!(
                volume.id = %dataset,
                error = %chain(error),
                "Volume {dataset} is unmounted, but its {} {} cannot be removed yet; it is removed in the background as \
                 soon as the disk allows",
                kind.name(),
                leftover.path.display()
            );
        }
    }

    /// Removes the directory at which a volume was mounted, now or later.
    pub(super) fn remove_directory_of(&self, dataset: Uuid, path: &Path) {
        if let Err(error) = remove_directory(path) {
            self.leave(dataset, LeftoverKind::Directory, path, &error);
        }
    }

    /// Removes a leftover, unless a later use of the volume needs it; it is no leftover then.
    ///
    /// The caller holds the dataset's lock.
    ///
    /// # Errors
    /// The disk still refuses.
    pub(crate) fn remove_leftover(&self, leftover: &Leftover) -> Result<()> {
        if !self.is_used_again(leftover) {
            let Leftover { dataset, kind, path } = leftover;
            let removed = match kind {
                LeftoverKind::Directory => remove_directory(path).map_err(Error::from),
                LeftoverKind::DeviceNode => {
                    let removed = self.aliases.forget_device(*dataset, path);
                    removed.map_err(|error| Error::of(Situation::Internal, &error))
                }
                LeftoverKind::Record => {
                    let removed = self.records.remove_forgotten(*dataset, path);
                    removed.map_err(|error| Error::of(Situation::Internal, &error))
                }
            };
            removed?;
        }
        self.leftovers.remove(leftover);
        Ok(())
    }

    fn is_used_again(&self, leftover: &Leftover) -> bool {
        let Leftover { dataset, kind, path } = leftover;
        let staged = self.records.of(*dataset);
        let mut staged = staged.iter().filter(|record| record.may_be_mounted(self.boot_id));
        match kind {
            LeftoverKind::Directory => {
                let is_below = |record: &Record| {
                    record.may_be_mounted(self.boot_id) && record.staging_path.starts_with(path)
                };
                self.targets.contains(*dataset, path)
                    || staged.any(|record| alias_path(&record.staging_path, *dataset) == *path)
                    || !self.records.select(is_below).is_empty()
            }
            LeftoverKind::DeviceNode => staged.next().is_some(),
            // Writing the record again replaces the file.
            LeftoverKind::Record => self.records.get(*dataset, path).is_some(),
        }
    }
}

impl LeftoverKind {
    fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::DeviceNode => "device node",
            Self::Record => "record of the staging at",
        }
    }
}

/// Removes an empty directory, never anything in it, and nothing at all where something is mounted.
fn remove_directory(path: &Path) -> Result<(), TargetError> {
    match Target::open_resolved(path) {
        // Another use of the directory has begun.
        Ok(target) if matches!(target.visible(), Ok(Some(_))) => Ok(()),
        Ok(target) => target.remove_directory(),
        Err(error @ TargetError::Io { .. }) => Err(error),
        // Neither a missing directory nor anything else in its place is the plugin's.
        Err(_) => Ok(()),
    }
}
