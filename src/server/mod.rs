//! The transport of gRPC: sockets, call log, health, reflection. What is served is handed in as a router.

mod arriving;
mod call_limit;
mod connection;
mod connections;
mod health;
mod limits;
mod listener;
mod on_first_call;
pub(crate) mod reflection;
mod request_body;
mod rpc_log;
mod socket;
mod socket_keeper;
mod unserved;

use std::future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

pub use call_limit::CallLimitLayer;
pub use health::Health;
pub use limits::Limits;
pub use listener::{BindError, Listener};
pub use rpc_log::{RpcLogLayer, ServingNode};
pub use socket::{SocketError, SocketName};
pub(crate) use socket_keeper::CHECK_EVERY as CHECK_SOCKET_EVERY;
pub use socket_keeper::SocketState;
pub use unserved::Unserved;

use connection::StopTokens;
use connections::Connections;
use limits::CallBudget;

/// How long the server waits for the tasks of calls that it has aborted.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Why serving ended, or never began.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The server failed.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// The layers around every service.
type Layers = Stack<RpcLogLayer, Stack<CallLimitLayer, Identity>>;

/// What serves on an endpoint, its calls logged and limited.
pub(crate) type LimitedRouter = Router<Layers>;

/// Returns the builder of a router whose calls pass `log` and are kept within `limits`.
pub(crate) fn builder(limits: Limits, log: RpcLogLayer) -> Server<Layers> {
    let budget = CallBudget::new(limits);
    Server::builder()
        .max_concurrent_streams(limits.calls_per_connection())
        .initial_stream_window_size(limits::WINDOW_BYTES)
        .initial_connection_window_size(limits.connection_window())
        .http2_max_header_list_size(limits::HEADER_BYTES)
        .http2_max_local_error_reset_streams(Some(limits::REFUSED_STREAMS))
        .http2_keepalive_interval(Some(limits::PING_EVERY))
        .http2_keepalive_timeout(Some(limits::PING_TIME))
        .layer(CallLimitLayer { budget })
        .layer(log)
}

/// Serves on `listener`, with at most the connections of `limits`, until `shutdown` is cancelled, and returns when all calls have ended.
///
/// It then stops listening at once, `close` ends the calls that do not end by themselves, and calls that have begun may
/// end within `grace`; after that it drops the remaining calls and disconnects their clients. A client that disconnects
/// is no error.
///
/// # Errors
/// Fails when the server cannot go on.
pub(crate) async fn serve(
    listener: Listener,
    router: LimitedRouter,
    limits: Limits,
    close: impl Future<Output = ()>,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    let stop = StopTokens {
        drain: shutdown.clone(),
        abort: CancellationToken::new(),
    };
    // Also when this future is dropped, no connection outlives it.
    let abort = stop.abort.clone().drop_guard();
    let endpoint = listener.endpoint().absolute();
    tracing::info!(endpoint = %endpoint, "Serving on {endpoint}");
    // The stream of connections ends at the signal; the server drains because it was given a signal, which never comes.
    let open = Connections::new(limits.connections);
    let connections = listener.connections(stop, open.clone());
    let serving = router.serve_with_incoming_shutdown(connections, future::pending());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Server),
        never = open.close_stalled() => match never {},
        () = shutdown.cancelled() => close.await,
    }
    if let Ok(ended) = timeout(grace, &mut serving).await {
        return ended.map_err(ServeError::Server);
    }
    tracing::warn!("Calls are still running {grace:?} after the stop was requested; the server drops them");
    drop(abort);
    match timeout(ABORT_GRACE, serving).await {
        Ok(ended) => ended.map_err(ServeError::Server),
        Err(_) => Ok(()),
    }
}
