//! A request to Flocker within a trace.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status};
use opentelemetry_sdk::trace::Span;
use uuid::Uuid;

/// The span of a request to Flocker, until it is dropped.
#[derive(Debug)]
pub(crate) struct TracedRequest(Span);

impl TracedRequest {
    pub(super) fn new(span: Span) -> Self {
        Self(span)
    }

    /// Returns the id under which Flocker logs the request with Eliot, `UUID@/LEVEL`.
    ///
    /// The UUID is the trace id. The level is of the span id, so that two requests of a trace have two levels, and only half of
    /// it: tools that read Flocker's log take no number of 64 bits without a sign.
    pub(crate) fn eliot_task_id(&self) -> String {
        let context = self.0.span_context();
        let task = Uuid::from_bytes(context.trace_id().to_bytes());
        let [.., a, b, c, d] = context.span_id().to_bytes();
        format!("{task}@/{}", u32::from_be_bytes([a, b, c, d]))
    }

    /// Ends the span; every outcome but `done` is a failure.
    pub(crate) fn end(mut self, outcome: &'static str) {
        self.0.set_attribute(KeyValue::new("outcome", outcome));
        if outcome != "done" {
            self.0.set_status(Status::error(outcome));
        }
        self.0.end();
    }
}
