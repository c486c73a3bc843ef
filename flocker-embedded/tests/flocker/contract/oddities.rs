//! The odd texts, numbers and lists that a real Flocker was sent: the same status, and the same form in its lists.

use std::io::{self, Write};

use flocker_embedded::Embedded;
use serde_json::Value;
use tokio::time::Instant;

use super::names::{Names, comparable};
use super::recording::{Body, OddExchange, Request, odd_exchanges};
use super::replay::{DATASETS, PATIENCE, POLL};
use super::wire::{Reply, Wire};
use crate::support::{isolated, thin};

/// An odd request that the recording lacks, and what a real Flocker stores. The first was seen on a real one; the others follow
/// from how Python 2 reads and writes JSON. The size of the second is one that no floating-point number is equal to.
const STORED: [(&str, &str); 4] = [
    (
        r#""maximum_size": 18446744073709551616"#,
        r#""maximum_size": 18446744073709551616"#,
    ),
    (
        r#""maximum_size": 1000000000000000000000000004096"#,
        r#""maximum_size": 1000000000000000000000000004096"#,
    ),
    (
        r#""metadata": {"\udfff": "\ud800\ud800"}"#,
        r#""metadata": {"\udfff": "\ud800\ud800"}"#,
    ),
    (
        r#""metadata": {"\udbfc\udc00": "\udbff\udfff"}"#,
        r#""metadata": {"\udbfc\udc00": "\udbff\udfff"}"#,
    ),
];

/// A running Flocker, and the names of the recording.
struct Oddities {
    wire: Wire,
    names: Names,
    /// The texts of the datasets that have been created.
    stored: Vec<String>,
}

#[test]
fn every_recorded_oddity_is_answered_and_stored_as_the_real_control_service_did() {
    isolated(async |directory| {
        let flocker = Embedded::start(thin(&directory)).await.unwrap();
        let mut oddities = Oddities::of(&flocker).await;
        let recording = odd_exchanges();
        let mut differences = Vec::new();
        for exchange in &recording {
            if let Err(difference) = oddities.run(exchange).await {
                differences.push(format!("{}: {difference}", exchange.case));
            }
        }
        let equal = recording.len() - differences.len();
        let counts = format!(
            "recorded oddities answered and stored equally: {equal} of {}\n",
            recording.len()
        );
        io::stdout().write_all(counts.as_bytes()).unwrap();
        assert!(differences.is_empty(), "{counts}{}", differences.join("\n"));
        assert_eq!(equal, 42);

        for (field, stored) in STORED {
            oddities.store(field, stored).await;
        }
        let before = oddities.stored;
        assert_eq!(before.len(), 5 + STORED.len());
        flocker.stop().await.unwrap();
        let flocker = Embedded::start(thin(&directory)).await.unwrap();
        let mut restarted = Oddities::of(&flocker).await;
        let list = restarted.list(DATASETS).await;
        for stored in before {
            assert!(
                list.contains(&stored),
                "after a restart {stored} is missing in {list}"
            );
        }
        flocker.stop().await.unwrap();
    });
}

impl Oddities {
    async fn of(flocker: &Embedded) -> Self {
        Self {
            wire: Wire::connect(flocker.address(), flocker.certificates()).await,
            names: Names::default(),
            stored: Vec::new(),
        }
    }

    async fn run(&mut self, exchange: &OddExchange) -> Result<(), String> {
        for request in &exchange.first {
            let status = self.send(request).await.status;
            assert!(matches!(status, 200 | 201), "{}: {status}", exchange.case);
        }
        // A lease that has expired is listed for a moment.
        let end = Instant::now() + PATIENCE;
        loop {
            match self.compare(exchange).await {
                Err(_) if exchange.request.method == "GET" && Instant::now() < end => {
                    tokio::time::sleep(POLL).await;
                }
                compared => return compared,
            }
        }
    }

    async fn compare(&mut self, exchange: &OddExchange) -> Result<(), String> {
        let request = &exchange.request;
        let reply = self.send(request).await;
        let body = String::from_utf8(reply.body).map_err(|error| error.to_string())?;
        let expected = &exchange.response;
        if reply.status != expected.status {
            return Err(format!("{} instead of {}: {body}", reply.status, expected.status));
        }
        if reply.status != 201 || request.path != DATASETS {
            let value = |text: &str| {
                let value: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
                Ok::<_, String>(comparable(value, &request.method))
            };
            let (ours, recorded) = (value(&body)?, value(&expected.body)?);
            return if ours == recorded {
                Ok(())
            } else {
                Err(format!("{ours} instead of {recorded}"))
            };
        }
        self.names.learn(id_in(&expected.body), id_in(&body))?;
        let recorded = self.names.ours(&expected.body);
        if body != recorded {
            return Err(format!("{body} instead of {recorded}"));
        }
        let list = self.list(DATASETS).await;
        if !list.contains(&body) {
            return Err(format!("it is not listed as it was answered: {list}"));
        }
        self.stored.push(body);
        Ok(())
    }

    /// Creates a dataset with an odd field, which is answered and listed as `stored`.
    async fn store(&mut self, field: &str, stored: &str) {
        let request = Request {
            method: "POST".to_owned(),
            path: DATASETS.to_owned(),
            headers: Vec::new(),
            body: Some(Body::Text(format!(
                r#"{{"primary": "a0000000-0000-4000-8000-000000000001", {field}}}"#
            ))),
        };
        let reply = self.send(&request).await;
        let body = String::from_utf8(reply.body).unwrap();
        assert_eq!(reply.status, 201, "{field}: {body}");
        assert!(body.contains(stored), "{field}: {body}");
        assert!(self.list(DATASETS).await.contains(&body), "{field}");
        self.stored.push(body);
    }

    async fn list(&mut self, path: &str) -> String {
        let reply = self.wire.ask("GET", path, &[], b"").await;
        String::from_utf8(reply.body).unwrap()
    }

    async fn send(&mut self, request: &Request) -> Reply {
        let body = match &request.body {
            None => Vec::new(),
            Some(Body::Text(text)) => text.clone().into_bytes(),
            Some(Body::Bytes { latin1 }) => latin1.chars().map(|byte| u8::try_from(byte).unwrap()).collect(),
        };
        let mut headers = Vec::new();
        if request.method == "POST" {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        self.wire
            .ask(&request.method, &request.path, &headers, &body)
            .await
    }
}

/// Returns the id in the text of a dataset.
fn id_in(text: &str) -> &str {
    let (_, id) = text.split_once("\"dataset_id\": \"").unwrap();
    id.split_once('"').unwrap().0
}
