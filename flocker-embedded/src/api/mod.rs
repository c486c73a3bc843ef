//! The REST API, version 1, as Flocker's control service answers it.

mod datasets;
mod json;
mod leases;
mod python;
mod reply;
mod schema;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::counters::{Counting, RequestKey};
use crate::faults::{self, Faults, Lost};
use crate::options::NodeInfo;
use crate::store::Store;

/// The control service has no limit; this one only keeps a mistake from filling the memory.
const BODY_LIMIT: usize = 16 << 20;

const VERSION: &str = "/v1/version";
const DATASETS: &str = "/v1/configuration/datasets";
const DATASET: &str = "/v1/configuration/datasets/{dataset_id}";
const LEASES: &str = "/v1/configuration/leases";
const LEASE: &str = "/v1/configuration/leases/{dataset_id}";
const CONTAINERS: &str = "/v1/configuration/containers";
const CONTAINER_STATES: &str = "/v1/state/containers";
const DATASET_STATES: &str = "/v1/state/datasets";
const NODES: &str = "/v1/state/nodes";
const NODE_BY_ERA: &str = "/v1/state/nodes/by_era/{era}";

/// The templates of all routes.
pub(crate) const ROUTES: [&str; 10] = [
    VERSION,
    DATASETS,
    DATASET,
    LEASES,
    LEASE,
    CONTAINERS,
    CONTAINER_STATES,
    DATASET_STATES,
    NODES,
    NODE_BY_ERA,
];

/// What the handlers work on.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) faults: Faults,
    /// Held while a change is written, so that those who wait for their turn do not each block a thread.
    pub(crate) writing: Mutex<()>,
}

/// Returns the routes, with every request counted and met by the faults that are switched on.
///
/// A request that a fault holds is dropped at `end`.
pub(crate) fn router(api: Arc<Api>, counting: Arc<Counting>, end: CancellationToken) -> Router {
    let faults = api.faults.clone();
    let datasets = get(datasets::list).post(datasets::create);
    let dataset = post(datasets::relocate).delete(datasets::delete);
    let leases = get(leases::list).post(leases::acquire);
    let lease = delete(leases::release);
    let containers = || get(state::no_containers);
    Router::new()
        .route(VERSION, readable(get(state::version), "HEAD, GET"))
        .route(DATASETS, readable(datasets, "HEAD, POST, GET"))
        .route(DATASET, limited(dataset, "POST, DELETE"))
        .route(LEASES, readable(leases, "HEAD, POST, GET"))
        .route(LEASE, limited(lease, "DELETE"))
        .route(CONTAINERS, readable(containers(), "HEAD, GET"))
        .route(CONTAINER_STATES, readable(containers(), "HEAD, GET"))
        .route(DATASET_STATES, readable(get(state::datasets), "HEAD, GET"))
        .route(NODES, readable(get(state::nodes), "HEAD, GET"))
        .route(NODE_BY_ERA, readable(get(state::node_by_era), "HEAD, GET"))
        .fallback(reply::no_route)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(move |request, next| {
            faults::inject(faults.clone(), end.clone(), request, next)
        }))
        .layer(middleware::from_fn(read_body))
        .layer(middleware::from_fn(move |request, next| {
            count(counting.clone(), request, next)
        }))
        .with_state(api)
}

/// Adds what the control service answers to HEAD on every route that has GET: 400.
fn readable(route: MethodRouter<Arc<Api>>, allow: &'static str) -> MethodRouter<Arc<Api>> {
    limited(route.head(reply::head_refused), allow)
}

/// Adds what the control service answers to every other method.
fn limited(route: MethodRouter<Arc<Api>>, allow: &'static str) -> MethodRouter<Arc<Api>> {
    route.fallback(move || async move { reply::method_not_allowed(allow) })
}

/// Reads the body, whether or not it is of any use, as the control service does. An answer given before the
/// body has come would end the connection.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match to_bytes(body, BODY_LIMIT).await {
        Ok(body) => next.run(Request::from_parts(head, Body::from(body))).await,
        Err(_) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    }
}

async fn count(counting: Arc<Counting>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let _under_way = counting.request();
    let response = next.run(request).await;
    let is_lost = response.extensions().get::<Lost>().is_some();
    counting.answer(RequestKey {
        method,
        route,
        status: if is_lost { 0 } else { response.status().as_u16() },
    });
    response
}
