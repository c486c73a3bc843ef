//! The span of a call, as everything that works for the call carries it.

use std::fmt;
use std::future::Future;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::trace::{FutureExt as _, Span, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use tokio::task::JoinHandle;
use tracing::field::display;

use super::{bounded, failure};

/// The span of a call, or none where traces are off. Clones are the same span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Context>);

impl Trace {
    pub(super) fn of<S: Span + Send + Sync + 'static>(span: S) -> Self {
        Self(Some(Context::new().with_span(span)))
    }

    /// Returns the span of the call for which this task works.
    pub(crate) fn current() -> Self {
        Self(Context::map_current(|current| {
            current.has_active_span().then(|| current.clone())
        }))
    }

    pub(super) fn context(&self) -> Option<&Context> {
        self.0.as_ref()
    }

    /// Whether there is a span.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether there is a span, and its trace is one that is exported.
    fn is_recording(&self) -> bool {
        self.context()
            .is_some_and(|context| context.span().is_recording())
    }

    /// Adds an attribute, unless the call has ended.
    pub(crate) fn record(&self, name: &'static str, value: impl fmt::Display) {
        if self.is_recording()
            && let Some(context) = self.context()
        {
            context.span().set_attribute(text(name, value));
        }
    }

    /// Links the call to the one that began the operation which both wait for.
    pub(crate) fn link_to(&self, other: &Self) {
        let (Some(this), Some(other)) = (self.context(), other.context()) else {
            return;
        };
        let other = other.span().span_context().clone();
        if *this.span().span_context() != other {
            this.span().add_link(other, Vec::new());
        }
    }

    /// Ends the span; the name of a code that is no success, and its message, are the failure.
    pub(crate) fn end(&self, code: &'static str, failed: bool, message: &str) {
        let Some(context) = self.context() else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("rpc.code", code));
        if failed {
            span.set_status(failure(&format!("{code}: {message}")));
        }
        span.end();
    }

    /// Makes this the span for which `work` works.
    pub(crate) fn around<F>(&self, work: F) -> BoxFuture<'static, F::Output>
    where
        F: Future + Send + 'static,
    {
        match self.context() {
            Some(context) => work.with_context(context.clone()).boxed(),
            None => work.boxed(),
        }
    }

    /// Spawns a task that works for this span.
    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self.context() {
            Some(context) => tokio::spawn(work.with_context(context.clone())),
            None => tokio::spawn(work),
        }
    }
}

/// Returns an attribute, with a text of bounded length.
pub(super) fn text(name: &'static str, value: impl fmt::Display) -> KeyValue {
    KeyValue::new(name, bounded(&value.to_string()).into_owned())
}

/// Records a field of the log, which is an attribute of the call's trace too.
pub(crate) fn record(span: &tracing::Span, field: &'static str, value: impl fmt::Display) {
    Trace::current().record(field, &value);
    span.record(field, display(value));
}

/// As [`record`], for a number.
pub(crate) fn record_number(span: &tracing::Span, field: &'static str, value: u64) {
    if let Some(context) = Trace::current().context() {
        let number = i64::try_from(value).unwrap_or(i64::MAX);
        context.span().set_attribute(KeyValue::new(field, number));
    }
    span.record(field, value);
}
