//! The recorded exchanges of `tests/data`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const EXCHANGES: &str = include_str!("../../data/exchanges.jsonl");
const ODDITIES: &str = include_str!("../../data/oddities.jsonl");
const SCENARIOS: &str = include_str!("../../data/scenarios.jsonl");
const TLS: &str = include_str!("../../data/tls.jsonl");

/// A request and its answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    pub(crate) case: String,
    pub(crate) kind: Kind,
    /// Requests that the recording implies, but does not contain.
    #[serde(default)]
    pub(crate) first: Vec<Request>,
    pub(crate) request: Request,
    pub(crate) response: Response,
}

/// A request with an odd text or number and its answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OddExchange {
    pub(crate) case: String,
    /// Requests that the recording implies, but does not contain.
    #[serde(default)]
    pub(crate) first: Vec<Request>,
    pub(crate) request: Request,
    pub(crate) response: OddResponse,
}

/// An answer whose text may be one that JSON cannot express otherwise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OddResponse {
    pub(crate) status: u16,
    pub(crate) body: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Standalone,
    Scenario,
    Client,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Body>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Body {
    Text(String),
    /// One character for each byte.
    Bytes {
        latin1: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    pub(crate) allow: Option<String>,
    pub(crate) tag: Option<String>,
    #[serde(default)]
    pub(crate) html: bool,
    pub(crate) body: Option<Value>,
}

/// What one read of state showed of the dataset of a scenario.
#[derive(Debug, Deserialize)]
pub(crate) struct Observation {
    pub(crate) case: String,
    pub(crate) kind: Kind,
    pub(crate) observes: String,
}

/// A client's attempt to connect.
#[derive(Debug, Deserialize)]
pub(crate) struct Handshake {
    pub(crate) case: String,
    /// The name that the client expects in the server's certificate.
    pub(crate) server_name: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// The stage that a client reached.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Outcome {
    /// `handshake`, or `request` once the handshake was complete.
    pub(crate) stage: String,
    pub(crate) protocol: Option<String>,
    pub(crate) cipher: Option<String>,
    /// The alert that the server sent.
    pub(crate) alert: Option<String>,
    /// Why the client refused the server.
    pub(crate) refusal: Option<String>,
    /// Status of the answer.
    pub(crate) status: Option<u16>,
}

pub(crate) fn exchanges() -> Vec<Exchange> {
    lines(EXCHANGES)
}

pub(crate) fn odd_exchanges() -> Vec<OddExchange> {
    lines(ODDITIES)
}

pub(crate) fn observations() -> Vec<Observation> {
    lines(SCENARIOS)
}

pub(crate) fn handshakes() -> Vec<Handshake> {
    lines(TLS)
}

fn lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(&expand(line)).unwrap())
        .collect()
}

/// Expands repetitions: `⟨x*3⟩` is `xxx`.
fn expand(text: &str) -> String {
    let mut parts = text.split('⟨');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (run, rest) = part.split_once('⟩').unwrap();
        let (character, times) = run.split_once('*').unwrap();
        whole += &character.repeat(times.parse().unwrap());
        whole += rest;
    }
    whole
}
