//! The recorded requests, sent in their order, and the answers compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use flocker_embedded::{Allocation, Embedded, Options};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::names::{Names, comparable};
use super::recording::{Body, Exchange, Kind, Request, exchanges};
use super::wire::{Reply, Wire};
use crate::support::{isolated, options};

pub(super) const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";
const STATE: &str = "/v1/state/datasets";
const CONDITION: &str = "X-If-Configuration-Matches";

const NODES: usize = 3;
/// Two of the recorded datasets have the default size, which is 75 GiB.
const CAPACITY: u64 = 1 << 40;
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
pub(super) const POLL: Duration = Duration::from_millis(20);

#[test]
fn every_recorded_exchange_is_answered_as_the_real_control_service_did() {
    isolated(async |directory| {
        let recording = exchanges();
        let mut replay = Replay::start(&directory, &recording).await;
        let mut equal = BTreeMap::new();
        let mut differences = Vec::new();
        for (index, exchange) in recording.iter().enumerate() {
            match replay.run(index).await {
                Ok(()) => *equal.entry(exchange.kind).or_insert(0) += 1,
                Err(difference) => differences.push(format!("{}: {difference}", exchange.case)),
            }
        }
        let counts = format!(
            "recorded exchanges answered equally: {equal:?} of {}\n",
            recording.len()
        );
        io::stdout().write_all(counts.as_bytes()).unwrap();
        assert!(differences.is_empty(), "{counts}{}", differences.join("\n"));
        let expected = [(Kind::Standalone, 120), (Kind::Scenario, 30), (Kind::Client, 12)];
        assert_eq!(equal, BTreeMap::from(expected));
    });
}

struct Replay<'a> {
    recording: &'a [Exchange],
    flocker: Embedded,
    wire: Wire,
    names: Names,
    /// Datasets of the recording that have been created here, by their recorded ids.
    made: BTreeSet<String>,
    /// The request that acquired each lease with an end, by the recorded id of the dataset.
    lapsing: BTreeMap<String, Request>,
}

impl<'a> Replay<'a> {
    async fn start(directory: &Path, recording: &'a [Exchange]) -> Self {
        let node = |number: usize| format!("a0000000-0000-4000-8000-{number:012}");
        let era = |number: usize| format!("e0000000-0000-4000-8000-{number:012}");
        let flocker = Embedded::start(Options {
            nodes: NODES,
            capacity: Some(CAPACITY),
            // A dataset without a size gets more than this machine may have.
            allocation: Allocation::Thin,
            eras: (1..=NODES)
                .map(|number| (number, era(number).parse().unwrap()))
                .collect(),
            ..options(directory)
        })
        .await
        .unwrap();
        let mut names = Names::default();
        for info in flocker.nodes() {
            names.learn(&node(info.number), &info.uuid.to_string()).unwrap();
        }
        Self {
            recording,
            wire: Wire::connect(flocker.address(), flocker.certificates()).await,
            flocker,
            names,
            made: BTreeSet::new(),
            lapsing: BTreeMap::new(),
        }
    }

    /// Establishes what an exchange presupposes, repeats it, and returns the difference, if any.
    async fn run(&mut self, index: usize) -> Result<(), String> {
        let recording = self.recording;
        let exchange = &recording[index];
        for request in &exchange.first {
            let status = self.send(request).await.status;
            assert!(
                status < 300,
                "{}: {status} instead of what was implied",
                exchange.case
            );
        }
        self.create_what_is_shown(index).await?;
        let condition = exchange
            .request
            .headers
            .iter()
            .find(|(name, _)| name == CONDITION);
        let reads =
            exchange.request.method == "GET" && [DATASETS, STATE].contains(&exchange.request.path.as_str());
        if reads || condition.is_some() {
            self.converge().await;
        }
        if let Some((_, tag)) = condition {
            self.learn_tag(tag.trim_matches('"')).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.send(&exchange.request).await;
            let compared = self.compare(exchange, &reply);
            // A lease that is about to end may have ended too early, or not yet.
            let may_be_transient = exchange.request.path.starts_with(LEASES) && !self.lapsing.is_empty();
            if compared.is_ok() || !may_be_transient || Instant::now() > deadline {
                if reply.status == exchange.response.status {
                    self.remember(exchange);
                }
                return compared;
            }
            self.renew_leases(exchange).await;
            sleep(POLL).await;
        }
    }

    async fn send(&mut self, request: &Request) -> Reply {
        let mut headers = request.headers.clone();
        for (_, value) in &mut headers {
            *value = self.names.ours(value);
        }
        let body = match &request.body {
            None => Vec::new(),
            Some(Body::Text(text)) => self.names.ours(text).into_bytes(),
            Some(Body::Bytes { latin1 }) => {
                let text = self.names.ours(latin1);
                text.chars().map(|byte| u8::try_from(byte).unwrap()).collect()
            }
        };
        let length = body.len().to_string();
        match headers.iter().find(|(name, _)| name == "Content-Length") {
            Some((_, recorded)) => assert_eq!(*recorded, length, "the request is as long as it was"),
            None if body.is_empty() => {}
            None => headers.push(("Content-Length".to_owned(), length)),
        }
        let path = self.names.ours(&request.path);
        self.wire.ask(&request.method, &path, &headers, &body).await
    }

    fn compare(&mut self, exchange: &Exchange, reply: &Reply) -> Result<(), String> {
        let expected = &exchange.response;
        let head = (reply.status, reply.header("Content-Type"), reply.header("Allow"));
        let expected_head = (
            expected.status,
            expected.content_type.as_deref(),
            expected.allow.as_deref(),
        );
        if head != expected_head {
            let body = String::from_utf8_lossy(&reply.body);
            return Err(format!("{head:?} instead of {expected_head:?}: {body}"));
        }
        match (reply.header("X-Configuration-Tag"), &expected.tag) {
            (None, None) => {}
            (Some(ours), Some(recorded)) => self.names.learn(recorded, ours)?,
            (ours, recorded) => return Err(format!("tag {ours:?} instead of {recorded:?}")),
        }
        let text = String::from_utf8(reply.body.clone()).map_err(|error| error.to_string())?;
        let Some(recorded) = &expected.body else {
            let is_equal = if expected.html {
                text.to_lowercase().contains("<title>")
            } else {
                text.is_empty()
            };
            return if is_equal {
                Ok(())
            } else {
                Err(format!("another body: {text:?}"))
            };
        };
        let ours: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text:?}"))?;
        self.learn_from(exchange, &ours)?;
        let ours = self.rename(self.with_recorded_paths(ours)?);
        let method = &exchange.request.method;
        let (ours, recorded) = (comparable(ours, method), comparable(recorded.clone(), method));
        if ours == recorded {
            Ok(())
        } else {
            Err(shorten(&format!("{ours}\n  instead of {recorded}")))
        }
    }

    /// Learns the id in the answer to a create, and the tag in a refusal.
    fn learn_from(&mut self, exchange: &Exchange, ours: &Value) -> Result<(), String> {
        let Some(recorded) = &exchange.response.body else {
            return Ok(());
        };
        if exchange.response.status == 201
            && let (Some(recorded), Some(ours)) =
                (recorded["dataset_id"].as_str(), ours["dataset_id"].as_str())
            && recorded.starts_with('d')
        {
            self.names.learn(recorded, ours)?;
        }
        let current = |body: &Value| {
            let (_, tag) = body["description"].as_str()?.split_once(", current: ")?;
            Some(tag.to_owned())
        };
        if let (Some(recorded), Some(ours)) = (current(recorded), current(ours)) {
            self.names.learn(&recorded, &ours)?;
        }
        Ok(())
    }

    fn rename(&self, ours: Value) -> Value {
        match ours {
            Value::String(text) => self.names.recorded(&text).into(),
            Value::Array(items) => items.into_iter().map(|item| self.rename(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, value)| (key, self.rename(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other,
        }
    }

    /// Checks that paths are below the primary's own mount root, and replaces that by `/flocker` as on a real node.
    fn with_recorded_paths(&self, mut ours: Value) -> Result<Value, String> {
        for entry in ours.as_array_mut().into_iter().flatten() {
            let Some(path) = entry["path"].as_str().map(ToOwned::to_owned) else {
                continue;
            };
            let primary = &entry["primary"];
            let mut nodes = self.flocker.nodes().iter();
            let node = nodes.find(|node| json!(node.uuid) == *primary);
            let below = node.and_then(|node| Path::new(&path).strip_prefix(&node.mount_root).ok());
            let Some(below) = below else {
                return Err(format!("{path} is not below the mount root of {primary}"));
            };
            entry["path"] = json!(Path::new("/flocker").join(below));
        }
        Ok(ours)
    }

    /// Records which datasets and which ending leases exist after an exchange.
    fn remember(&mut self, exchange: &Exchange) {
        let (request, response) = (&exchange.request, &exchange.response);
        let Some(body) = &response.body else { return };
        let id = body["dataset_id"].as_str().map(ToOwned::to_owned);
        match (request.method.as_str(), id) {
            ("POST", Some(id)) if request.path == DATASETS => {
                self.made.insert(id);
            }
            ("POST", Some(id)) if request.path == LEASES => {
                self.lapsing.remove(&id);
                if body["expires"].is_number() {
                    self.lapsing.insert(id, request.clone());
                }
            }
            ("DELETE", Some(id)) if request.path.starts_with(LEASES) => {
                self.lapsing.remove(&id);
            }
            ("GET", _) if request.path == LEASES => {
                let shown = body.to_string();
                self.lapsing.retain(|id, _| shown.contains(id.as_str()));
            }
            _ => {}
        }
    }

    /// Acquires again the ending leases that the recording still had at an exchange.
    async fn renew_leases(&mut self, exchange: &Exchange) {
        let shown = exchange
            .response
            .body
            .as_ref()
            .map(Value::to_string)
            .unwrap_or_default();
        for (id, request) in self.lapsing.clone() {
            if shown.contains(&id) {
                let status = self.send(&request).await.status;
                assert!(
                    [200, 201].contains(&status),
                    "a lease cannot be acquired again: {status}"
                );
            }
        }
    }

    /// Makes the datasets that an answer is to show and no earlier exchange has made.
    async fn create_what_is_shown(&mut self, index: usize) -> Result<(), String> {
        let recording = self.recording;
        let exchange = &recording[index];
        if exchange.request.path == DATASETS && exchange.request.method == "POST" {
            return Ok(());
        }
        for id in shown(exchange).into_keys() {
            if self.made.insert(id.clone()) {
                let body = self.names.ours(&origin(&recording[index..], &id).to_string());
                let request = Request {
                    method: "POST".to_owned(),
                    path: DATASETS.to_owned(),
                    headers: Vec::new(),
                    body: Some(Body::Text(body)),
                };
                let status = self.send(&request).await.status;
                if status != 201 {
                    return Err(format!("{id} cannot be made: {status}"));
                }
            }
        }
        Ok(())
    }

    /// Reads the tag of the moment if an exchange sends one that no answer has shown.
    async fn learn_tag(&mut self, recorded: &str) -> Result<(), String> {
        let is_tag = recorded.len() == 32;
        if !is_tag || self.names.knows(recorded) {
            return Ok(());
        }
        let reply = self.wire.ask("GET", DATASETS, &[], &[]).await;
        let ours = reply.header("X-Configuration-Tag").unwrap().to_owned();
        self.names.learn(recorded, &ours)
    }

    /// Waits until state shows what is configured, as far as leases let it.
    async fn converge(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut lists = Vec::new();
            for path in [DATASETS, LEASES, STATE] {
                let body = self.wire.ask("GET", path, &[], &[]).await.body;
                lists.push(serde_json::from_slice::<Vec<Value>>(&body).unwrap());
            }
            let unsettled: Vec<_> = lists[0]
                .iter()
                .filter(|dataset| !self.is_settled(dataset, &lists[1], &lists[2]))
                .collect();
            if unsettled.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "state does not show {unsettled:?}");
            sleep(POLL).await;
        }
    }

    fn is_settled(&self, dataset: &Value, leases: &[Value], state: &[Value]) -> bool {
        let id = &dataset["dataset_id"];
        let seen: Vec<_> = state.iter().filter(|seen| seen["dataset_id"] == *id).collect();
        let primaries: Vec<_> = seen.iter().filter_map(|seen| seen.get("primary")).collect();
        let holder = leases.iter().find(|lease| lease["dataset_id"] == *id);
        let primary = &dataset["primary"];
        let exists = self
            .flocker
            .nodes()
            .iter()
            .any(|node| json!(node.uuid) == *primary);
        if holder.is_some_and(|lease| primaries == [&lease["node_uuid"]]) {
            true
        } else if dataset["deleted"] == true {
            seen.is_empty()
        } else if exists {
            primaries == [primary]
        } else {
            primaries.is_empty()
        }
    }
}

/// Returns the entries of all datasets that an answer shows, by id.
fn shown(exchange: &Exchange) -> BTreeMap<String, &Value> {
    let entries = match &exchange.response.body {
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
        None => &[],
    };
    let datasets = entries.iter().filter(|entry| entry.get("primary").is_some());
    datasets
        .filter_map(|entry| Some((entry["dataset_id"].as_str()?.to_owned(), entry)))
        .collect()
}

/// Returns the body that creates a dataset as it is first shown, completed by later entries of the configuration.
fn origin(exchanges: &[Exchange], id: &str) -> Value {
    let entries = exchanges.iter().filter_map(|exchange| shown(exchange).remove(id));
    let entries: Vec<_> = entries.collect();
    let configured = entries.iter().find(|entry| entry.get("deleted").is_some());
    let mut body = json!({"dataset_id": id, "primary": entries[0]["primary"]});
    for field in ["maximum_size", "metadata"] {
        if let Some(value) = configured.unwrap_or(&entries[0]).get(field) {
            body[field] = value.clone();
        }
    }
    body
}

fn shorten(text: &str) -> String {
    const MOST: usize = 4_000;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
