//! The last known value of an answer, for use while Flocker is down.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use host_fs::durable::{make_directory, replace_file};
use host_fs::{Links, read_regular};

use crate::telemetry::spawn_blocking;

/// The newest value, in memory and, if there is a directory for it, in a file.
///
/// A file that cannot be written or read is logged and counts as missing.
pub(super) struct LastKnown<T> {
    file: Option<PathBuf>,
    newest: Arc<Mutex<Option<T>>>,
    /// The content of the file; locked while it is written.
    written: Arc<Mutex<Option<T>>>,
}

impl<T> LastKnown<T>
where
    T: Clone + DeserializeOwned + PartialEq + Send + Serialize + 'static,
{
    /// Makes an empty one, with the file `name` in `directory`.
    pub(super) fn new(directory: Option<&Path>, name: &str) -> Self {
        Self {
            file: directory.map(|directory| directory.join(name)),
            newest: Arc::default(),
            written: Arc::default(),
        }
    }

    /// Stores what `value` returns, under the lock. If that is a change, the file is written in the background.
    pub(super) fn set(&self, value: impl FnOnce() -> T) {
        self.change(|newest| *newest = Some(value()));
    }

    /// Changes the last value, or the default one. If that is a change, the file is written in the background.
    pub(super) async fn update(&self, change: impl FnOnce(&mut T))
    where
        T: Default,
    {
        self.get().await;
        self.change(|newest| change(newest.get_or_insert_default()));
    }

    /// As [`Self::update`], if there is a last value.
    pub(super) async fn update_existing(&self, change: impl FnOnce(&mut T)) {
        self.get().await;
        self.change(|newest| {
            if let Some(newest) = newest {
                change(newest);
            }
        });
    }

    /// Returns the newest value of this process, else the one that an earlier process has written.
    pub(super) async fn get(&self) -> Option<T> {
        let newest = lock(&self.newest).clone();
        let (None, Some(file)) = (&newest, self.file.clone()) else {
            return newest;
        };
        let read = spawn_blocking(move || read_if_exists(&file)).await.ok().flatten();
        let mut newest = lock(&self.newest);
        if newest.is_none() {
            newest.clone_from(&read);
        }
        newest.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Option<T>)) {
        let changed = {
            let mut newest = lock(&self.newest);
            let before = newest.clone();
            change(&mut newest);
            before != *newest
        };
        let Some(file) = self.file.clone().filter(|_| changed) else {
            return;
        };
        let (newest, written) = (Arc::clone(&self.newest), Arc::clone(&self.written));
        spawn_blocking(move || {
            // Writers may overtake each other, so each writes the value that is newest when it has the lock.
            let mut written = lock(&written);
            let newest = lock(&newest).clone();
            if *written == newest {
                return;
            }
            match newest.as_ref().map_or(Ok(()), |value| write(&file, value)) {
                Ok(()) => *written = newest,
                Err(error) => {
                    tracing::warn!(
                        "Cannot write the last known answer to {}: {error}",
                        file.display()
                    );
                }
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The largest answer in bytes that is read: a million volumes.
const LARGEST: u64 = 512 << 20;

fn read_if_exists<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let read =
        read_regular(file, LARGEST, Links::Refuse).and_then(|content| Ok(serde_json::from_slice(&content)?));
    match read {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("Cannot use the last known answer in {}: {error}", file.display());
            None
        }
    }
}

fn write<T: Serialize>(file: &Path, value: &T) -> io::Result<()> {
    make_directory(file.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
    replace_file(file, &serde_json::to_vec(value)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn in_file(directory: &Path, expected: &[u32]) {
        let read = async {
            while LastKnown::<Vec<u32>>::new(Some(directory), "list.json")
                .get()
                .await
                .as_deref()
                != Some(expected)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
    }

    #[tokio::test]
    async fn another_process_reads_the_last_value() {
        let directory = tempfile::tempdir().unwrap();
        let last_known = LastKnown::new(Some(directory.path()), "list.json");
        assert_eq!(last_known.get().await, None);
        for value in [vec![1], vec![1, 2], vec![1, 2, 3]] {
            last_known.set(|| value);
        }
        assert_eq!(last_known.get().await, Some(vec![1, 2, 3]));
        in_file(directory.path(), &[1, 2, 3]).await;
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[tokio::test]
    async fn an_update_changes_a_part_of_the_value() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("list.json"), "[1, 2]").unwrap();
        let last_known = LastKnown::<Vec<u32>>::new(Some(directory.path()), "list.json");
        last_known.update(|list| list.push(3)).await;
        in_file(directory.path(), &[1, 2, 3]).await;
    }

    #[tokio::test]
    async fn a_missing_value_is_not_updated() {
        let directory = tempfile::tempdir().unwrap();
        let last_known = LastKnown::<Vec<u32>>::new(Some(directory.path()), "list.json");
        last_known.update_existing(|list| list.push(1)).await;
        assert_eq!(last_known.get().await, None);
        last_known.set(|| vec![1]);
        last_known.update_existing(|list| list.push(2)).await;
        in_file(directory.path(), &[1, 2]).await;
    }

    #[tokio::test]
    async fn a_damaged_file_counts_as_missing() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("list.json"), "[1, 2").unwrap();
        assert_eq!(
            LastKnown::<Vec<u32>>::new(Some(directory.path()), "list.json")
                .get()
                .await,
            None
        );
    }

    #[tokio::test]
    async fn without_a_directory_the_value_lasts_as_long_as_the_process() {
        let last_known = LastKnown::new(None, "list.json");
        last_known.set(|| vec![7]);
        assert_eq!(last_known.get().await, Some(vec![7]));
    }
}
