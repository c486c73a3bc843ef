//! The gRPC servers: CSI in both versions, with health and reflection, on one endpoint; registration on another.

mod connection;
pub mod endpoint;
mod health;
mod listener;
mod reflection;
mod rpc_log;
mod socket;

use std::future;
use std::sync::Arc;
use std::time::Duration;

use csi_proto::registration::registration_server::{Registration, RegistrationServer};
use csi_proto::v1::controller_server::{Controller, ControllerServer};
use csi_proto::v1::identity_server::{self, IdentityServer};
use csi_proto::v1::node_server::{Node, NodeServer};
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

pub use endpoint::{Endpoint, ParseEndpointError};
pub use health::{Health, Part};
pub use listener::{BindError, Listener};
pub use socket::{SocketError, SocketName};

use crate::v0::Facade;
use connection::StopTokens;
use rpc_log::RpcLogLayer;

/// The servers of the older version.
mod v0 {
    pub(super) use csi_proto::v0::controller_server::ControllerServer;
    pub(super) use csi_proto::v0::identity_server::IdentityServer;
    pub(super) use csi_proto::v0::node_server::NodeServer;
}

/// How long the server waits for the tasks of calls that it has aborted.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The CSI services that one process offers, depending on its mode.
#[derive(Clone, Debug)]
pub struct Services<I, C, N> {
    /// Identity, which every process offers.
    pub identity: I,
    /// Controller, unless the mode is `node`.
    pub controller: Option<C>,
    /// Node, unless the mode is `controller`.
    pub node: Option<N>,
}

/// Why serving ended, or never began.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The reflection service rejects the descriptors of the services.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// Serves on `listener` until `shutdown` is cancelled, and returns when all calls have ended.
///
/// It then stops listening at once, and calls that have begun may end within `grace`; after that it drops the remaining
/// calls and disconnects their clients. A client that disconnects is no error.
///
/// # Errors
///
/// Fails when the services cannot be described, and when the server cannot go on.
pub async fn run<I: identity_server::Identity, C: Controller, N: Node>(
    listener: Listener,
    services: Services<I, C, N>,
    health: Health,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    let reflection = reflection::describe(&names(&services)).map_err(ServeError::Reflection)?;
    let identity = Arc::new(services.identity);
    let controller = services.controller.map(Arc::new);
    let node = services.node.map(Arc::new);
    let router = Server::builder()
        .layer(RpcLogLayer)
        .add_service(v0::IdentityServer::new(Facade::new(Arc::clone(&identity))))
        .add_optional_service(controller.clone().map(Facade::new).map(v0::ControllerServer::new))
        .add_optional_service(node.clone().map(Facade::new).map(v0::NodeServer::new))
        .add_service(IdentityServer::from_arc(identity))
        .add_optional_service(controller.map(ControllerServer::from_arc))
        .add_optional_service(node.map(NodeServer::from_arc))
        .add_service(health.server())
        .add_service(reflection.v1)
        .add_service(reflection.v1alpha);
    serve(listener, router, health.close(), shutdown, grace).await
}

/// Serves the registration with a kubelet as [`run`] serves CSI.
///
/// # Errors
///
/// Fails when the server cannot go on.
pub async fn run_registration<R: Registration>(
    listener: Listener,
    registration: R,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    let router = Server::builder()
        .layer(RpcLogLayer)
        .add_service(RegistrationServer::new(registration));
    serve(listener, router, future::ready(()), shutdown, grace).await
}

/// Serves on `listener` until `shutdown`; then `close` ends the calls that do not end by themselves.
async fn serve(
    listener: Listener,
    router: Router<Stack<RpcLogLayer, Identity>>,
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
    tracing::info!(endpoint = %listener.endpoint(), "Serving on {}", listener.endpoint());
    // The stream of connections ends at the signal; the server drains because it was given a signal, which never comes.
    let serving = router.serve_with_incoming_shutdown(listener.connections(stop), future::pending());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Server),
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

/// Returns the names of the services that are offered.
fn names<I, C, N>(services: &Services<I, C, N>) -> Vec<&'static str> {
    let controller = services.controller.is_some().then_some(Part::Controller);
    let node = services.node.is_some().then_some(Part::Node);
    let parts = [Some(Part::Identity), controller, node];
    parts
        .into_iter()
        .flatten()
        .flat_map(Part::names)
        .copied()
        .collect()
}
