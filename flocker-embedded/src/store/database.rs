//! The state on disk: an embedded database with a table for each kind of entry.
//!
//! A change is one transaction, which is on disk when it is carried out, and writes only what it changes. Deleted datasets
//! are in a table of their own, which is looked up by id and never read as a whole at a start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use rustix::fs::{Advice, OFlags, fadvise};
use uuid::Uuid;

use super::edits::Edits;
use super::model::{Configuration, Dataset};
use super::records::{HighestDeleted, Records};
use super::tables::{
    ATTACHMENTS, CLUSTER, ClusterEntry, DATASETS, DELETED, GENERATIONS, InDatabase, LEASES, LISTED, META,
    ORIGIN, REGISTERED, SEQUENCE, STORAGE, TAG, collect, damaged, decode, undecodable,
};
use super::tag::TagSum;
use super::writing::Writing;

/// How much of the database is cached in memory, in bytes.
const CACHE: usize = 1 << 20;

/// The open database.
pub(super) struct Database {
    path: PathBuf,
    /// `None` after a failure: the next change opens it again.
    open: Option<redb::Database>,
}

/// What the database has that is kept in memory.
pub(super) struct Loaded {
    pub(super) configuration: Configuration,
    pub(super) records: Records,
}

impl Database {
    /// Writes a new database into an empty file: `write` receives its only transaction.
    pub(super) fn write_new(
        file: &File,
        cluster: &ClusterEntry,
        origin: &[u8],
        write: impl FnOnce(&Writing<'_>) -> io::Result<TagSum>,
    ) -> io::Result<()> {
        let backend = FileBackend::new(file.try_clone()?).in_database()?;
        let database = builder().create_with_backend(backend).in_database()?;
        let transaction = database.begin_write().in_database()?;
        let writing = Writing(&transaction);
        writing.make_tables()?;
        let sum = write(&writing)?;
        writing.set(CLUSTER, &serde_json::to_vec(cluster)?)?;
        writing.set(ORIGIN, origin)?;
        writing.set_position(sum, 0)?;
        transaction.commit().in_database()?;
        database.close().in_database()
    }

    /// Opens the database and verifies all of it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let open = open_verified(&open_file(path)?)?;
        Ok(Self {
            path: path.to_owned(),
            open: Some(open),
        })
    }

    /// Opens it again after a failure, with what is on the disk, whatever the page cache holds. All of it is verified.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        let file = open_file(&self.path)?;
        // The page cache may hold what could not be written, marked as written.
        let _unwritten = file.sync_data();
        fadvise(&file, 0, None, Advice::DontNeed)?;
        self.open = Some(open_verified(&file)?);
        Ok(())
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns the form of its tables, the cluster and the nodes.
    pub(super) fn cluster(&self) -> io::Result<ClusterEntry> {
        let bytes = self.meta(CLUSTER)?;
        serde_json::from_slice(&bytes.ok_or_else(|| damaged("it has no cluster"))?).map_err(undecodable)
    }

    /// Returns the digest of the state file that it was made of, and empty if it was made of none.
    pub(super) fn origin(&self) -> io::Result<Vec<u8>> {
        self.meta(ORIGIN)?.ok_or_else(|| damaged("it has no origin"))
    }

    /// Returns the number of changes since it was made.
    pub(super) fn sequence(&self) -> io::Result<u64> {
        let bytes = self.meta(SEQUENCE)?;
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(u64::from_be_bytes)
            .ok_or_else(|| damaged("it has no sequence"))
    }

    /// Reads what is kept in memory.
    pub(super) fn load(&self) -> io::Result<Loaded> {
        let reading = self.read()?;
        let mut configuration = Configuration::default();
        let deleted_at: BTreeMap<Uuid, u64> = collect(&reading, LISTED, Ok)?;
        configuration.datasets = collect(&reading, DATASETS, |bytes| {
            decode::<Dataset>(bytes).map(Into::into)
        })?;
        let deleted = reading.open_table(DELETED).in_database()?;
        for id in deleted_at.keys() {
            let found = deleted
                .get(id)
                .in_database()?
                .ok_or_else(|| damaged("it lists what it does not have"))?;
            configuration
                .datasets
                .insert(*id, decode::<Dataset>(found.value())?.into());
        }
        let registered = reading.open_table(REGISTERED).in_database()?;
        for id in configuration.datasets.keys() {
            if registered.get(id).in_database()?.is_some() {
                configuration.registered.insert(*id);
            }
        }
        configuration.leases = collect(&reading, LEASES, decode)?;
        let sum = self.meta(TAG)?.and_then(|bytes| bytes.try_into().ok());
        let ClusterEntry { cluster, nodes, .. } = self.cluster()?;
        let records = Records {
            cluster,
            nodes,
            attachments: collect(&reading, ATTACHMENTS, Ok)?,
            storage: collect(&reading, STORAGE, decode)?,
            hidden: deleted
                .len()
                .in_database()?
                .saturating_sub(deleted_at.len() as u64),
            deleted_at,
            sum: sum
                .map(TagSum::from_bytes)
                .ok_or_else(|| damaged("it has no tag"))?,
            sequence: self.sequence()?,
        };
        Ok(Loaded {
            configuration,
            records,
        })
    }

    /// Carries out a change; it is on disk afterwards. `next` are the records after it.
    pub(super) fn apply(&self, edits: &Edits, next: &Records, now: u64) -> io::Result<()> {
        let transaction = self.opened()?.begin_write().in_database()?;
        let writing = Writing(&transaction);
        writing.change(edits, next, now)?;
        writing.set_position(next.sum, next.sequence)?;
        transaction.commit().in_database()
    }

    /// Adds deleted datasets to those that are loaded, if it has them.
    pub(super) fn list_again(&self, ids: impl Iterator<Item = Uuid>) -> io::Result<()> {
        let transaction = self.opened()?.begin_write().in_database()?;
        let mut is_new = false;
        {
            let deleted = transaction.open_table(DELETED).in_database()?;
            let mut listed = transaction.open_table(LISTED).in_database()?;
            for id in ids {
                let is_listed = listed.get(id).in_database()?.is_some();
                if !is_listed && deleted.get(id).in_database()?.is_some() {
                    listed.insert(id, 0).in_database()?;
                    is_new = true;
                }
            }
        }
        if is_new {
            transaction.commit().in_database()
        } else {
            transaction.abort().in_database()
        }
    }

    /// Returns a deleted dataset.
    pub(super) fn deleted(&self, id: Uuid) -> io::Result<Option<Dataset>> {
        let table = self.read()?.open_table(DELETED).in_database()?;
        let found = table.get(id).in_database()?;
        found.map(|entry| decode(entry.value())).transpose()
    }

    /// Returns the deleted dataset of the highest generation.
    pub(super) fn highest_deleted(&self, lineage: &str) -> io::Result<Option<HighestDeleted>> {
        let table = self.read()?.open_table(GENERATIONS).in_database()?;
        let found = table.get(lineage).in_database()?;
        Ok(found.map(|entry| {
            let (generation, dataset_id) = entry.value();
            HighestDeleted {
                generation,
                dataset_id,
            }
        }))
    }

    /// Returns up to `most` deleted datasets whose ids follow `after`, in their order.
    pub(super) fn deleted_after(
        reading: &ReadTransaction,
        after: Option<Uuid>,
        most: usize,
    ) -> io::Result<Vec<(Uuid, Dataset)>> {
        let table = reading.open_table(DELETED).in_database()?;
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = table
            .range::<Uuid>((from, std::ops::Bound::Unbounded))
            .in_database()?;
        let decoded = range.take(most).map(|entry| {
            let (id, bytes) = entry.in_database()?;
            Ok((id.value(), decode(bytes.value())?))
        });
        decoded.collect()
    }

    pub(super) fn read(&self) -> io::Result<ReadTransaction> {
        self.opened()?.begin_read().in_database()
    }

    fn meta(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let table = self.read()?.open_table(META).in_database()?;
        let found = table.get(key).in_database()?;
        Ok(found.map(|entry| entry.value().to_vec()))
    }

    fn opened(&self) -> io::Result<&redb::Database> {
        self.open.as_ref().ok_or_else(|| {
            io::Error::other("the state database could not be opened again after an earlier failure")
        })
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

/// Opens a file that is to be a database. An empty one would be taken for a new one.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    match (found.is_file(), found.len()) {
        (false, _) => Err(damaged("it is not a regular file")),
        (true, 0) => Err(damaged("it is empty")),
        (true, _) => Ok(file),
    }
}

fn open_verified(file: &File) -> io::Result<redb::Database> {
    let backend = FileBackend::new(file.try_clone()?).in_database()?;
    builder().create_with_backend(backend).in_database()
}
