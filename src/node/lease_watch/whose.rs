//! Whose a staged volume is, as a read of Flocker's lists shows it.

use uuid::Uuid;

use super::decide::{LeaseView, PrimaryView};
use crate::flocker::cluster::{Lists, Snapshot};
use crate::host::RecordedDataset;

/// Returns whose the lease of a staged volume is.
pub(super) fn lease_of(snapshot: &Snapshot, recorded: &RecordedDataset, node: Uuid) -> LeaseView {
    match snapshot.lease(recorded.dataset) {
        Err(_) => LeaseView::Unreadable,
        Ok(None) => LeaseView::NoNodes,
        Ok(Some(lease)) if is_this(recorded, node, lease.node_uuid) => LeaseView::Own,
        Ok(Some(lease)) => LeaseView::OtherNodes(lease.node_uuid),
    }
}

/// Returns where Flocker is configured to have a staged volume, if the configuration was read and says so.
pub(super) fn primary_of(snapshot: &Snapshot, recorded: &RecordedDataset, node: Uuid) -> PrimaryView {
    if !snapshot.lists().contains(Lists::CONFIGURATION) {
        return PrimaryView::Unknown;
    }
    match snapshot.live_dataset(recorded.dataset) {
        // One that is missing, deleted or unreadable is not proof that another node has it.
        Ok(None) | Err(_) => PrimaryView::Unknown,
        Ok(Some(dataset)) if dataset.primary == node || is_this(recorded, node, dataset.primary) => {
            PrimaryView::Here
        }
        Ok(Some(dataset)) => PrimaryView::At(dataset.primary),
    }
}

/// Whether a node is the one for which a volume is staged. Old records do not name theirs, which is this one.
fn is_this(recorded: &RecordedDataset, node: Uuid, other: Uuid) -> bool {
    recorded.nodes.contains(&other) || recorded.nodes.is_empty() && other == node
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use flocker_client::{Dataset, Lease, Listed, Unreadable, UnreadableEntry, UnreadableParts};

    use super::*;

    const VOLUME: Uuid = Uuid::from_u128(1);
    const HERE: Uuid = Uuid::from_u128(2);
    const OTHER: Uuid = Uuid::from_u128(3);

    fn recorded(nodes: &[Uuid]) -> RecordedDataset {
        RecordedDataset {
            dataset: VOLUME,
            nodes: nodes.to_vec(),
            takes_lease: true,
        }
    }

    fn dataset(primary: Uuid, deleted: bool) -> Dataset {
        Dataset {
            dataset_id: VOLUME,
            primary,
            deleted,
            maximum_size: None,
            metadata: BTreeMap::new(),
            unreadable: UnreadableParts::default(),
        }
    }

    fn unreadable(node: Option<Uuid>) -> Unreadable {
        Unreadable {
            entries: vec![UnreadableEntry {
                dataset_id: VOLUME,
                node,
            }],
            ..Unreadable::default()
        }
    }

    fn listed<T>(entries: Vec<T>, unreadable: Unreadable) -> Listed<T> {
        Listed { entries, unreadable }
    }

    fn with_configuration(datasets: Vec<Dataset>, unreadable: Unreadable) -> Snapshot {
        let none = Unreadable::default;
        Snapshot::of_listed(
            datasets,
            unreadable,
            listed(vec![], none()),
            listed(vec![], none()),
            listed(vec![], none()),
        )
    }

    #[test]
    fn only_a_live_entry_that_can_be_read_proves_that_a_volume_was_moved_away() {
        let primary = |snapshot: &Snapshot| primary_of(snapshot, &recorded(&[HERE]), HERE);
        let readable =
            |primary, deleted| with_configuration(vec![dataset(primary, deleted)], Unreadable::default());
        assert_eq!(primary(&readable(HERE, false)), PrimaryView::Here);
        assert_eq!(primary(&readable(OTHER, false)), PrimaryView::At(OTHER));
        for nothing in [
            with_configuration(vec![], Unreadable::default()),
            readable(OTHER, true),
            with_configuration(vec![], unreadable(Some(OTHER))),
            with_configuration(vec![], unreadable(None)),
        ] {
            assert_eq!(primary(&nothing), PrimaryView::Unknown, "{nothing:?}");
        }
    }

    #[test]
    fn a_volume_is_here_under_every_node_for_which_it_is_staged() {
        let former = Uuid::from_u128(4);
        let at = |primary| with_configuration(vec![dataset(primary, false)], Unreadable::default());
        for nodes in [&[former][..], &[]] {
            assert_eq!(primary_of(&at(HERE), &recorded(nodes), HERE), PrimaryView::Here);
        }
        assert_eq!(
            primary_of(&at(former), &recorded(&[former]), HERE),
            PrimaryView::Here
        );
    }

    #[test]
    fn a_lease_that_cannot_be_read_is_no_nodes_in_particular() {
        let with = |leases| {
            let none = Unreadable::default;
            Snapshot::of_listed(
                vec![],
                none(),
                listed(vec![], none()),
                listed(vec![], none()),
                leases,
            )
        };
        let lease = |node| Lease {
            dataset_id: VOLUME,
            node_uuid: node,
            expires: None,
        };
        let view = |leases| lease_of(&with(leases), &recorded(&[HERE]), HERE);
        let readable = |node| listed(vec![lease(node)], Unreadable::default());
        assert_eq!(view(readable(HERE)), LeaseView::Own);
        assert_eq!(view(readable(OTHER)), LeaseView::OtherNodes(OTHER));
        assert_eq!(view(listed(vec![], Unreadable::default())), LeaseView::NoNodes);
        assert_eq!(view(listed(vec![], unreadable(None))), LeaseView::Unreadable);
        let twice = listed(vec![lease(HERE), lease(OTHER)], Unreadable::default());
        assert_eq!(view(twice), LeaseView::Unreadable);
    }
}
