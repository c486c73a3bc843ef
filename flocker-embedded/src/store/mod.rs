//! The configuration, in an embedded database.
//!
//! Every change is on disk before it is visible: a crash leaves the earlier state or the new one.

mod ballast;
mod database;
mod edits;
mod model;
mod records;
mod tables;
mod tag;
#[cfg(test)]
mod tests;
mod transaction;
mod upgrade;
mod writer;
mod writing;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Duration;
use uuid::Uuid;

pub(crate) use model::{Configuration, Dataset, Lease, Size, Snapshot, Storage, StorageRecords, now};
pub(crate) use records::HighestDeleted;
pub(crate) use transaction::Transaction;

use ballast::Ballast;
use database::{Database, Loaded};
use edits::Edits;
use writer::{Writer, open_with};

use crate::Error;
use crate::data_dir::DataDir;

/// Whether a change makes the disk fuller, or may be needed so that it becomes less full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It leads to more data. It is refused on a full disk.
    Growth,
    /// Anything else. On a full disk it takes the room that is kept for it.
    Upkeep,
}

/// The one writer of the state.
pub(crate) struct Store {
    writer: Mutex<Writer>,
    current: watch::Sender<Arc<Snapshot>>,
    /// No other process may write as long as this exists.
    _data_dir: Arc<DataDir>,
}

impl Store {
    /// Opens the state, or starts with an empty one where nothing shows that there was one, and assigns a UUID to every
    /// node up to `nodes`.
    pub(crate) fn open(data_dir: &Arc<DataDir>, nodes: usize) -> Result<Self, Error> {
        upgrade::prepare(data_dir)?;
        let path = data_dir.database();
        let ballast = Ballast::new(data_dir.ballast(), path.clone());
        let database = open_with(&ballast, &path)?;
        // A dataset that is deleted and not destroyed yet is known, whenever it was deleted.
        let volumes = data_dir.volume_ids()?;
        let loaded = database
            .list_again(volumes.into_iter())
            .and_then(|()| database.load());
        let Loaded {
            configuration,
            records,
        } = loaded.map_err(|source| Error::of_state("read", &path, source))?;
        let known = records.nodes.len();
        let store = Self {
            current: watch::Sender::new(Arc::new(Snapshot::new(configuration, &records))),
            writer: Mutex::new(Writer::new(database, records, ballast)),
            _data_dir: Arc::clone(data_dir),
        };
        // What is missing beside volumes that exist somewhere is not replaced by something empty.
        if store.storage().formatted().next().is_none() {
            data_dir.make_volumes()?;
        }
        let added = store.change(|transaction| {
            transaction.edits.nodes = (known..nodes).map(|_| Uuid::new_v4()).collect();
        });
        added.map_err(Error::file("write", &path))?;
        Ok(store)
    }

    pub(crate) fn cluster(&self) -> Uuid {
        self.lock().records.cluster
    }

    /// Returns the UUID of each node, in the order of their numbers.
    pub(crate) fn nodes(&self) -> Vec<Uuid> {
        self.lock().records.nodes.clone()
    }

    /// Returns the node each dataset was last attached to.
    pub(crate) fn attachments(&self) -> BTreeMap<Uuid, Uuid> {
        self.lock().records.attachments.clone()
    }

    /// Returns how far the storage of a dataset is; `None` if it was never begun.
    pub(crate) fn storage_of(&self, dataset: Uuid) -> Option<Storage> {
        self.lock().records.storage.get(&dataset).copied()
    }

    /// Returns what is recorded of the storage of all datasets.
    pub(crate) fn storage(&self) -> StorageRecords {
        let records = &self.lock().records;
        StorageRecords {
            attachments: records.attachments.clone(),
            storage: records.storage.clone(),
            deleted: records.deleted_at.keys().copied().collect(),
        }
    }

    /// Records that the storage of datasets may be made and formatted, unless it was begun before. Blocks.
    ///
    /// `exists` is asked which deleted datasets still have a file; of others nothing needs to be remembered.
    pub(crate) fn begin_storage(&self, datasets: &[Uuid], exists: impl Fn(Uuid) -> bool) -> io::Result<()> {
        self.change_for(Purpose::Growth, |transaction| {
            transaction.prune_storage(exists);
            for dataset in datasets {
                if !transaction.records.storage.contains_key(dataset) {
                    transaction.put_storage(*dataset, Some(Storage::Formatting));
                }
            }
        })
    }

    /// Records that a dataset has a file system, which may have data from now on. Blocks.
    pub(crate) fn finish_storage(&self, dataset: Uuid, file_system: Uuid) -> io::Result<()> {
        let file_system = Some(file_system);
        self.change(|transaction| transaction.put_storage(dataset, Some(Storage::Formatted { file_system })))
    }

    /// Records that the backing volumes of datasets exist. Blocks.
    pub(crate) fn register(&self, datasets: &[Uuid]) -> io::Result<()> {
        self.change(|transaction| transaction.register(datasets))
    }

    /// Records which node datasets are attached to. Blocks.
    pub(crate) fn record_attachments(
        &self,
        attachments: impl IntoIterator<Item = (Uuid, Uuid)>,
    ) -> io::Result<()> {
        self.change(|transaction| {
            for (dataset, node) in attachments {
                transaction.put_attachment(dataset, Some(node));
            }
        })
    }

    /// Records that datasets are no longer attached to `node`, except those that another node has attached since.
    /// Blocks.
    pub(crate) fn forget_attachments(&self, datasets: &[Uuid], node: Uuid) -> io::Result<()> {
        self.change(|transaction| {
            for dataset in datasets {
                if transaction.records.attachments.get(dataset) == Some(&node) {
                    transaction.put_attachment(*dataset, None);
                }
            }
        })
    }

    /// Removes the leases that ended before `now` (seconds since 1970). Blocks.
    pub(crate) fn sweep(&self, now: f64) -> io::Result<()> {
        self.change(|transaction| {
            let leases = &transaction.snapshot.configuration.leases;
            let has_ended = |lease: &Lease| lease.expires.is_some_and(|end| end < now);
            let ended: Vec<_> = leases.iter().filter(|(_, lease)| has_ended(lease)).collect();
            for (dataset, _) in ended {
                transaction.put_lease(*dataset, None);
            }
        })
    }

    /// Removes from memory the datasets that were deleted at least `keep` ago and have no file, and returns after which
    /// time the next ones can be removed. Blocks.
    pub(crate) fn unlist_deleted(
        &self,
        keep: Duration,
        exists: impl Fn(Uuid) -> bool,
    ) -> io::Result<Option<Duration>> {
        let now = seconds();
        let age = |deleted: u64| Duration::from_secs(now.saturating_sub(deleted));
        self.change(|transaction| {
            transaction.prune_storage(&exists);
            for (dataset, deleted) in &transaction.records.deleted_at {
                if age(*deleted) >= keep && !exists(*dataset) {
                    transaction.edits.unlisted.insert(*dataset);
                }
            }
        })?;
        let deleted_at = &self.lock().records.deleted_at;
        let remaining = deleted_at
            .values()
            .map(|deleted| keep.saturating_sub(age(*deleted)));
        Ok(remaining.min())
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Returns up to `most` deleted datasets whose ids follow `after`, in their order, those included that a snapshot has.
    /// Blocks.
    pub(crate) fn deleted_after(&self, after: Option<Uuid>, most: usize) -> io::Result<Vec<(Uuid, Dataset)>> {
        let reading = self.lock().database.read()?;
        Database::deleted_after(&reading, after, most)
    }

    /// Carries out a change, unless `change` refuses it, and returns when it is on disk. Blocks.
    ///
    /// What `change` did before refusing, or what could not be written, is dropped.
    pub(crate) fn update<T, R>(
        &self,
        purpose: Purpose,
        change: impl FnOnce(&mut Transaction<'_>) -> io::Result<Result<T, R>>,
    ) -> io::Result<Result<T, R>> {
        let mut writer = self.lock();
        if !writer.database.is_open() {
            self.reopen(&mut writer)?;
        }
        let snapshot = self.snapshot();
        let mut transaction = Transaction {
            snapshot: &snapshot,
            records: &writer.records,
            database: &writer.database,
            edits: Edits::default(),
        };
        let outcome = match change(&mut transaction)? {
            Ok(outcome) => outcome,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let edits = transaction.edits;
        if !edits.is_empty() {
            self.store(&mut writer, &snapshot, &edits, purpose)?;
        }
        Ok(Ok(outcome))
    }

    /// Carries out a change that is never refused. Blocks.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Transaction<'_>)) -> io::Result<()> {
        self.change_for(Purpose::Upkeep, change)
    }

    fn change_for(&self, purpose: Purpose, change: impl FnOnce(&mut Transaction<'_>)) -> io::Result<()> {
        let changed = self.update(purpose, |transaction| {
            change(transaction);
            Ok(Ok::<(), std::convert::Infallible>(()))
        })?;
        match changed {
            Ok(()) => Ok(()),
        }
    }

    /// Writes a change to disk, and makes it visible.
    fn store(
        &self,
        writer: &mut Writer,
        before: &Snapshot,
        edits: &Edits,
        purpose: Purpose,
    ) -> io::Result<()> {
        writer.make_room(purpose)?;
        let now = seconds();
        let (mut configuration, mut records) = (before.configuration.clone(), writer.records.clone());
        edits.carry_out(&mut configuration, &mut records, now)?;
        loop {
            let error = match writer.database.apply(edits, &records, now) {
                Ok(()) => break,
                Err(error) => error,
            };
            self.reopen(writer)?;
            // The failure may have come after the change was on disk.
            if writer.records.sequence == records.sequence {
                return Ok(());
            }
            if purpose == Purpose::Growth || !writer.take_room(&error)? {
                return Err(error);
            }
        }
        writer.records = records;
        if edits.change_configuration() {
            let snapshot = Snapshot::new(configuration, &writer.records);
            self.current.send_replace(Arc::new(snapshot));
        }
        Ok(())
    }

    /// Opens the database again after a failure, and continues with what is on disk.
    fn reopen(&self, writer: &mut Writer) -> io::Result<()> {
        while let Err(error) = writer.database.reopen() {
            if !writer.take_room(&error)? {
                tracing::error!(%error, "Cannot open the state database again after a failure; nothing can be changed until that succeeds");
                return Err(error);
            }
        }
        let Loaded {
            configuration,
            records,
        } = writer.database.load()?;
        if records.sequence != writer.records.sequence {
            let snapshot = Snapshot::new(configuration, &records);
            self.current.send_replace(Arc::new(snapshot));
        }
        writer.records = records;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the whole seconds since 1970.
fn seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
