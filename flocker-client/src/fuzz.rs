//! The functions that parse foreign bytes, for fuzzing: they accept any bytes and panic only if a promise is broken.
//!
//! `make fuzz` searches for bytes that make one panic, and the tests below run each of them on its corpus.

use std::{error::Error as _, fmt::Debug, time::Duration};

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Dataset, DatasetState, Error, Extensions, Lease, Node,
    answer::{Answer, Body, Head},
    endpoint::Endpoint,
    entry::Entry,
    error::{ApiCall, Target},
    list::Receiving,
    model::{NodeOfEra, Version},
};

pub use crate::credentials::fuzz::certificate;

/// The maximum length of an error with its causes, in characters: a description and eight findings of 500 each, and the
/// text around them.
const LONGEST_MESSAGE: usize = 5_000;

/// Reads `METHOD PATH STATUS CONTENT-TYPE`, a line feed and a body as an answer of the control service.
///
/// # Panics
/// If the resulting error has more than one line, is too long, or repeats an HTML page.
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
    let Ok(status) = status.parse::<StatusCode>() else {
        return;
    };
    let requested = |(endpoint, _): &&Reader| {
        let prefix = endpoint.path();
        let prefix = prefix.trim_end_matches(&ANY_ID.to_string());
        endpoint.method() == method && path.starts_with(prefix)
    };
    let read = READERS.iter().find(requested).map(|(endpoint, decode)| {
        let head = Head {
            status,
            content_type: Some(content_type.to_owned()),
            tag: None,
            date: None,
        };
        decode(call(*endpoint), head, body)
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

/// A request, and how the client decodes the answer.
type Reader = (Endpoint, fn(ApiCall, Head, &[u8]) -> Result<(), Error>);

/// The id in a path, which may be any.
const ANY_ID: Uuid = Uuid::nil();

/// A longer path comes before its prefix.
const READERS: [Reader; 12] = [
    (Endpoint::Version, decode::<Version>),
    (Endpoint::Extensions, decode::<Extensions>),
    (Endpoint::ListDatasets, decode_list::<Dataset>),
    (Endpoint::MoveDataset(ANY_ID), decode_one::<Dataset>),
    (Endpoint::CreateDataset, decode_one::<Dataset>),
    (Endpoint::DeleteDataset(ANY_ID), decode_one::<Dataset>),
    (Endpoint::ListLeases, decode_list::<Lease>),
    (Endpoint::AcquireLease, decode_one::<Lease>),
    (Endpoint::ReleaseLease(ANY_ID), decode_one::<Lease>),
    (Endpoint::ListDatasetStates, decode_list::<DatasetState>),
    (Endpoint::NodeByEra(ANY_ID), decode::<NodeOfEra>),
    (Endpoint::ListNodes, decode_list::<Node>),
];

fn decode<T: DeserializeOwned>(call: ApiCall, head: Head, body: &[u8]) -> Result<(), Error> {
    let answer = Answer::from_parts(call, head, Body::Whole(body.to_vec()))?;
    answer.decode::<T>().map(drop)
}

fn decode_one<T: Entry>(call: ApiCall, head: Head, body: &[u8]) -> Result<(), Error> {
    let answer = Answer::from_parts(call, head, Body::Whole(body.to_vec()))?;
    answer.decode_entry::<T>(|_| None).map(drop)
}

/// Decodes a list from pieces, and as a whole, with the same result.
fn decode_list<T: Entry + Debug>(call: ApiCall, head: Head, body: &[u8]) -> Result<(), Error> {
    let read = move |piece: usize| {
        let mut list = Receiving::<T>::new(call.clone(), head.clone());
        for piece in body.chunks(piece) {
            if !list.push(piece) {
                break;
            }
        }
        list.finish().map(|list| list.listed)
    };
    let (list, whole) = (read(7), read(body.len().max(1)));
    match (&list, &whole) {
        (Ok(list), Ok(whole)) => {
            assert_eq!(format!("{list:?}"), format!("{whole:?}"));
            for fault in &list.unreadable.faults {
                assert!(fault.reason.chars().count() <= LONGEST_MESSAGE, "{fault:?}");
                assert!(!fault.reason.contains(char::is_control), "{fault:?}");
            }
        }
        (list, whole) => assert_eq!(list.is_ok(), whole.is_ok(), "{list:?} {whole:?}"),
    }
    list.map(drop)
}

fn call(endpoint: Endpoint) -> ApiCall {
    let target = Target {
        service: "https://10.0.0.1".parse().expect("this is an address"),
        server_name: "control-service".to_owned(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
    };
    ApiCall::new(&target, endpoint)
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
