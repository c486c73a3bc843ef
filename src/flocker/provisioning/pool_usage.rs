//! How much storage datasets use: by node for placement, by pool for capacity.

use std::collections::HashMap;

use flocker_client::{Dataset, DatasetState};
use uuid::Uuid;

use super::pool::Pool;
use crate::flocker::cluster::{Lists, Snapshot};
use crate::volume::{profile_of, size_of};

/// Returns the pool of volumes with `profile`: that profile's, else the one without a profile.
pub(super) fn pool_of<'a>(pools: &'a [Pool], profile: Option<&str>) -> Option<&'a Pool> {
    let of = |profile: Option<&str>| pools.iter().find(|pool| pool.profile.as_deref() == profile);
    of(profile).or_else(|| of(None))
}

/// The bytes that datasets use.
#[derive(Debug, Default)]
pub(crate) struct PoolUsage {
    /// Live data by configured primary.
    data: HashMap<Uuid, u64>,
    /// All data, also that of datasets that are deleted and not destroyed yet, by the pool's profile and node.
    used: HashMap<(Option<String>, Uuid), u64>,
}

impl PoolUsage {
    /// Counts the datasets of `snapshot`, which needs the configuration, and state where there are pools.
    pub(crate) fn of(snapshot: &Snapshot, pools: &[Pool]) -> Self {
        let mut usage = Self::default();
        for dataset in snapshot.datasets() {
            let exists = !states_of(snapshot, dataset.dataset_id).is_empty();
            let size = size_in(snapshot, dataset);
            if !dataset.deleted {
                usage.add_data(dataset.primary, size);
            }
            if !dataset.deleted || exists {
                usage.add_used(pools, profile_of(&dataset.metadata), dataset.primary, size);
            }
        }
        // They may be deleted, so only what a node reports is counted.
        for (dataset, primary) in snapshot.unreadable_datasets() {
            let size = reported_size(snapshot, dataset).unwrap_or(0);
            let primary = primary.unwrap_or_default();
            usage.add_data(primary, size);
            usage.add_used(pools, None, primary, size);
        }
        usage
    }

    pub(super) fn add_data(&mut self, node: Uuid, size: u64) {
        let data = self.data.entry(node).or_default();
        *data = data.saturating_add(size);
    }

    pub(super) fn add_used(&mut self, pools: &[Pool], profile: Option<&str>, node: Uuid, size: u64) {
        if let Some(pool) = pool_of(pools, profile) {
            let used = self.used.entry((pool.profile.clone(), node)).or_default();
            *used = used.saturating_add(size);
        }
    }

    /// Returns the node of `nodes` with the least live data; among equals, the first by id.
    pub(super) fn least_loaded(&self, nodes: impl Iterator<Item = Uuid>) -> Option<Uuid> {
        nodes.min_by_key(|node| (self.data.get(node).copied().unwrap_or(0), *node))
    }

    /// Returns how many bytes of `pool` are free for a volume on `node`.
    pub(crate) fn free(&self, pool: &Pool, node: Uuid) -> u64 {
        let of_pool = self
            .used
            .iter()
            .filter(|((profile, _), _)| *profile == pool.profile);
        let used = of_pool
            .filter(|((_, at), _)| !pool.per_node || *at == node)
            .fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        pool.capacity.saturating_sub(used)
    }
}

/// Returns the size of a dataset as Flocker's configuration has it, else as a node reports it; 0 if it has one that cannot be
/// read.
pub(crate) fn size_in(snapshot: &Snapshot, dataset: &Dataset) -> u64 {
    let reported = reported_size(snapshot, dataset.dataset_id);
    if dataset.unreadable.size {
        reported.unwrap_or(0)
    } else {
        size_of(dataset.maximum_size, reported)
    }
}

/// Returns the size of a dataset as nodes report it.
pub(crate) fn reported_size(snapshot: &Snapshot, dataset: Uuid) -> Option<u64> {
    let states = states_of(snapshot, dataset).iter();
    states.filter_map(|state| state.maximum_size).max()
}

fn states_of(snapshot: &Snapshot, dataset: Uuid) -> &[DatasetState] {
    if snapshot.lists().contains(Lists::STATE) {
        snapshot.states(dataset)
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn state(id: u128) -> DatasetState {
        DatasetState {
            dataset_id: Uuid::from_u128(id),
            maximum_size: Some(GIB),
            primary: None,
            path: None,
            unreadable_primary: false,
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
        let usage = PoolUsage::of(&snapshot, &[]);
        assert_eq!(
            usage.least_loaded([A, B].into_iter()),
            Some(B),
            "a deleted dataset is no load"
        );
        assert_eq!(PoolUsage::default().least_loaded([B, A].into_iter()), Some(A));
        assert_eq!(PoolUsage::default().least_loaded(std::iter::empty()), None);
    }

    #[test]
    fn a_pool_holds_the_datasets_of_its_profile_and_deleted_ones_until_they_are_destroyed() {
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
        let usage = PoolUsage::of(&snapshot, &pools);
        assert_eq!(
            usage.free(&pools[0], A),
            6 * GIB,
            "1 and 2, and 4, which still exists"
        );
        assert_eq!(
            usage.free(&pools[1], A),
            6 * GIB,
            "3, and 6, whose profile has no pool"
        );
        assert_eq!(usage.free(&pools[1], B), 10 * GIB);
    }
}
