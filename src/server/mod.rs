//! The transport of gRPC: sockets, call log, health, reflection. What is served is handed in as a router.

pub mod authority;
mod calls;
mod connection;
mod health;
mod listener;
pub mod reflection;
mod socket;

use std::future;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

pub use calls::CallLayer;
pub use health::Health;
pub use listener::{BindError, Listener};
pub use socket::{SocketError, SocketName};

use connection::Signals;

/// How long a call that was aborted may take to notice.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Why serving ended, or never began.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The descriptors of the services cannot be offered for reflection.
    #[error("cannot describe the services")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// What serves on an endpoint, its calls logged.
pub type LoggedRouter = Router<Stack<CallLayer, Identity>>;

/// Returns the builder of a router whose calls are logged.
pub fn builder() -> Server<Stack<CallLayer, Identity>> {
    Server::builder().layer(CallLayer)
}

/// Serves on `listener` until `shutdown` is cancelled, and returns when all calls have ended.
///
/// Then the endpoint is given up at once, `close` is to end the calls that do not end by themselves, calls that have
/// begun may end within `grace`, and whoever is still connected after that is disconnected, its calls dropped. Clients
/// that come and go as they like are no error.
///
/// # Errors
/// Fails when the server cannot go on.
pub async fn serve(
    listener: Listener,
    router: LoggedRouter,
    close: impl Future<Output = ()>,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    let signals = Signals {
        drain: shutdown.clone(),
        abort: CancellationToken::new(),
    };
    // However this ends, also by being dropped, no connection outlives it.
    let abort = signals.abort.clone().drop_guard();
    tracing::info!(endpoint = %listener.endpoint(), "Serving on {}", listener.endpoint());
    // The connections end with the signal, and the server drains for having been given one.
    let serving = router.serve_with_incoming_shutdown(listener.connections(signals), future::pending());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Server),
        () = shutdown.cancelled() => close.await,
    }
    if let Ok(ended) = timeout(grace, &mut serving).await {
        return ended.map_err(ServeError::Server);
    }
    tracing::warn!("Calls were still running {grace:?} after the stop was asked for; they are dropped");
    drop(abort);
    match timeout(ABORT_GRACE, serving).await {
        Ok(ended) => ended.map_err(ServeError::Server),
        Err(_) => Ok(()),
    }
}
