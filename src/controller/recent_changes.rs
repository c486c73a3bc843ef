//! The volumes that this process created and deleted recently, for lists that were read before.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::volume_list::{VolumeChange, VolumeList};

/// No read of a list takes this long, so every later list contains an older change.
const FORGET: Duration = Duration::from_secs(300);

/// The changes of the last minutes, in their order.
#[derive(Default)]
pub(super) struct RecentChanges(Mutex<Vec<(Instant, VolumeChange)>>);

impl RecentChanges {
    /// Records a change that was confirmed just now.
    pub(super) fn record(&self, change: VolumeChange) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.retain(|(when, _)| when.elapsed() < FORGET);
        recorded.push((Instant::now(), change));
    }

    /// Applies the changes that may be missing in a list whose read started at `began`.
    pub(super) fn apply_since(&self, list: &mut VolumeList, began: Instant) {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, change) in recorded.iter().filter(|(when, _)| *when >= began) {
            list.apply(*change);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_after_the_start_of_its_read_are_applied_to_a_list() {
        let created = |id: u128| VolumeChange::Created {
            dataset: Uuid::from_u128(id),
            size: 1,
        };
        let changes = RecentChanges::default();
        changes.record(created(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let began = Instant::now();
        for change in [created(2), created(3), VolumeChange::Deleted(Uuid::from_u128(3))] {
            changes.record(change);
        }
        let mut list = VolumeList::default();
        changes.apply_since(&mut list, began);
        let ids: Vec<_> = list.volumes.iter().map(|volume| volume.dataset).collect();
        assert_eq!(ids, [Uuid::from_u128(2)]);
        tokio::time::advance(FORGET).await;
        changes.record(created(4));
        assert_eq!(changes.0.lock().unwrap().len(), 1, "older changes are dropped");
    }
}
