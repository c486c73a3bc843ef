use std::fs;

use super::*;
use host_fs::mount::Device;
use proptest::prelude::*;

fn record(staging_path: &str) -> Record {
    let (dataset_id, node_id, boot_id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    Record::staging(
        Path::new(staging_path),
        "database",
        dataset_id,
        node_id,
        boot_id,
        true,
    )
}

fn open(root: &tempfile::TempDir) -> (Records, Vec<RecordError>) {
    Records::open(&root.path().join("stages")).unwrap()
}

fn only_file(root: &tempfile::TempDir) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(root.path().join("stages"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn a_record_survives_the_process_in_every_state() {
    let root = tempfile::tempdir().unwrap();
    let mut record = record("/staging");
    for (state, origin) in [
        (RecordState::Staging, None),
        (
            RecordState::Staged,
            Some(Origin::Alias {
                node: "/dev/flocker-csi/1".into(),
                device: Some(Device { major: 7, minor: 1 }),
            }),
        ),
        (RecordState::ReleasePending, None),
    ] {
        (record.state, record.origin) = (state, origin);
        open(&root).0.write(&record).unwrap();
        let (records, damaged) = open(&root);
        assert!(damaged.is_empty());
        assert_eq!(
            records.get(record.dataset_id, Path::new("/staging")),
            Some(record.clone())
        );
    }
    only_file(&root);
}

#[test]
fn one_dataset_may_be_staged_at_several_paths() {
    let root = tempfile::tempdir().unwrap();
    let (one, mut two) = (record("/one"), record("/two"));
    two.dataset_id = one.dataset_id;
    let (records, _) = open(&root);
    records.write(&one).unwrap();
    records.write(&two).unwrap();
    assert_eq!(
        records.select(|record| record.dataset_id == one.dataset_id),
        [one.clone(), two.clone()]
    );
    records.remove(one.dataset_id, &one.staging_path).unwrap();
    records.remove(one.dataset_id, &one.staging_path).unwrap();
    assert_eq!(open(&root).0.select(|_| true), [two]);
}

#[test]
fn damaged_files_are_named_and_kept_and_all_intact_ones_read() {
    let root = tempfile::tempdir().unwrap();
    let record = record("/staging");
    open(&root).0.write(&record).unwrap();
    let stages = root.path().join("stages");
    for content in ["", "{", "[]", "{\"version\":1,\"record\":{}}", "\u{0}"] {
        fs::write(stages.join("torn.json"), content).unwrap();
        let (records, damaged) = open(&root);
        assert_eq!(records.select(|_| true), std::slice::from_ref(&record));
        assert!(
            matches!(&damaged[..], [RecordError::Damaged { .. }]),
            "{content:?}: {damaged:?}"
        );
        assert!(damaged[0].to_string().contains("torn.json"), "{}", damaged[0]);
        assert!(stages.join("torn.json").exists());
    }
}

#[test]
fn a_record_of_a_newer_release_says_so() {
    let root = tempfile::tempdir().unwrap();
    open(&root);
    fs::write(
        root.path().join("stages/future.json"),
        "{\"version\":4,\"more\":true}",
    )
    .unwrap();
    let (_, damaged) = open(&root);
    assert!(
        damaged[0]
            .to_string()
            .contains("has version 4, but this flocker-csi reads versions up to 3"),
        "{}",
        damaged[0]
    );
}

#[test]
fn a_record_of_version_1_is_read_without_its_node() {
    let root = tempfile::tempdir().unwrap();
    let mut record = record("/staging");
    open(&root).0.write(&record).unwrap();
    let file = only_file(&root);
    let text = fs::read_to_string(&file).unwrap();
    let node = format!("\"node_id\": \"{}\",", record.node_id.unwrap());
    assert!(text.contains(&node), "{text}");
    fs::write(
        &file,
        text.replace(&node, "")
            .replace("\"version\": 3", "\"version\": 1"),
    )
    .unwrap();
    record.node_id = None;
    let (records, damaged) = open(&root);
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(records.of(record.dataset_id), [record]);
}

#[test]
fn the_name_of_a_volume_is_read_again_and_need_not_be_known() {
    let root = tempfile::tempdir().unwrap();
    let (known, unknown) = (record("/known"), record("/unknown"));
    let known = Record {
        volume_name: Some("pvc-1".to_owned()),
        ..known
    };
    let (records, _) = open(&root);
    records.write(&unknown).unwrap();
    records.write(&known).unwrap();
    let (records, damaged) = open(&root);
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(records.of(unknown.dataset_id)[0].labels(), None);
    assert_eq!(records.of(known.dataset_id)[0].labels(), known.labels());
    let logged = || log_names::fields_of(known.dataset_id);
    assert_eq!(logged(), known.labels().unwrap().fields());
    records.remove(known.dataset_id, &known.staging_path).unwrap();
    assert!(logged().is_empty());
}

#[test]
fn a_claim_is_read_but_not_written_as_earlier_releases_refuse_the_field() {
    let root = tempfile::tempdir().unwrap();
    let claim = KubernetesClaim {
        namespace: Some("shop".to_owned()),
        name: Some("orders".to_owned()),
    };
    let record = Record {
        claim: Some(claim.clone()),
        ..record("/staging")
    };
    let (records, _) = open(&root);
    records.write(&record).unwrap();
    assert_eq!(records.of(record.dataset_id)[0].claim, Some(claim.clone()));
    let file = only_file(&root);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("claim"), "an earlier release reads it: {text}");
    let of_a_later_release = text.replace(
        "\"volume_id\"",
        "\"claim\": {\"namespace\": \"shop\", \"name\": \"orders\"}, \"volume_id\"",
    );
    fs::write(&file, of_a_later_release).unwrap();
    let (records, damaged) = open(&root);
    assert!(damaged.is_empty(), "{damaged:?}");
    assert_eq!(records.of(record.dataset_id)[0].claim, Some(claim));
}

#[test]
fn an_unknown_field_is_not_ignored() {
    let root = tempfile::tempdir().unwrap();
    open(&root).0.write(&record("/staging")).unwrap();
    let file = only_file(&root);
    let text = fs::read_to_string(&file)
        .unwrap()
        .replace("\"volume_id\"", "\"new\": 1, \"volume_id\"");
    fs::write(&file, text).unwrap();
    assert!(matches!(&open(&root).1[..], [RecordError::Damaged { .. }]));
}

#[test]
fn a_copied_record_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let record = record("/staging");
    open(&root).0.write(&record).unwrap();
    let file = only_file(&root);
    fs::copy(&file, file.with_file_name("copy.json")).unwrap();
    let (records, damaged) = open(&root);
    assert_eq!(records.select(|_| true), [record]);
    assert!(matches!(&damaged[..], [RecordError::Misplaced { .. }]));
}

#[test]
fn what_a_killed_process_did_not_finish_is_removed() {
    let root = tempfile::tempdir().unwrap();
    open(&root);
    fs::write(root.path().join("stages/.new-abcdef"), "{\"vers").unwrap();
    let (records, damaged) = open(&root);
    assert!(damaged.is_empty() && records.select(|_| true).is_empty());
    assert_eq!(fs::read_dir(root.path().join("stages")).unwrap().count(), 0);
}

proptest! {
    #[test]
    fn arbitrary_files_never_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
        let root = tempfile::tempdir().unwrap();
        open(&root);
        fs::write(root.path().join("stages/any.json"), content).unwrap();
        prop_assert_eq!(open(&root).1.len(), 1);
    }
}
