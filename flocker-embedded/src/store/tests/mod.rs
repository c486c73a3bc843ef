//! The state: what survives a restart, the tag, and datasets that were deleted long ago.

mod full_disk;
mod upgrade;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use std::path::Path;

use tokio::time::Duration;
use uuid::Uuid;

use super::*;

fn try_open(directory: &Path) -> Result<Store, Error> {
    let data_dir = Arc::new(DataDir::claim(directory).unwrap());
    Store::open(&data_dir, 2)
}

fn open(directory: &Path) -> Store {
    try_open(directory).unwrap()
}

fn dataset(metadata: &[(&str, &str)]) -> Dataset {
    let metadata = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Dataset {
        primary: Uuid::nil(),
        deleted: false,
        maximum_size: Some(Size::Bytes(64 << 20)),
        metadata: metadata.collect(),
    }
}

fn put(store: &Store, id: Uuid, dataset: Dataset) {
    let put = store.update(Purpose::Growth, |transaction| {
        transaction.put_dataset(id, dataset).map(Ok::<_, ()>)
    });
    put.unwrap().unwrap();
}

fn try_delete(store: &Store, id: Uuid) -> io::Result<()> {
    let deleted = store.update(Purpose::Upkeep, |transaction| {
        let found = transaction.dataset(id)?.expect("it exists");
        let deleted = Dataset {
            deleted: true,
            ..Dataset::clone(&found)
        };
        transaction.put_dataset(id, deleted).map(Ok::<_, ()>)
    });
    deleted.map(|deleted| drop(deleted.unwrap()))
}

fn create(store: &Store) -> Uuid {
    let id = Uuid::new_v4();
    put(store, id, dataset(&[]));
    id
}

fn find(store: &Store, id: Uuid) -> Option<Arc<Dataset>> {
    let found = store.update(Purpose::Upkeep, |transaction| {
        transaction.dataset(id).map(Ok::<_, ()>)
    });
    found.unwrap().unwrap()
}

fn unlist(store: &Store) -> Option<Duration> {
    store.unlist_deleted(Duration::ZERO, |_| false).unwrap()
}

fn tag(store: &Store) -> String {
    store.snapshot().tag.clone()
}

#[test]
fn a_restart_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let (id, deleted, node) = (create(&first), create(&first), first.nodes()[1]);
    try_delete(&first, deleted).unwrap();
    let lease = Lease { node, expires: None };
    first
        .change(|transaction| transaction.put_lease(id, Some(lease)))
        .unwrap();
    first.register(&[id]).unwrap();
    first.begin_storage(&[id], |_| false).unwrap();
    first.finish_storage(id, Uuid::max()).unwrap();
    first.record_attachments([(id, node)]).unwrap();
    let before = (
        first.nodes(),
        first.cluster(),
        first.snapshot().configuration.clone(),
        tag(&first),
    );
    drop(first);

    let second = open(directory.path());
    let after = (
        second.nodes(),
        second.cluster(),
        second.snapshot().configuration.clone(),
        tag(&second),
    );
    assert_eq!(after, before);
    assert_eq!(second.attachments(), BTreeMap::from([(id, node)]));
    let file_system = Some(Uuid::max());
    assert_eq!(second.storage_of(id), Some(Storage::Formatted { file_system }));
    assert_eq!(second.snapshot().datasets, 2);
}

#[test]
fn the_tag_changes_exactly_when_the_configuration_does() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut tags = vec![tag(&store)];
    let mut is_new = |store: &Store, expected: bool, what: &str| {
        let tag = tag(store);
        assert_eq!(!tags.contains(&tag), expected, "{what}");
        assert_eq!(tag.len(), 32);
        tags.push(tag);
    };
    let id = create(&store);
    is_new(&store, true, "a dataset");
    let kept = tag(&store);
    let lease = Lease {
        node: Uuid::nil(),
        expires: Some(10.0),
    };
    store
        .change(|transaction| transaction.put_lease(id, Some(lease)))
        .unwrap();
    is_new(&store, true, "a lease");
    store
        .change(|transaction| transaction.put_lease(id, Some(lease)))
        .unwrap();
    is_new(&store, false, "the same lease");
    store.sweep(10.5).unwrap();
    assert_eq!(tag(&store), kept, "as before the lease");
    store.record_attachments([(id, Uuid::nil())]).unwrap();
    is_new(&store, false, "an attachment");
    store.register(&[id]).unwrap();
    is_new(&store, true, "a registration");
    try_delete(&store, id).unwrap();
    is_new(&store, true, "a deletion");
    try_delete(&store, id).unwrap();
    is_new(&store, false, "the same deletion");
    unlist(&store);
    is_new(&store, false, "a dataset that is no longer listed");
    let last = tag(&store);
    drop(store);
    assert_eq!(tag(&open(directory.path())), last);
}

#[test]
fn a_refused_change_leaves_no_trace() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let before = tag(&store);
    let outcome = store.update(Purpose::Growth, |transaction| {
        transaction.put_dataset(Uuid::new_v4(), dataset(&[]))?;
        Ok(Err::<(), _>("no"))
    });
    assert_eq!(outcome.unwrap(), Err("no"));
    assert_eq!((tag(&store), store.snapshot().datasets), (before, 0));
}

#[test]
fn what_was_deleted_long_ago_is_not_in_memory_and_its_id_stays_taken() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (live, deleted, undestroyed) = (create(&store), create(&store), create(&store));
    for id in [deleted, undestroyed] {
        try_delete(&store, id).unwrap();
    }
    let keep = Duration::from_secs(3600);
    let next = store.unlist_deleted(keep, |_| false).unwrap().unwrap();
    assert!((3590..=3600).contains(&next.as_secs()), "{next:?}");
    let listed = |store: &Store| {
        let mut ids: Vec<_> = store.snapshot().configuration.datasets.keys().copied().collect();
        ids.sort();
        ids
    };
    assert_eq!(listed(&store).len(), 3);

    let next = store
        .unlist_deleted(Duration::ZERO, |id| id == undestroyed)
        .unwrap();
    assert_eq!(next, Some(Duration::ZERO));
    let mut expected = vec![live, undestroyed];
    expected.sort();
    assert_eq!(listed(&store), expected);
    drop(store);
    let store = open(directory.path());
    assert_eq!(listed(&store), expected, "after a restart too");
    assert_eq!(store.snapshot().datasets, 3);
    assert!(find(&store, deleted).unwrap().deleted);
    assert_eq!(find(&store, Uuid::new_v4()), None);
    drop(store);

    // A file that appears later is the volume of a dataset that is known again, and can be destroyed.
    fs::write(directory.path().join("volumes").join(deleted.to_string()), "").unwrap();
    let store = open(directory.path());
    assert_eq!(listed(&store).len(), 3);
    assert!(store.snapshot().configuration.datasets[&deleted].deleted);
}

#[test]
fn all_deleted_datasets_are_read_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store);
    let mut deleted: Vec<_> = (0..7).map(|_| create(&store)).collect();
    deleted.sort();
    for id in &deleted {
        try_delete(&store, *id).unwrap();
    }
    unlist(&store);
    let mut found = Vec::new();
    loop {
        let part = store.deleted_after(found.last().copied(), 3).unwrap();
        assert!(part.len() <= 3 && part.iter().all(|(_, dataset)| dataset.deleted));
        found.extend(part.iter().map(|(id, _)| *id));
        if part.len() < 3 {
            break;
        }
    }
    assert_eq!(found, deleted);
}

#[test]
fn the_highest_deleted_generation_is_that_of_the_name_and_the_creator() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let of = |name: &str, driver: &str, generation: &str| {
        dataset(&[
            ("name", name),
            ("csi.driver", driver),
            ("csi.generation", generation),
        ])
    };
    let mut ids = Vec::new();
    for dataset in [
        of("data", "one", "10"),
        of("data", "one", "9"),
        of("data", "two", "70"),
        of("data", "one", "x"),
        of("other", "one", "3"),
        dataset(&[("name", "data")]),
    ] {
        ids.push(Uuid::new_v4());
        put(&store, *ids.last().unwrap(), dataset);
    }
    let highest = |store: &Store, dataset: &Dataset| {
        let found = store.update(Purpose::Upkeep, |transaction| {
            transaction.highest_deleted(dataset).map(Ok::<_, ()>)
        });
        let found: Option<HighestDeleted> = found.unwrap().unwrap();
        found.map(|found| (found.generation, found.dataset_id))
    };
    assert_eq!(
        highest(&store, &of("data", "one", "0")),
        None,
        "nothing is deleted"
    );
    for id in &ids {
        try_delete(&store, *id).unwrap();
    }
    unlist(&store);
    let store = {
        drop(store);
        open(directory.path())
    };
    assert_eq!(highest(&store, &of("data", "one", "0")), Some((10, ids[0])));
    assert_eq!(highest(&store, &of("data", "two", "0")), Some((70, ids[2])));
    assert_eq!(highest(&store, &of("none", "one", "0")), None);
    assert_eq!(highest(&store, &dataset(&[("name", "data")])), None);
}
