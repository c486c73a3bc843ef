//! The volumes of the cluster as `ListVolumes` tells them.

use std::collections::BTreeSet;
use std::fmt;

use csi_proto::v1::{Volume, VolumeCondition};
use flocker_client::Dataset;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bytes;
use crate::flocker::cluster::Snapshot;
use crate::flocker::provisioning::size_in;

/// Live volumes, ordered by id, each once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The one node whose volumes these are; `None`: the cluster's.
    pub(super) node: Option<Uuid>,
    pub(super) volumes: Vec<Listed>,
}

/// A change that Flocker has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Made { dataset: Uuid, size: u64 },
    Deleted(Uuid),
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) dataset: Uuid,
    size: u64,
    /// The node that holds its lease.
    published: Option<Uuid>,
    #[serde(skip)]
    condition: Condition,
}

/// How a volume is, as far as Flocker tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Condition {
    /// Flocker does not answer, or no node has reported since it started.
    #[default]
    Unknown,
    Mounted {
        node: Uuid,
    },
    /// It exists and is mounted nowhere, as for moments when it is made or moved.
    Detached {
        primary: Uuid,
    },
    NotBacked {
        primary: Uuid,
    },
    PrimaryMissing {
        primary: Uuid,
    },
    Elsewhere {
        primary: Uuid,
        reported: Uuid,
    },
    OnSeveralNodes(BTreeSet<Uuid>),
}

impl Listing {
    /// Lists the volumes of `snapshot`, or those whose configured primary is `node`.
    pub(super) fn of(snapshot: &Snapshot, node: Option<Uuid>) -> Self {
        let volumes = snapshot
            .datasets()
            .filter(|dataset| !dataset.deleted && node.is_none_or(|node| dataset.primary == node))
            .map(|dataset| Listed::of(snapshot, dataset))
            .collect();
        Self { node, volumes }
    }

    /// Returns the list of a node of whose volumes nothing is known.
    pub(super) fn empty(node: Uuid) -> Self {
        Self {
            node: Some(node),
            volumes: Vec::new(),
        }
    }

    /// Returns what is worth keeping of it; a condition describes a moment.
    pub(super) fn to_keep(&self) -> Self {
        let mut kept = self.clone();
        for volume in &mut kept.volumes {
            volume.condition = Condition::Unknown;
        }
        kept
    }

    /// Takes up what was made or found since, and leaves out what was deleted.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Made { dataset, size } => self.add(dataset, size),
            Change::Deleted(dataset) => self.remove(dataset),
        }
    }

    fn add(&mut self, dataset: Uuid, size: u64) {
        if let Err(place) = self.place(dataset) {
            let volume = Listed {
                dataset,
                size,
                published: None,
                condition: Condition::Unknown,
            };
            self.volumes.insert(place, volume);
        }
    }

    fn remove(&mut self, dataset: Uuid) {
        if let Ok(place) = self.place(dataset) {
            self.volumes.remove(place);
        }
    }

    fn place(&self, dataset: Uuid) -> Result<usize, usize> {
        self.volumes
            .binary_search_by_key(&dataset, |volume| volume.dataset)
    }

    /// Returns the volumes that come after the one of id `last`, which itself need not be there any more.
    pub(super) fn after(&self, last: Option<Uuid>) -> &[Listed] {
        let start = last.map_or(0, |last| {
            self.volumes.partition_point(|volume| volume.dataset <= last)
        });
        &self.volumes[start..]
    }
}

impl Listed {
    /// Describes one dataset of `snapshot`, which needs all lists.
    pub(super) fn of(snapshot: &Snapshot, dataset: &Dataset) -> Self {
        Self {
            dataset: dataset.dataset_id,
            size: size_in(snapshot, dataset),
            published: snapshot.lease(dataset.dataset_id).map(|lease| lease.node_uuid),
            condition: Condition::of(snapshot, dataset),
        }
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

    /// Returns the volume's condition.
    pub(super) fn condition(&self) -> VolumeCondition {
        VolumeCondition {
            abnormal: self.condition.is_abnormal(),
            message: self.condition.to_string(),
        }
    }
}

impl Condition {
    fn of(snapshot: &Snapshot, dataset: &Dataset) -> Self {
        let primary = dataset.primary;
        let states = snapshot.states(dataset.dataset_id);
        let reporting: BTreeSet<Uuid> = states.iter().filter_map(|state| state.primary).collect();
        if snapshot.nodes().next().is_none() {
            return Self::Unknown;
        }
        match (reporting.first().copied(), states) {
            (Some(_), _) if reporting.len() > 1 => Self::OnSeveralNodes(reporting),
            _ if !snapshot.lists_node(primary) => Self::PrimaryMissing { primary },
            (Some(reported), _) if reported != primary => Self::Elsewhere { primary, reported },
            (Some(node), _) => Self::Mounted { node },
            (None, [_, ..]) => Self::Detached { primary },
            (None, []) => Self::NotBacked { primary },
        }
    }

    fn is_abnormal(&self) -> bool {
        match self {
            Self::Unknown | Self::Mounted { .. } | Self::Detached { .. } => false,
            Self::NotBacked { .. }
            | Self::PrimaryMissing { .. }
            | Self::Elsewhere { .. }
            | Self::OnSeveralNodes(_) => true,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(
                f,
                "not known: Flocker does not answer or no node has reported to it yet"
            ),
            Self::Mounted { node } => write!(f, "Flocker has it mounted on node {node}"),
            Self::Detached { primary } => write!(f, "it exists and waits to be mounted on node {primary}"),
            Self::NotBacked { primary } => {
                write!(
                    f,
                    "no node reports it: node {primary} has not made it, or it is moving there"
                )
            }
            Self::PrimaryMissing { primary } => {
                write!(
                    f,
                    "its node {primary} does not report to Flocker; check flocker-dataset-agent there"
                )
            }
            Self::Elsewhere { primary, reported } => {
                write!(
                    f,
                    "node {reported} still has it mounted, but it is configured for node {primary}"
                )
            }
            Self::OnSeveralNodes(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(Uuid::to_string).collect();
                write!(f, "several nodes report it as mounted: {}", nodes.join(", "))
            }
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
    const DEAD: Uuid = Uuid::from_u128(0xd);

    fn dataset(id: u128, primary: Uuid, maximum_size: Option<u64>, deleted: bool) -> Dataset {
        Dataset {
            dataset_id: Uuid::from_u128(id),
            primary,
            deleted,
            maximum_size,
            metadata: BTreeMap::new(),
        }
    }

    fn state(id: u128, primary: Option<Uuid>) -> DatasetState {
        let path = primary.map(|_| "/flocker/x".into());
        DatasetState {
            dataset_id: Uuid::from_u128(id),
            maximum_size: Some(2 << 30),
            primary,
            path,
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
        let listing = Listing::of(&snapshot, None);
        let told: Vec<_> = listing
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
        assert_eq!(told, [(1, 2 << 30, vec![]), (3, 1 << 30, vec![A.to_string()])]);
        let here: Vec<_> = Listing::of(&snapshot, Some(A))
            .volumes
            .iter()
            .map(|volume| volume.dataset)
            .collect();
        assert_eq!(here, [Uuid::from_u128(3)]);
    }

    #[test]
    fn a_page_goes_on_after_the_last_id_also_when_that_is_gone() {
        let datasets = [1, 3, 5].map(|id| dataset(id, A, None, false)).to_vec();
        let listing = Listing::of(&Snapshot::of(datasets, vec![], &[A], vec![]), None);
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
    fn the_condition_tells_what_is_wrong_and_where() {
        let cases = [
            (
                A,
                vec![state(1, Some(A))],
                false,
                "mounted on node 00000000-0000-0000-0000-00000000000a",
            ),
            (A, vec![state(1, None)], false, "waits to be mounted"),
            (A, vec![], true, "no node reports it"),
            (
                DEAD,
                vec![],
                true,
                "00000000-0000-0000-0000-00000000000d does not report",
            ),
            (
                A,
                vec![state(1, Some(B))],
                true,
                "node 00000000-0000-0000-0000-00000000000b still has it",
            ),
            (
                A,
                vec![state(1, Some(A)), state(1, Some(B))],
                true,
                "several nodes",
            ),
            (
                A,
                vec![state(1, Some(A)), state(1, Some(A))],
                false,
                "mounted on node",
            ),
        ];
        for (primary, states, abnormal, part) in cases {
            let snapshot = Snapshot::of(vec![dataset(1, primary, None, false)], states, &[A, B], vec![]);
            let condition = Listing::of(&snapshot, None).volumes[0].condition();
            assert_eq!(condition.abnormal, abnormal, "{}", condition.message);
            assert!(condition.message.contains(part), "{}", condition.message);
        }
    }

    #[test]
    fn a_flocker_that_has_just_started_makes_no_volume_abnormal() {
        let snapshot = Snapshot::of(vec![dataset(1, A, None, false)], vec![], &[], vec![]);
        assert!(!Listing::of(&snapshot, None).volumes[0].condition().abnormal);
    }

    #[test]
    fn what_is_made_and_deleted_later_is_taken_up_in_order() {
        let datasets = [1, 5].map(|id| dataset(id, A, Some(1 << 30), false)).to_vec();
        let mut listing = Listing::of(&Snapshot::of(datasets, vec![], &[A], vec![]), Some(A));
        for id in [3, 3, 7, 5] {
            listing.add(Uuid::from_u128(id), 2 << 30);
        }
        for id in [1, 1, 9] {
            listing.remove(Uuid::from_u128(id));
        }
        let told = listing.volumes.iter();
        let told: Vec<_> = told
            .map(|volume| (volume.dataset.as_u128(), volume.size))
            .collect();
        assert_eq!(told, [(3, 2 << 30), (5, 1 << 30), (7, 2 << 30)]);
    }

    #[test]
    fn a_kept_list_tells_sizes_but_no_conditions() {
        let snapshot = Snapshot::of(
            vec![dataset(1, A, Some(1 << 30), false)],
            vec![state(1, Some(A))],
            &[A],
            vec![],
        );
        let kept = Listing::of(&snapshot, Some(A)).to_keep();
        let listing: Listing = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(listing, kept);
        assert_eq!(listing.node, Some(A));
        assert_eq!(listing.volumes[0].volume().capacity_bytes, 1 << 30);
        assert!(listing.volumes[0].condition().message.starts_with("not known"));
    }
}
