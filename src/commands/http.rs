//! The HTTP server for probes and metrics.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
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

use super::failure::Failure;

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

/// What clients can ask for; clones share the state.
pub(crate) trait Pages: Clone + Send + Sync + 'static {
    /// The paths of the pages.
    const PATHS: &'static [&'static str];

    /// Returns the page at one of the paths.
    fn page(&self, path: &str) -> impl Future<Output = Page> + Send;
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// What was asked about is so, in words.
    Yes(String),
    /// It is not so, in words.
    No(String),
    /// Metrics in the text format of `OpenMetrics`.
    Metrics(String),
}

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
        Ok(Self { listener, address })
    }

    /// Answers until it is dropped.
    pub(crate) async fn run<P: Pages>(self: Arc<Self>, pages: P) {
        tracing::info!("Answering on http://{}{}", self.address, list(P::PATHS));
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
                    by_age.push_back(clients.spawn(serve(stream, pages.clone())));
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
async fn serve<P: Pages>(stream: TcpStream, pages: P) {
    let answer = service_fn(|request: Request<Incoming>| {
        let pages = &pages;
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), pages).await) }
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

async fn answer<P: Pages>(method: &Method, path: &str, pages: &P) -> Response<String> {
    if !P::PATHS.contains(&path) {
        let body = format!("not found; what exists is {}\n", list(P::PATHS));
        return response(StatusCode::NOT_FOUND, TEXT, body);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let body = format!("{method} is not supported; use GET or HEAD\n");
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, body);
        refused.headers_mut().insert(ALLOW, METHODS);
        return refused;
    }
    match pages.page(path).await {
        Page::Yes(body) => response(StatusCode::OK, TEXT, body),
        Page::No(body) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, body),
        Page::Metrics(body) => response(StatusCode::OK, OPEN_METRICS, body),
    }
}

fn list(paths: &[&str]) -> String {
    match paths {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => paths.concat(),
    }
}

fn response(status: StatusCode, kind: HeaderValue, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
