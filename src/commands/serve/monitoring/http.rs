//! The HTTP server for probes and metrics.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Monitored;
use crate::commands::failure::Failure;

/// How many clients are served at a time. One more replaces the oldest one: an answer takes no time, so the oldest is the
/// likeliest not to send a request.
const CLIENTS: usize = 32;
/// How long a connection may last in total.
const LONGEST: Duration = Duration::from_secs(10);
/// How many bytes of a request are buffered: the minimum of hyper.
const REQUEST_BYTES: usize = 8 << 10;
/// How long to pause after an error that no client caused, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// The registered type of the format `OpenMetrics`, version 1.0.0.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// The HTTP server for probes and metrics.
pub(crate) struct Monitor {
    listener: TcpListener,
    address: SocketAddr,
}

impl Monitor {
    /// Listens on an address.
    ///
    /// # Errors
    /// The address is in use or not one of this machine: [`Failure::Configuration`].
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let refused = |error: io::Error| {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "another process listens there: stop that process or choose another port (with hostNetwork, the \
                     port has to be free on the node)"
                }
                io::ErrorKind::AddrNotAvailable => "no network interface of this machine has that address",
                _ => "choose another address",
            };
            Failure::configuration(format!(
                "cannot listen on the metrics_address {address}: {error}; {remedy}"
            ))
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        tracing::info!("Answering on http://{address}/healthz, /readyz and /metrics");
        Ok(Self { listener, address })
    }

    /// Answers until it is dropped.
    pub(crate) async fn run(self: Arc<Self>, monitored: Monitored) {
        let mut clients = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = clients.join_next() => {
                    by_age.retain(|client| !client.is_finished());
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    if by_age.len() >= CLIENTS
                        && let Some(oldest) = by_age.pop_front()
                    {
                        oldest.abort();
                    }
                    by_age.push_back(clients.spawn(serve(stream, monitored.clone())));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "Cannot accept a connection on {}", self.address);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, monitored: Monitored) {
    let answer = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &monitored);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    match timeout(LONGEST, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "A connection for probes failed"),
        Err(_) => tracing::debug!("A connection for probes lasted longer than {LONGEST:?} and was closed"),
    }
}

fn answer(method: &Method, path: &str, monitored: &Monitored) -> Response<String> {
    let (status, body) = match path {
        "/healthz" | "/readyz" | "/metrics" if !matches!(*method, Method::GET | Method::HEAD) => {
            let mut refused = text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not supported; use GET or HEAD\n"),
            );
            refused.headers_mut().insert(ALLOW, METHODS);
            return refused;
        }
        "/metrics" => {
            let mut response = Response::new(monitored.metrics());
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
            return response;
        }
        "/healthz" => match monitored.readiness.needs_restart() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, fault + "\n"),
        },
        "/readyz" => {
            let checks = monitored.readiness.checks();
            let (status, verdict) = if monitored.readiness.is_ready(&checks) {
                (StatusCode::OK, "ready")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready")
            };
            let lines = checks.iter().map(|check| format!("{check}\n"));
            (status, format!("{verdict}\n{}", lines.collect::<String>()))
        }
        _ => (
            StatusCode::NOT_FOUND,
            "not found; the paths are /healthz, /readyz and /metrics\n".to_owned(),
        ),
    };
    text(status, body)
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
