//! Volumes for which a request whose outcome is unclear may still create a dataset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::volume::VolumeName;

/// No request is carried out later than this after its connection failed.
const LATEST: Duration = Duration::from_secs(300);

/// The names of these volumes. Clones share them.
///
/// As long as a name is recorded, its creation must not be answered with a final error: the orchestrator would never
/// delete the dataset that the request may have created.
///
/// They are not stored. After a restart the repeated call requests the same dataset id, and finds or creates that
/// dataset; only where the answer has changed since, because a profile was removed or Flocker now refuses the
/// request, does it end in a final error, and the dataset is listed under its name.
#[derive(Clone, Default)]
pub(super) struct UnclearCreations {
    since: Arc<Mutex<HashMap<VolumeName, Instant>>>,
}

impl UnclearCreations {
    /// Records that the outcome of a request for `name` is unclear.
    pub(super) fn record(&self, name: &VolumeName) {
        let mut since = self.lock();
        since.retain(|_, since| since.elapsed() < LATEST);
        since.insert(name.clone(), Instant::now());
    }

    /// Removes `name`, whose dataset is known to exist.
    pub(super) fn settle(&self, name: &VolumeName) {
        self.lock().remove(name);
    }

    pub(super) fn contains(&self, name: &VolumeName) -> bool {
        self.lock()
            .get(name)
            .is_some_and(|since| since.elapsed() < LATEST)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeName, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_creation_is_unclear_until_its_dataset_exists_or_the_request_is_too_old() {
        let unclear = UnclearCreations::default();
        let [one, two] = ["pvc-1", "pvc-2"].map(|name| VolumeName::parse(name).unwrap());
        unclear.record(&one);
        unclear.clone().record(&two);
        assert!(unclear.contains(&one) && unclear.contains(&two));
        unclear.settle(&one);
        assert!(!unclear.contains(&one) && unclear.contains(&two));
        tokio::time::advance(LATEST).await;
        assert!(!unclear.contains(&two));
    }
}
