//! Which datasets become volumes, and which names the volumes get.

use flocker_client::{Dataset, DatasetState};
use serde_json::json;

use super::{DRIVER, ONE, TWO, assert_refused, dataset, deleted, exported, having, one};
use crate::flocker::cluster::Snapshot;

#[test]
fn datasets_of_a_csi_driver_are_exported_only_by_name() {
    let datasets = having(vec![
        dataset(ONE, &[("name", "pvc-1"), ("csi.driver", DRIVER)]),
        dataset(TWO, &[("name", "web")]),
    ]);
    let volume = one(
        &[],
        None,
        &datasets,
        &[&format!("dataset {ONE} was made by a CSI driver")],
    );
    assert_eq!(volume["spec"]["csi"]["volumeHandle"], TWO);
    for item in [ONE, "pvc-1"] {
        let volume = one(
            &[item],
            None,
            &datasets,
            &["only if the dataset's own one no longer exists"],
        );
        assert_eq!(volume["spec"]["csi"]["volumeHandle"], ONE);
    }
    let alone = having(vec![dataset(ONE, &[("name", "pvc-1"), ("csi.driver", DRIVER)])]);
    assert_refused(&[], None, &alone, &[&["no dataset with a name", "CSI driver"]]);
}

#[test]
fn datasets_with_a_name_are_exported_by_default() {
    let nameless = "3fbbd6e1-f558-4ea3-b2fe-b0268d12322a";
    let datasets = having(vec![
        dataset(ONE, &[("name", "My_DB.1"), ("maximum_size", "1073741824")]),
        dataset(TWO, &[("FLOCKER_ID", "web"), ("name", "else")]),
        dataset(nameless, &[("type", "k8s-dynamic-prov"), ("pvc", "data")]),
        deleted(dataset(
            "4fbbd6e1-f558-4ea3-b2fe-b0268d12322a",
            &[("name", "old")],
        )),
    ]);
    let (objects, remarks) = exported(&[], None, &datasets);
    let seen: Vec<_> = objects
        .iter()
        .map(|object| {
            (
                object["metadata"]["name"].as_str(),
                object["spec"]["csi"]["volumeHandle"].as_str(),
            )
        })
        .collect();
    assert_eq!(seen, [(Some("my-db-1"), Some(ONE)), (Some("web"), Some(TWO))]);
    assert_eq!(objects[0]["spec"]["capacity"], json!({"storage": "1Gi"}));
    assert_eq!(objects[0]["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert!(objects[0]["spec"].get("claimRef").is_none());
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    assert!(remarks[0].contains(nameless) && remarks[0].contains("left out"));
    assert!(remarks[1].contains("My_DB.1") && remarks[1].contains("my-db-1"));
}

#[test]
fn datasets_are_chosen_by_id_or_name_and_each_is_exported_once() {
    let datasets = having(vec![
        dataset(ONE, &[]),
        dataset(TWO, &[("FLOCKER_ID", "web")]),
        dataset("2fbbd6e1-f558-4ea3-b2fe-b0268d12322a", &[("name", "web")]),
    ]);
    let upper = ONE.to_uppercase();
    let (objects, remarks) = exported(&["web", &upper, TWO], None, &datasets);
    let names: Vec<_> = objects
        .iter()
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [&*format!("flocker-{ONE}"), "web"]);
    assert_eq!(remarks, [""; 0]);
    // Both volumes would have one name.
    assert_refused(
        &[],
        None,
        &datasets,
        &[&["2 volumes would have the name web", TWO]],
    );
    assert_refused(
        &["unknown", "5fbbd6e1-f558-4ea3-b2fe-b0268d12322a"],
        None,
        &datasets,
        &[&["FLOCKER_ID or name \"unknown\""], &["does not exist"]],
    );
    let twins = having(vec![
        dataset(ONE, &[("name", "a")]),
        dataset(TWO, &[("name", "a")]),
    ]);
    assert_refused(&["a"], None, &twins, &[&["2 datasets have name \"a\"", ONE, TWO]]);
    assert_refused(&[], None, &having(vec![]), &[&["no dataset with a name"]]);
}

#[test]
fn a_name_that_no_object_can_have_is_converted() {
    let long = "x".repeat(70);
    for (name, label) in [
        ("web", "web".to_owned()),
        ("-Web_1-", "web-1".to_owned()),
        ("日本", format!("flocker-{ONE}")),
        (&*long, "x".repeat(63)),
    ] {
        let (objects, _) = exported(&[], None, &having(vec![dataset(ONE, &[("name", name)])]));
        assert_eq!(objects[0]["metadata"]["name"], label);
    }
}

#[test]
fn a_size_that_is_not_configured_is_the_reported_one_or_flockers_default() {
    let unsized_one = Dataset {
        maximum_size: None,
        ..dataset(ONE, &[("FLOCKER_ID", "web")])
    };
    let state = DatasetState {
        dataset_id: ONE.parse().unwrap(),
        maximum_size: Some(100 << 30),
        primary: None,
        path: None,
        unreadable_primary: false,
    };
    let reported = Snapshot::of(vec![unsized_one.clone()], vec![state], &[], vec![]);
    let volume = one(&[], None, &reported, &[]);
    assert_eq!(volume["spec"]["capacity"], json!({"storage": "100Gi"}));
    let volume = one(
        &[],
        None,
        &having(vec![unsized_one]),
        &["does not report the size"],
    );
    assert_eq!(volume["spec"]["capacity"], json!({"storage": "75Gi"}));
}
