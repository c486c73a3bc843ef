//! What is done about every call, whichever service answers it.
//!
//! A call is logged once, when it has ended, with its method, code, duration and message, but nothing else of
//! request or response, which may hold secrets. A panic in a handler becomes INTERNAL and harms no other
//! call.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

/// Puts [`Calls`] around the services.
#[derive(Clone, Debug)]
pub struct CallLayer;

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Calls { inner }
    }
}

/// Services whose calls are logged and whose panics are caught.
///
/// A handler runs in a span with the method's name, in which it may record `volume.id`.
#[derive(Clone, Debug)]
pub struct Calls<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Calls<S>
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
        let call = Call::begin(request.uri().path());
        let span = call.span.clone();
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let logged = async move {
            let response = match answer.await {
                Ok(response) => response?,
                Err(_panic) => {
                    Status::internal("the call met a bug in the plugin, whose log says more").into_http()
                }
            };
            let mut call = Some(call);
            // Without a message to return, the status is among the headers.
            if let Some(status) = Status::from_header_map(response.headers())
                && let Some(call) = call.take()
            {
                call.end(&status);
            }
            Ok(response.map(|inner| Body::new(LoggedBody { inner, call })))
        };
        logged.instrument(span).boxed()
    }
}

/// A response's body, at whose end the status is.
struct LoggedBody {
    inner: Body,
    call: Option<Call>,
}

impl LoggedBody {
    fn end(&mut self, status: &Status) {
        if let Some(call) = self.call.take() {
            call.end(status);
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
            None => self.end(&Status::unknown("the answer ended without a status")),
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

/// A call that is logged when it ends, or when it is dropped because nobody waits for it any more.
struct Call {
    method: String,
    began: Instant,
    span: Span,
    ended: bool,
}

impl Call {
    fn begin(method: &str) -> Self {
        let span = tracing::info_span!("rpc", rpc.method = method, volume.id = Empty);
        Self {
            method: method.to_owned(),
            began: Instant::now(),
            span,
            ended: false,
        }
    }

    fn end(mut self, status: &Status) {
        self.log(status);
        self.ended = true;
    }

    fn log(&self, status: &Status) {
        let _in_span = self.span.enter();
        let (method, code, error) = (&self.method, status.code(), status.message());
        let elapsed = self.began.elapsed().as_micros();
        macro_rules! log {
            ($at:ident, $what:literal) => {
                tracing::$at!(rpc.code = ?code, rpc.elapsed_us = elapsed, error, "{method} {}", $what)
            };
        }
        match level(method, code) {
            Level::ERROR => log!(error, "failed"),
            Level::WARN => log!(warn, "failed"),
            Level::INFO => log!(info, "ended"),
            _ => log!(debug, "ended"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.log(&Status::cancelled("the caller left, or its deadline passed"));
        }
    }
}

/// Returns how much the end of a call matters to whoever reads the log.
fn level(method: &str, code: Code) -> Level {
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => Level::ERROR,
        // Orchestrators ask for versions and services until one is there, and leave as they like.
        Code::Unimplemented | Code::Cancelled => Level::DEBUG,
        Code::Ok if is_routine(method) => Level::DEBUG,
        Code::Ok => Level::INFO,
        _ => Level::WARN,
    }
}

/// Returns whether a method is called again and again without anything being wanted.
fn is_routine(method: &str) -> bool {
    method.starts_with("/csi.v1.Identity/")
        || method.starts_with("/csi.v0.Identity/")
        || method.starts_with("/grpc.")
        || method.ends_with("GetCapabilities")
        || method.ends_with("GetInfo")
        || method.ends_with("GetId")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_told_from_what_does_not() {
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
            ("/grpc.health.v1.Health/Check", Code::Ok, Level::DEBUG),
        ] {
            assert_eq!(level(method, code), expected, "{method} {code:?}");
        }
    }
}
