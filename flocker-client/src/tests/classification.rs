//! Which answers are Flocker's own, for every request of the API.

use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    NODE, client, new_dataset,
    pki::V3,
    server::{Reply, Server, stock_tls},
};
use crate::{
    Answered, Client, DecodeError, DeletedGeneration, Error, Extensions, NewDataset, RequestOutcome, TakenId,
};

const DATASET: Uuid = Uuid::from_u128(0xeda7_8073_5c06_4460_a686_d8a2_b572_5cf5);
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PAGE: &str = "<html><body>Sign in</body></html>";

/// Answers every request with a status and a body.
fn answering(status: u16, content_type: &'static str, body: &'static str) -> (Server, Client) {
    let server = Server::start(stock_tls(&V3), move |_| Reply::Answer {
        status,
        headers: vec![("Content-Type", content_type.to_owned())],
        body: body.into(),
    });
    let client = client(server.address, V3.credentials());
    (server, client)
}

#[tokio::test]
async fn a_cluster_has_no_extensions_and_a_page_of_another_service_says_nothing() {
    let known = r#"{"extensions": ["tombstones", "later"], "more": 1}"#;
    let (_server, client) = answering(200, JSON, known);
    let extensions = client.extensions().await.unwrap();
    assert!(extensions.contains(Extensions::TOMBSTONES) && !extensions.contains("earlier"));
    assert_eq!(extensions.names().collect::<Vec<_>>(), ["later", "tombstones"]);

    let page = "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2 Final//EN\">\n<title>404 Not Found</title>\n\
                <h1>Not Found</h1>\n<p>The requested URL was not found on the server.  If you entered the URL \
                manually please check your spelling and try again.</p>\n";
    let (_server, of_cluster) = answering(404, "text/html", page);
    assert_eq!(of_cluster.extensions().await.unwrap(), Extensions::default());
    assert!(
        !of_cluster.version().await.unwrap_err().is_not_found(),
        "only this request"
    );
    let (_server, of_proxy) = answering(404, HTML, PAGE);
    assert_eq!(
        of_proxy.extensions().await.unwrap_err().outcome(),
        RequestOutcome::WithoutEffect
    );
}

#[tokio::test]
async fn a_conflict_describes_the_dataset_only_where_the_control_service_does() {
    let id = Uuid::from_u128(7);
    let of = |highest_deleted| {
        Some(TakenId {
            deleted: true,
            highest_deleted,
        })
    };
    let highest = DeletedGeneration {
        generation: 41,
        dataset_id: id,
    };
    let description = r#""description": "The provided dataset_id is already in use.""#;
    let live = Some(TakenId {
        deleted: false,
        highest_deleted: None,
    });
    for (more, expected) in [
        ("", None),
        (r#", "deleted": "yes""#, None),
        (r#", "deleted": false"#, live),
        (r#", "deleted": true"#, of(None)),
        (
            r#", "deleted": true, "highest_deleted": {"generation": -1}"#,
            of(None),
        ),
        (
            r#", "deleted": true, "highest_deleted": {"generation": 41, "dataset_id": "00000000-0000-0000-0000-000000000007"}"#,
            of(Some(highest)),
        ),
    ] {
        let body = format!("{{{description}{more}}}");
        let (_server, client) = answering(409, JSON, body.leak());
        let error = client.create_dataset(&new_dataset()).await.unwrap_err();
        assert!(error.is_conflict(), "{error:?}");
        assert_eq!(error.taken_id(), expected, "{more}");
    }
}

/// The requests of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Version,
    ListDatasets,
    Create,
    Move,
    Delete,
    ListStates,
    ListNodes,
    NodeByEra,
    ListLeases,
    Acquire,
    Release,
}

use Request::{
    Acquire, Create, Delete, ListDatasets, ListLeases, ListNodes, ListStates, Move, NodeByEra, Release,
    Version,
};

const REQUESTS: [Request; 11] = [
    Version,
    ListDatasets,
    Create,
    Move,
    Delete,
    ListStates,
    ListNodes,
    NodeByEra,
    ListLeases,
    Acquire,
    Release,
];

impl Request {
    /// Sends the request. `None` is the answer that the object does not exist, where that is no error.
    async fn send(self, client: &Client) -> Result<Option<()>, Error> {
        let new = NewDataset {
            dataset_id: Some(DATASET),
            ..new_dataset()
        };
        match self {
            Version => client.version().await.map(|_| Some(())),
            ListDatasets => client.list_datasets().await.map(|_| Some(())),
            Create => client.create_dataset(&new).await.map(|_| Some(())),
            Move => client.move_dataset(DATASET, NODE).await.map(|_| Some(())),
            Delete => client.delete_dataset(DATASET).await.map(|_| Some(())),
            ListStates => client.list_dataset_states().await.map(|_| Some(())),
            ListNodes => client.list_nodes().await.map(|_| Some(())),
            NodeByEra => client.node_by_era(DATASET).await.map(|node| node.map(drop)),
            ListLeases => client.list_leases().await.map(|_| Some(())),
            Acquire => client.acquire_lease(DATASET, NODE, None).await.map(|_| Some(())),
            Release => client.release_lease(DATASET).await.map(|lease| lease.map(drop)),
        }
    }

    fn is_write(self) -> bool {
        matches!(self, Create | Move | Delete | Acquire | Release)
    }

    /// Returns what a failure without an answer of Flocker means for this request.
    fn outcome_without_answer(self) -> RequestOutcome {
        if self.is_write() {
            RequestOutcome::Unclear
        } else {
            RequestOutcome::WithoutEffect
        }
    }

    /// Returns the answer of a Flocker that carries out the request: a status and a body.
    fn success(self) -> (u16, String) {
        let dataset = |deleted: bool| {
            format!(
                r#"{{"dataset_id": "{DATASET}", "primary": "{NODE}", "metadata": {{}}, "deleted": {deleted}}}"#
            )
        };
        let lease = format!(r#"{{"dataset_id": "{DATASET}", "node_uuid": "{NODE}", "expires": null}}"#);
        match self {
            Version => (200, r#"{"flocker": "1.15.0"}"#.to_owned()),
            ListDatasets | ListStates | ListNodes | ListLeases => (200, "[]".to_owned()),
            Create => (201, dataset(false)),
            Move => (200, dataset(false)),
            Delete => (200, dataset(true)),
            NodeByEra => (200, format!(r#"{{"uuid": "{NODE}"}}"#)),
            Acquire => (201, lease),
            Release => (200, lease),
        }
    }
}

/// Recognises the fault of an answer.
type IsExpected = fn(&DecodeError) -> bool;

/// Status, content type and body of an answer.
type Answer = (u16, &'static str, String);

/// A server that gives the same answer to every request until it gets another one, and a client of it.
struct Fixture {
    _server: Server,
    client: Client,
    answer: Arc<Mutex<Answer>>,
}

impl Fixture {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new((500, JSON, String::new())));
        let current = Arc::clone(&answer);
        let server = Server::start(stock_tls(&V3), move |_| {
            let (status, content_type, body) = current.lock().unwrap().clone();
            Reply::Answer {
                status,
                headers: vec![("Content-Type", content_type.to_owned())],
                body: body.into_bytes(),
            }
        });
        Self {
            client: client(server.address, V3.credentials()),
            _server: server,
            answer,
        }
    }

    async fn answer(&self, answer: Answer, request: Request) -> Result<Option<()>, Error> {
        *self.answer.lock().unwrap() = answer;
        request.send(&self.client).await
    }

    /// Sends every request at the same time.
    async fn answer_all(&self, answer: Answer) -> Vec<(Request, Result<Option<()>, Error>)> {
        *self.answer.lock().unwrap() = answer;
        let mut requests = JoinSet::new();
        for request in REQUESTS {
            let client = self.client.clone();
            requests.spawn(async move { (request, request.send(&client).await) });
        }
        requests.join_all().await
    }
}

/// Returns the answer in which Flocker refuses a request.
fn refusal(status: u16, description: &str) -> Answer {
    (status, JSON, format!(r#"{{"description": "{description}"}}"#))
}

const UNDECODABLE: &str =
    r"The request body could not be decoded according to the value of the\nContent-Type header.";
const SCHEMA: &str = "The provided JSON doesn't match the required schema.";

/// Every refusal of Flocker's API.
const REFUSALS: [(u16, &str, &[Request]); 9] = [
    (400, UNDECODABLE, &[Create, Move, Acquire]),
    (400, SCHEMA, &[Create, Move, Acquire]),
    (404, "Dataset not found.", &[Move, Delete]),
    (404, "Lease not found.", &[Release]),
    (404, "No node found with given era.", &[NodeByEra]),
    (405, "The dataset has been deleted.", &[Move]),
    (409, "The provided dataset_id is already in use.", &[Create]),
    (409, "Lease already held.", &[Acquire]),
    // The client makes no conditional requests, so this is no answer to any of them.
    (412, "Tag doesn't match. Required: a, current: b", &[]),
];

#[tokio::test]
async fn flocker_refuses_a_request_only_with_a_status_and_a_description_that_its_api_has_for_it() {
    let fixture = Fixture::new();
    for (status, description, requests) in REFUSALS {
        for (request, result) in fixture.answer_all(refusal(status, description)).await {
            let is_refusal = requests.contains(&request);
            let reads_as_none = status == 404 && matches!(request, NodeByEra | Release);
            if is_refusal && reads_as_none {
                assert_eq!(result.unwrap(), None, "{request:?}: {status} {description}");
                continue;
            }
            let error = result.unwrap_err();
            let expected = if is_refusal {
                RequestOutcome::Refused
            } else {
                request.outcome_without_answer()
            };
            assert_eq!(error.outcome(), expected, "{request:?}: {error}");
            assert_eq!(error.is_flockers_answer(), is_refusal, "{request:?}: {error}");
            assert_eq!(
                error.is_not_found(),
                is_refusal && status == 404,
                "{request:?}: {error}"
            );
            assert_eq!(
                error.is_conflict(),
                is_refusal && status == 409,
                "{request:?}: {error}"
            );
            assert_eq!(
                error.is_deleted(),
                is_refusal && status == 405,
                "{request:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn no_answer_without_success_of_anything_but_flocker_is_final() {
    let fixture = Fixture::new();
    let text = |text: &str| text.to_owned();
    let answers: [(Answer, Answered); 20] = [
        ((404, HTML, text(PAGE)), Answered::Html),
        ((405, "text/html", text(PAGE)), Answered::Html),
        ((403, HTML, text(PAGE)), Answered::Html),
        ((502, HTML, text(PAGE)), Answered::Html),
        ((404, JSON, text(PAGE)), Answered::Html),
        (
            (404, HTML, text(r#"{"description": "Dataset not found."}"#)),
            Answered::Html,
        ),
        (
            (
                404,
                "text/plain",
                text(r#"{"description": "Dataset not found."}"#),
            ),
            Answered::Other,
        ),
        ((429, "text/plain", text("Too Many Requests")), Answered::Other),
        ((408, "text/plain", text("")), Answered::Other),
        ((401, "text/plain", text("Unauthorized")), Answered::Other),
        ((403, "text/plain", text("RBAC: access denied")), Answered::Other),
        (
            (400, JSON, text(r#"{"description": "Bad Request"}"#)),
            Answered::Other,
        ),
        (
            (
                404,
                JSON,
                text(r#"{"message": "no Route matched with those values"}"#),
            ),
            Answered::Other,
        ),
        (
            (
                404,
                JSON,
                text(r#"{"code": 404, "name": "Not Found", "description": "Not found."}"#),
            ),
            Answered::Other,
        ),
        (
            (429, JSON, text(r#"{"description": "Lease already held."}"#)),
            Answered::Other,
        ),
        ((409, JSON, text(r#""a string""#)), Answered::Other),
        ((301, HTML, text(PAGE)), Answered::Html),
        ((307, "text/plain", text("")), Answered::Other),
        ((503, JSON, text(r#""a string""#)), Answered::Other),
        (
            (500, JSON, text(r#""c5d5cc5a-3089-4718-95e0-ad9db0433cbd@/2""#)),
            Answered::LogId,
        ),
    ];
    for (answer, expected) in answers {
        for (request, result) in fixture.answer_all(answer).await {
            let error = result.unwrap_err();
            let Error::Status { answered, .. } = &error else {
                panic!("{request:?}: {error:?}")
            };
            assert_eq!(*answered, expected, "{request:?}: {error}");
            assert_eq!(
                error.outcome(),
                request.outcome_without_answer(),
                "{request:?}: {error}"
            );
            assert!(
                !error.is_not_found() && !error.is_conflict() && !error.is_deleted(),
                "{request:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn success_needs_the_status_the_content_type_and_the_shape_of_flockers_answer() {
    let fixture = Fixture::new();
    for request in REQUESTS {
        let (status, body) = request.success();
        let with_parameter = (status, "Application/JSON; charset=utf-8", body.clone());
        for answer in [(status, JSON, body.clone()), with_parameter] {
            assert_eq!(
                fixture.answer(answer, request).await.unwrap(),
                Some(()),
                "{request:?}"
            );
        }
        let wrong: [(Answer, IsExpected); 8] = [
            ((200, HTML, PAGE.to_owned()), |source| {
                matches!(source, DecodeError::Html)
            }),
            ((status, JSON, PAGE.to_owned()), |source| {
                matches!(source, DecodeError::Html)
            }),
            ((202, JSON, body.clone()), |source| {
                matches!(source, DecodeError::Status { status: 202, .. })
            }),
            ((203, JSON, body.clone()), |source| {
                matches!(source, DecodeError::Status { status: 203, .. })
            }),
            ((status, "text/plain", body.clone()), |source| {
                matches!(source, DecodeError::NotJson { .. })
            }),
            ((status, JSON, r#"{"status": "ok"}"#.to_owned()), |source| {
                matches!(source, DecodeError::Field { .. } | DecodeError::Entry { .. })
            }),
            ((status, JSON, "null".to_owned()), |source| {
                matches!(source, DecodeError::Field { .. })
            }),
            ((status, JSON, String::new()), |source| {
                matches!(source, DecodeError::Field { .. })
            }),
        ];
        for (answer, is_expected) in wrong {
            let error = fixture.answer(answer, request).await.unwrap_err();
            let Error::Decode { source, .. } = &error else {
                panic!("{request:?}: {error:?}")
            };
            assert!(is_expected(source), "{request:?}: {source}");
            assert_eq!(
                error.outcome(),
                request.outcome_without_answer(),
                "{request:?}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_about_another_object_is_no_success() {
    let fixture = Fixture::new();
    let (other, node) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let dataset = |id: Uuid, primary: Uuid, deleted: bool| {
        format!(r#"{{"dataset_id": "{id}", "primary": "{primary}", "metadata": {{}}, "deleted": {deleted}}}"#)
    };
    let lease =
        |id: Uuid, node: Uuid| format!(r#"{{"dataset_id": "{id}", "node_uuid": "{node}", "expires": null}}"#);
    for (request, status, body, wrong) in [
        (Create, 201, dataset(other, NODE, false), "dataset_id"),
        (Create, 201, dataset(DATASET, node, false), "primary"),
        (Move, 200, dataset(other, NODE, false), "dataset_id"),
        (Move, 200, dataset(DATASET, node, false), "primary"),
        (Delete, 200, dataset(other, NODE, true), "dataset_id"),
        (Delete, 200, dataset(DATASET, NODE, false), "deleted"),
        (Acquire, 201, lease(other, NODE), "dataset_id"),
        (Acquire, 200, lease(DATASET, node), "node_uuid"),
        (Release, 200, lease(other, NODE), "dataset_id"),
    ] {
        let error = fixture.answer((status, JSON, body), request).await.unwrap_err();
        let Error::Decode { source, .. } = &error else {
            panic!("{request:?}: {error:?}")
        };
        assert!(
            matches!(source, DecodeError::Mismatch { field, .. } if *field == wrong),
            "{request:?}: {source}"
        );
        assert!(error.is_unclear());
    }
}
