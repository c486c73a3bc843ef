//! Listening on an endpoint, and the connections that come in.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::Stream;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_util::either::Either;

use super::connection::{Connection, StopTokens};
use super::connections::Connections;
use super::socket::{self, SocketError, SocketFile, SocketName};
use super::socket_keeper::{SocketKeeper, SocketState};
use crate::config::Endpoint;
use crate::error;
use crate::telemetry::spawn_blocking;

/// How long to wait for another process that replaces a socket in the same directory, and how often to try.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How long to pause after an error that no client caused, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot listen on an endpoint.
#[derive(Debug, Error)]
pub enum BindError {
    /// The Unix socket cannot be created.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Another process has locked the socket's directory and keeps it locked.
    #[error(
        "another process has locked the directory {} for {LOCK_PATIENCE:?}, so the plugin cannot check whether the old \
         socket in it is in use; stop that process or choose another endpoint",
        directory.display()
    )]
    DirectoryLocked {
        /// The directory.
        directory: PathBuf,
    },
    /// Another process listens on the port.
    #[error(
        "port {} of {} is in use by another process; stop that process or choose another port",
        address.port(),
        address.ip()
    )]
    PortInUse {
        /// The address with the port.
        address: SocketAddr,
    },
    /// The server cannot listen on the address.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// The endpoint.
        endpoint: Endpoint,
        /// The error from the kernel.
        source: io::Error,
    },
}

/// An open endpoint; dropping it removes its Unix socket and stops listening.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    kind: Kind,
    keeper: Option<SocketKeeper>,
}

#[derive(Debug)]
enum Kind {
    Unix {
        // Declared first, so that the name is removed before the listener is closed.
        file: SocketFile,
        listener: UnixListener,
    },
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on `endpoint`.
    ///
    /// A Unix socket gets mode 0600. A missing directory is created with mode 0700, and an old socket on which no process
    /// listens is replaced.
    ///
    /// # Errors
    ///
    /// Fails when the endpoint is in use; when a file that is not a socket exists at the path, which is left unchanged;
    /// and when the kernel refuses.
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        match endpoint {
            Endpoint::Unix(path) => {
                let (file, listener) = listen_on_socket(path).await?;
                let listener = UnixListener::from_std(listener).map_err(|source| BindError::Listen {
                    endpoint: endpoint.clone(),
                    source,
                })?;
                Ok(Self {
                    endpoint: endpoint.clone(),
                    kind: Kind::Unix { file, listener },
                    keeper: None,
                })
            }
            Endpoint::Tcp(address) => {
                let listen = |source: io::Error| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::PortInUse { address: *address },
                    _ => BindError::Listen {
                        endpoint: endpoint.clone(),
                        source,
                    },
                };
                let listener = TcpListener::bind(address).await.map_err(listen)?;
                let address = listener.local_addr().map_err(listen)?;
                Ok(Self {
                    endpoint: Endpoint::Tcp(address),
                    kind: Kind::Tcp(listener),
                    keeper: None,
                })
            }
        }
    }

    /// Makes the listener recreate its Unix socket whenever another process has removed it, and say in `state` whether that
    /// is possible.
    #[must_use]
    pub fn kept(self, state: SocketState) -> Self {
        let keeper = match self.kind {
            Kind::Unix { .. } => Some(SocketKeeper::new(state)),
            Kind::Tcp(_) => None,
        };
        Self { keeper, ..self }
    }

    /// Returns the endpoint, with the port that the kernel chose where the port was 0.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the name of its Unix socket.
    pub(crate) fn socket_name(&self) -> Option<&SocketName> {
        match &self.kind {
            Kind::Unix { file, .. } => Some(file.name()),
            Kind::Tcp(_) => None,
        }
    }

    /// Returns the accepted connections until `stop` drains; then the listener is dropped. They are added to `open`, which
    /// limits them.
    pub(super) fn connections(
        self,
        stop: StopTokens,
        open: Connections,
    ) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold((self, stop, open), async |(mut listener, stop, open)| {
            let connection = tokio::select! {
                biased;
                () = stop.drain.cancelled() => return None,
                connection = listener.next(&stop, &open) => connection,
            };
            Some((Ok(connection), (listener, stop, open)))
        })
    }

    async fn next(&mut self, stop: &StopTokens, open: &Connections) -> Connection {
        loop {
            let Self { kind, keeper, .. } = self;
            let accepted = tokio::select! {
                accepted = kind.accept() => accepted,
                () = due(keeper.as_mut()) => {
                    self.check_socket().await;
                    continue;
                }
            };
            match accepted {
                Ok(stream) => {
                    let close = stop.abort.child_token();
                    let entry = open.add(close.clone()).await;
                    return Connection::new(stream, stop, close, entry);
                }
                Err(error) if is_caused_by_client(&error) => {
                    tracing::debug!(%error, "A client disconnected before its connection was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot accept a connection on {}", self.endpoint);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Recreates the socket if another process has removed it. Connections that were accepted stay.
    async fn check_socket(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        if !keeper.is_removed(self.socket_name()) {
            return;
        }
        match Self::bind(&self.endpoint).await {
            Ok(recreated) => {
                keeper.recreated(&self.endpoint);
                // The name belongs to the new socket, so dropping the old one does not remove it.
                self.kind = recreated.kind;
            }
            Err(error) => keeper.not_recreated(&self.endpoint, &error::chain(&error)),
        }
    }
}

impl Kind {
    async fn accept(&self) -> io::Result<Either<UnixStream, TcpStream>> {
        match self {
            Self::Unix { listener, .. } => Ok(Either::Left(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }
}

/// Waits until the socket has to be checked; without a keeper, it never has.
async fn due(keeper: Option<&mut SocketKeeper>) {
    match keeper {
        Some(keeper) => keeper.due().await,
        None => std::future::pending().await,
    }
}

async fn listen_on_socket(path: &Path) -> Result<(SocketFile, std::os::unix::net::UnixListener), BindError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let owned = path.to_owned();
        let listening = spawn_blocking(move || socket::try_listen(&owned)).await;
        let listening = listening.map_err(|error| BindError::Listen {
            endpoint: Endpoint::Unix(path.to_owned()),
            source: io::Error::other(error),
        })?;
        match listening? {
            Some(listening) => return Ok(listening),
            None if Instant::now() < deadline => sleep(LOCK_PAUSE).await,
            None => {
                let directory = socket::directory_of(path).to_owned();
                return Err(BindError::DirectoryLocked { directory });
            }
        }
    }
}

/// Returns whether the client caused the failure to accept its connection.
fn is_caused_by_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
