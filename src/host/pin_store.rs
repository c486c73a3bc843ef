//! Keeping the pins with the service manager while the plugin is restarted.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use host_fs::{DescriptorStore, take_kept_paths};
use uuid::Uuid;

/// What the name of a kept pin begins with; the id of its dataset follows.
const PREFIX: &str = "pin-";

/// The store of a service manager; without one it keeps nothing. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct PinStore {
    store: Option<Arc<DescriptorStore>>,
    /// What was kept for this process, until it is taken.
    kept: Arc<Mutex<Vec<(String, OwnedFd)>>>,
}

impl PinStore {
    /// Connects to the service manager that has started this process, and takes what it has kept. To be called once.
    pub(crate) fn of_this_process() -> Self {
        let store = DescriptorStore::of_this_process().unwrap_or_else(|error| {
            tracing::warn!(%error, "The service manager cannot keep the pins of volumes while the plugin is restarted");
            None
        });
        Self {
            store: store.map(Arc::new),
            kept: Arc::new(Mutex::new(take_kept_paths(PREFIX))),
        }
    }

    /// Takes what was kept, with its datasets, where the names are those of datasets.
    pub(super) fn take(&self) -> Vec<(String, Option<Uuid>, OwnedFd)> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        let named = |(name, pin): (String, OwnedFd)| {
            let dataset = name.strip_prefix(PREFIX).and_then(|id| id.parse().ok());
            (name, dataset, pin)
        };
        kept.into_iter().map(named).collect()
    }

    /// Keeps the pin of a dataset instead of an earlier one.
    pub(super) fn keep(&self, dataset: Uuid, pin: BorrowedFd<'_>) {
        let Some(store) = &self.store else { return };
        let name = name_of(dataset);
        if let Err(error) = store.remove(&name).and_then(|()| store.keep(&name, pin)) {
            tracing::warn!(
                volume.id = %dataset,
                %error,
                "The service manager does not keep the pin of dataset {dataset}: while the plugin is restarted, only the lease \
                 keeps the volume on this node"
            );
        }
    }

    /// Makes the manager close the pin of a dataset.
    pub(super) fn remove(&self, dataset: Uuid) {
        self.remove_named(&name_of(dataset));
    }

    /// Makes the manager close what it keeps under a name.
    pub(super) fn remove_named(&self, name: &str) {
        let Some(store) = &self.store else { return };
        if let Err(error) = store.remove(name) {
            tracing::error!(
                %error,
                "The service manager still keeps {name}: Flocker cannot unmount that volume on this node until the service is \
                 stopped, or systemctl clean --what=fdstore has emptied the store"
            );
        }
    }
}

fn name_of(dataset: Uuid) -> String {
    format!("{PREFIX}{dataset}")
}
