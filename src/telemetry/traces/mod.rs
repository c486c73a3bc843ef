//! Traces: a span for each call, each phase of an operation and each request to Flocker, for a collector by OTLP.
//!
//! A span lies in the [`Trace`] of the call that caused it, which the tasks that work for the call carry with them. Without
//! `otlp_endpoint` there is no trace, and nothing of this is kept or allocated.

mod collector;
mod endpoint;
mod export;
mod incoming;
mod queue;
mod request;
mod trace;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use uuid::Uuid;

use super::counters::Counters;
pub use endpoint::OtlpEndpoint;
pub(crate) use export::{ProgramAttributes, TraceExport};
pub(crate) use request::TracedRequest;
pub(crate) use trace::{Trace, record, record_number};

/// How many spans wait for the collector at most. One more is dropped.
const WAITING: usize = 1024;
/// The longest text of an attribute in bytes: what waits takes a bounded amount of memory.
const LONGEST_TEXT: usize = 1024;
/// How many links a span may have.
const MOST_LINKS: u32 = 8;

/// Makes the spans of one plugin. Clones make spans for the same collector.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    tracer: SdkTracer,
}

impl Traces {
    /// Returns what makes spans, and the queue in which they wait for [`TraceExport`].
    fn new(counters: &Counters) -> (Self, queue::Waiting) {
        let (queue, waiting) = queue::bounded(WAITING, counters.clone());
        // Explicit where the library would read environment variables: a setting has one place.
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_max_links_per_span(MOST_LINKS)
            .with_span_processor(queue)
            .build();
        let tracer = provider.tracer("flocker-csi");
        (Self { tracer }, waiting)
    }

    /// Begins the span of a call, in the trace that its caller names.
    pub(crate) fn call(&self, headers: &HeaderMap, method: &str) -> Trace {
        let caller = incoming::context(headers);
        let name = method.strip_prefix('/').unwrap_or(method).to_owned();
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let span = self.tracer.build_with_context(builder, &caller);
        Trace::of(span)
    }

    /// Adds a phase of an operation that ends now, and failed if there is a `problem`.
    pub(crate) fn phase(&self, trace: &Trace, ended: &EndedPhase, problem: Option<&str>) {
        let Some(parent) = trace.context() else { return };
        let id = i64::try_from(ended.operation_id).unwrap_or(i64::MAX);
        let attributes = [
            KeyValue::new("operation.name", ended.operation),
            KeyValue::new("operation.id", id),
            KeyValue::new("phase", ended.phase),
        ];
        let dataset = ended.dataset.map(|id| trace::text("volume.id", id));
        let builder = SpanBuilder::from_name(ended.phase)
            .with_start_time(SystemTime::now() - ended.took)
            .with_attributes(attributes.into_iter().chain(dataset));
        let mut span = self.tracer.build_with_context(builder, parent);
        if let Some(problem) = problem {
            span.set_status(failure(problem));
        }
        span.end();
    }

    /// Begins the span of a request to Flocker, if a call or an operation makes it.
    pub(crate) fn request(&self, endpoint: &'static str) -> Option<TracedRequest> {
        let parent = Trace::current();
        let parent: &Context = parent.context()?;
        let builder = SpanBuilder::from_name(endpoint).with_kind(SpanKind::Client);
        Some(TracedRequest::new(
            self.tracer.build_with_context(builder, parent),
        ))
    }
}

/// A phase of an operation that has ended.
#[derive(Debug)]
pub(crate) struct EndedPhase {
    /// What the operation does.
    pub(crate) operation: &'static str,
    /// Its number in this process.
    pub(crate) operation_id: u64,
    /// What it waited for.
    pub(crate) phase: &'static str,
    /// The dataset that it works on, if that is known.
    pub(crate) dataset: Option<Uuid>,
    /// For how long.
    pub(crate) took: Duration,
}

/// Returns the status of a span that failed.
fn failure(problem: &str) -> Status {
    Status::error(bounded(problem).into_owned())
}

/// Cuts a text that is longer than an attribute may be.
fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_TEXT {
        return Cow::Borrowed(text);
    }
    let room = LONGEST_TEXT - '…'.len_utf8();
    let ends = text.char_indices().map(|(end, _)| end);
    let end = ends.take_while(|end| *end <= room).last().unwrap_or_default();
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let fits = "ä".repeat(LONGEST_TEXT / 2);
        assert_eq!(bounded(&fits), fits);
        for long in [format!("{fits}ä"), format!("x{fits}")] {
            let cut = bounded(&long);
            assert!(cut.len() <= LONGEST_TEXT && cut.ends_with('…'), "{}", cut.len());
            assert!(long.starts_with(cut.trim_end_matches('…')), "{cut}");
        }
    }
}
