//! The log of calls, and the handling of panics, for every service alike.
//!
//! A call is logged once, at its end, with its method, code, duration and message, but nothing else of request or
//! response, which may hold secrets. A panic in a handler becomes INTERNAL and affects no other call.
//!
//! The layers of tower-http 0.6 do not suffice: at the end of a response, `TraceLayer` passes on neither the method nor
//! the duration of the whole call, and `OnEarlyDropLayer` reports every gRPC call that succeeds as dropped, because
//! hyper drops a body after its trailers.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::{Empty, display};
use tracing::{Instrument, Level, Span};
use uuid::Uuid;

use super::unserved::Unserved;
use crate::telemetry::{Metrics, Trace};

/// Wraps the services in [`LoggedService`].
#[derive(Clone, Debug, Default)]
pub struct RpcLogLayer {
    /// Where the calls are measured, if anywhere.
    pub metrics: Option<Metrics>,
    /// The node that serves calls of the Node service, if any.
    pub node: Option<ServingNode>,
    /// What is said of calls that are not served, if anything.
    pub unserved: Option<Unserved>,
}

/// The node that serves calls of the Node service, for their lines of the log.
#[derive(Clone)]
pub struct ServingNode {
    /// Its UUID in Flocker, as soon as that is known.
    pub id: Arc<dyn Fn() -> Option<Uuid> + Send + Sync>,
    /// The host name of this machine.
    pub host: Arc<str>,
}

impl fmt::Debug for ServingNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServingNode")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RpcLogLayer {
    type Service = LoggedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LoggedService {
            inner,
            metrics: self.metrics.clone(),
            node: self.node.clone(),
            unserved: self.unserved.clone(),
        }
    }
}

/// Services whose calls are logged and whose panics are caught.
///
/// A handler runs in a span with the method's name, in which what the call is about is recorded.
#[derive(Clone, Debug)]
pub struct LoggedService<S> {
    inner: S,
    metrics: Option<Metrics>,
    node: Option<ServingNode>,
    unserved: Option<Unserved>,
}

impl<S> Service<Request<Body>> for LoggedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let headers = request.headers();
        let log = RpcLog::begin(
            request.uri().path(),
            headers,
            self.metrics.clone(),
            self.node.clone(),
        );
        let (span, trace) = (log.span.clone(), log.trace.clone());
        let unserved = self.unserved.clone();
        let response = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let logged = async move {
            let response = match response.await {
                Ok(response) => response?,
                Err(_panic) => Status::internal(
                    "the call failed because of a bug in the plugin, whose log has the details",
                )
                .into_http(),
            };
            let response = match unserved {
                Some(unserved) => unserved.explain(response, &log.method),
                None => response,
            };
            let mut log = Some(log);
            // Without a message to return, the status is among the headers.
            if let Some(status) = Status::from_header_map(response.headers())
                && let Some(log) = log.take()
            {
                log.end(&status);
            }
            Ok(response.map(|inner| Body::new(LoggedBody { inner, log })))
        };
        trace.around(logged.instrument(span))
    }
}

/// A response's body, which ends with the status.
struct LoggedBody {
    inner: Body,
    log: Option<RpcLog>,
}

impl LoggedBody {
    fn end(&mut self, status: &Status) {
        if let Some(log) = self.log.take() {
            log.end(status);
        }
    }
}

impl http_body::Body for LoggedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.end(&status);
                }
            }
            Some(Err(status)) => self.end(status),
            None => self.end(&Status::unknown("the response ended without a status")),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How many bytes of a method's name are logged. A client may call any, and its name is a part of a URL, which is ASCII.
const LONGEST_METHOD: usize = 200;

/// The log entry of one call, written when the call ends, or when it is dropped because its client no longer waits.
struct RpcLog {
    method: String,
    began: Instant,
    span: Span,
    trace: Trace,
    metrics: Option<Metrics>,
    /// Of a call of the Node service.
    node: Option<ServingNode>,
    ended: bool,
}

impl RpcLog {
    fn begin(method: &str, headers: &HeaderMap, metrics: Option<Metrics>, node: Option<ServingNode>) -> Self {
        let method = method.get(..LONGEST_METHOD).unwrap_or(method);
        let version = method.strip_prefix("/csi.v").and_then(|rest| rest.get(..1));
        // At every level of the log, so that warnings have its fields too.
        let span = tracing::error_span!(
            "rpc",
            rpc.method = method,
            csi.version = version,
            operation.name = Empty,
            operation.id = Empty,
            volume.id = Empty,
            volume.name = Empty,
            claim.namespace = Empty,
            claim.name = Empty,
            node.id = Empty,
            host.name = Empty,
            staging.path = Empty,
            target.path = Empty,
        );
        let traces = metrics.as_ref().and_then(Metrics::traces);
        let trace = traces.map_or_else(Trace::default, |traces| traces.call(headers, method));
        trace.record("rpc.method", method);
        if let Some(version) = version {
            trace.record("csi.version", version);
        }
        let log = Self {
            method: method.to_owned(),
            began: Instant::now(),
            span,
            trace,
            metrics,
            node: node.filter(|_| is_of_node_service(method)),
            ended: false,
        };
        if let Some(node) = &log.node {
            log.record("host.name", &node.host);
        }
        log.record_node();
        log
    }

    /// Records the node that serves the call, if that is known by now.
    fn record_node(&self) {
        let id = self.node.as_ref().and_then(|node| (node.id)());
        if let Some(id) = id {
            self.record("node.id", id);
        }
    }

    /// Records a field, also where the call is not being worked for.
    fn record(&self, field: &'static str, value: impl fmt::Display) {
        self.trace.record(field, &value);
        self.span.record(field, display(value));
    }

    fn end(mut self, status: &Status) {
        self.log(status);
        self.ended = true;
    }

    fn log(&self, status: &Status) {
        self.record_node();
        let _in_span = self.span.enter();
        let (method, code, error) = (&self.method, status.code(), status.message());
        let took = self.began.elapsed();
        if let Some(metrics) = &self.metrics {
            metrics.call_ended(method, code_name(code), took);
        }
        self.trace.end(code_name(code), code != Code::Ok, error);
        // Whole microseconds, so that no line has more digits than that.
        let duration = f64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)) / 1e3;
        let error = Some(error).filter(|error| !error.is_empty());
        macro_rules! log {
            ($at:ident, $what:literal) => {
                tracing::$at!(
                    rpc.code = code_name(code),
                    rpc.duration_ms = duration,
                    error,
                    $what
                )
            };
        }
        match level(method, code) {
            Level::ERROR => log!(error, "Call failed"),
            Level::WARN => log!(warn, "Call failed"),
            Level::INFO => log!(info, "Call ended"),
            _ => log!(debug, "Call ended"),
        }
    }
}

impl Drop for RpcLog {
    fn drop(&mut self) {
        if !self.ended {
            self.log(&Status::cancelled(
                "the client cancelled the call, or its deadline passed",
            ));
        }
    }
}

/// Whether a method is one of the Node service, in any version of CSI.
fn is_of_node_service(method: &str) -> bool {
    let service = method.rsplit('/').nth(1).unwrap_or_default();
    service.starts_with("csi.") && service.ends_with(".Node")
}

/// Returns the name of a code, as the documentation of gRPC has it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns the level at which the end of a call is logged.
fn level(method: &str, code: Code) -> Level {
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => Level::ERROR,
        // Orchestrators try versions and services until one answers, and cancel calls at any time.
        Code::Unimplemented | Code::Cancelled => Level::DEBUG,
        Code::Ok if only_reads(method) => Level::DEBUG,
        Code::Ok => Level::INFO,
        _ => Level::WARN,
    }
}

/// Returns whether a method only reads: orchestrators call those periodically.
fn only_reads(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap_or(method);
    !["Create", "Delete", "Publish", "Unpublish", "Stage", "Unstage"]
        .iter()
        .any(|change| name.contains(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_only_read_and_succeed_are_logged_at_debug_level() {
        let create = "/csi.v1.Controller/CreateVolume";
        for (method, code, expected) in [
            (create, Code::Ok, Level::INFO),
            (create, Code::FailedPrecondition, Level::WARN),
            (create, Code::Unavailable, Level::WARN),
            (create, Code::Internal, Level::ERROR),
            (create, Code::Cancelled, Level::DEBUG),
            ("/csi.v2.Identity/Probe", Code::Unimplemented, Level::DEBUG),
            ("/csi.v0.Identity/Probe", Code::Ok, Level::DEBUG),
            ("/csi.v0.Node/NodeGetId", Code::Ok, Level::DEBUG),
            ("/csi.v0.Node/NodePublishVolume", Code::Ok, Level::INFO),
            ("/csi.v1.Identity/Probe", Code::Ok, Level::DEBUG),
            ("/csi.v1.Identity/Probe", Code::FailedPrecondition, Level::WARN),
            ("/csi.v1.Node/NodeGetCapabilities", Code::Ok, Level::DEBUG),
            ("/csi.v1.Node/NodeGetVolumeStats", Code::Ok, Level::DEBUG),
            ("/csi.v1.Controller/ListVolumes", Code::Ok, Level::DEBUG),
            ("/csi.v1.Controller/ListVolumes", Code::Unavailable, Level::WARN),
            ("/csi.v1.Controller/ControllerGetVolume", Code::Ok, Level::DEBUG),
            (
                "/csi.v1.Controller/ControllerUnpublishVolume",
                Code::Ok,
                Level::INFO,
            ),
            ("/csi.v1.Node/NodeUnstageVolume", Code::Ok, Level::INFO),
            ("/grpc.health.v1.Health/Check", Code::Ok, Level::DEBUG),
        ] {
            assert_eq!(level(method, code), expected, "{method} {code:?}");
        }
    }
}
