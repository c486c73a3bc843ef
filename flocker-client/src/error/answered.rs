//! Decides who gave an answer that reports no success: Flocker itself, or something else at its address.

use serde::Deserialize;
use serde_json::Value;

use super::{ApiCall, Error, one_line};
use crate::{TakenId, answer::Body, endpoint::Endpoint};

/// The maximum length of a description and of each finding, in characters.
const DESCRIPTION_LIMIT: usize = 500;
/// The maximum number of findings.
const FINDINGS_LIMIT: usize = 8;
/// The maximum length of a foreign text, in characters.
const FOREIGN_TEXT_LIMIT: usize = 80;

/// The status that Flocker gives for an exception of its own.
const EXCEPTION: u16 = 500;
/// The status that it gives for a request that it does not have, and a part of the page.
const NO_ROUTE: u16 = 404;
const NO_ROUTE_TEXT: &str = "The requested URL was not found on the server.";

/// Who gave an answer that reports no success.
///
/// A status alone proves nothing: a proxy in front of Flocker, or another service at its address, uses the same ones. Flocker sends JSON under that content type, with a status and a description that its API has for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answered {
    /// Flocker itself: it has read the request and refuses it. The same request gets the same answer again as long as
    /// Flocker's configuration stays the same.
    Flocker,
    /// Flocker itself, because of an exception of its own. The answer carries the id of an entry in its log.
    LogId,
    /// Something that answers with an HTML page: a proxy, a load balancer, or a Flocker without this request.
    Html,
    /// Something else.
    Other,
}

/// The body of an answer in which Flocker reports no success.
#[derive(Deserialize)]
#[serde(untagged)]
enum Report {
    Described {
        description: String,
        #[serde(default)]
        errors: Vec<Value>,
        /// Of the extension `tombstones`.
        #[serde(default)]
        deleted: Value,
        #[serde(default)]
        highest_deleted: Value,
    },
    LogId(String),
}

/// What an answer without success says.
struct Reading {
    answered: Answered,
    description: String,
    errors: Vec<String>,
    taken: Option<TakenId>,
}

impl Reading {
    fn new(answered: Answered, description: impl Into<String>) -> Self {
        Self {
            answered,
            description: description.into(),
            errors: Vec::new(),
            taken: None,
        }
    }
}

/// Returns the error that an answer without success is.
pub(crate) fn unsuccessful(call: ApiCall, status: u16, content_type: Option<&str>, body: &Body) -> Error {
    let Reading {
        answered,
        description,
        errors,
        taken,
    } = examine(call.endpoint(), status, content_type, body);
    Error::Status {
        call: Box::new(call),
        status,
        description,
        errors,
        answered,
        taken,
    }
}

fn examine(endpoint: Endpoint, status: u16, content_type: Option<&str>, body: &Body) -> Reading {
    let (Body::Whole(text) | Body::Cut(text)) = body;
    let report = match body {
        Body::Whole(text) if is_json(content_type) => serde_json::from_slice(text).ok(),
        Body::Whole(_) | Body::Cut(_) => None,
    };
    match report {
        Some(Report::Described {
            description,
            errors,
            deleted,
            highest_deleted,
        }) if is_refusal(endpoint, status, &description) => Reading {
            errors: findings(&errors),
            taken: deleted.as_bool().map(|deleted| TakenId {
                deleted,
                highest_deleted: serde_json::from_value(highest_deleted).ok(),
            }),
            ..Reading::new(Answered::Flocker, one_line(&description, DESCRIPTION_LIMIT))
        },
        Some(Report::LogId(id)) if status == EXCEPTION => {
            let id = one_line(&id, DESCRIPTION_LIMIT);
            let description = format!("an exception in Flocker, which is `{id}` in its log");
            Reading::new(Answered::LogId, description)
        }
        _ if endpoint == Endpoint::Extensions && is_unknown_route(status, text) => {
            let description = "this version of Flocker has no extensions, and no such request";
            Reading::new(Answered::Flocker, description)
        }
        _ if is_markup(text) || is_html(content_type) => {
            let description = "an HTML page, which Flocker does not send for this request: a proxy or another \
                               service answers at this address, or a version of Flocker without this request";
            Reading::new(Answered::Html, description)
        }
        _ if text.is_empty() => Reading::new(Answered::Other, "an empty answer"),
        _ => {
            let text = one_line(&String::from_utf8_lossy(text), FOREIGN_TEXT_LIMIT);
            let description = format!("not an answer of Flocker's API to this request: `{text}`");
            Reading::new(Answered::Other, description)
        }
    }
}

/// Returns whether this is Flocker's page for a request that it does not have.
fn is_unknown_route(status: u16, text: &[u8]) -> bool {
    status == NO_ROUTE && is_markup(text) && String::from_utf8_lossy(text).contains(NO_ROUTE_TEXT)
}

/// Returns whether Flocker refuses requests of this kind with this status and description.
fn is_refusal(endpoint: Endpoint, status: u16, description: &str) -> bool {
    let description = one_line(description, DESCRIPTION_LIMIT);
    endpoint
        .refusals()
        .iter()
        .any(|known| known.status == status && known.description == description)
}

/// Returns Flocker's findings about a request, each of them once: Flocker repeats some.
fn findings(errors: &[Value]) -> Vec<String> {
    let mut findings: Vec<String> = Vec::new();
    for error in errors {
        let text = error
            .as_str()
            .map_or_else(|| error.to_string(), ToOwned::to_owned);
        let text = one_line(&text, DESCRIPTION_LIMIT);
        if findings.len() < FINDINGS_LIMIT && !findings.contains(&text) {
            findings.push(text);
        }
    }
    findings
}

/// Returns whether a content type is the one of all of Flocker's answers. Its parameters do not matter.
pub(crate) fn is_json(content_type: Option<&str>) -> bool {
    has_media_type(content_type, "application/json")
}

fn is_html(content_type: Option<&str>) -> bool {
    has_media_type(content_type, "text/html")
}

fn has_media_type(content_type: Option<&str>, expected: &str) -> bool {
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(expected))
}

pub(crate) fn is_markup(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}
