//! The condition of a volume, as Flocker reports it.

use std::collections::BTreeSet;
use std::fmt;

use flocker_client::Dataset;
use uuid::Uuid;

use crate::flocker::cluster::Snapshot;

/// The condition of a volume, as Flocker reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Flocker does not answer, or no node has reported since it started.
    #[default]
    Unknown,
    Mounted {
        node: Uuid,
    },
    /// It exists and is mounted on no node, as it is for a moment after it was created or while it moves.
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
    /// A node reports it whose id cannot be read.
    OnUnknownNode,
    /// Its entry in Flocker's configuration cannot be read.
    Unreadable,
    /// It is leased, and which node holds the lease cannot be read.
    LeaseUnreadable,
}

impl Condition {
    pub(crate) fn of(snapshot: &Snapshot, dataset: &Dataset) -> Self {
        let primary = dataset.primary;
        let states = snapshot.states(dataset.dataset_id);
        let reporting: BTreeSet<Uuid> = states.iter().filter_map(|state| state.primary).collect();
        if snapshot.nodes().next().is_none() {
            return Self::Unknown;
        }
        if states.iter().any(|state| state.unreadable_primary) {
            return Self::OnUnknownNode;
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

    /// The names of all conditions.
    pub(crate) const NAMES: [&str; 10] = [
        "unknown",
        "mounted",
        "detached",
        "not-backed",
        "primary-missing",
        "elsewhere",
        "on-several-nodes",
        "on-unknown-node",
        "unreadable",
        "lease-unreadable",
    ];

    /// Returns the name in output.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Mounted { .. } => "mounted",
            Self::Detached { .. } => "detached",
            Self::NotBacked { .. } => "not-backed",
            Self::PrimaryMissing { .. } => "primary-missing",
            Self::Elsewhere { .. } => "elsewhere",
            Self::OnSeveralNodes(_) => "on-several-nodes",
            Self::OnUnknownNode => "on-unknown-node",
            Self::Unreadable => "unreadable",
            Self::LeaseUnreadable => "lease-unreadable",
        }
    }

    pub(crate) fn is_abnormal(&self) -> bool {
        match self {
            Self::Unknown | Self::Mounted { .. } | Self::Detached { .. } => false,
            Self::NotBacked { .. }
            | Self::PrimaryMissing { .. }
            | Self::Elsewhere { .. }
            | Self::OnSeveralNodes(_)
            | Self::OnUnknownNode
            | Self::Unreadable
            | Self::LeaseUnreadable => true,
        }
    }

    /// Returns the name of the fault, if it is one.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.is_abnormal().then(|| self.name())
    }

    /// Whether it may pass by itself: a volume is like that while it is created or moves, and while the agents of nodes connect
    /// again to a control service that was started again.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::NotBacked { .. }
                | Self::PrimaryMissing { .. }
                | Self::Elsewhere { .. }
                | Self::OnSeveralNodes(_)
        )
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(
                f,
                "not known: Flocker does not answer, or no node has reported to it yet"
            ),
            Self::Mounted { node } => write!(f, "Flocker has it mounted on node {node}"),
            Self::Detached { primary } => write!(f, "it exists and waits to be mounted on node {primary}"),
            Self::NotBacked { primary } => {
                write!(
                    f,
                    "no node reports it: node {primary} has not created it, has lost its storage, or it is moving there"
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
            Self::OnUnknownNode => write!(
                f,
                "Flocker reports it as mounted on a node whose id cannot be read; see the plugin's log"
            ),
            Self::Unreadable => write!(
                f,
                "Flocker has it, but its entry in the configuration cannot be read; see the plugin's log"
            ),
            Self::LeaseUnreadable => write!(
                f,
                "it is leased, but which node holds the lease cannot be read; see the plugin's log"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::DatasetState;

    use super::*;

    const A: Uuid = Uuid::from_u128(0xa);
    const B: Uuid = Uuid::from_u128(0xb);
    const DEAD: Uuid = Uuid::from_u128(0xd);

    fn dataset(primary: Uuid) -> Dataset {
        Dataset {
            dataset_id: Uuid::from_u128(1),
            primary,
            deleted: false,
            maximum_size: None,
            metadata: BTreeMap::new(),
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn state(primary: Option<Uuid>) -> DatasetState {
        DatasetState {
            dataset_id: Uuid::from_u128(1),
            maximum_size: Some(2 << 30),
            primary,
            path: primary.map(|_| "/flocker/x".into()),
            unreadable_primary: false,
        }
    }

    #[test]
    fn the_condition_names_the_fault_and_the_node() {
        let cases = [
            (
                A,
                vec![state(Some(A))],
                false,
                "mounted on node 00000000-0000-0000-0000-00000000000a",
            ),
            (A, vec![state(None)], false, "waits to be mounted"),
            (A, vec![], true, "no node reports it"),
            (
                DEAD,
                vec![],
                true,
                "00000000-0000-0000-0000-00000000000d does not report",
            ),
            (
                A,
                vec![state(Some(B))],
                true,
                "node 00000000-0000-0000-0000-00000000000b still has it",
            ),
            (A, vec![state(Some(A)), state(Some(B))], true, "several nodes"),
            (A, vec![state(Some(A)), state(Some(A))], false, "mounted on node"),
        ];
        for (primary, states, abnormal, part) in cases {
            let snapshot = Snapshot::of(vec![dataset(primary)], states, &[A, B], vec![]);
            let condition = Condition::of(&snapshot, &dataset(primary));
            assert_eq!(condition.is_abnormal(), abnormal, "{condition}");
            assert!(Condition::NAMES.contains(&condition.name()), "{condition}");
            assert!(condition.to_string().contains(part), "{condition}");
        }
    }

    #[test]
    fn a_flocker_that_has_just_started_reports_no_volume_as_abnormal() {
        let snapshot = Snapshot::of(vec![dataset(A)], vec![], &[], vec![]);
        assert!(!Condition::of(&snapshot, &dataset(A)).is_abnormal());
    }
}
