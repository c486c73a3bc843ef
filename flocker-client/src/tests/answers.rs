//! Answers: recorded ones of a real Flocker, and malformed ones.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::{Uuid, uuid};

use super::{
    NODE, client, full_message, new_dataset,
    pki::V3,
    server::{Reply, Server, stock_tls},
};
use crate::{AcquiredKind, Answered, Client, DecodeError, Error, NewDataset};

pub(super) const NODE_2: Uuid = uuid!("6d477a33-5275-497f-9b8d-05ff9ae88d73");
const MOVED: Uuid = uuid!("eda78073-5c06-4460-a686-d8a2b5725cf5");
const LEASED: Uuid = uuid!("039b8383-e2ee-4bb7-847c-05568da53f40");

/// An exchange with a real control service.
#[derive(Clone, Deserialize)]
struct Recorded {
    case: String,
    method: String,
    path: String,
    request: Option<Value>,
    status: u16,
    content_type: Option<String>,
    tag: Option<String>,
    body: String,
}

/// A server that gives one recorded answer, and a client of it.
struct Replay {
    server: Server,
    client: Client,
    recorded: Recorded,
}

impl Replay {
    fn of(case: &str) -> Self {
        let all: Vec<Recorded> =
            serde_json::from_str(include_str!("../../tests/data/recorded.json")).unwrap();
        let recorded = all
            .into_iter()
            .find(|recorded| recorded.case == case)
            .expect("the case is recorded");
        let Recorded {
            status,
            content_type,
            tag,
            body,
            ..
        } = recorded.clone();
        let server = Server::start(stock_tls(&V3), move |_| {
            let content_type = content_type.clone().map(|value| ("Content-Type", value));
            let tag = tag.clone().map(|value| ("X-Configuration-Tag", value));
            let headers = content_type.into_iter().chain(tag).collect();
            Reply::Answer {
                status,
                headers,
                body: body.clone().into_bytes(),
            }
        });
        let client = client(server.address, V3.credentials());
        Self {
            server,
            client,
            recorded,
        }
    }

    /// Asserts that the client sent the request that the answer was recorded for.
    fn assert_same_request(&self) {
        let request = self.server.requests().pop().unwrap();
        assert_eq!(
            (request.method, request.path),
            (self.recorded.method.clone(), self.recorded.path.clone())
        );
        let body: Option<Value> =
            (!request.body.is_empty()).then(|| serde_json::from_slice(&request.body).unwrap());
        assert_eq!(body, self.recorded.request);
    }
}

/// A client of a server that answers every request alike.
pub(super) fn answering(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Server, Client) {
    let server = Server::start(stock_tls(&V3), move |_| reply());
    let client = client(server.address, V3.credentials());
    (server, client)
}

#[tokio::test]
async fn the_version_is_read() {
    let replay = Replay::of("get gzip");
    assert_eq!(
        replay.client.version().await.unwrap(),
        "1.15.0.post2+274.geaa5862"
    );
    replay.assert_same_request();
}

#[tokio::test]
async fn the_configuration_is_read_with_its_tag() {
    let replay = Replay::of("config datasets after creates");
    let all = replay.client.list_datasets().await.unwrap();
    replay.assert_same_request();
    assert_eq!(all.tag.as_deref(), Some("e7144bc027abf9c297dbbcd8ee821853"));
    let find = |id: Uuid| {
        all.datasets
            .iter()
            .find(|dataset| dataset.dataset_id == id)
            .unwrap()
    };
    let alpha = find(uuid!("e5861c65-3166-46d9-a9d4-38f4fb17ce62"));
    assert_eq!(
        (alpha.primary, alpha.deleted, alpha.maximum_size),
        (NODE, false, Some(67_108_864))
    );
    assert_eq!(alpha.metadata["csi.created-by"], "x");
    let without_size = find(uuid!("0c3165d1-b4ad-4a55-a6b3-9cfb5adff113"));
    assert_eq!(
        (without_size.maximum_size, without_size.metadata.len()),
        (None, 0)
    );
}

#[tokio::test]
async fn the_state_is_read_mounted_or_not() {
    let replay = Replay::of("timeline: state while creating");
    let states = replay.client.list_dataset_states().await.unwrap();
    replay.assert_same_request();
    let (mounted, unmounted): (Vec<_>, Vec<_>) = states.iter().partition(|state| state.path.is_some());
    assert!(!mounted.is_empty() && !unmounted.is_empty());
    assert!(
        unmounted
            .iter()
            .all(|state| state.primary.is_none() && state.maximum_size.is_some())
    );
    for state in mounted {
        let path = format!("/flocker/{}", state.dataset_id);
        assert_eq!(state.path.as_deref(), Some(path.as_ref()));
    }
}

#[tokio::test]
async fn nodes_are_read_and_found_by_era() {
    let replay = Replay::of("nodes state");
    let nodes = replay.client.list_nodes().await.unwrap();
    replay.assert_same_request();
    assert!(
        nodes.len() == 3
            && nodes
                .iter()
                .any(|node| node.uuid == NODE && node.host == "127.0.0.1")
    );

    let replay = Replay::of("by_era node2");
    let era = uuid!("142eed17-65d6-45f7-b66f-ee7bd87a6519");
    assert_eq!(replay.client.node_by_era(era).await.unwrap(), Some(NODE_2));
    replay.assert_same_request();

    let replay = Replay::of("by_era unknown");
    let era = uuid!("d29dd440-a59b-4146-a633-76930b2efe00");
    assert_eq!(replay.client.node_by_era(era).await.unwrap(), None);
    replay.assert_same_request();
}

#[tokio::test]
async fn datasets_are_created_moved_and_deleted() {
    let replay = Replay::of("create: size");
    let new = NewDataset {
        maximum_size: Some(67_108_864),
        ..new_dataset()
    };
    let dataset = replay.client.create_dataset(&new).await.unwrap();
    replay.assert_same_request();
    assert_eq!((dataset.primary, dataset.metadata), (NODE, BTreeMap::new()));

    let replay = Replay::of("move: to node2");
    assert_eq!(
        replay.client.move_dataset(MOVED, NODE_2).await.unwrap().primary,
        NODE_2
    );
    replay.assert_same_request();

    let replay = Replay::of("delete: ok");
    assert!(replay.client.delete_dataset(MOVED).await.unwrap().deleted);
    replay.assert_same_request();
}

#[tokio::test]
async fn everything_about_a_new_dataset_is_sent() {
    let (server, client) = answering(|| Reply::json(409, "{}"));
    let metadata = [("name".to_owned(), "größe".to_owned())].into();
    let new = NewDataset {
        dataset_id: Some(MOVED),
        primary: NODE,
        maximum_size: Some(1 << 40),
        metadata,
    };
    client.create_dataset(&new).await.unwrap_err();
    let sent: Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
    let expected = json!({
        "dataset_id": MOVED, "primary": NODE, "maximum_size": 1_u64 << 40, "metadata": {"name": "größe"}
    });
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn leases_are_acquired_renewed_listed_and_released() {
    let replay = Replay::of("lease: acquire no expiry");
    let acquired = replay.client.acquire_lease(LEASED, NODE, None).await.unwrap();
    replay.assert_same_request();
    assert_eq!((acquired.kind, acquired.lease.expires), (AcquiredKind::New, None));

    let replay = Replay::of("lease: renew same node with expiry 300");
    let acquired = replay
        .client
        .acquire_lease(LEASED, NODE, Some(300.0))
        .await
        .unwrap();
    assert_eq!(
        (acquired.kind, acquired.lease.expires),
        (AcquiredKind::Renewed, Some(300.0))
    );

    let replay = Replay::of("lease: list after expires 0");
    let leases = replay.client.list_leases().await.unwrap();
    assert!(
        leases.len() == 1 && leases[0].expires.unwrap() < 0.0,
        "an expired lease is still listed"
    );

    let replay = Replay::of("lease: release each");
    let lease = replay
        .client
        .release_lease(uuid!("c29d4d76-3a29-4d91-b369-fe5ce34dfb32"))
        .await
        .unwrap();
    replay.assert_same_request();
    assert_eq!(lease.map(|lease| lease.node_uuid), Some(NODE));

    let replay = Replay::of("lease: release twice");
    assert_eq!(replay.client.release_lease(LEASED).await.unwrap(), None);
}

#[tokio::test]
async fn a_lease_without_a_finite_duration_is_not_requested() {
    let (server, client) = answering(|| Reply::json(201, "{}"));
    for expires in [f64::NAN, f64::INFINITY] {
        let error = client
            .acquire_lease(LEASED, NODE, Some(expires))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn flockers_refusals_are_distinguished() {
    let replay = Replay::of("create: duplicate id same body");
    let error = replay.client.create_dataset(&new_dataset()).await.unwrap_err();
    assert!(error.is_conflict() && !error.is_unclear());
    assert!(
        full_message(&error).contains("status 409: The provided dataset_id is already in use."),
        "{error}"
    );

    let replay = Replay::of("lease: other node while held");
    assert!(
        replay
            .client
            .acquire_lease(LEASED, NODE_2, None)
            .await
            .unwrap_err()
            .is_conflict()
    );

    let replay = Replay::of("deleted: move it");
    let error = replay.client.move_dataset(MOVED, NODE_2).await.unwrap_err();
    assert!(error.is_deleted() && !error.is_not_found());

    let replay = Replay::of("delete: unknown id");
    assert!(
        replay
            .client
            .delete_dataset(MOVED)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn flockers_findings_about_a_request_are_kept() {
    let replay = Replay::of("create: primary not a uuid");
    let error = replay.client.create_dataset(&new_dataset()).await.unwrap_err();
    let Error::Status {
        status: 400,
        errors,
        answered: Answered::Flocker,
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(
        errors.len() == 2 && errors.iter().any(|error| error == "u'node1' is too short"),
        "{errors:?}"
    );
    assert!(full_message(&error).contains("u'node1' is too short"));

    let replay = Replay::of("lease: malformed JSON");
    let error = replay.client.acquire_lease(LEASED, NODE, None).await.unwrap_err();
    assert!(
        full_message(&error).contains("according to the value of the Content-Type header."),
        "one line: {error}"
    );
}

#[tokio::test]
async fn an_exception_of_flockers_has_the_id_of_its_log_entry_and_leaves_a_write_unclear() {
    let replay = Replay::of("create: deleted true");
    let error = replay.client.create_dataset(&new_dataset()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Status {
                status: 500,
                answered: Answered::LogId,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        full_message(&error).contains("3d4712a1-1788-443f-bce3-e25ffcc984e2@/2"),
        "{error}"
    );
    assert!(error.is_unclear());
    assert!(!replay.client.list_nodes().await.unwrap_err().is_unclear());
}

#[tokio::test]
async fn a_page_does_not_count_as_flockers_answer_that_an_object_does_not_exist() {
    let replay = Replay::of("unknown path");
    let errors = [
        replay.client.delete_dataset(MOVED).await.unwrap_err(),
        replay.client.release_lease(MOVED).await.unwrap_err(),
        replay.client.node_by_era(MOVED).await.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(
                error,
                Error::Status {
                    status: 404,
                    answered: Answered::Html,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(!error.is_not_found());
        let text = full_message(&error);
        assert!(text.contains("HTML page") && !text.contains('<'), "{text}");
    }
}

#[tokio::test]
async fn answers_in_an_unknown_form_are_quoted_in_part() {
    for (body, expected) in [
        ("", "an empty answer"),
        ("oh\nno", "`oh no`"),
        ("[1, 2]", "`[1, 2]`"),
        ("{\"a\": 1}", "not an answer of Flocker's API"),
    ] {
        let (_server, client) = answering(move || Reply::json(503, body));
        let error = client.create_dataset(&new_dataset()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Status {
                    answered: Answered::Other,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.is_unclear());
    }
    let (_server, client) = answering(|| Reply::json(502, "x".repeat(1 << 20)));
    assert!(client.version().await.unwrap_err().to_string().len() < 1000);
}

#[tokio::test]
async fn ids_in_any_case_and_unknown_keys_are_accepted() {
    let node = NODE.to_string().to_uppercase();
    let body = format!(r#"[{{"uuid": "{node}", "host": "10.0.0.1", "era": {{"new": [1, null]}}}}]"#);
    let (_server, client) = answering(move || Reply::ok(body.clone()));
    assert_eq!(client.list_nodes().await.unwrap()[0].uuid, NODE);
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_reported_with_the_text_around_it() {
    let body = format!(r#"[{{"dataset_id": "{MOVED}"}}, {{"dataset_id": "{MOVED}", "maximum_size": -}}]"#);
    let (_server, client) = answering(move || Reply::ok(body.clone()));
    let error = client.list_dataset_states().await.unwrap_err();
    let text = full_message(&error);
    assert!(
        text.contains("`[1]`") && text.contains(r#""maximum_size": -"#),
        "{text}"
    );
    assert!(!error.is_unclear());
}

#[tokio::test]
async fn an_entry_that_cannot_be_decoded_is_not_repeated() {
    let long = "x".repeat(1 << 20);
    let body = format!(r#"[{{"dataset_id": "{MOVED}", "maximum_size": "{long}"}}]"#);
    let (_server, client) = answering(move || Reply::ok(body.clone()));
    let listed = client.list_dataset_states().await.unwrap();
    let reason = &listed.unreadable.faults[0].reason;
    assert!(
        reason.starts_with("maximum_size is \"xxx") && reason.len() < 200,
        "{reason}"
    );
    let answer = format!(r#"{{"dataset_id": "{long}"}}"#);
    let (_server, client) = answering(move || Reply::ok(answer.clone()));
    let text = full_message(&client.delete_dataset(MOVED).await.unwrap_err());
    assert!(
        text.contains("dataset_id is \"xxx") && text.len() < 1000,
        "{text}"
    );
}

#[tokio::test]
async fn an_unreadable_answer_to_a_write_leaves_it_unclear() {
    for body in ["", "{}", "[", "<html>", "\u{0}\u{ff}"] {
        let (_server, client) = answering(move || Reply::json(201, body));
        let error = client.create_dataset(&new_dataset()).await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error:?}");
        assert!(error.is_unclear());
        assert!(
            !full_message(&error).contains('<'),
            "pages are not repeated: {}",
            full_message(&error)
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, client) = answering(|| Reply::Answer {
        status: 302,
        headers: vec![("Location", "https://control-service/elsewhere".to_owned())],
        body: Vec::new(),
    });
    assert_eq!(client.version().await.unwrap_err().status(), Some(302));
    assert_eq!(server.calls(), ["GET /v1/version"]);
}

#[tokio::test]
async fn an_answer_above_the_limit_is_not_read_on() {
    let (_server, client) = answering(|| Reply::ok(vec![b' '; crate::answer::BODY_LIMIT + 1]));
    let error = client.list_nodes().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Decode {
                source: DecodeError::TooLong { .. },
                ..
            }
        ),
        "{error:?}"
    );
}
