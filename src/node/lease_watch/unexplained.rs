//! Leases of this node on volumes of which it has neither a record nor a mount.
//!
//! Between `ControllerPublishVolume` and `NodeStageVolume`, and after `NodeUnstageVolume`, that is the normal state of a volume
//! that a controller attaches. So such a lease is reported when it is old, and never released by guess.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The leases that have been seen, and since when.
#[derive(Debug, Default)]
pub(super) struct Unexplained {
    seen: HashMap<Uuid, Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    is_reported: bool,
}

impl Unexplained {
    /// Notes what a read showed, and returns the leases that are older than `grace` and have not been reported.
    pub(super) fn note(&mut self, leases: &[Uuid], grace: Duration) -> Vec<Uuid> {
        self.seen.retain(|dataset, _| leases.contains(dataset));
        for dataset in leases {
            self.seen.entry(*dataset).or_insert_with(|| Seen {
                since: Instant::now(),
                is_reported: false,
            });
        }
        let old = self.seen.iter().filter(|(_, seen)| seen.is_due(grace));
        old.map(|(dataset, _)| *dataset).collect()
    }

    /// Notes that a lease has been reported.
    pub(super) fn reported(&mut self, dataset: Uuid) {
        if let Some(seen) = self.seen.get_mut(&dataset) {
            seen.is_reported = true;
        }
    }

    /// Whether a lease is old enough to be reported, if it still exists.
    pub(super) fn is_due(&self, grace: Duration) -> bool {
        self.seen.values().any(|seen| seen.is_due(grace))
    }
}

impl Seen {
    fn is_due(&self, grace: Duration) -> bool {
        !self.is_reported && self.since.elapsed() >= grace
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const NONE: [Uuid; 0] = [];

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_reported_once_and_only_after_it_was_seen_for_the_grace_without_a_gap() {
        let grace = Duration::from_secs(180);
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut unexplained = Unexplained::default();
        assert_eq!(unexplained.note(&[one, two], grace), NONE);
        advance(grace / 2).await;
        assert_eq!(unexplained.note(&[one], grace), NONE);
        assert!(!unexplained.is_due(grace));
        advance(grace / 2).await;
        assert!(unexplained.is_due(grace));
        assert_eq!(
            unexplained.note(&[one, two], grace),
            [one],
            "two was released in between"
        );
        unexplained.reported(one);
        assert_eq!(unexplained.note(&[one, two], grace), NONE);
        advance(grace).await;
        assert_eq!(unexplained.note(&[one, two], grace), [two]);
        assert_eq!(unexplained.note(&[], grace), NONE);
        assert!(!unexplained.is_due(grace));
    }
}
