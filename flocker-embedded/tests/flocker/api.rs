//! The REST API as Flocker's control service answers it.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Cluster, eventually, isolated};

const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";

#[test]
fn paths_and_methods_that_do_not_exist_are_answered_with_pages() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let cases = [
            (Method::HEAD, "/v1/version", 400, None),
            (Method::POST, "/v1/version", 405, Some("HEAD, GET")),
            (Method::PUT, DATASETS, 405, Some("HEAD, POST, GET")),
            (
                Method::GET,
                "/v1/configuration/datasets/x",
                405,
                Some("POST, DELETE"),
            ),
            (Method::GET, "/v1/version/", 404, None),
            (Method::GET, "/v1/nope", 404, None),
            (Method::GET, "/v1", 404, None),
            (Method::GET, "/", 404, None),
        ];
        for (method, path, status, allow) in cases {
            let answer = cluster
                .client
                .request(method.clone(), path, |request| request)
                .await;
            assert_eq!(
                (answer.status, answer.header("Allow")),
                (status, allow),
                "{method} {path}"
            );
            let expected = match (status, path) {
                (400, _) => "application/json",
                (_, "/") => "text/html; charset=utf-8",
                _ => "text/html",
            };
            assert_eq!(answer.header("Content-Type"), Some(expected), "{method} {path}");
        }
        let missing = cluster.client.get("/v1/nope").await;
        assert_eq!(missing.text.len(), 233);
        assert_eq!(cluster.client.get("/").await.text.len(), 153);
    });
}

#[test]
fn a_dataset_is_shown_as_it_was_configured() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let node = cluster.node(1).uuid;
        let dataset = Uuid::new_v4();
        let new = json!({
            "dataset_id": dataset.to_string().to_uppercase(),
            "primary": node,
            "maximum_size": 67_108_864,
            "metadata": {"näme": "Größe"},
        });
        let created = cluster.client.post(DATASETS, &new).await;
        assert_eq!(created.status, 201);
        assert_eq!(created.header("Content-Type"), Some("application/json"));
        assert_eq!(created.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(created.header("X-Configuration-Tag"), None);
        let expected = format!(
            "{{\"deleted\": false, \"dataset_id\": \"{dataset}\", \"maximum_size\": 67108864, \
             \"primary\": \"{node}\", \"metadata\": {{\"n\\u00e4me\": \"Gr\\u00f6\\u00dfe\"}}}}"
        );
        assert_eq!(created.text, expected);
        assert_eq!(cluster.client.get(DATASETS).await.json(), json!([created.json()]));

        let unsized_ = cluster
            .client
            .post(DATASETS, &json!({"primary": Uuid::new_v4()}))
            .await;
        assert_eq!(unsized_.json().get("maximum_size"), None);
    });
}

#[test]
fn what_is_deleted_stays_deleted() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let dataset = cluster.create_mounted(1).await;
        let path = format!("{DATASETS}/{dataset}");
        for _ in 0..2 {
            let deleted = cluster.client.delete(&path).await;
            assert_eq!((deleted.status, &deleted.json()["deleted"]), (200, &json!(true)));
        }
        let node = cluster.node(1).uuid;
        let moved = cluster.client.post(&path, &json!({"primary": node})).await;
        assert_eq!(
            (moved.status, description(&moved.json())),
            (405, "The dataset has been deleted.".into())
        );
        let again = cluster
            .client
            .post(DATASETS, &json!({"primary": node, "dataset_id": dataset}))
            .await;
        let expected = "The provided dataset_id is already in use.";
        assert_eq!((again.status, description(&again.json())), (409, expected.into()));

        for unknown in [
            Uuid::new_v4().to_string(),
            "nope".into(),
            dataset.to_string().to_uppercase(),
        ] {
            let missing = cluster.client.delete(&format!("{DATASETS}/{unknown}")).await;
            assert_eq!(
                (missing.status, description(&missing.json())),
                (404, "Dataset not found.".into())
            );
        }
    });
}

#[test]
fn what_is_not_valid_is_refused() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let post = async |body: String| {
            cluster
                .client
                .request(Method::POST, DATASETS, |request| request.body(body))
                .await
        };
        let answer = post("{}".into()).await;
        let expected = json!({
            "errors": ["'primary' is a required property"],
            "description": "The provided JSON doesn't match the required schema.",
        });
        assert_eq!((answer.status, answer.json()), (400, expected));
        let expected =
            "The request body could not be decoded according to the value of the\nContent-Type header.";
        let answer = post(String::new()).await;
        assert_eq!(
            (answer.status, description(&answer.json())),
            (400, expected.into())
        );

        let long = json!({"primary": cluster.node(1).uuid, "metadata": {"k": "x".repeat(2_000_000)}});
        let answer = post(long.to_string()).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text.ends_with("required schema.\"}") && answer.text.contains("is too long"));

        let deleted = json!({"primary": cluster.node(1).uuid, "deleted": true});
        let bugs = [
            cluster.client.post(DATASETS, &deleted).await,
            cluster.client.get("/v1/state/nodes/by_era/nope").await,
            cluster.client.delete("/v1/configuration/leases/nope").await,
        ];
        for bug in bugs {
            assert_eq!(bug.status, 500);
            assert!(bug.json().as_str().unwrap().ends_with("@/2"));
        }
        assert_eq!(cluster.client.get(DATASETS).await.json(), json!([]));
    });
}

#[test]
fn a_tag_identifies_the_whole_configuration_including_leases() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let node = cluster.node(1).uuid;
        // A dataset of a node that does not exist keeps the agents from changing the tag in between.
        let dataset = Uuid::new_v4();
        let tag = async || {
            let list = cluster.client.get(DATASETS).await;
            list.header("X-Configuration-Tag").unwrap().to_owned()
        };
        let conditional = async |required: &str| {
            let body = json!({"primary": Uuid::new_v4(), "dataset_id": dataset});
            let complete = |request: reqwest::RequestBuilder| {
                request.header("X-If-Configuration-Matches", required).json(&body)
            };
            cluster.client.request(Method::POST, DATASETS, complete).await
        };
        let first = tag().await;
        assert!(first.len() == 32 && first.bytes().all(|digit| b"0123456789abcdef".contains(&digit)));
        assert_eq!(conditional(&first).await.status, 201);

        let second = tag().await;
        let stale = conditional(&first).await;
        let expected = format!("Tag doesn't match. Required: {first}, current: {second}");
        assert_eq!((stale.status, description(&stale.json())), (412, expected));
        assert_eq!(
            conditional(&second).await.status,
            409,
            "the tag matches, but the id is taken"
        );

        let lease = json!({"dataset_id": dataset, "node_uuid": node, "expires": null});
        assert_eq!(cluster.client.post(LEASES, &lease).await.status, 201);
        assert_ne!(tag().await, second);
        cluster.release(dataset).await;
        assert_eq!(tag().await, second);
    });
}

#[test]
fn a_lease_belongs_to_one_node_at_a_time_and_any_client_may_release_it() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let dataset = Uuid::new_v4();
        let node = cluster.node(1).uuid;
        assert_eq!(cluster.lease(dataset, 1).await.status, 201);
        let other = cluster.lease(dataset, 2).await;
        assert_eq!(
            (other.status, description(&other.json())),
            (409, "Lease already held.".into())
        );

        let renewal = json!({"dataset_id": dataset, "node_uuid": node, "expires": 300});
        let renewed = cluster.client.post(LEASES, &renewal).await;
        assert_eq!((renewed.status, &renewed.json()["expires"]), (200, &json!(300.0)));
        let listed = cluster.client.get(LEASES).await.json();
        let left = listed[0]["expires"].as_f64().unwrap();
        assert!(left > 200.0 && left < 300.0, "{left}");

        assert_eq!(cluster.release(dataset).await.json()["node_uuid"], json!(node));
        let missing = cluster.release(dataset).await;
        assert_eq!(
            (missing.status, description(&missing.json())),
            (404, "Lease not found.".into())
        );
    });
}

#[test]
fn nodes_have_addresses_of_their_own_and_there_are_no_containers() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let expected = json!([
            {"host": "127.0.0.1", "uuid": cluster.node(1).uuid},
            {"host": "127.0.0.2", "uuid": cluster.node(2).uuid},
        ]);
        assert_eq!(
            cluster.client.get("/v1/state/nodes?limit=1").await.json(),
            expected
        );
        for path in ["/v1/configuration/containers", "/v1/state/containers"] {
            assert_eq!(cluster.client.get(path).await.json(), json!([]));
        }
    });
}

#[test]
fn requests_and_connections_are_counted() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        for _ in 0..3 {
            cluster.client.get("/v1/version").await;
        }
        cluster.release(Uuid::new_v4()).await;
        let counters = cluster.flocker.counters();
        assert_eq!(counters.answered("GET", "/v1/version", 200), 3);
        assert_eq!(
            counters.answered("DELETE", "/v1/configuration/leases/{dataset_id}", 404),
            1
        );

        let _silent = tokio::net::TcpStream::connect(cluster.flocker.address())
            .await
            .unwrap();
        eventually("a connection counts before its handshake", async || {
            cluster.flocker.counters().connections == counters.connections + 1
        })
        .await;
    });
}

fn description(body: &Value) -> String {
    body["description"].as_str().unwrap().to_owned()
}
