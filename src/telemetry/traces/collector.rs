//! One collector, and whether it takes what is sent to it.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::Instant;

use super::endpoint::OtlpEndpoint;
use crate::error::chain;
use crate::telemetry::spawn_blocking;

/// How long a collector may take for one request.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How much of an answer is read: it is a number, and a text in case of a problem.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Why a collector has not taken spans.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// It may take them later.
    Unavailable(String),
    /// It does not take them.
    Refused(String),
}

/// A connection to a collector.
#[derive(Debug)]
pub(super) struct Collector {
    http: Client,
    endpoint: OtlpEndpoint,
}

impl Collector {
    /// Makes one on a thread that may block, as the system's certificates are read; nothing is sent yet.
    pub(super) async fn new(endpoint: OtlpEndpoint) -> Result<Self, String> {
        let made = spawn_blocking(|| {
            Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .referer(false)
                .user_agent(concat!("flocker-csi/", env!("CARGO_PKG_VERSION")))
                .timeout(ANSWER_WITHIN)
                .pool_max_idle_per_host(1)
                .build()
        });
        match made.await {
            Ok(Ok(http)) => Ok(Self { http, endpoint }),
            Ok(Err(error)) => Err(chain(&error)),
            Err(error) => Err(chain(&error)),
        }
    }

    /// Sends spans, and returns how many of them the collector did not want.
    pub(super) async fn send(&self, spans: Bytes) -> Result<u64, NotTaken> {
        let request = self.http.post(self.endpoint.url().clone());
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        let sent = request.header(CONTENT_TYPE, protobuf).body(spans).send().await;
        let answer = sent.map_err(|error| NotTaken::Unavailable(chain(&error.without_url())))?;
        match answer.status() {
            status if status.is_success() => Ok(rejected(answer).await),
            // What the protocol allows to send again.
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => Err(NotTaken::Unavailable(format!("it answers {status}"))),
            status => Err(NotTaken::Refused(format!("it answers {status}"))),
        }
    }
}

/// Reads an answer to its end, so that the connection can be used again.
async fn rejected(mut answer: Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return 0;
        }
        body.extend_from_slice(&chunk);
    }
    let decoded = ExportTraceServiceResponse::decode(&*body).unwrap_or_default();
    let rejected = decoded
        .partial_success
        .map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or(0)
}

/// Whether the collector takes spans, and the two lines of the log about each outage.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    refused: bool,
}

impl Outage {
    /// Records that the collector has not taken spans, and logs it once for each outage.
    pub(super) fn began(&mut self, endpoint: &OtlpEndpoint, problem: &NotTaken) {
        let first = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        match problem {
            NotTaken::Unavailable(problem) if first => tracing::warn!(
                error = %problem,
                "The collector of traces at {endpoint} does not answer; calls do not wait for it, and spans are dropped once \
                 {} wait. It has to take OTLP over HTTP, usually on port 4318",
                super::WAITING
            ),
            NotTaken::Refused(problem) if first || !self.refused => tracing::warn!(
                error = %problem,
                "The collector of traces at {endpoint} refuses spans, which are dropped; it has to take OTLP over HTTP"
            ),
            NotTaken::Unavailable(_) | NotTaken::Refused(_) => {}
        }
        self.refused |= matches!(problem, NotTaken::Refused(_));
    }

    /// Records that the collector has taken spans.
    pub(super) fn ended(&mut self, endpoint: &OtlpEndpoint, dropped: u64) {
        self.refused = false;
        if let Some(since) = self.since.take() {
            let after = Duration::from_secs(since.elapsed().as_secs());
            tracing::info!(
                "The collector of traces at {endpoint} answers again, after {}; {dropped} spans were dropped",
                humantime::format_duration(after)
            );
        }
    }
}
