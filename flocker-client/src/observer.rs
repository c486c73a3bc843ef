//! Observing every request.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::header::HeaderValue;
use tokio::time::Instant;

use crate::{Error, RequestOutcome, endpoint::Endpoint};

/// Learns of the end of every request, for measurements.
pub trait RequestObserver: fmt::Debug + Send + Sync {
    /// A request has ended. `endpoint` is its method and path, with `{id}` for an id.
    fn request_ended(&self, endpoint: &'static str, end: RequestEnd, took: Duration);

    /// A request begins. Returns what it is a part of, if that is traced.
    fn trace(&self, endpoint: &'static str) -> Option<Box<dyn RequestTrace>> {
        let _ = endpoint;
        None
    }
}

/// A request within a trace.
pub trait RequestTrace: fmt::Debug + Send + Sync {
    /// Returns the id under which Flocker logs the request with Eliot: `UUID@/LEVEL`.
    fn eliot_task_id(&self) -> String;

    /// The request has ended.
    fn ended(self: Box<Self>, end: RequestEnd);
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEnd {
    /// Flocker did what was requested.
    Done,
    /// Flocker refused, or it failed.
    Failed(RequestOutcome),
    /// Whoever made the request waits for its answer no longer.
    Dropped,
}

/// Measures one request, until it is dropped.
pub(crate) struct Observed {
    observer: Option<Arc<dyn RequestObserver>>,
    endpoint: &'static str,
    began: Instant,
    end: RequestEnd,
    trace: Option<Box<dyn RequestTrace>>,
}

impl Observed {
    pub(crate) fn begin(observer: Option<&Arc<dyn RequestObserver>>, endpoint: Endpoint) -> Self {
        Self {
            observer: observer.cloned(),
            endpoint: endpoint.name(),
            began: Instant::now(),
            end: RequestEnd::Dropped,
            trace: observer.and_then(|observer| observer.trace(endpoint.name())),
        }
    }

    /// Returns the id under which Flocker logs the request, if that is a part of a trace.
    pub(crate) fn eliot_task_id(&self) -> Option<HeaderValue> {
        let id = self.trace.as_ref()?.eliot_task_id();
        HeaderValue::try_from(id).ok()
    }

    /// Records the end and passes the result on.
    pub(crate) fn ended<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.end = match &result {
            Ok(_) => RequestEnd::Done,
            Err(error) => RequestEnd::Failed(error.outcome()),
        };
        result
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(trace) = self.trace.take() {
            trace.ended(self.end);
        }
        if let Some(observer) = &self.observer {
            observer.request_ended(self.endpoint, self.end, self.began.elapsed());
        }
    }
}
