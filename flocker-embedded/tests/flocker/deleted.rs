//! Datasets that were deleted: how long they are listed, and for which clients; that their ids stay taken.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use flocker_embedded::Options;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Cluster, SIZE, edit_state, eventually, isolated, options};

const DATASETS: &str = "/v1/configuration/datasets";

/// Starts a Flocker that lists what is deleted until it is destroyed.
async fn start(directory: &std::path::Path) -> Cluster {
    Cluster::start_with(Options {
        deleted_listed_for: Duration::ZERO,
        ..options(directory)
    })
    .await
}

/// Sends a request of a client that knows the extension.
async fn ask(cluster: &Cluster, method: Method, path: &str, body: Option<Value>) -> Answer {
    let complete = |request: reqwest::RequestBuilder| {
        let request = request.header("X-Flocker-Extensions", "tombstones");
        match &body {
            Some(body) => request.json(body),
            None => request,
        }
    };
    cluster.client.request(method, path, complete).await
}

async fn listed(cluster: &Cluster) -> (BTreeMap<String, bool>, Option<String>) {
    listed_in(&ask(cluster, Method::GET, DATASETS, None).await)
}

fn listed_in(answer: &Answer) -> (BTreeMap<String, bool>, Option<String>) {
    let list = answer.json();
    let entries = list.as_array().unwrap().iter();
    let entries = entries.map(|entry| {
        let id = entry["dataset_id"].as_str().unwrap().to_owned();
        (id, entry["deleted"].as_bool().unwrap())
    });
    let tag = answer.header("X-Configuration-Tag").map(str::to_owned);
    (entries.collect(), tag)
}

fn new_dataset(cluster: &Cluster, id: Uuid, name: &str, generation: u64) -> Value {
    json!({
        "dataset_id": id, "primary": cluster.node(1).uuid, "maximum_size": SIZE,
        "metadata": {"name": name, "csi.driver": "driver", "csi.generation": generation.to_string()},
    })
}

#[test]
fn the_extensions_are_listed() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let answer = cluster.client.get("/v1/extensions").await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"extensions": ["tombstones"]}))
        );
    });
}

#[test]
fn what_was_deleted_is_listed_for_a_while_and_its_id_stays_taken() {
    isolated(async |directory| {
        let cluster = start(&directory).await;
        let live = cluster.create_mounted(1).await;
        let ids: [Uuid; 3] = std::array::from_fn(|_| Uuid::new_v4());
        for (generation, id) in (4..).zip(ids) {
            let new = new_dataset(&cluster, id, "data", generation);
            assert_eq!(ask(&cluster, Method::POST, DATASETS, Some(new)).await.status, 201);
            cluster.wait_until_on(1, id).await;
            cluster.delete(id).await;
        }
        let all = cluster.client.get(DATASETS).await;
        let (all_listed, tag) = listed_in(&all);
        assert_eq!(all_listed.len(), 4);
        eventually("they are no longer listed", async || {
            listed(&cluster).await.0.len() == 1
        })
        .await;
        assert_eq!(
            listed(&cluster).await,
            ([(live.to_string(), false)].into(), tag.clone())
        );

        // A client that does not know the extension gets what Flocker answers.
        let again = cluster.client.get(DATASETS).await;
        assert_eq!(listed_in(&again), (all_listed, tag), "the tag stays too");
        assert_eq!(again.text, all.text);
        let taken = new_dataset(&cluster, ids[0], "data", 4);
        let conflict = cluster.client.post(DATASETS, &taken).await;
        let description = "The provided dataset_id is already in use.";
        assert_eq!(
            (conflict.status, conflict.json()),
            (409, json!({"description": description}))
        );
        let conflict = ask(&cluster, Method::POST, DATASETS, Some(taken)).await;
        let highest = json!({"generation": 6, "dataset_id": ids[2]});
        let expected = json!({"description": description, "deleted": true, "highest_deleted": highest});
        assert_eq!((conflict.status, conflict.json()), (409, expected));
        let of_live = new_dataset(&cluster, live, "data", 4);
        let conflict = ask(&cluster, Method::POST, DATASETS, Some(of_live)).await;
        assert_eq!(
            (conflict.status, &conflict.json()["deleted"]),
            (409, &json!(false))
        );

        let path = format!("{DATASETS}/{}", ids[0]);
        assert_eq!(cluster.client.delete(&path).await.status, 200, "again");
        let moved = cluster
            .client
            .post(&path, &json!({"primary": cluster.node(1).uuid}))
            .await;
        assert_eq!(moved.status, 405);
        assert_eq!(listed(&cluster).await.0.len(), 1);

        cluster.flocker.stop().await.unwrap();
        let cluster = start(&directory).await;
        assert_eq!(listed(&cluster).await.0.len(), 1);
        assert_eq!(cluster.client.get(DATASETS).await.text, all.text);
    });
}

#[test]
fn what_was_deleted_is_listed_until_it_is_destroyed() {
    isolated(async |directory| {
        let cluster = start(&directory).await;
        let dataset = cluster.create_mounted(1).await;
        let open = fs::File::create(cluster.path(1, dataset).join("open")).unwrap();
        cluster.delete(dataset).await;
        let other = cluster.create_mounted(1).await;
        cluster.delete(other).await;
        eventually("the other one is no longer listed", async || {
            listed(&cluster).await.0 == [(dataset.to_string(), true)].into()
        })
        .await;
        drop(open);
        eventually("it is no longer listed", async || {
            listed(&cluster).await.0.is_empty()
        })
        .await;
        assert!(cluster.state(dataset).await.is_none());
    });
}

#[test]
fn a_list_of_many_deleted_datasets_is_complete_and_in_order() {
    isolated(async |directory| {
        let cluster = start(&directory).await;
        let live = cluster.create(1, SIZE).await;
        cluster.flocker.stop().await.unwrap();
        let mut expected = BTreeMap::from([(live.to_string(), false)]);
        edit_state(&directory, |state| {
            let mut entry = state["datasets"][live.to_string()].clone();
            entry["deleted"] = json!(true);
            for _ in 0..1_234 {
                let id = Uuid::new_v4().to_string();
                state["deleted"][&id] = entry.clone();
                expected.insert(id, true);
            }
        })
        .await;
        let cluster = start(&directory).await;
        let answer = cluster.client.get(DATASETS).await;
        assert_eq!(listed_in(&answer).0, expected);
        let order: Vec<_> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["dataset_id"].clone())
            .collect();
        assert!(order.is_sorted_by_key(|id| id.as_str().unwrap().to_owned()));
        assert_eq!(listed(&cluster).await.0.len(), 1);
    });
}
