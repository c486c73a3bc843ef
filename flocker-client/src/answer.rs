//! Reads an answer of the control service: a value, or one of the several forms a refusal takes.

use reqwest::{Response, StatusCode, header};
use serde::{
    Deserialize,
    de::{self, DeserializeOwned},
};
use serde_json::Value;

use crate::{
    Error,
    error::{Answered, Call, DecodeError, Target, excerpt, failed_request, one_line},
};

/// The most an answer may hold. A list of 100,000 datasets with much metadata stays below it.
pub(crate) const BODY_LIMIT: usize = 64 << 20;

/// The most that is read of a refusal, and the most of its text that goes into a message.
const REFUSAL_LIMIT: usize = 64 << 10;
const DESCRIPTION_LIMIT: usize = 500;
const FINDINGS_LIMIT: usize = 8;

/// The most that is told of why an answer does not decode.
const REASON_LIMIT: usize = 200;

/// The header in which the configuration's tag comes.
const TAG: &str = "X-Configuration-Tag";

/// A successful answer that has arrived in full.
#[derive(Debug)]
pub(crate) struct Answer {
    call: Call,
    status: StatusCode,
    tag: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads a response to its end; any status but success becomes an error.
    pub(crate) async fn read(target: &Target, call: Call, response: Response) -> Result<Self, Error> {
        let status = response.status();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(ToOwned::to_owned)
        };
        let tag = header(TAG);
        let html = header(header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("text/html"));
        let limit = if status.is_success() {
            BODY_LIMIT
        } else {
            REFUSAL_LIMIT
        };
        let body = body(target, &call, response, limit).await?;
        Self::of(call, status, tag, html, body)
    }

    /// Makes an answer of what has arrived.
    pub(crate) fn of(
        call: Call,
        status: StatusCode,
        tag: Option<String>,
        html: bool,
        body: Body,
    ) -> Result<Self, Error> {
        match body {
            Body::Whole(body) if status.is_success() => Ok(Self {
                call,
                status,
                tag,
                body,
            }),
            Body::Cut(_) if status.is_success() => Err(Error::Decode {
                call: Box::new(call),
                source: DecodeError::TooLong { limit: BODY_LIMIT },
            }),
            Body::Whole(body) | Body::Cut(body) => Err(refusal(call, status, html, &body)),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn take_tag(&mut self) -> Option<String> {
        self.tag.take()
    }

    /// Decodes the body.
    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        decode(&self.body).map_err(|source| Error::Decode {
            call: Box::new(self.call),
            source,
        })
    }
}

/// What has been read of a body.
pub(crate) enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// As much as may be read.
    Cut(Vec<u8>),
}

async fn body(target: &Target, call: &Call, mut response: Response, limit: usize) -> Result<Body, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| failed_request(target, call.clone(), error))?
    {
        if chunk.len() > limit - body.len() {
            return Ok(Body::Cut(body));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| {
        if is_markup(body) {
            return DecodeError::Html;
        }
        // Keeping track of the path costs time, so only what does not decode is decoded again with it.
        let mut parser = serde_json::Deserializer::from_slice(body);
        let (field, source) = match serde_path_to_error::deserialize::<_, T>(&mut parser) {
            Ok(_) => (".".to_owned(), error),
            Err(error) => (one_line(&error.path().to_string(), 80), error.into_inner()),
        };
        DecodeError::Field {
            field,
            excerpt: excerpt(body, source.line(), source.column()),
            source: fit(source),
        }
    })
}

/// Makes a reason fit for a message that repeats the value it is about, which may be all of the answer.
fn fit(error: serde_json::Error) -> serde_json::Error {
    let reason = error.to_string();
    if reason.len() <= REASON_LIMIT && !reason.contains(char::is_control) {
        return error;
    }
    de::Error::custom(one_line(&reason, REASON_LIMIT))
}

/// The forms of a refusal.
#[derive(Deserialize)]
#[serde(untagged)]
enum Refused {
    Described {
        description: String,
        #[serde(default)]
        errors: Vec<Value>,
    },
    LogId(String),
}

fn refusal(call: Call, status: StatusCode, html: bool, body: &[u8]) -> Error {
    let (answered, description, errors) = match serde_json::from_slice(body) {
        Ok(Refused::Described { description, errors }) => (
            Answered::Flocker,
            one_line(&description, DESCRIPTION_LIMIT),
            findings(&errors),
        ),
        Ok(Refused::LogId(id)) => {
            let id = one_line(&id, DESCRIPTION_LIMIT);
            (
                Answered::LogId,
                format!("an error of its own, in its log as `{id}`"),
                Vec::new(),
            )
        }
        Err(_) if html || is_markup(body) => {
            let text =
                "an HTML page, so it is no Flocker that answers, or one that does not know this request";
            (Answered::Html, text.to_owned(), Vec::new())
        }
        Err(_) if body.is_empty() => (Answered::Other, "nothing more".to_owned(), Vec::new()),
        Err(_) => {
            let text = one_line(&String::from_utf8_lossy(body), 80);
            (
                Answered::Other,
                format!("not in Flocker's form: `{text}`"),
                Vec::new(),
            )
        }
    };
    Error::Status {
        call: Box::new(call),
        status: status.as_u16(),
        description,
        errors,
        answered,
    }
}

/// Returns Flocker's findings: it repeats some, and never has many.
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

fn is_markup(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}
