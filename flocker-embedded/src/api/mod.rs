//! The REST API, version 1, as Flocker's control service answers it.

mod answer_time;
mod context;
mod dataset_list;
mod datasets;
mod eliot;
mod extensions;
mod json;
mod leases;
mod python;
mod reply;
mod request_json;
mod schema;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use answer_time::AnswerTime;
pub(crate) use context::Api;

use crate::counters::{Counting, RequestKey};
use crate::faults::{self, Lost};
use crate::routes::{
    CONTAINER_STATES, CONTAINERS, DATASET, DATASET_STATES, DATASETS, EXTENSIONS, LEASE, LEASES, NODE_BY_ERA,
    NODES, VERSION,
};

/// The maximum length of the body of a request. The control service has no limit; no object of the API is as long.
const BODY_LIMIT: usize = 4 << 20;
/// How long a client may take for the body.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Returns the routes, with every request counted and subject to the injected faults.
///
/// A request that a fault holds is dropped at `end`.
pub(crate) fn router(api: Arc<Api>, counting: Arc<Counting>, end: CancellationToken) -> Router {
    let faults = api.faults.clone();
    let datasets = get(dataset_list::list).post(datasets::create);
    let dataset = post(datasets::relocate).delete(datasets::delete);
    let leases = get(leases::list).post(leases::acquire);
    let lease = delete(leases::release);
    let containers = || get(state::no_containers);
    Router::new()
        .route(VERSION, readable(get(state::version), "HEAD, GET"))
        .route(EXTENSIONS, readable(get(extensions::list), "HEAD, GET"))
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
        .layer(middleware::from_fn_with_state(
            Arc::clone(&api),
            answer_time::delay,
        ))
        .layer(middleware::from_fn(move |request, next| {
            faults::inject(faults.clone(), end.clone(), request, next)
        }))
        .layer(middleware::from_fn(read_body))
        .layer(middleware::from_fn(move |request, next| {
            count(counting.clone(), request, next)
        }))
        .with_state(api)
}

/// Adds the answer of the control service to HEAD on every route that has GET: 400.
fn readable(route: MethodRouter<Arc<Api>>, allow: &'static str) -> MethodRouter<Arc<Api>> {
    limited(route.head(reply::head_refused), allow)
}

/// Adds the answer of the control service to every other method.
fn limited(route: MethodRouter<Arc<Api>>, allow: &'static str) -> MethodRouter<Arc<Api>> {
    route.fallback(move || async move { reply::method_not_allowed(allow) })
}

/// Reads the body, even where it is not used, as the control service does. An answer before the end of the body would
/// end the connection.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_TIME, to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

async fn count(counting: Arc<Counting>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let task = eliot::task_id(request.headers()).map(|task| (task, request.uri().path().to_owned()));
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
        .to_owned();
    let _in_progress = counting.request();
    let response = next.run(request).await;
    if let Some((task, path)) = task {
        eliot::log(&task, &method, &path, response.status());
    }
    let is_lost = response.extensions().get::<Lost>().is_some();
    counting.answer(RequestKey {
        method: method.to_string(),
        route,
        status: if is_lost { 0 } else { response.status().as_u16() },
    });
    response
}
