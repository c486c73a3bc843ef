//! How much storage is taken: by node for placement, by pool for capacity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flocker_client::Dataset;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::Result;
use crate::flocker::cluster::Snapshot;
use crate::flocker::provisioning::Pool;
use crate::volume::{profile_of, size_of};

/// No request for a snapshot takes this long, so an older claim is in every snapshot to come.
const FORGET: Duration = Duration::from_secs(300);

/// Returns the pool that a volume of `profile` is taken from: that profile's, else the one without a profile.
pub(super) fn pool_of<'a>(pools: &'a [Pool], profile: Option<&str>) -> Option<&'a Pool> {
    let of = |profile: Option<&str>| pools.iter().find(|pool| pool.profile.as_deref() == profile);
    of(profile).or_else(|| of(None))
}

/// The bytes that datasets take.
#[derive(Debug, Default)]
pub struct Usage {
    /// Live data by configured primary.
    data: HashMap<Uuid, u64>,
    /// Everything that takes room, also what is deleted and not destroyed yet, by the pool's profile and node.
    taken: HashMap<(Option<String>, Uuid), u64>,
}

impl Usage {
    /// Counts the datasets of `snapshot`, which needs configuration and state.
    pub fn of(snapshot: &Snapshot, pools: &[Pool]) -> Self {
        let mut usage = Self::default();
        for dataset in snapshot.datasets() {
            let exists = !snapshot.states(dataset.dataset_id).is_empty();
            let size = size_in(snapshot, dataset);
            if !dataset.deleted {
                usage.add_data(dataset.primary, size);
            }
            if !dataset.deleted || exists {
                usage.add_taken(pools, profile_of(&dataset.metadata), dataset.primary, size);
            }
        }
        usage
    }

    fn add_data(&mut self, node: Uuid, size: u64) {
        let data = self.data.entry(node).or_default();
        *data = data.saturating_add(size);
    }

    fn add_taken(&mut self, pools: &[Pool], profile: Option<&str>, node: Uuid, size: u64) {
        if let Some(pool) = pool_of(pools, profile) {
            let taken = self.taken.entry((pool.profile.clone(), node)).or_default();
            *taken = taken.saturating_add(size);
        }
    }

    /// Returns the node of `nodes` with the least live data; among equals, the first by id.
    pub(super) fn least_loaded(&self, nodes: impl Iterator<Item = Uuid>) -> Option<Uuid> {
        nodes.min_by_key(|node| (self.data.get(node).copied().unwrap_or(0), *node))
    }

    /// Returns how many bytes `pool` has left for a volume on `node`.
    pub fn room(&self, pool: &Pool, node: Uuid) -> u64 {
        let of_pool = self
            .taken
            .iter()
            .filter(|((profile, _), _)| *profile == pool.profile);
        let taken = of_pool
            .filter(|((_, at), _)| !pool.per_node || *at == node)
            .fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        pool.capacity.saturating_sub(taken)
    }
}

/// Returns the size of a dataset as Flocker's configuration has it, else as a node reports it.
pub fn size_in(snapshot: &Snapshot, dataset: &Dataset) -> u64 {
    let reported = snapshot
        .states(dataset.dataset_id)
        .iter()
        .filter_map(|state| state.maximum_size)
        .max();
    size_of(dataset.maximum_size, reported)
}

/// The volumes that this process is about to declare to Flocker.
///
/// Creates that run at the same time read the same configuration. Each claims its room here before it is written
/// there, so that they neither pile up on one node nor overfill a pool together.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    claims: Arc<Mutex<HashMap<Uuid, Claim>>>,
}

/// A volume that is about to exist.
struct Claim {
    primary: Uuid,
    size: u64,
    profile: Option<String>,
    /// How many are about to declare it: one name may be used for the first time in several places at once.
    declaring: usize,
    /// When Flocker had answered all of them: snapshots that began later tell whether the dataset exists.
    settled: Option<Instant>,
}

/// Keeps a volume claimed; to be dropped when Flocker has answered.
pub(super) struct Claimed {
    ledger: Ledger,
    pub(super) dataset: Uuid,
    /// The node that was chosen.
    pub(super) primary: Uuid,
}

impl Ledger {
    /// Returns what is taken according to `snapshot` and the claims that it cannot contain yet.
    pub(super) fn usage(&self, snapshot: &Snapshot, pools: &[Pool]) -> Usage {
        usage_with(self.lock().iter(), snapshot, pools)
    }

    /// Claims `size` bytes for `dataset` on the node that `choose` picks.
    ///
    /// # Errors
    /// Those of `choose`.
    pub(super) fn claim(
        &self,
        snapshot: &Snapshot,
        pools: &[Pool],
        (dataset, size, profile): (Uuid, u64, Option<String>),
        choose: impl FnOnce(&Usage) -> Result<Uuid>,
    ) -> Result<Claimed> {
        let mut claims = self.lock();
        // Whoever claims the same dataset means the same room.
        let others = claims.iter().filter(|(claimed, _)| **claimed != dataset);
        let primary = choose(&usage_with(others, snapshot, pools))?;
        claims.retain(|_, claim| claim.settled.is_none_or(|settled| settled.elapsed() < FORGET));
        let declaring = claims.get(&dataset).map_or(0, |claim| claim.declaring) + 1;
        claims.insert(
            dataset,
            Claim {
                primary,
                size,
                profile,
                declaring,
                settled: None,
            },
        );
        Ok(Claimed {
            ledger: self.clone(),
            dataset,
            primary,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(claim) = self.ledger.lock().get_mut(&self.dataset) {
            claim.declaring -= 1;
            claim.settled = (claim.declaring == 0).then(Instant::now);
        }
    }
}

fn usage_with<'a>(
    claims: impl Iterator<Item = (&'a Uuid, &'a Claim)>,
    snapshot: &Snapshot,
    pools: &[Pool],
) -> Usage {
    let mut usage = Usage::of(snapshot, pools);
    for (dataset, claim) in claims {
        let unseen = claim.settled.is_none_or(|settled| settled >= snapshot.began());
        if unseen && snapshot.dataset(*dataset).is_none() {
            usage.add_data(claim.primary, claim.size);
            usage.add_taken(pools, claim.profile.as_deref(), claim.primary, claim.size);
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::DatasetState;

    use super::*;
    use crate::volume::PROFILE_KEY;

    const GIB: u64 = 1 << 30;
    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    fn dataset(id: u128, primary: Uuid, size: u64, profile: Option<&str>, deleted: bool) -> Dataset {
        let metadata: BTreeMap<_, _> = profile
            .map(|profile| (PROFILE_KEY.to_owned(), profile.to_owned()))
            .into_iter()
            .collect();
        Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted,
            maximum_size: Some(size),
            metadata,
        }
    }

    fn state(id: u128) -> DatasetState {
        DatasetState {
            dataset_id: Uuid::from_u128(id),
            maximum_size: Some(GIB),
            primary: None,
            path: None,
        }
    }

    fn pool(profile: Option<&str>, per_node: bool) -> Pool {
        Pool {
            profile: profile.map(str::to_owned),
            capacity: 10 * GIB,
            per_node,
        }
    }

    #[test]
    fn the_node_with_the_least_live_data_is_chosen_and_the_first_id_among_equals() {
        let datasets = vec![
            dataset(1, A, GIB, None, false),
            dataset(2, B, 9 * GIB, None, true),
        ];
        let snapshot = Snapshot::of(datasets, vec![state(2)], &[A, B], vec![]);
        let usage = Ledger::default().usage(&snapshot, &[]);
        assert_eq!(
            usage.least_loaded([A, B].into_iter()),
            Some(B),
            "what is deleted is no load"
        );
        assert_eq!(Usage::default().least_loaded([B, A].into_iter()), Some(A));
        assert_eq!(Usage::default().least_loaded(std::iter::empty()), None);
    }

    #[test]
    fn a_pool_is_filled_by_its_profile_and_by_deletions_that_are_not_done() {
        let datasets = vec![
            dataset(1, A, GIB, Some("gold"), false),
            dataset(2, B, 2 * GIB, Some("gold"), false),
            dataset(3, A, 3 * GIB, None, false),
            dataset(4, A, GIB, Some("gold"), true),
            dataset(5, A, 5 * GIB, Some("gold"), true),
            dataset(6, A, GIB, Some("no pool"), false),
        ];
        let snapshot = Snapshot::of(datasets, vec![state(1), state(4)], &[A, B], vec![]);
        let pools = [pool(Some("gold"), false), pool(None, true)];
        let usage = Ledger::default().usage(&snapshot, &pools);
        assert_eq!(
            usage.room(&pools[0], A),
            6 * GIB,
            "1 and 2, and 4, which is still there"
        );
        assert_eq!(
            usage.room(&pools[1], A),
            6 * GIB,
            "3, and 6, whose profile has no pool"
        );
        assert_eq!(usage.room(&pools[1], B), 10 * GIB);
    }

    #[test]
    fn creates_at_the_same_time_see_each_other() {
        let snapshot = Snapshot::of(vec![], vec![], &[A, B], vec![]);
        let pools = [pool(None, false)];
        let ledger = Ledger::default();
        let place = |id: u128| {
            let wanted = (Uuid::from_u128(id), 4 * GIB, None);
            ledger.claim(&snapshot, &pools, wanted, |usage| {
                Ok(usage.least_loaded([A, B].into_iter()).unwrap())
            })
        };
        let (first, second) = (place(1).unwrap(), place(2).unwrap());
        assert_eq!((first.primary, second.primary), (A, B));
        drop(first);
        let room = |snapshot: &Snapshot| ledger.usage(snapshot, &pools).room(&pools[0], A);
        assert_eq!(
            room(&snapshot),
            2 * GIB,
            "a snapshot from before the answer cannot have it"
        );
        let later = Snapshot::of(vec![], vec![], &[A, B], vec![]);
        assert_eq!(room(&later), 6 * GIB, "a later one knows better");
        let seen = Snapshot::of(vec![dataset(2, B, 4 * GIB, None, false)], vec![], &[A, B], vec![]);
        assert_eq!(room(&seen), 6 * GIB, "nothing is counted twice");
    }

    #[test]
    fn one_dataset_that_is_claimed_twice_takes_its_room_once_until_both_are_answered() {
        let before = Snapshot::of(vec![], vec![], &[A], vec![]);
        let pools = [pool(None, false)];
        let ledger = Ledger::default();
        let room = |snapshot: &Snapshot| ledger.usage(snapshot, &pools).room(&pools[0], A);
        let claim = || {
            let wanted = (Uuid::from_u128(1), 6 * GIB, None);
            ledger
                .claim(&before, &pools, wanted, |usage| {
                    assert_eq!(usage.room(&pools[0], A), 10 * GIB);
                    Ok(A)
                })
                .unwrap()
        };
        let (first, second) = (claim(), claim());
        drop(first);
        let later = Snapshot::of(vec![], vec![], &[A], vec![]);
        assert_eq!(room(&later), 4 * GIB, "the other one may still make it");
        drop(second);
        let last = Snapshot::of(vec![], vec![], &[A], vec![]);
        assert_eq!(room(&last), 10 * GIB);
    }
}
