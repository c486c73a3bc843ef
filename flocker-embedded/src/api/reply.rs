//! The forms of answers: JSON, errors with a description, and the HTML pages of the web server.

use std::convert::Infallible;
use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::json;
use crate::store::HighestDeleted;

const NOT_FOUND_PAGE: &str = "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2 Final//EN\">\n\
    <title>404 Not Found</title>\n\
    <h1>Not Found</h1>\n\
    <p>The requested URL was not found on the server.  \
    If you entered the URL manually please check your spelling and try again.</p>\n";
const NO_RESOURCE_PAGE: &str = "\n<html>\n  \
    <head><title>404 - No Such Resource</title></head>\n  \
    <body>\n    <h1>No Such Resource</h1>\n    <p>No such child resource.</p>\n  </body>\n</html>\n";
const METHOD_PAGE: &str = "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 3.2 Final//EN\">\n\
    <title>405 Method Not Allowed</title>\n\
    <h1>Method Not Allowed</h1>\n\
    <p>The method is not allowed for the requested URL.</p>\n";

/// Why a request is not carried out.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// The body is not JSON.
    Undecodable,
    /// The body is not what the route expects; one message for each mistake.
    Schema(Vec<String>),
    /// The configuration has changed since the client read it.
    TagMismatch {
        required: String,
        current: String,
    },
    DatasetIdInUse(Option<TakenBy>),
    DatasetNotFound,
    DatasetDeleted,
    LeaseHeld,
    LeaseNotFound,
    NoSuchEra,
    /// A request that makes the control service raise an exception.
    Bug,
}

/// The dataset that has an id which a client wants for a new one, for a client that knows the extension `tombstones`.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct TakenBy {
    pub(super) deleted: bool,
    /// The last deleted dataset of the same name and creator, if the plugin created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) highest_deleted: Option<HighestDeleted>,
}

#[derive(Serialize)]
struct TakenBody {
    description: &'static str,
    #[serde(flatten)]
    by: Option<TakenBy>,
}

#[derive(Serialize)]
struct SchemaBody {
    errors: Vec<String>,
    description: &'static str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, description) = match self {
            Self::Undecodable => (
                StatusCode::BAD_REQUEST,
                "The request body could not be decoded according to the value of the\nContent-Type header."
                    .to_owned(),
            ),
            Self::Schema(errors) => {
                let description = "The provided JSON doesn't match the required schema.";
                return with_json(StatusCode::BAD_REQUEST, &SchemaBody { errors, description });
            }
            Self::TagMismatch { required, current } => (
                StatusCode::PRECONDITION_FAILED,
                format!("Tag doesn't match. Required: {required}, current: {current}"),
            ),
            Self::DatasetIdInUse(by) => {
                let description = "The provided dataset_id is already in use.";
                return with_json(StatusCode::CONFLICT, &TakenBody { description, by });
            }
            Self::DatasetNotFound => (StatusCode::NOT_FOUND, "Dataset not found.".to_owned()),
            Self::DatasetDeleted => (
                StatusCode::METHOD_NOT_ALLOWED,
                "The dataset has been deleted.".to_owned(),
            ),
            Self::LeaseHeld => (StatusCode::CONFLICT, "Lease already held.".to_owned()),
            Self::LeaseNotFound => (StatusCode::NOT_FOUND, "Lease not found.".to_owned()),
            Self::NoSuchEra => (StatusCode::NOT_FOUND, "No node found with given era.".to_owned()),
            // The control service answers with the number of a log entry, as a bare string.
            Self::Bug => {
                return with_json(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &format!("{}@/2", Uuid::new_v4()),
                );
            }
        };
        with_json(status, &json!({"description": description}))
    }
}

/// Answers with a JSON body, sent in chunks as the control service sends it.
pub(super) fn with_json(status: StatusCode, body: &impl Serialize) -> Response {
    match json::render(body) {
        Ok(bytes) => {
            let body = Body::from_stream(tokio_stream::once(Ok::<_, Infallible>(bytes)));
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => broken("render an answer", &error.into()),
    }
}

/// Answers 500 for a fault of this process, such as a full disk, and logs it.
pub(super) fn broken(action: &str, error: &io::Error) -> Response {
    tracing::error!(%error, "Cannot {action}");
    let body = format!("\"{}@/2\"", Uuid::new_v4());
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        [(header::CONTENT_TYPE, "application/json")],
        body,
    )
        .into_response()
}

/// Answers HEAD, which the control service refuses wherever GET is allowed.
pub(super) async fn head_refused() -> Response {
    (
        StatusCode::BAD_REQUEST,
        [(header::CONTENT_TYPE, "application/json")],
    )
        .into_response()
}

/// Answers a method that the route does not have.
pub(super) fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "text/html", METHOD_PAGE);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Answers a path without a route: one page below `/v1`, another one elsewhere.
pub(super) async fn no_route(uri: Uri) -> Response {
    if uri.path() == "/v1" || uri.path().starts_with("/v1/") {
        page(StatusCode::NOT_FOUND, "text/html", NOT_FOUND_PAGE)
    } else {
        page(
            StatusCode::NOT_FOUND,
            "text/html; charset=utf-8",
            NO_RESOURCE_PAGE,
        )
    }
}

fn page(status: StatusCode, content_type: &'static str, text: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
}
