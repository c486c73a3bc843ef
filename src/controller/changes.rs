//! What this process made and deleted lately, for lists that were read before it did.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::listing::{Change, Listing};

/// No read of a list takes this long, so an older change is in every list to come.
const FORGET: Duration = Duration::from_secs(300);

/// The changes of the last minutes, in their order.
#[derive(Default)]
pub(super) struct Changes(Mutex<Vec<(Instant, Change)>>);

impl Changes {
    /// Takes note of a change that was confirmed a moment ago.
    pub(super) fn note(&self, change: Change) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.retain(|(when, _)| when.elapsed() < FORGET);
        noted.push((Instant::now(), change));
    }

    /// Makes up for what a list that was read from `began` on may lack.
    pub(super) fn catch_up(&self, listing: &mut Listing, began: Instant) {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, change) in noted.iter().filter(|(when, _)| *when >= began) {
            listing.apply(*change);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_catches_up_with_what_came_after_its_beginning() {
        let made = |id: u128| Change::Made {
            dataset: Uuid::from_u128(id),
            size: 1,
        };
        let changes = Changes::default();
        changes.note(made(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        let began = Instant::now();
        for change in [made(2), made(3), Change::Deleted(Uuid::from_u128(3))] {
            changes.note(change);
        }
        let mut listing = Listing::default();
        changes.catch_up(&mut listing, began);
        let ids: Vec<_> = listing.volumes.iter().map(|volume| volume.dataset).collect();
        assert_eq!(ids, [Uuid::from_u128(2)]);
        tokio::time::advance(FORGET).await;
        changes.note(made(4));
        assert_eq!(changes.0.lock().unwrap().len(), 1, "what is old is forgotten");
    }
}
