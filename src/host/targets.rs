//! An index of the targets at which volumes may be published.
//!
//! Only whether to look: the mount table is read before anything is concluded from a target that is known. Without this
//! index each answer to "is it published elsewhere" would take the whole mount table, which grows with every volume of the
//! node.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The paths at which datasets may be published.
#[derive(Debug, Default)]
pub(super) struct Targets {
    known: Mutex<HashMap<Uuid, BTreeSet<PathBuf>>>,
}

impl Targets {
    /// Adds a path, before the dataset is mounted there.
    pub(super) fn add(&self, dataset: Uuid, path: &Path) {
        self.lock().entry(dataset).or_default().insert(path.to_owned());
    }

    /// Whether the dataset may be published at a path.
    pub(super) fn contains(&self, dataset: Uuid, path: &Path) -> bool {
        self.lock()
            .get(&dataset)
            .is_some_and(|paths| paths.contains(path))
    }

    /// Removes a path at which the dataset is not mounted.
    pub(super) fn remove(&self, dataset: Uuid, path: &Path) {
        let mut known = self.lock();
        if let Some(paths) = known.get_mut(&dataset) {
            paths.remove(path);
            if paths.is_empty() {
                known.remove(&dataset);
            }
        }
    }

    /// Notes these paths of the dataset instead of those that were known.
    pub(super) fn replace(&self, dataset: Uuid, paths: BTreeSet<PathBuf>) {
        let mut known = self.lock();
        if paths.is_empty() {
            known.remove(&dataset);
        } else {
            known.insert(dataset, paths);
        }
    }

    /// Returns one path of the dataset that is not `path`.
    pub(super) fn other_than(&self, dataset: Uuid, path: &Path) -> Option<PathBuf> {
        let known = self.lock();
        let mut paths = known.get(&dataset)?.iter();
        paths.find(|other| *other != path).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, BTreeSet<PathBuf>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_target_of_the_same_dataset_is_found_until_it_is_removed() {
        let targets = Targets::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (a, b) = (Path::new("/a"), Path::new("/b"));
        targets.add(one, a);
        targets.add(one, a);
        targets.add(two, b);
        assert_eq!(targets.other_than(one, a), None);
        assert_eq!(targets.other_than(one, b).as_deref(), Some(a));
        targets.remove(one, a);
        targets.remove(one, a);
        assert_eq!(targets.other_than(one, b), None);
        targets.replace(one, [a.to_owned()].into());
        assert_eq!(targets.other_than(one, b).as_deref(), Some(a));
        targets.replace(one, BTreeSet::new());
        assert_eq!(targets.other_than(one, b), None);
        assert_eq!(
            targets.lock().len(),
            1,
            "no entry is kept for a dataset without targets"
        );
    }
}
