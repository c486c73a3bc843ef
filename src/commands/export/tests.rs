//! The objects of volumes, without a Flocker.

mod of_flocker;

use std::collections::BTreeMap;
use std::ffi::OsString;

use flocker_client::{Dataset, Lease};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Exported, compose, objects};
use crate::commands::cli::{Cli, Command};
use crate::flocker::cluster::Snapshot;

const DRIVER: &str = "flocker.csi.clusterhq.com";
const ONE: &str = "0fbbd6e1-f558-4ea3-b2fe-b0268d12322a";
const TWO: &str = "1fbbd6e1-f558-4ea3-b2fe-b0268d12322a";

fn dataset(id: &str, metadata: &[(&str, &str)]) -> Dataset {
    Dataset {
        dataset_id: id.parse().unwrap(),
        primary: Uuid::from_u128(0xa),
        deleted: false,
        maximum_size: Some(1 << 30),
        metadata: metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        unreadable: flocker_client::UnreadableParts::default(),
    }
}

fn deleted(dataset: Dataset) -> Dataset {
    Dataset {
        deleted: true,
        ..dataset
    }
}

fn having(datasets: Vec<Dataset>) -> Snapshot {
    Snapshot::of(datasets, vec![], &[], vec![])
}

fn leased(datasets: Vec<Dataset>, id: &str) -> Snapshot {
    let lease = Lease {
        dataset_id: id.parse().unwrap(),
        node_uuid: Uuid::from_u128(0xb),
        expires: None,
    };
    Snapshot::of(datasets, vec![], &[], vec![lease])
}

fn export(flags: &[&str], text: Option<&str>, snapshot: &Snapshot) -> Result<Exported, Vec<String>> {
    let source = if text.is_some() {
        "kubernetes-pv"
    } else {
        "flocker"
    };
    let from = format!("--from={source}");
    let arguments: Vec<_> = [
        "flocker-csi",
        "export",
        &from,
        "--control-service=https://10.0.0.1",
    ]
    .iter()
    .chain(flags)
    .map(OsString::from)
    .collect();
    let (cli, _) = Cli::read(&arguments, &BTreeMap::new()).unwrap();
    let Command::Export(args) = cli.command else {
        panic!("{cli:?}")
    };
    let objects = text.map(|text| objects::parse("pv.yaml", text)).transpose()?;
    compose(&args, objects.as_deref(), snapshot).map_err(|failure| failure.lines().to_vec())
}

/// Returns the objects and the remarks.
fn exported(flags: &[&str], text: Option<&str>, snapshot: &Snapshot) -> (Vec<Value>, Vec<String>) {
    let done = export(flags, text, snapshot).unwrap();
    (serde_saphyr::from_multiple(&done.objects).unwrap(), done.remarks)
}

/// Returns the only exported volume, after checking that the remarks are exactly these, by a part of each.
fn one(flags: &[&str], text: Option<&str>, snapshot: &Snapshot, remarks: &[&str]) -> Value {
    let (mut objects, found) = exported(flags, text, snapshot);
    assert_eq!(found.len(), remarks.len(), "{found:#?}");
    for part in remarks {
        assert!(
            found.iter().any(|remark| remark.contains(part)),
            "{part}: {found:#?}"
        );
    }
    assert_eq!(objects.len(), 1, "{objects:#?}");
    objects.remove(0)
}

fn assert_refused(flags: &[&str], text: Option<&str>, snapshot: &Snapshot, parts: &[&[&str]]) {
    let problems = export(flags, text, snapshot).unwrap_err();
    assert_eq!(problems.len(), parts.len(), "{problems:#?}");
    for (problem, parts) in problems.iter().zip(parts) {
        for part in *parts {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }
}

/// Returns a volume of the in-tree plugin with this source and further fields in its spec.
fn old(source: &Value, more: &Value) -> String {
    let mut volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pg"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "flocker": source,
        },
    });
    for (key, value) in more.as_object().unwrap() {
        volume["spec"][key] = value.clone();
    }
    volume.to_string()
}

/// As [`old`], for the first dataset.
fn of_one(more: &Value) -> String {
    old(&json!({"datasetUUID": ONE}), more)
}

#[test]
fn a_volume_of_the_old_plugin_becomes_one_of_the_driver() {
    // As a cluster of version 1.24 returns it, with the fields that are the cluster's own.
    let text = format!(
        "apiVersion: v1
items:
- apiVersion: v1
  kind: PersistentVolume
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {{\"apiVersion\":\"v1\"}}
      kubernetes.io/createdby: flocker-dynamic-provisioner
      pv.beta.kubernetes.io/gid: \"1234\"
      pv.kubernetes.io/bound-by-controller: \"yes\"
      pv.kubernetes.io/provisioned-by: kubernetes.io/flocker
      team: \"yes\"
    creationTimestamp: \"2022-08-01T10:00:00Z\"
    finalizers:
    - kubernetes.io/pv-protection
    labels:
      tier: db
    name: pvc-1
    resourceVersion: \"1107\"
    uid: 5f8a2d2c-5b0f-4c9c-9d3f-0d0a1f7a2a11
  spec:
    accessModes:
    - ReadWriteOnce
    capacity:
      storage: 10Gi
    claimRef:
      apiVersion: v1
      kind: PersistentVolumeClaim
      name: data-pg-0
      namespace: apps
      resourceVersion: \"1099\"
      uid: 0b9c6d52-9f0c-4a4e-8a0b-3f2d6e5c4b3a
    flocker:
      datasetUUID: {}
    persistentVolumeReclaimPolicy: Retain
    storageClassName: flocker
    volumeMode: Filesystem
  status:
    phase: Bound
kind: List
metadata:
  resourceVersion: \"\"
",
        ONE.to_uppercase()
    );
    let datasets = having(vec![dataset(ONE, &[])]);
    let done = export(&["--claims"], Some(&text), &datasets).unwrap();
    assert_eq!(done.remarks, [""; 0]);
    assert_eq!(
        done.objects,
        format!(
            "apiVersion: v1
kind: PersistentVolume
metadata:
  name: pvc-1
  labels:
    tier: db
  annotations:
    pv.beta.kubernetes.io/gid: \"1234\"
    team: \"yes\"
spec:
  accessModes:
  - ReadWriteOnce
  capacity:
    storage: 10Gi
  claimRef:
    apiVersion: v1
    kind: PersistentVolumeClaim
    name: data-pg-0
    namespace: apps
  csi:
    driver: {DRIVER}
    volumeHandle: {ONE}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: flocker
  volumeMode: Filesystem
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: data-pg-0
  namespace: apps
spec:
  accessModes:
  - ReadWriteOnce
  resources:
    requests:
      storage: 10Gi
  storageClassName: flocker
  volumeMode: Filesystem
  volumeName: pvc-1
"
        )
    );
}

#[test]
fn a_name_is_looked_up_as_the_old_plugin_did() {
    let deleted_one = deleted(dataset(TWO, &[("name", "pg")]));
    let of_a_task = dataset("2fbbd6e1-f558-4ea3-b2fe-b0268d12322a", &[("FLOCKER_ID", "pg")]);
    let datasets = having(vec![
        deleted_one.clone(),
        of_a_task.clone(),
        dataset(ONE, &[("name", "pg")]),
    ]);
    let text = old(&json!({"datasetName": "pg"}), &json!({}));
    let volume = one(&[], Some(&text), &datasets, &[]);
    assert_eq!(
        volume["spec"]["csi"],
        json!({"driver": DRIVER, "volumeHandle": ONE})
    );
    assert_refused(
        &[],
        Some(&text),
        &having(vec![deleted_one, of_a_task]),
        &[&[
            "PersistentVolume pg",
            "no dataset has name \"pg\"",
            "control_service",
        ]],
    );
    let twins = having(vec![
        dataset(TWO, &[("name", "pg")]),
        dataset(ONE, &[("name", "pg")]),
    ]);
    let ids = format!("{ONE}, {TWO}");
    assert_refused(
        &[],
        Some(&text),
        &twins,
        &[&["PersistentVolume pg", "2 datasets have name \"pg\"", &ids]],
    );
}

#[test]
fn an_id_that_is_no_datasets_is_refused() {
    let datasets = having(vec![deleted(dataset(TWO, &[]))]);
    for (id, part) in [
        (ONE, "does not exist"),
        (TWO, "has been deleted"),
        ("pg", "datasetUUID \"pg\" is no UUID"),
    ] {
        let text = old(&json!({"datasetUUID": id}), &json!({}));
        assert_refused(&[], Some(&text), &datasets, &[&["PersistentVolume pg", id, part]]);
    }
}

#[test]
fn an_object_that_is_no_volume_of_the_in_tree_plugin_is_refused_with_its_name() {
    let datasets = having(vec![dataset(ONE, &[("name", "pg")])]);
    let no_source = json!({"kind": "PersistentVolume", "metadata": {"name": "nfs-1"},
        "spec": {"nfs": {"server": "x", "path": "/"}}});
    let both = old(&json!({"datasetUUID": ONE, "datasetName": "pg"}), &json!({}));
    for (text, parts) in [
        (
            no_source.to_string(),
            ["PersistentVolume nfs-1", "no flocker source", "spec.nfs"],
        ),
        (both, ["PersistentVolume pg", "both", "remove one"]),
        (
            old(&json!({}), &json!({})),
            ["PersistentVolume pg", "neither", "datasetUUID"],
        ),
        (
            old(&json!({"datasetUuid": ONE}), &json!({})),
            ["PersistentVolume pg", "spec.flocker.datasetUuid", "unknown field"],
        ),
        (
            of_one(&json!({"accessModes": "ReadWriteOnce"})),
            ["PersistentVolume pg", "spec.accessModes", "expected a sequence"],
        ),
        (
            of_one(&json!({"capacity": {"storage": []}})),
            ["PersistentVolume pg", "spec", "expected a size"],
        ),
        (
            of_one(&json!({"volumeMode": "Block"})),
            ["PersistentVolume pg", "Block", "Filesystem"],
        ),
        (
            json!({"kind": "Service", "metadata": {"name": "pg"}}).to_string(),
            ["Service pg", "not a PersistentVolume", "remove it from the input"],
        ),
        (
            json!({"kind": "PersistentVolume"}).to_string(),
            ["PersistentVolume", "metadata.name", "pv.yaml"],
        ),
        (
            json!({"metadata": {"name": "pg"}}).to_string(),
            ["called pg", "no kind", "pv.yaml"],
        ),
        (
            of_one(&json!({"capacity": {"storage": "10 Gi"}})),
            ["PersistentVolume pg", "spec.capacity.storage", "\"10 Gi\""],
        ),
        (
            of_one(&json!({"claimRef": {"namespace": "", "name": "data"}})),
            ["PersistentVolume pg", "spec.claimRef.namespace", "expected"],
        ),
        (
            of_one(&json!({})).replace("pg", "My_PG"),
            ["PersistentVolume My_PG", "\"My_PG\"", "not a name"],
        ),
    ] {
        assert_refused(&[], Some(&text), &datasets, &[&parts]);
    }
}

#[test]
fn all_problems_are_reported_at_once_and_nothing_is_written() {
    let datasets = having(vec![dataset(ONE, &[("name", "pg")])]);
    let missing = old(&json!({"datasetName": "other"}), &json!({}));
    let service = json!({"kind": "Service", "metadata": {"name": "web"}});
    let text = format!("{}\n---\n{missing}\n---\n{service}\n", of_one(&json!({})));
    assert_refused(&[], Some(&text), &datasets, &[&["\"other\""], &["Service web"]]);
}

#[test]
fn properties_that_cannot_be_kept_are_reported_and_the_rest_is_kept() {
    let datasets = having(vec![dataset(ONE, &[])]);
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "disk", "operator": "In", "values": ["ssd", "1e3"]}]}]}});
    let text = of_one(&json!({
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
        "mountOptions": ["noatime", "discard", "relatime", "nodev,bogus", "noatime,bogus"],
        "nodeAffinity": affinity,
        "persistentVolumeReclaimPolicy": "Delete",
        "volumeAttributesClassName": "gold",
    }));
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["metadata"]["finalizers"] = json!([
        "kubernetes.io/pv-controller",
        "kubernetes.io/pv-protection",
        "backup.example.com/hold"
    ]);
    document["metadata"]["ownerReferences"] = json!([{"kind": "Site", "name": "a"}]);
    let volume = one(
        &[],
        Some(&document.to_string()),
        &datasets,
        &[
            "access mode ReadOnlyMany, ReadWriteMany is not kept",
            "a mount option is not kept: mount flag \"discard\" is an option of the file system",
            "a mount option is not kept: mount flags \"noatime\" and \"relatime\" contradict",
            "a mount option is not kept: mount flag number 5 is unknown",
            "finalizer backup.example.com/hold is not kept",
            "metadata.ownerReferences is not kept",
            "spec.volumeAttributesClassName is not kept",
            "(its reclaim policy is \"Delete\"); set it to Retain before you delete its claim",
        ],
    );
    let spec = &volume["spec"];
    assert_eq!(spec["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(spec["mountOptions"], json!(["noatime", "nodev"]));
    assert_eq!(spec["nodeAffinity"], affinity);
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["metadata"], json!({"name": "pg"}));
}

#[test]
fn multi_node_access_modes_are_reduced_to_the_single_node_mode() {
    let text = of_one(&json!({"accessModes": ["ReadWriteMany"]}));
    let volume = one(
        &[],
        Some(&text),
        &having(vec![dataset(ONE, &[])]),
        &["ReadWriteMany is not kept"],
    );
    assert_eq!(volume["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    let text = of_one(&json!({"accessModes": ["ReadWriteOncePod"]}));
    let volume = one(&[], Some(&text), &having(vec![dataset(ONE, &[])]), &[]);
    assert_eq!(volume["spec"]["accessModes"], json!(["ReadWriteOncePod"]));
}

#[test]
fn annotations_of_old_clusters_are_written_as_fields() {
    let mut document: Value = serde_json::from_str(&of_one(&json!({
        "storageClassName": "field", "mountOptions": ["nodev"],
    })))
    .unwrap();
    document["metadata"]["annotations"] = json!({
        "volume.beta.kubernetes.io/storage-class": "annotation",
        "volume.beta.kubernetes.io/mount-options": "noatime,noexec",
    });
    let volume = one(
        &[],
        Some(&document.to_string()),
        &having(vec![dataset(ONE, &[])]),
        &[],
    );
    assert_eq!(volume["spec"]["storageClassName"], "annotation");
    assert_eq!(volume["spec"]["mountOptions"], json!(["noatime", "noexec"]));
    assert_eq!(volume["metadata"], json!({"name": "pg"}));
}

#[test]
fn a_size_that_is_a_number_or_missing_is_a_quantity() {
    let datasets = having(vec![dataset(ONE, &[])]);
    for (capacity, written) in [
        (json!({"storage": 10_000_000}), "10000000"),
        (json!({"storage": "10G"}), "10G"),
        (json!({}), "1Gi"),
    ] {
        let volume = one(&[], Some(&of_one(&json!({"capacity": capacity}))), &datasets, &[]);
        assert_eq!(volume["spec"]["capacity"], json!({"storage": written}));
    }
}

#[test]
fn a_volume_without_a_reclaim_policy_is_retained() {
    let text = json!({"kind": "PersistentVolume", "metadata": {"name": "pg"}, "spec": {"flocker": {"datasetUUID": ONE}}});
    let volume = one(
        &[],
        Some(&text.to_string()),
        &having(vec![dataset(ONE, &[])]),
        &[],
    );
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(volume["spec"]["accessModes"], json!(["ReadWriteOnce"]));
}

#[test]
fn a_read_only_source_stays_read_only() {
    let text = old(
        &json!({"datasetUUID": ONE, "readOnly": true}),
        &json!({"mountOptions": ["rw,noatime"]}),
    );
    let datasets = having(vec![dataset(ONE, &[])]);
    let volume = one(
        &[],
        Some(&text),
        &datasets,
        &["a mount option is not kept: mount flags \"ro\" and \"rw\""],
    );
    assert_eq!(volume["spec"]["csi"]["readOnly"], true);
    assert_eq!(volume["spec"]["mountOptions"], json!(["ro", "noatime"]));
}

#[test]
fn a_volume_is_deleted_with_its_claim_only_on_request() {
    let datasets = having(vec![dataset(ONE, &[])]);
    let text = of_one(&json!({}));
    let flags = ["--delete-with-claim", "--driver-name=flocker.example.com"];
    let volume = one(&flags, Some(&text), &datasets, &[]);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(volume["spec"]["csi"]["driver"], "flocker.example.com");
    assert_eq!(
        volume["metadata"]["annotations"],
        json!({"pv.kubernetes.io/provisioned-by": "flocker.example.com"})
    );
    let volume = one(&[], Some(&text), &datasets, &[]);
    assert_eq!(volume["metadata"], json!({"name": "pg"}));
}

#[test]
fn the_volume_and_claim_of_a_dataset_have_no_class() {
    let datasets = having(vec![dataset(ONE, &[("name", "pg")])]);
    let (objects, _) = exported(&["--claims=apps"], None, &datasets);
    let [volume, claim] = objects.as_slice() else {
        panic!("{objects:#?}")
    };
    assert_eq!(claim["metadata"], json!({"name": "pg", "namespace": "apps"}));
    assert_eq!(claim["spec"]["volumeName"], "pg");
    assert_eq!(
        (
            &claim["spec"]["storageClassName"],
            &volume["spec"]["storageClassName"]
        ),
        (&json!(""), &json!(""))
    );
    let claim =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "apps", "name": "pg"});
    assert_eq!(volume["spec"]["claimRef"], claim);
    let (objects, _) = exported(
        &["--claims", "--storage-class=fast"],
        None,
        &having(vec![dataset(ONE, &[("name", "a")])]),
    );
    for object in &objects {
        assert_eq!(object["spec"]["storageClassName"], "fast");
    }
    assert_eq!(
        objects[1]["metadata"],
        json!({"name": "a", "namespace": "default"})
    );
}

#[test]
fn no_claim_is_written_for_a_volume_that_is_not_bound() {
    let datasets = having(vec![dataset(ONE, &[])]);
    let volume = one(
        &["--claims=apps"],
        Some(&of_one(&json!({}))),
        &datasets,
        &["PersistentVolume pg: no claim is bound to it"],
    );
    assert_eq!(volume["spec"].get("claimRef"), None);
    let claim = json!({"namespace": "apps", "name": "data", "uid": "0b9c6d52-9f0c-4a4e-8a0b-3f2d6e5c4b3a"});
    for (phase, written) in [
        ("Bound", true),
        ("Released", false),
        ("Failed", false),
        ("Available", false),
    ] {
        let mut document: Value = serde_json::from_str(&of_one(&json!({"claimRef": claim}))).unwrap();
        document["status"] = json!({"phase": phase});
        let (objects, remarks) = exported(&["--claims"], Some(&document.to_string()), &datasets);
        assert_eq!(objects.len(), 1 + usize::from(written), "{phase}");
        assert_eq!(
            (
                &objects[0]["spec"]["claimRef"]["name"],
                &objects[0]["spec"]["claimRef"]["uid"]
            ),
            (&json!("data"), &Value::Null)
        );
        let explained = remarks
            .iter()
            .any(|remark| remark.contains("not bound to claim apps/data"));
        assert_eq!(
            (explained, remarks.len()),
            (!written, usize::from(!written)),
            "{remarks:?}"
        );
    }
}

#[test]
fn text_of_a_file_is_printed_on_one_line_without_control_characters() {
    let evil = "\u{1b}[2J\nflocker-csi: all is well";
    let datasets = having(vec![dataset(ONE, &[])]);
    let (_, remarks) = exported(&[], Some(&of_one(&json!({evil: 1}))), &datasets);
    assert_eq!(
        remarks,
        ["PersistentVolume pg: spec.\\u{1b}[2J\\nflocker-csi: all is well is not kept"]
    );
    let text = json!({"kind": "PersistentVolume", "metadata": {"name": evil}, "spec": {}}).to_string();
    for problem in export(&[], Some(&text), &datasets).unwrap_err() {
        assert!(!problem.contains(char::is_control), "{problem:?}");
    }
}

#[test]
fn repeated_mount_options_are_collapsed() {
    let text = of_one(&json!({"mountOptions": ["ro,".repeat(1_000_000)]}));
    let volume = one(&[], Some(&text), &having(vec![dataset(ONE, &[])]), &[]);
    assert_eq!(volume["spec"]["mountOptions"], json!(["ro"]));
}

#[test]
fn a_dataset_in_use_is_exported_only_on_request() {
    let datasets = leased(vec![dataset(ONE, &[("name", "pg")])], ONE);
    let old = of_one(&json!({}));
    for text in [None, Some(old.as_str())] {
        assert_refused(
            &[],
            text,
            &datasets,
            &[&[ONE, "000b holds the lease", "--allow-leased"]],
        );
        one(&["--allow-leased"], text, &datasets, &["000b holds the lease"]);
    }
}

#[test]
fn json_is_one_list() {
    let datasets = having(vec![
        dataset(ONE, &[("name", "a")]),
        dataset(TWO, &[("name", "b")]),
    ]);
    let done = export(&["--output=json", "--claims"], None, &datasets).unwrap();
    let list: Value = serde_json::from_str(&done.objects).unwrap();
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("List"), &json!("v1"))
    );
    let kinds: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["PersistentVolume", "PersistentVolumeClaim"].repeat(2));
}
