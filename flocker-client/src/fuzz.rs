//! What reads foreign bytes, as functions that take any and panic only when a promise is broken.
//!
//! `make fuzz` lets an engine look for bytes that make one panic, and the tests below give each its corpus.

use std::{error::Error as _, time::Duration};

use hyper::StatusCode;
use serde::de::DeserializeOwned;

use crate::{
    Dataset, DatasetState, Error, Lease, Node,
    answer::{Answer, Body},
    error::{Call, Target},
    model::{NodeOfEra, Version},
};

pub use crate::credentials::fuzz::certificate;

/// The most that an error tells of an answer, in characters: a description and eight findings of 500 each, and what is
/// said around them.
const LONGEST_MESSAGE: usize = 5_000;

/// Reads `METHOD PATH STATUS CONTENT-TYPE`, a line feed and a body as an answer of the control service.
///
/// # Panics
/// If the error of an answer that is refused has more than one line, is long, or repeats a page.
pub fn answer(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let line = String::from_utf8_lossy(line);
    let words: Vec<&str> = line.split(' ').collect();
    let [method, path, status, content_type] = words[..] else {
        return;
    };
    let body = body.get(1..).unwrap_or_default();
    let page = body.trim_ascii_start().starts_with(b"<");
    let html = content_type.starts_with("text/html");
    let Ok(status) = status.parse::<StatusCode>() else {
        return;
    };
    let asked = |(asked, beginning, _): &&Endpoint| *asked == method && path.starts_with(beginning);
    let read = ENDPOINTS.iter().find(asked).map(|(method, path, decode)| {
        decode(Answer::of(
            call(method, path),
            status,
            None,
            html,
            Body::Whole(body.to_vec()),
        )?)
    });
    let Some(Err(error)) = read else { return };
    let mut messages = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        messages = format!("{messages}: {error}");
        cause = error.source();
    }
    assert!(messages.chars().count() <= LONGEST_MESSAGE, "{messages}");
    assert!(!messages.contains(char::is_control), "{messages:?}");
    assert!(!page || !messages.contains('<'), "{messages}");
}

/// A request, the beginning of its path, and how the client decodes what is answered.
type Endpoint = (&'static str, &'static str, fn(Answer) -> Result<(), Error>);

/// The longer of two paths comes first.
const ENDPOINTS: [Endpoint; 10] = [
    ("GET", "/v1/version", decode::<Version>),
    ("GET", "/v1/configuration/datasets", decode::<Vec<Dataset>>),
    ("POST", "/v1/configuration/datasets", decode::<Dataset>),
    ("DELETE", "/v1/configuration/datasets/", decode::<Dataset>),
    ("GET", "/v1/configuration/leases", decode::<Vec<Lease>>),
    ("POST", "/v1/configuration/leases", decode::<Lease>),
    ("DELETE", "/v1/configuration/leases/", decode::<Lease>),
    ("GET", "/v1/state/datasets", decode::<Vec<DatasetState>>),
    ("GET", "/v1/state/nodes/by_era/", decode::<NodeOfEra>),
    ("GET", "/v1/state/nodes", decode::<Vec<Node>>),
];

fn decode<T: DeserializeOwned>(answer: Answer) -> Result<(), Error> {
    answer.decode::<T>().map(drop)
}

fn call(method: &str, path: &str) -> Call {
    let target = Target {
        service: "https://10.0.0.1".parse().expect("this is an address"),
        server_name: "control-service".to_owned(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
    };
    Call::new(&target, method.parse().expect("this is a method"), path)
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::{answer, certificate, corpus::read_corpus};

    #[test]
    fn the_corpus_of_answers_keeps_every_promise() {
        read_corpus("answer", answer);
    }

    #[test]
    fn the_corpus_of_certificates_keeps_every_promise() {
        read_corpus("certificate", certificate);
    }
}
