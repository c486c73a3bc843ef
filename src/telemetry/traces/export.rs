//! The background task that sends spans to the collector. No call waits for it.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use supervised_tasks::Supervisor;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Traces;
use super::collector::{Collector, NotTaken, Outage};
use super::endpoint::OtlpEndpoint;
use super::queue::Waiting;
use crate::telemetry::counters::{Counter, Counters};
use crate::telemetry::release::VERSION;

/// How long spans are gathered before they are sent together.
const GATHER: Duration = Duration::from_secs(1);
/// How many spans are sent together at most.
const TOGETHER: usize = 256;
/// How long a graceful stop waits for the collector.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Which program spans are of.
#[derive(Debug)]
pub(crate) struct ProgramAttributes {
    /// The host name of its machine.
    pub(crate) host: String,
    /// The name of the plugin for orchestrators.
    pub(crate) driver: String,
    /// Which services it serves.
    pub(crate) mode: &'static str,
}

/// Sends spans until the plugin stops.
#[derive(Debug)]
pub(crate) struct TraceExport {
    finish: CancellationToken,
    running: JoinHandle<()>,
}

impl TraceExport {
    /// Begins to send the spans of a program to the collector.
    pub(crate) async fn begin(
        endpoint: OtlpEndpoint,
        program: ProgramAttributes,
        counters: &Counters,
        tasks: &Supervisor,
    ) -> Result<(Traces, Self), String> {
        let collector = Collector::new(endpoint.clone()).await?;
        let (traces, waiting) = Traces::new(counters);
        let resource = Resource::builder_empty()
            .with_service_name("flocker-csi")
            .with_attribute(KeyValue::new("service.version", VERSION))
            .with_attribute(KeyValue::new("host.name", program.host))
            .with_attribute(KeyValue::new("driver.name", program.driver))
            .with_attribute(KeyValue::new("mode", program.mode))
            .build();
        let finish = CancellationToken::new();
        let sender = Arc::new(Sender {
            waiting: Mutex::new(waiting),
            collector,
            endpoint,
            resource: (&resource).into(),
            counters: counters.clone(),
            finish: finish.clone(),
        });
        let running = tasks.spawn_to_end("exporting traces", move || Arc::clone(&sender).run());
        Ok((traces, Self { finish, running }))
    }

    /// Sends what waits, unless the collector takes too long for that, and ends.
    pub(crate) async fn finish(mut self) {
        self.finish.cancel();
        if timeout(FINISH_WITHIN, &mut self.running).await.is_err() {
            tracing::warn!(
                "The collector of traces has not taken the last spans within {FINISH_WITHIN:?}; they are lost"
            );
        }
    }
}

impl Drop for TraceExport {
    fn drop(&mut self) {
        self.running.abort();
    }
}

struct Sender {
    waiting: Mutex<Waiting>,
    collector: Collector,
    endpoint: OtlpEndpoint,
    resource: ResourceAttributesWithSchema,
    counters: Counters,
    finish: CancellationToken,
}

impl Sender {
    async fn run(self: Arc<Self>) {
        let mut waiting = self.waiting.lock().await;
        let mut outage = Outage::default();
        loop {
            let spans = self.gather(&mut waiting).await;
            if spans.is_empty() {
                return;
            }
            self.deliver(spans, &mut outage).await;
        }
    }

    /// Waits for spans; returns none once the plugin stops and none waits.
    async fn gather(&self, waiting: &mut Waiting) -> Vec<SpanData> {
        let mut spans = Vec::new();
        let mut until = None;
        while spans.len() < TOGETHER {
            let room = TOGETHER - spans.len();
            let more = tokio::select! {
                more = waiting.recv_many(&mut spans, room) => more,
                () = elapsed(until) => break,
                () = self.finish.cancelled(), if !waiting.is_closed() => {
                    // What waits can be received still.
                    waiting.close();
                    continue;
                }
            };
            if more == 0 {
                break;
            }
            until.get_or_insert_with(|| Instant::now() + GATHER);
        }
        spans
    }

    /// Sends spans until the collector takes or refuses them; a collector that does not answer is asked again.
    async fn deliver(&self, spans: Vec<SpanData>, outage: &mut Outage) {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(spans, &self.resource),
        };
        let body = Bytes::from(request.encode_to_vec());
        drop(request);
        let mut pauses = pauses();
        loop {
            match self.collector.send(body.clone()).await {
                Ok(rejected) => {
                    self.counters.add(Counter::SpansDropped, rejected);
                    return outage.ended(&self.endpoint, self.counters.get(Counter::SpansDropped));
                }
                Err(refused @ NotTaken::Refused(_)) => {
                    self.counters.add(Counter::SpansDropped, count);
                    return outage.began(&self.endpoint, &refused);
                }
                Err(unavailable) => outage.began(&self.endpoint, &unavailable),
            }
            let pause = pauses.next().unwrap_or_default();
            if self.finish.run_until_cancelled(sleep(pause)).await.is_none() {
                // The plugin stops, and the collector does not answer.
                return self.counters.add(Counter::SpansDropped, count);
            }
        }
    }
}

/// Waits until a moment that may not be known yet.
async fn elapsed(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Returns the pauses between requests that a collector does not answer: 1 s, then growing to half a minute.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times()
        .build()
}
