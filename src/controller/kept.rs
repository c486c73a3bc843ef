//! The last answer, kept for the time that Flocker is down.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use host_fs::durable::{make_directory, replace_file};

/// Keeps the newest value in memory and, where there is a directory for it, in a file.
///
/// It is a convenience: a file that cannot be written or read is logged and otherwise as good as none.
pub(super) struct Kept<T> {
    file: Option<PathBuf>,
    newest: Arc<Mutex<Option<T>>>,
    /// What the file holds; locked by whoever writes it, for as long as that takes.
    written: Arc<Mutex<Option<T>>>,
}

impl<T> Kept<T>
where
    T: Clone + DeserializeOwned + PartialEq + Send + Serialize + 'static,
{
    /// Makes an empty one that uses the file `name` in `directory`.
    pub(super) fn new(directory: Option<&Path>, name: &str) -> Self {
        Self {
            file: directory.map(|directory| directory.join(name)),
            newest: Arc::default(),
            written: Arc::default(),
        }
    }

    /// Remembers what `value` returns while nothing else is remembered; the file follows in the background, if it changes.
    pub(super) fn put(&self, value: impl FnOnce() -> T) {
        self.set(|newest| *newest = Some(value()));
    }

    /// Changes a part of the last value; the file follows in the background, if that changes.
    pub(super) async fn update(&self, change: impl FnOnce(&mut T))
    where
        T: Default,
    {
        self.last().await;
        self.set(|newest| change(newest.get_or_insert_default()));
    }

    /// Changes a part of the last value, if there is one; the file follows in the background, if that changes.
    pub(super) async fn amend(&self, change: impl FnOnce(&mut T)) {
        self.last().await;
        self.set(|newest| {
            if let Some(newest) = newest {
                change(newest);
            }
        });
    }

    /// Returns the newest value of this process, else the one that an earlier process left.
    pub(super) async fn last(&self) -> Option<T> {
        let newest = lock(&self.newest).clone();
        let (None, Some(file)) = (&newest, self.file.clone()) else {
            return newest;
        };
        let read = tokio::task::spawn_blocking(move || read_if_there(&file))
            .await
            .ok()
            .flatten();
        let mut newest = lock(&self.newest);
        if newest.is_none() {
            newest.clone_from(&read);
        }
        newest.clone()
    }

    fn set(&self, change: impl FnOnce(&mut Option<T>)) {
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
        tokio::task::spawn_blocking(move || {
            // Writers may overtake each other, so each one writes what is the newest by then.
            let mut written = lock(&written);
            let newest = lock(&newest).clone();
            if *written == newest {
                return;
            }
            match newest.as_ref().map_or(Ok(()), |value| write(&file, value)) {
                Ok(()) => *written = newest,
                Err(error) => {
                    tracing::warn!(
                        "Cannot keep the last answer of Flocker in {}: {error}",
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

fn read_if_there<T: DeserializeOwned>(file: &Path) -> Option<T> {
    let read = std::fs::read(file).and_then(|content| Ok(serde_json::from_slice(&content)?));
    match read {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(
                "Cannot use the last answer of Flocker in {}: {error}",
                file.display()
            );
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
        let reads_it = async {
            while Kept::<Vec<u32>>::new(Some(directory), "list.json")
                .last()
                .await
                .as_deref()
                != Some(expected)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reads_it)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn another_process_finds_the_last_value() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::new(Some(directory.path()), "list.json");
        assert_eq!(kept.last().await, None);
        for value in [vec![1], vec![1, 2], vec![1, 2, 3]] {
            kept.put(|| value);
        }
        assert_eq!(kept.last().await, Some(vec![1, 2, 3]));
        in_file(directory.path(), &[1, 2, 3]).await;
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[tokio::test]
    async fn a_part_is_changed_without_the_others() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("list.json"), "[1, 2]").unwrap();
        let kept = Kept::<Vec<u32>>::new(Some(directory.path()), "list.json");
        kept.update(|list| list.push(3)).await;
        in_file(directory.path(), &[1, 2, 3]).await;
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_amended() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::<Vec<u32>>::new(Some(directory.path()), "list.json");
        kept.amend(|list| list.push(1)).await;
        assert_eq!(kept.last().await, None);
        kept.put(|| vec![1]);
        kept.amend(|list| list.push(2)).await;
        in_file(directory.path(), &[1, 2]).await;
    }

    #[tokio::test]
    async fn a_damaged_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("list.json"), "[1, 2").unwrap();
        assert_eq!(
            Kept::<Vec<u32>>::new(Some(directory.path()), "list.json")
                .last()
                .await,
            None
        );
    }

    #[tokio::test]
    async fn without_a_directory_it_lives_as_long_as_the_process() {
        let kept = Kept::new(None, "list.json");
        kept.put(|| vec![7]);
        assert_eq!(kept.last().await, Some(vec![7]));
    }
}
