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

use super::connection::{Connection, Signals};
use super::socket::{self, SocketError, SocketFile, SocketName};
use crate::config::Endpoint;

/// How long to wait for others that look for old sockets in the same directory, and how often to look.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How long nothing is accepted after an error that is none of the client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an endpoint cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// The Unix socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Somebody has locked the socket's directory and keeps it locked.
    #[error(
        "the directory {} has been locked by another process for {LOCK_PATIENCE:?}, so it cannot be told whether \
         its old sockets are in use",
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
    /// The address cannot be listened on.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// The endpoint.
        endpoint: Endpoint,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An endpoint that is being listened on; dropping it removes its Unix socket and ends listening.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Unix {
        // The name goes before the listener is closed, as it is declared before.
        file: SocketFile,
        listener: UnixListener,
    },
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on `endpoint`.
    ///
    /// A Unix socket gets mode 0600. Its directory is made with mode 0700 if it is missing, and an old socket
    /// on which nobody answers is replaced.
    ///
    /// # Errors
    ///
    /// Fails when the endpoint is in use, and says so; when something that is no socket is in the way, which
    /// is left as it is; and when the kernel refuses.
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
                })
            }
        }
    }

    /// Returns where it listens, with the port that was found if any free one was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the name of its Unix socket.
    pub fn socket_name(&self) -> Option<&SocketName> {
        match &self.kind {
            Kind::Unix { file, .. } => Some(file.name()),
            Kind::Tcp(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<Either<UnixStream, TcpStream>> {
        match &self.kind {
            Kind::Unix { listener, .. } => Ok(Either::Left(listener.accept().await?.0)),
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Either::Right(stream))
            }
        }
    }

    /// Returns the connections that come in until `signals` say to drain; then the listener is gone.
    pub(super) fn connections(self, signals: Signals) -> impl Stream<Item = io::Result<Connection>> {
        futures::stream::unfold((self, signals), async |(listener, signals)| {
            let connection = tokio::select! {
                biased;
                () = signals.drain.cancelled() => return None,
                connection = listener.next(&signals) => connection,
            };
            Some((Ok(connection), (listener, signals)))
        })
    }

    async fn next(&self, signals: &Signals) -> Connection {
        loop {
            match self.accept().await {
                Ok(stream) => return Connection::new(stream, signals),
                Err(error) if is_of_client(&error) => {
                    tracing::debug!(%error, "A client left before its connection was accepted");
                }
                Err(error) => {
                    tracing::warn!(%error, "Could not accept a connection on {}", self.endpoint);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn listen_on_socket(path: &Path) -> Result<(SocketFile, std::os::unix::net::UnixListener), BindError> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        let owned = path.to_owned();
        let listening = tokio::task::spawn_blocking(move || socket::try_listen(&owned)).await;
        let listening = listening.map_err(|error| BindError::Listen {
            endpoint: Endpoint::Unix(path.to_owned()),
            source: io::Error::other(error),
        })?;
        match listening? {
            Some(listening) => return Ok(listening),
            None if Instant::now() < give_up => sleep(LOCK_PAUSE).await,
            None => {
                let directory = socket::directory_of(path).to_owned();
                return Err(BindError::DirectoryLocked { directory });
            }
        }
    }
}

/// Returns whether it is the client's doing that a connection could not be accepted.
fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
