//! Volumes of Kubernetes' in-tree plugin.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{fill, handle, old, read, volume};
use crate::names::declare;
use crate::node::Fixture;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

#[test]
fn volumes_of_kubernetes_old_plugin_are_published_with_their_data() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let flocker = &fixture.flocker;
        let named = declare(flocker, 2, &[("name", "pg")]).await;
        let provisioned = [("type", "k8s-dynamic-prov"), ("pvc", "data")];
        let provisioned = declare(flocker, 2, &provisioned).await;
        fill(flocker, 2, named, "of a name").await;
        fill(flocker, 2, provisioned, "of an id").await;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            volume("pg", &json!({"datasetName": "pg"})),
            volume("pvc-1", &json!({"datasetUUID": provisioned.to_string().to_uppercase()})),
        ]});

        let objects = old(flocker, &["--claims"], &list.to_string()).await.objects(&[]);
        let [first, first_claim, second, second_claim] = objects.as_slice() else {
            panic!("{objects:#?}")
        };
        for (volume, claim, dataset, text) in [
            (first, first_claim, named, "of a name"),
            (second, second_claim, provisioned, "of an id"),
        ] {
            assert_eq!(handle(volume), dataset);
            let claimed = &volume["spec"]["claimRef"];
            assert_eq!(
                (&claimed["uid"], &claimed["resourceVersion"]),
                (&Value::Null, &Value::Null)
            );
            assert_eq!(claim["metadata"]["name"], claimed["name"]);
            assert_eq!(claim["spec"]["volumeName"], volume["metadata"]["name"]);
            assert_eq!(read(&fixture, volume).await, text);
        }
    });
}

#[test]
fn volumes_that_cannot_be_exported_are_reported_and_nothing_is_written() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut twins = Vec::new();
        for _ in 0..2 {
            twins.push(declare(&flocker, 1, &[("name", "twin")]).await);
        }
        twins.sort_unstable();
        let ids = format!("{}, {}", twins[0], twins[1]);
        let gone = declare(&flocker, 1, &[("name", "gone")]).await;
        flocker.client().await.delete_dataset(gone).await.unwrap();
        let missing = Uuid::new_v4();

        let good = volume("good", &json!({"datasetUUID": twins[0]}));
        let twin = volume("twin", &json!({"datasetName": "twin"}));
        let no_name = volume("gone", &json!({"datasetName": "gone"}));
        let deleted = volume("deleted", &json!({"datasetUUID": gone}));
        let unknown = volume("unknown", &json!({"datasetUUID": missing}));
        let of_nfs = json!({"kind": "PersistentVolume", "metadata": {"name": "nfs-1"},
            "spec": {"nfs": {"server": "x", "path": "/"}}});
        let service = json!({"kind": "Service", "metadata": {"name": "web"}});
        let input = [good.clone(), twin, no_name, deleted, unknown, of_nfs, service]
            .map(|object| object.to_string())
            .join("\n---\n");
        old(&flocker, &[], &input).await.assert_refused(
            1,
            &[
                &["PersistentVolume twin", "2 datasets have name \"twin\"", &ids],
                &["PersistentVolume gone", "no dataset has name \"gone\""],
                &["PersistentVolume deleted", &gone.to_string(), "has been deleted"],
                &["PersistentVolume unknown", &missing.to_string(), "does not exist"],
                &["PersistentVolume nfs-1", "no flocker source", "spec.nfs"],
                &["Service web", "not a PersistentVolume"],
            ],
        );
        let same = [good.clone(), volume("again", &json!({"datasetUUID": twins[0]}))];
        let same = json!({"kind": "PersistentVolumeList", "items": same}).to_string();
        old(&flocker, &[], &same)
            .await
            .assert_refused(1, &[&["good, again", "the same dataset", &twins[0].to_string()]]);

        for (garbage, part) in [
            ("kind: [", "cannot be read as YAML or JSON"),
            ("\u{0}\u{1}", "cannot be read as YAML or JSON"),
            ("", "contains no object"),
            (&"[".repeat(100_000), "cannot be read as YAML or JSON"),
            (&" ".repeat(17 << 20), "more than 16 MiB"),
        ] {
            let ended = old(&flocker, &[], garbage).await;
            ended.assert_refused(1, &[&["the standard input", part]]);
        }
        let objects = old(&flocker, &[], &good.to_string()).await.objects(&[]);
        assert_eq!(objects.len(), 1);
    });
}
