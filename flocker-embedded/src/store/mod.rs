//! The configuration, stored in one JSON file.
//!
//! Every change is on disk before it is visible: a crash leaves the earlier state or the new one.

mod model;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host_fs::durable::replace_file;
use host_fs::{Links, read_regular};
use openssl::sha::sha256;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use model::{Configuration, Dataset, Lease, Size, State, Storage, StorageRecords, now};

use crate::Error;
use crate::data_dir::{DataDir, remove_unfinished};

/// The configuration at one moment, with the tag that identifies it.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) configuration: Configuration,
    /// 32 hexadecimal digits that differ for any two configurations.
    pub(crate) tag: String,
}

/// The largest state file in bytes that is read: a million datasets.
const LARGEST: u64 = 1 << 30;

/// The one writer of the state file.
pub(crate) struct Store {
    path: PathBuf,
    state: Mutex<State>,
    current: watch::Sender<Arc<Snapshot>>,
    /// No other process may write as long as this exists.
    _data_dir: Arc<DataDir>,
}

impl Store {
    /// Reads the state file, or starts with an empty state where nothing shows that there was one, and assigns a
    /// UUID to every node up to `nodes`.
    pub(crate) fn open(data_dir: Arc<DataDir>, nodes: usize) -> Result<Self, Error> {
        let path = data_dir.state_file();
        remove_unfinished(data_dir.root());
        let mut state = match read_regular(&path, LARGEST, Links::Refuse) {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| Error::DamagedState {
                path: path.clone(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                data_dir.check_first_start()?;
                State::new()
            }
            Err(error) => return Err(Error::file("read", &path)(error)),
        };
        // What is missing beside volumes that exist somewhere is not replaced by something empty.
        if state.records().formatted().next().is_none() {
            data_dir.make_volumes()?;
        }
        let known = state.nodes.len();
        state.nodes.extend((known..nodes).map(|_| Uuid::new_v4()));
        write(&path, &state).map_err(Error::file("write", &path))?;
        let snapshot = Arc::new(snapshot(&state.configuration).map_err(Error::file("write", &path))?);
        Ok(Self {
            path,
            state: Mutex::new(state),
            current: watch::Sender::new(snapshot),
            _data_dir: data_dir,
        })
    }

    pub(crate) fn cluster(&self) -> Uuid {
        self.lock().cluster
    }

    /// Returns the UUID of each node, in the order of their numbers.
    pub(crate) fn nodes(&self) -> Vec<Uuid> {
        self.lock().nodes.clone()
    }

    /// Returns the node each dataset was last attached to.
    pub(crate) fn attachments(&self) -> BTreeMap<Uuid, Uuid> {
        self.lock().attachments.clone()
    }

    /// Returns how far the storage of a dataset is; `None` if it was never begun.
    pub(crate) fn storage_of(&self, dataset: Uuid) -> Option<Storage> {
        self.lock().storage_of(dataset)
    }

    /// Returns what is recorded of the storage of all datasets.
    pub(crate) fn storage(&self) -> StorageRecords {
        self.lock().records()
    }

    /// Records that the storage of datasets may be made and formatted, unless it was begun before. Blocks.
    ///
    /// `exists` is asked which deleted datasets still have a file; of others nothing needs to be remembered.
    pub(crate) fn begin_storage(&self, datasets: &[Uuid], exists: impl Fn(Uuid) -> bool) -> io::Result<()> {
        self.change(|state| {
            for dataset in datasets {
                if state.storage_of(*dataset).is_none() {
                    state.storage.insert(*dataset, Storage::Formatting);
                }
            }
            let configured = &state.configuration.datasets;
            let is_deleted = |id: &Uuid| configured.get(id).is_none_or(|dataset| dataset.deleted);
            state.storage.retain(|id, _| !is_deleted(id) || exists(*id));
        })
    }

    /// Records that a dataset has a file system, which may have data from now on. Blocks.
    pub(crate) fn finish_storage(&self, dataset: Uuid, file_system: Uuid) -> io::Result<()> {
        let file_system = Some(file_system);
        self.change(|state| {
            state.storage.insert(dataset, Storage::Formatted { file_system });
        })
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Carries out a change, unless `change` refuses it, and returns when it is on disk. Blocks.
    ///
    /// `change` receives the tag of the configuration it is about to change. What it did before refusing, or what
    /// could not be written, is dropped.
    pub(crate) fn update<T, R>(
        &self,
        change: impl FnOnce(&mut State, &str) -> Result<T, R>,
    ) -> io::Result<Result<T, R>> {
        let mut state = self.lock();
        let mut next = state.clone();
        let outcome = match change(&mut next, &self.snapshot().tag) {
            Ok(outcome) => outcome,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if next == *state {
            return Ok(Ok(outcome));
        }
        write(&self.path, &next)?;
        if next.configuration != state.configuration {
            self.current
                .send_replace(Arc::new(snapshot(&next.configuration)?));
        }
        *state = next;
        Ok(Ok(outcome))
    }

    /// Carries out a change that is never refused. Blocks.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let changed = self.update(|state, _| {
            change(state);
            Ok::<(), Infallible>(())
        })?;
        match changed {
            Ok(()) => Ok(()),
        }
    }

    /// Records that datasets are no longer attached to `node`, except those that another node has attached since.
    /// Blocks.
    pub(crate) fn forget_attachments(&self, datasets: &[Uuid], node: Uuid) -> io::Result<()> {
        self.change(|state| {
            state
                .attachments
                .retain(|dataset, owner| *owner != node || !datasets.contains(dataset));
        })
    }

    /// Removes the leases that ended before `now` (seconds since 1970). Blocks.
    pub(crate) fn sweep(&self, now: f64) -> io::Result<()> {
        self.change(|state| {
            state
                .configuration
                .leases
                .retain(|_, lease| lease.expires.is_none_or(|end| end >= now));
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn snapshot(configuration: &Configuration) -> io::Result<Snapshot> {
    let digest = sha256(&serde_json::to_vec(configuration)?);
    let tag = format!(
        "{:032x}",
        u128::from_be_bytes(std::array::from_fn(|index| digest[index]))
    );
    Ok(Snapshot {
        configuration: configuration.clone(),
        tag,
    })
}

fn write(path: &Path, state: &State) -> io::Result<()> {
    replace_file(path, &serde_json::to_vec(state)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &Path) -> Store {
        let data_dir = Arc::new(DataDir::claim(directory).unwrap());
        Store::open(data_dir, 2).unwrap()
    }

    fn put(store: &Store, dataset: Uuid) {
        let new = Dataset {
            primary: Uuid::nil(),
            deleted: false,
            maximum_size: None,
            metadata: BTreeMap::new(),
        };
        store
            .change(|state| drop(state.configuration.datasets.insert(dataset, new)))
            .unwrap();
    }

    #[test]
    fn a_restart_keeps_datasets_and_node_ids() {
        let directory = tempfile::tempdir().unwrap();
        let dataset = Uuid::new_v4();
        let nodes = {
            let first = store(directory.path());
            put(&first, dataset);
            first.nodes()
        };
        let second = store(directory.path());
        assert_eq!(second.nodes(), nodes);
        assert!(second.snapshot().configuration.datasets.contains_key(&dataset));
    }

    #[test]
    fn the_tag_has_32_digits_and_changes_with_a_lease_but_not_with_an_attachment() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let before = store.snapshot().tag.clone();
        assert_eq!(before.len(), 32);

        let ids = (Uuid::new_v4(), Uuid::new_v4());
        store.change(|state| state.attachments.extend([ids])).unwrap();
        assert_eq!(store.snapshot().tag, before);

        let lease = Lease {
            node: ids.1,
            expires: Some(10.0),
        };
        store
            .change(|state| state.configuration.leases.extend([(ids.0, lease)]))
            .unwrap();
        assert_ne!(store.snapshot().tag, before);

        store.sweep(10.5).unwrap();
        assert_eq!(store.snapshot().tag, before);
    }

    #[test]
    fn a_refused_change_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let before = store.snapshot().tag.clone();
        let outcome: Result<(), &str> = store
            .update(|state, _| {
                state.configuration.registered.insert(Uuid::new_v4());
                Err("no")
            })
            .unwrap();
        assert_eq!(outcome, Err("no"));
        assert_eq!(store.snapshot().tag, before);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("state.json"), "{").unwrap();
        let data_dir = Arc::new(DataDir::claim(directory.path()).unwrap());
        let error = Store::open(data_dir, 1).err().unwrap();
        assert!(error.to_string().contains("state.json"));
    }
}
