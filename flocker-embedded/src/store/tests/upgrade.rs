//! Which file is the state, whatever was interrupted, lost or damaged.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

const ONE: Uuid = Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0001);
const TWO: Uuid = Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0002);
const THREE: Uuid = Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0003);
const NODE: Uuid = Uuid::from_u128(0xa0);

/// A state file of the version before: one dataset that is mounted, one that is deleted and not destroyed, and one that is
/// destroyed.
fn old_state() -> Value {
    let dataset = |deleted: bool, generation: &str| {
        json!({
            "primary": NODE, "deleted": deleted, "maximum_size": 64 << 20,
            "metadata": {"name": "data", "csi.driver": "flocker.csi.clusterhq.com", "csi.generation": generation},
        })
    };
    let id = |id: Uuid| id.to_string();
    json!({
        "cluster": Uuid::from_u128(0xc),
        "nodes": [NODE],
        "configuration": {
            "datasets": {id(ONE): dataset(false, "2"), id(TWO): dataset(true, "1"), id(THREE): dataset(true, "0")},
            "leases": {id(ONE): {"node": NODE, "expires": null}},
            "registered": [ONE, TWO, THREE],
        },
        "attachments": {id(ONE): NODE},
        "storage": {id(ONE): {"formatted": {"file_system": Uuid::max()}}},
    })
}

struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(state: &Value) -> Self {
        let data = Self::new();
        data.write_old(state);
        fs::create_dir(data.file("volumes")).unwrap();
        for id in [ONE, TWO] {
            fs::write(data.file("volumes").join(id.to_string()), "").unwrap();
        }
        data
    }

    fn write_old(&self, state: &Value) {
        fs::write(self.file("state.json"), state.to_string()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Store {
        open(self.0.path())
    }

    /// Opens it, which must fail, and returns why, with all reasons.
    fn refusal(&self) -> String {
        let error = try_open(self.0.path()).err().expect("it is refused");
        crate::error::chain(&error)
    }

    fn is_the_old_state(&self) {
        let store = self.open();
        let configuration = &store.snapshot().configuration;
        assert_eq!(store.cluster(), Uuid::from_u128(0xc));
        assert_eq!((store.nodes()[0], store.nodes().len()), (NODE, 2));
        let listed: Vec<_> = configuration.datasets.keys().copied().collect();
        assert_eq!(listed, [ONE, TWO], "what is destroyed is not kept in memory");
        assert_eq!(configuration.leaseholder(ONE), Some(NODE));
        assert!(find(&store, THREE).unwrap().deleted);
        assert_eq!(store.snapshot().datasets, 3);
        let records = store.storage();
        let formatted = |file_system| Storage::Formatted { file_system };
        assert_eq!(
            records.storage,
            BTreeMap::from([(ONE, formatted(Some(Uuid::max()))), (TWO, formatted(None))])
        );
        assert_eq!(records.attachments, BTreeMap::from([(ONE, NODE)]));
        let highest = store.update(Purpose::Upkeep, |transaction| {
            let dataset = transaction.dataset(ONE)?.unwrap();
            transaction.highest_deleted(&dataset).map(Ok::<_, ()>)
        });
        assert_eq!(highest.unwrap().unwrap().unwrap().generation, 1);
    }
}

#[test]
fn the_state_of_an_earlier_version_is_taken_over_once_and_kept() {
    let data = Data::with(&old_state());
    data.is_the_old_state();
    let kept: Value = serde_json::from_slice(&fs::read(data.file("state.json.old")).unwrap()).unwrap();
    assert_eq!(kept, old_state());

    let store = data.open();
    try_delete(&store, ONE).unwrap();
    drop(store);
    let store = data.open();
    assert!(
        find(&store, ONE).unwrap().deleted,
        "the earlier file is not read again"
    );
}

#[test]
fn an_upgrade_continues_from_every_point_at_which_it_is_interrupted() {
    let upgraded = Data::with(&old_state());
    drop(upgraded.open());

    // A copy is kept, and the database is half made.
    let data = Data::with(&old_state());
    fs::write(data.file("state.json.old"), old_state().to_string()).unwrap();
    fs::write(data.file(".new-aZ09xy"), "half").unwrap();
    data.is_the_old_state();
    assert!(!data.file(".new-aZ09xy").exists() && !data.file("state.json.old.2").exists());

    // The database is complete, and the state file is the earlier one still.
    let data = Data::with(&old_state());
    let digest = openssl::sha::sha256(old_state().to_string().as_bytes());
    let old = serde_json::from_value(old_state()).unwrap();
    let volumes = [ONE, TWO].into();
    super::super::upgrade::make_of(&data.file("state.redb"), old, &digest, &volumes).unwrap();
    data.is_the_old_state();

    // The state file says where the state is.
    upgraded.is_the_old_state();
}

#[test]
fn an_earlier_version_refuses_the_directory_and_says_why() {
    let data = Data::with(&old_state());
    drop(data.open());
    let text = fs::read(data.file("state.json")).unwrap();
    // This is how an earlier version reads it.
    let refused = serde_json::from_slice::<super::super::upgrade::OldState>(&text).unwrap_err();
    let refused = refused.to_string();
    for part in [
        "in the file state.redb",
        "use the version that was used last",
        "state.json.old",
    ] {
        assert!(refused.contains(part), "{refused}");
    }

    let data = Data::new();
    drop(data.open());
    assert_eq!(
        fs::read(data.file("state.json")).unwrap(),
        text,
        "of a new directory too"
    );
}

#[test]
fn two_states_are_refused_and_either_can_be_chosen() {
    let data = Data::with(&old_state());
    let store = data.open();
    try_delete(&store, ONE).unwrap();
    drop(store);
    data.write_old(&old_state());
    let refused = data.refusal();
    for part in [
        "state.json is the state of an earlier version",
        "state.redb",
        "move",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    fs::rename(data.file("state.redb"), data.file("moved.redb")).unwrap();
    data.is_the_old_state();
    fs::rename(data.file("moved.redb"), data.file("state.redb")).unwrap();
    fs::remove_file(data.file("state.json")).unwrap();
    assert!(find(&data.open(), ONE).unwrap().deleted);
}

#[test]
fn different_state_files_of_earlier_versions_are_all_kept() {
    let data = Data::with(&old_state());
    drop(data.open());
    for _ in 0..2 {
        fs::remove_file(data.file("state.redb")).unwrap();
        let mut other = old_state();
        other["attachments"] = json!({});
        data.write_old(&other);
        drop(data.open());
    }
    let first: Value = serde_json::from_slice(&fs::read(data.file("state.json.old")).unwrap()).unwrap();
    assert_eq!(first, old_state());
    assert!(data.file("state.json.old.2").exists() && !data.file("state.json.old.3").exists());
}

#[test]
fn a_lost_database_is_no_first_start() {
    let data = Data::with(&old_state());
    drop(data.open());
    fs::remove_file(data.file("state.redb")).unwrap();
    for _ in 0..2 {
        let refused = data.refusal();
        assert!(
            refused.contains("state.redb is missing") && refused.contains("state.json"),
            "{refused}"
        );
        assert!(!data.file("state.redb").exists(), "none is made");
    }
    fs::remove_file(data.file("state.json")).unwrap();
    assert!(data.refusal().contains("is missing"));
    symlink("/nowhere/state.redb", data.file("state.redb")).unwrap();
    assert!(data.refusal().contains("state.redb"));
    assert!(data.file("state.redb").is_symlink());
}

#[test]
fn a_database_that_is_damaged_is_reported_and_left_as_it_is() {
    let data = Data::with(&old_state());
    let store = data.open();
    for _ in 0..50 {
        create(&store);
    }
    drop(store);
    let path = data.file("state.redb");
    let healthy = fs::read(&path).unwrap();
    let page = 4096;
    let mut damaged = vec![
        Vec::new(),
        b"text".to_vec(),
        healthy[..healthy.len() / 2].to_vec(),
        vec![0; page],
    ];
    // Each page in turn is lost, as after a bad sector.
    for at in (0..healthy.len()).step_by(page) {
        let mut copy = healthy.clone();
        copy[at..at + page].fill(0);
        damaged.push(copy);
    }
    let mut refused = 0;
    for bytes in &damaged {
        fs::write(&path, bytes).unwrap();
        match try_open(data.0.path()) {
            // The page was of no use.
            Ok(store) => assert_eq!(store.snapshot().datasets, 53),
            Err(error) => {
                refused += 1;
                let error = crate::error::chain(&error);
                assert!(error.contains("state.redb is damaged"), "{error}");
                assert!(fs::read(&path).unwrap() == *bytes, "it is left as it is");
            }
        }
    }
    assert!(refused >= 6, "{refused} of {}", damaged.len());
    fs::write(&path, &healthy).unwrap();
    assert_eq!(data.open().snapshot().datasets, 53);
}

#[test]
fn a_state_file_that_is_damaged_is_named() {
    let data = Data::new();
    fs::write(data.file("state.json"), "{").unwrap();
    assert!(data.refusal().contains("state.json is damaged"));
    assert_eq!(fs::read(data.file("state.json")).unwrap(), b"{");
}
