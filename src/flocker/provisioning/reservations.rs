//! The volumes that this process is about to declare to Flocker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::pool::Pool;
use super::pool_usage::PoolUsage;
use crate::error::Result;
use crate::flocker::cluster::Snapshot;

/// No request for a snapshot takes this long, so every later snapshot contains an older reservation's dataset.
const FORGET: Duration = Duration::from_secs(300);

/// The reservations of this process; clones share them.
///
/// Concurrent creates read the same configuration. Each reserves its space here before it declares its dataset, so that
/// they neither choose the same node nor overfill a pool together.
#[derive(Clone, Default)]
pub(super) struct Reservations {
    reserved: Arc<Mutex<HashMap<Uuid, Reservation>>>,
}

/// The space of a volume that is about to be declared.
struct Reservation {
    primary: Uuid,
    size: u64,
    profile: Option<String>,
    /// How many calls are about to declare it: one name may be used for the first time at several paths at once.
    declaring: usize,
    /// When Flocker had answered all of them: snapshots that began later show whether the dataset exists.
    settled: Option<Instant>,
}

/// Keeps the space of a volume reserved; to be dropped when Flocker has answered.
pub(super) struct ReservationGuard {
    reservations: Reservations,
    pub(super) dataset: Uuid,
    /// The node that was chosen.
    pub(super) primary: Uuid,
}

impl Reservations {
    /// Returns the usage according to `snapshot` and the reservations that it cannot contain yet.
    pub(super) fn usage(&self, snapshot: &Snapshot, pools: &[Pool]) -> PoolUsage {
        usage_with(self.lock().iter(), snapshot, pools)
    }

    /// Reserves `size` bytes for `dataset` on the node that `choose` returns.
    ///
    /// # Errors
    /// Those of `choose`.
    pub(super) fn reserve(
        &self,
        snapshot: &Snapshot,
        pools: &[Pool],
        (dataset, size, profile): (Uuid, u64, Option<String>),
        choose: impl FnOnce(&PoolUsage) -> Result<Uuid>,
    ) -> Result<ReservationGuard> {
        let mut reserved = self.lock();
        // Reservations of one dataset are for the same space.
        let others = reserved.iter().filter(|(other, _)| **other != dataset);
        let primary = choose(&usage_with(others, snapshot, pools))?;
        reserved.retain(|_, reservation| {
            reservation
                .settled
                .is_none_or(|settled| settled.elapsed() < FORGET)
        });
        let declaring = reserved
            .get(&dataset)
            .map_or(0, |reservation| reservation.declaring)
            + 1;
        reserved.insert(
            dataset,
            Reservation {
                primary,
                size,
                profile,
                declaring,
                settled: None,
            },
        );
        Ok(ReservationGuard {
            reservations: self.clone(),
            dataset,
            primary,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Reservation>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReservationGuard {
    /// Gives the space back: Flocker has refused the dataset, which cannot exist.
    pub(super) fn withdraw(self) {
        let mut reserved = self.reservations.lock();
        let is_last = reserved
            .get(&self.dataset)
            .is_some_and(|reservation| reservation.declaring == 1);
        if is_last {
            reserved.remove(&self.dataset);
        }
    }
}

impl Drop for ReservationGuard {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservations.lock().get_mut(&self.dataset) {
            reservation.declaring -= 1;
            reservation.settled = (reservation.declaring == 0).then(Instant::now);
        }
    }
}

fn usage_with<'a>(
    reservations: impl Iterator<Item = (&'a Uuid, &'a Reservation)>,
    snapshot: &Snapshot,
    pools: &[Pool],
) -> PoolUsage {
    let mut usage = PoolUsage::of(snapshot, pools);
    for (dataset, reservation) in reservations {
        let unseen = reservation
            .settled
            .is_none_or(|settled| settled >= snapshot.began());
        let exists = !matches!(snapshot.dataset(*dataset), Ok(None));
        if unseen && !exists {
            usage.add_data(reservation.primary, reservation.size);
            let profile = reservation.profile.as_deref();
            usage.add_used(pools, profile, reservation.primary, reservation.size);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::Dataset;

    use super::*;

    const GIB: u64 = 1 << 30;
    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    fn dataset(id: u128, primary: Uuid, size: u64) -> Dataset {
        Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted: false,
            maximum_size: Some(size),
            metadata: BTreeMap::new(),
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn pool() -> Pool {
        Pool {
            profile: None,
            capacity: 10 * GIB,
            per_node: false,
        }
    }

    #[test]
    fn concurrent_creates_see_each_other() {
        let snapshot = Snapshot::of(vec![], vec![], &[A, B], vec![]);
        let pools = [pool()];
        let reservations = Reservations::default();
        let place = |id: u128| {
            let wanted = (Uuid::from_u128(id), 4 * GIB, None);
            reservations.reserve(&snapshot, &pools, wanted, |usage| {
                Ok(usage.least_loaded([A, B].into_iter()).unwrap())
            })
        };
        let (first, second) = (place(1).unwrap(), place(2).unwrap());
        assert_eq!((first.primary, second.primary), (A, B));
        drop(first);
        let free = |snapshot: &Snapshot| reservations.usage(snapshot, &pools).free(&pools[0], A);
        assert_eq!(
            free(&snapshot),
            2 * GIB,
            "a snapshot from before the answer cannot have it"
        );
        let later = Snapshot::of(vec![], vec![], &[A, B], vec![]);
        assert_eq!(free(&later), 6 * GIB, "a later one shows that it does not exist");
        let seen = Snapshot::of(vec![dataset(2, B, 4 * GIB)], vec![], &[A, B], vec![]);
        assert_eq!(free(&seen), 6 * GIB, "nothing is counted twice");
    }

    #[test]
    fn a_dataset_that_is_reserved_twice_uses_its_space_once_until_both_are_answered() {
        let before = Snapshot::of(vec![], vec![], &[A], vec![]);
        let pools = [pool()];
        let reservations = Reservations::default();
        let free = |snapshot: &Snapshot| reservations.usage(snapshot, &pools).free(&pools[0], A);
        let reserve = || {
            let wanted = (Uuid::from_u128(1), 6 * GIB, None);
            reservations
                .reserve(&before, &pools, wanted, |usage| {
                    assert_eq!(usage.free(&pools[0], A), 10 * GIB);
                    Ok(A)
                })
                .unwrap()
        };
        let (first, second) = (reserve(), reserve());
        drop(first);
        let later = Snapshot::of(vec![], vec![], &[A], vec![]);
        assert_eq!(free(&later), 4 * GIB, "the other call may still create it");
        drop(second);
        let last = Snapshot::of(vec![], vec![], &[A], vec![]);
        assert_eq!(free(&last), 10 * GIB);
    }
}
