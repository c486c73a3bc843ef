//! Datasets of any client.

use serde_json::json;
use uuid::Uuid;

use super::{datasets, fill, handle, old, read, volume};
use crate::names::declare;
use crate::node::Fixture;
use crate::support::namespace::in_own_namespace;

#[test]
fn datasets_of_docker_of_tasks_and_of_this_driver_are_published_with_their_data() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let flocker = &fixture.flocker;
        let of_docker = declare(flocker, 2, &[("name", "my_app"), ("maximum_size", "67108864")]).await;
        let of_a_task = declare(flocker, 2, &[("FLOCKER_ID", "web")]).await;
        let own = fixture.csi().create("pvc-1").await;
        let nameless = declare(flocker, 2, &[]).await;
        for (number, dataset) in [(2, of_docker), (2, of_a_task), (1, own), (2, nameless)] {
            fill(flocker, number, dataset, &dataset.to_string()).await;
        }

        let ended = datasets(flocker, &["--claims=apps"]).await;
        let renamed = format!("dataset {of_docker} has the name \"my_app\"");
        let remarks = [
            &format!("dataset {nameless} has no name and is left out"),
            &format!("dataset {own} was made by a CSI driver"),
            &renamed,
        ];
        let mut objects = ended.objects(&remarks.map(String::as_str));
        let made = format!("dataset {own} was made by CSI driver");
        objects.extend(
            datasets(flocker, &["pvc-1", "--claims=apps"])
                .await
                .objects(&[&made]),
        );
        let volumes: Vec<_> = objects
            .iter()
            .filter(|object| object["kind"] == "PersistentVolume")
            .collect();
        assert_eq!((objects.len(), volumes.len()), (6, 3));
        for (dataset, name) in [(of_docker, "my-app"), (of_a_task, "web"), (own, "pvc-1")] {
            let volume = volumes.iter().find(|volume| handle(volume) == dataset).unwrap();
            assert_eq!(volume["metadata"]["name"], name);
            assert_eq!(volume["spec"]["capacity"], json!({"storage": "64Mi"}));
            assert_eq!(volume["spec"]["claimRef"]["namespace"], "apps");
            assert_eq!(read(&fixture, volume).await, dataset.to_string());
        }

        let named = datasets(flocker, &["my_app", &nameless.to_string(), "--output=json"]).await;
        assert_eq!((named.code, named.said.len()), (Some(0), 1), "{named:?}");
        let list: serde_json::Value = serde_json::from_str(&named.text).unwrap();
        let mut found: Vec<_> = list["items"].as_array().unwrap().iter().map(handle).collect();
        found.sort_unstable();
        let mut expected = [of_docker, nameless];
        expected.sort_unstable();
        assert_eq!(found, expected);
    });
}

#[test]
fn datasets_that_are_in_use_or_ambiguous_are_refused() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let flocker = &fixture.flocker;
        let usage = fixture.published("used").await;
        let (used, node) = (usage.volume_id.as_str(), fixture.machine.node().to_string());
        let parts: &[&str] = &[used, &node, "holds the lease", "--allow-leased"];
        for arguments in [&[used][..], &["used"]] {
            datasets(flocker, arguments).await.assert_refused(1, &[parts]);
        }
        let old_one = volume("pg", &json!({"datasetUUID": used})).to_string();
        old(flocker, &[], &old_one).await.assert_refused(1, &[parts]);
        let in_use = [used, "holds the lease"]
            .join(" is in use: node ")
            .replace("holds", &format!("{node} holds"));
        let objects = datasets(flocker, &["used", "--allow-leased"])
            .await
            .objects(&[&in_use, "was made by CSI driver"]);
        assert_eq!(handle(&objects[0]), usage.dataset());

        let mut twins = Vec::new();
        for _ in 0..2 {
            twins.push(declare(flocker, 2, &[("FLOCKER_ID", "twin")]).await.to_string());
        }
        twins.sort_unstable();
        let ids = twins.join(", ");
        datasets(flocker, &["twin"])
            .await
            .assert_refused(1, &[&["2 datasets have FLOCKER_ID \"twin\"", &ids]]);
        datasets(flocker, &["--allow-leased"])
            .await
            .assert_refused(1, &[&["2 volumes would have the name twin", &ids]]);
        let missing = Uuid::new_v4().to_string();
        datasets(flocker, &["unknown", &missing])
            .await
            .assert_refused(1, &[&["\"unknown\""], &[&missing, "does not exist"]]);
        assert_eq!(datasets(flocker, &[&twins[0]]).await.objects(&[]).len(), 1);

        fixture.csi().unpublish(&usage).await.unwrap();
        fixture.csi().unstage(&usage).await.unwrap();
        fixture
            .csi()
            .detach(usage.dataset(), fixture.machine.node())
            .await;
        let ended = datasets(flocker, &["used"]).await;
        assert_eq!(ended.objects(&["was made by CSI driver"]).len(), 1);
    });
}
