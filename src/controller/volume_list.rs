//! The list of volumes that `ListVolumes` returns in pages.

use csi_proto::v1::{Volume, VolumeCondition};
use flocker_client::Dataset;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bytes;
use super::condition::Condition;
use crate::flocker::cluster::Snapshot;
use crate::flocker::provisioning::{reported_size, size_in};

/// Live volumes, ordered by id, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct VolumeList {
    /// The only node whose volumes these are; `None` for the whole cluster.
    pub(super) node: Option<Uuid>,
    pub(super) volumes: Vec<ListedVolume>,
}

/// A change of the list that Flocker has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VolumeChange {
    Created { dataset: Uuid, size: u64 },
    Deleted(Uuid),
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ListedVolume {
    pub(super) dataset: Uuid,
    size: u64,
    /// The node that holds its lease.
    published: Option<Uuid>,
    #[serde(skip)]
    condition: Condition,
}

impl VolumeList {
    /// Lists the volumes of `snapshot`, or those whose configured primary is `node`.
    pub(super) fn of(snapshot: &Snapshot, node: Option<Uuid>) -> Self {
        let mut volumes: Vec<_> = snapshot
            .datasets()
            .filter(|dataset| !dataset.deleted && node.is_none_or(|node| dataset.primary == node))
            .map(|dataset| ListedVolume::of(snapshot, dataset))
            .collect();
        // They exist, so they are listed.
        let unreadable = snapshot
            .unreadable_datasets()
            .filter(|(_, primary)| node.is_none_or(|node| *primary == Some(node)))
            .map(|(dataset, _)| ListedVolume::of_unreadable(snapshot, dataset));
        let readable = volumes.len();
        volumes.extend(unreadable);
        if volumes.len() > readable {
            volumes.sort_by_key(|volume| volume.dataset);
        }
        Self { node, volumes }
    }

    /// Returns the empty list of a node.
    pub(super) fn empty(node: Uuid) -> Self {
        Self {
            node: Some(node),
            volumes: Vec::new(),
        }
    }

    /// Returns the list without conditions, which only describe a moment.
    pub(super) fn without_conditions(&self) -> Self {
        let mut list = self.clone();
        for volume in &mut list.volumes {
            volume.condition = Condition::Unknown;
        }
        list
    }

    /// Applies a change that came after the list was read.
    pub(super) fn apply(&mut self, change: VolumeChange) {
        match change {
            VolumeChange::Created { dataset, size } => self.add(dataset, size),
            VolumeChange::Deleted(dataset) => self.remove(dataset),
        }
    }

    fn add(&mut self, dataset: Uuid, size: u64) {
        if let Err(position) = self.position(dataset) {
            let volume = ListedVolume {
                dataset,
                size,
                published: None,
                condition: Condition::Unknown,
            };
            self.volumes.insert(position, volume);
        }
    }

    fn remove(&mut self, dataset: Uuid) {
        if let Ok(position) = self.position(dataset) {
            self.volumes.remove(position);
        }
    }

    pub(super) fn position(&self, dataset: Uuid) -> Result<usize, usize> {
        self.volumes
            .binary_search_by_key(&dataset, |volume| volume.dataset)
    }

    /// Returns the condition of each volume.
    pub(super) fn conditions(&self) -> impl Iterator<Item = (Uuid, &Condition)> {
        self.volumes
            .iter()
            .map(|volume| (volume.dataset, &volume.condition))
    }

    /// Returns the volumes after the id `last`, which need not exist any more.
    pub(super) fn after(&self, last: Option<Uuid>) -> &[ListedVolume] {
        let start = last.map_or(0, |last| {
            self.volumes.partition_point(|volume| volume.dataset <= last)
        });
        &self.volumes[start..]
    }
}

impl ListedVolume {
    /// Describes one dataset of `snapshot`, which needs all lists.
    pub(super) fn of(snapshot: &Snapshot, dataset: &Dataset) -> Self {
        Self {
            dataset: dataset.dataset_id,
            size: size_in(snapshot, dataset),
            published: None,
            condition: Condition::of(snapshot, dataset),
        }
        .with_lease(snapshot)
    }

    /// Describes a dataset of `snapshot` whose entry in the configuration cannot be read.
    fn of_unreadable(snapshot: &Snapshot, dataset: Uuid) -> Self {
        Self {
            dataset,
            // 0 is the size of a volume whose size is not known.
            size: reported_size(snapshot, dataset).unwrap_or(0),
            published: None,
            condition: Condition::Unreadable,
        }
        .with_lease(snapshot)
    }

    fn with_lease(mut self, snapshot: &Snapshot) -> Self {
        match snapshot.lease(self.dataset) {
            Ok(lease) => self.published = lease.map(|lease| lease.node_uuid),
            Err(_) => self.condition = Condition::LeaseUnreadable,
        }
        self
    }

    /// Returns the volume as `CreateVolume` returned it, byte for byte.
    pub(super) fn volume(&self) -> Volume {
        Volume {
            volume_id: self.dataset.to_string(),
            capacity_bytes: bytes(self.size),
            ..Default::default()
        }
    }

    /// Returns the nodes that the volume is published to.
    pub(super) fn published_node_ids(&self) -> Vec<String> {
        self.published.iter().map(Uuid::to_string).collect()
    }

    /// Returns what was found about the volume.
    pub(super) fn found(&self) -> &Condition {
        &self.condition
    }

    /// Returns the volume's condition.
    pub(super) fn condition(&self) -> VolumeCondition {
        VolumeCondition {
            abnormal: self.condition.is_abnormal(),
            message: self.condition.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::{DatasetState, Lease};

    use super::*;

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);

    fn dataset(id: u128, primary: Uuid, maximum_size: Option<u64>, deleted: bool) -> Dataset {
        Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted,
            maximum_size,
            metadata: BTreeMap::new(),
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn state(id: u128, primary: Option<Uuid>) -> DatasetState {
        let path = primary.map(|_| "/flocker/x".into());
        DatasetState {
            dataset_id: Uuid::from_u128(id),
            maximum_size: Some(2 << 30),
            primary,
            path,
            unreadable_primary: false,
        }
    }

    #[test]
    fn live_volumes_are_listed_once_each_ordered_by_id() {
        let datasets = vec![
            dataset(3, A, Some(1 << 30), false),
            dataset(1, B, None, false),
            dataset(2, A, None, true),
        ];
        let lease = Lease {
            dataset_id: Uuid::from_u128(3),
            node_uuid: A,
            expires: None,
        };
        let states = vec![state(1, Some(A)), state(1, Some(B)), state(3, Some(A))];
        let snapshot = Snapshot::of(datasets, states, &[A, B], vec![lease]);
        let listing = VolumeList::of(&snapshot, None);
        let listed: Vec<_> = listing
            .volumes
            .iter()
            .map(|volume| {
                (
                    volume.dataset.as_u128(),
                    volume.volume().capacity_bytes,
                    volume.published_node_ids(),
                )
            })
            .collect();
        assert_eq!(listed, [(1, 2 << 30, vec![]), (3, 1 << 30, vec![A.to_string()])]);
        let here: Vec<_> = VolumeList::of(&snapshot, Some(A))
            .volumes
            .iter()
            .map(|volume| volume.dataset)
            .collect();
        assert_eq!(here, [Uuid::from_u128(3)]);
    }

    #[test]
    fn a_page_starts_after_the_last_id_even_when_that_volume_was_deleted() {
        let datasets = [1, 3, 5].map(|id| dataset(id, A, None, false)).to_vec();
        let listing = VolumeList::of(&Snapshot::of(datasets, vec![], &[A], vec![]), None);
        for (last, expected) in [
            (None, 3),
            (Some(1), 2),
            (Some(2), 2),
            (Some(5), 0),
            (Some(u128::MAX), 0),
        ] {
            assert_eq!(
                listing.after(last.map(Uuid::from_u128)).len(),
                expected,
                "{last:?}"
            );
        }
    }

    #[test]
    fn volumes_created_and_deleted_later_are_applied_in_order() {
        let datasets = [1, 5].map(|id| dataset(id, A, Some(1 << 30), false)).to_vec();
        let mut listing = VolumeList::of(&Snapshot::of(datasets, vec![], &[A], vec![]), Some(A));
        for id in [3, 3, 7, 5] {
            listing.add(Uuid::from_u128(id), 2 << 30);
        }
        for id in [1, 1, 9] {
            listing.remove(Uuid::from_u128(id));
        }
        let listed = listing.volumes.iter();
        let listed: Vec<_> = listed
            .map(|volume| (volume.dataset.as_u128(), volume.size))
            .collect();
        assert_eq!(listed, [(3, 2 << 30), (5, 1 << 30), (7, 2 << 30)]);
    }

    #[test]
    fn a_stored_list_has_sizes_but_no_conditions() {
        let snapshot = Snapshot::of(
            vec![dataset(1, A, Some(1 << 30), false)],
            vec![state(1, Some(A))],
            &[A],
            vec![],
        );
        let kept = VolumeList::of(&snapshot, Some(A)).without_conditions();
        let listing: VolumeList = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(listing, kept);
        assert_eq!(listing.node, Some(A));
        assert_eq!(listing.volumes[0].volume().capacity_bytes, 1 << 30);
        assert!(listing.volumes[0].condition().message.starts_with("not known"));
    }
}
