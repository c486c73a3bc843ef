use std::collections::BTreeMap;

use flocker_client::UnreadableParts;

use super::*;

const ID: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

fn dataset(id: Uuid, primary: Uuid) -> Dataset {
    Dataset {
        dataset_id: id,
        primary,
        deleted: false,
        maximum_size: None,
        metadata: BTreeMap::new(),
        unreadable: UnreadableParts::default(),
    }
}

fn lease(node_uuid: Uuid, expires: Option<f64>) -> Lease {
    Lease {
        dataset_id: ID,
        node_uuid,
        expires,
    }
}

fn unreadable(node: Option<Uuid>) -> Unreadable {
    Unreadable {
        entries: vec![UnreadableEntry { dataset_id: ID, node }],
        without_id: 0,
        faults: vec![EntryFault {
            id: Some(ID),
            reason: "primary is 7".to_owned(),
        }],
    }
}

fn of_leases(leases: Listed<Lease>) -> Snapshot {
    Snapshot::of_listed(
        vec![],
        Unreadable::default(),
        listed(vec![]),
        listed(vec![]),
        leases,
    )
}

#[test]
fn a_dataset_that_cannot_be_read_is_no_dataset_that_does_not_exist() {
    let datasets = vec![dataset(ID, A), dataset(OTHER, A)];
    let snapshot = Snapshot::of_listed(
        datasets,
        unreadable(Some(B)),
        listed(vec![]),
        listed(vec![]),
        listed(vec![]),
    );
    for read in [snapshot.dataset(ID), snapshot.live_dataset(ID)] {
        let error = read.unwrap_err();
        assert_eq!(error.situation(), Situation::FlockerUnavailable);
        assert!(error.chain().contains("primary is 7"), "{}", error.chain());
    }
    assert!(snapshot.live_dataset(OTHER).unwrap().is_some());
    let readable: Vec<_> = snapshot.datasets().map(|dataset| dataset.dataset_id).collect();
    assert_eq!(readable, [OTHER]);
    assert!(snapshot.unreadable_datasets().eq([(ID, Some(B))]));
}

#[test]
fn entries_that_contradict_each_other_cannot_be_read() {
    let deleted = Dataset {
        deleted: true,
        ..dataset(ID, A)
    };
    let moved = dataset(ID, B);
    for (second, primary) in [(deleted, Some(A)), (moved, None)] {
        for datasets in [vec![dataset(ID, A), second.clone()], vec![second, dataset(ID, A)]] {
            let snapshot = Snapshot::of(datasets, vec![], &[], vec![]);
            let error = snapshot.dataset(ID).unwrap_err().chain();
            assert!(error.contains("listed twice"), "{error}");
            assert!(snapshot.unreadable_datasets().eq([(ID, primary)]));
        }
    }
    let twice = Snapshot::of(vec![dataset(ID, A), dataset(ID, A)], vec![], &[], vec![]);
    assert!(twice.dataset(ID).unwrap().is_some());
}

#[test]
fn a_lease_that_cannot_be_read_is_held() {
    let none = of_leases(listed(vec![]));
    assert!(none.lease(ID).unwrap().is_none());
    for leases in [
        Listed {
            entries: vec![],
            unreadable: unreadable(None),
        },
        Listed {
            entries: vec![lease(A, None)],
            unreadable: unreadable(None),
        },
        listed(vec![lease(A, None), lease(B, None)]),
    ] {
        let snapshot = of_leases(leases);
        let error = snapshot.lease(ID).unwrap_err();
        assert!(!error.situation().is_final(), "it may become readable");
        assert!(
            error.chain().contains("another node may hold it"),
            "{}",
            error.chain()
        );
        assert_eq!(snapshot.leases().count(), 0);
    }
}

#[test]
fn of_two_leases_of_one_node_the_one_that_expires_counts() {
    for leases in [[None, Some(3.0)], [Some(3.0), None]] {
        let leases = leases.map(|expires| lease(A, expires)).to_vec();
        assert_eq!(
            of_leases(listed(leases)).lease(ID).unwrap(),
            Some(&lease(A, Some(3.0)))
        );
    }
}

#[test]
fn a_text_that_is_not_unicode_is_no_name() {
    let named = |unreadable: bool| Dataset {
        metadata: [("name".to_owned(), "a\u{fffd}".to_owned())].into(),
        unreadable: UnreadableParts {
            metadata: unreadable,
            ..UnreadableParts::default()
        },
        ..dataset(ID, A)
    };
    for (unreadable, found) in [(true, 0), (false, 1)] {
        let snapshot = Snapshot::of(vec![named(unreadable)], vec![], &[], vec![]);
        assert_eq!(snapshot.live_datasets_with("name", "a\u{fffd}").len(), found);
    }
}
