//! The control service as a process: it listens, and can be stopped and started like one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::response::Response;
use axum_server::Handle;
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::{ServiceExt, make};

use crate::Error;
use crate::api::{self, Api};
use crate::cluster::Cluster;
use crate::counters::Counting;
use crate::faults::{FaultPlan, Lost};
use crate::tls::Acceptor;

/// Delay between attempts to listen again on an address that was listened on before.
const RETRY: Duration = Duration::from_millis(50);

/// The maximum length of the headers of a request.
const HEADER_BYTES: usize = 64 << 10;
/// How long a client may take for the headers of a request, from the end of the one before. The control service keeps an
/// idle connection for hours; here that long is enough for any client to ask again.
const HEADER_TIME: Duration = Duration::from_secs(600);

/// A port that stays reserved while nothing listens on it.
pub(crate) struct Port {
    address: SocketAddr,
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves a port; 0 selects any free one.
    pub(crate) fn reserve(address: SocketAddr) -> Result<Self, Error> {
        let reserved = bind(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        match reserved {
            Ok((address, reservation)) => Ok(Self {
                address,
                _reservation: reservation,
            }),
            Err(source) => Err(listen_error(address, source)),
        }
    }

    fn listen(&self) -> Result<TcpListener, Error> {
        TcpListener::bind(self.address)
            .and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .map_err(|source| listen_error(self.address, source))
    }
}

/// Binds a socket with the options of a standard listener, which can then share the port as long as this one does not
/// listen.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listen_error(address: SocketAddr, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { address },
        _ => Error::Listen { address, source },
    }
}

/// The server of the API, which can be started again.
pub(crate) struct Server {
    pub(crate) port: Port,
    pub(crate) acceptor: Acceptor,
    pub(crate) api: Arc<Api>,
    pub(crate) counting: Arc<Counting>,
    pub(crate) running: Mutex<Option<Running>>,
}

/// One run of the server.
pub(crate) struct Running {
    handle: Handle<SocketAddr>,
    /// Drops the requests that faults hold.
    _held: DropGuard,
    task: JoinSet<()>,
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// Begins to listen.
    pub(crate) fn start(&self) -> Result<(), Error> {
        let end = CancellationToken::new();
        let router = api::router(Arc::clone(&self.api), Arc::clone(&self.counting), end.clone());
        // The server closes the connection of a service that fails.
        let service = router
            .into_service::<Incoming>()
            .map_err(|never| match never {})
            .map_result(|answer: Result<Response, io::Error>| {
                answer.and_then(|response| match response.extensions().get::<Lost>() {
                    None => Ok(response),
                    Some(Lost) => Err(io::ErrorKind::ConnectionAborted.into()),
                })
            });
        let handle = Handle::new();
        let mut server = axum_server::from_tcp(self.port.listen()?)
            .map_err(|source| listen_error(self.address(), source))?
            .acceptor(self.acceptor.clone())
            .http1_only()
            .handle(handle.clone());
        let mut http = server.http_builder().http1();
        // Header names are spelled as the control service spells them, for clients that compare them with case.
        http.title_case_headers(true);
        http.max_buf_size(HEADER_BYTES)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME);
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = server.serve(make::Shared::new(service)).await {
                tracing::error!(%error, "The REST API has failed");
            }
        });
        *self.lock() = Some(Running {
            handle,
            _held: end.drop_guard(),
            task,
        });
        Ok(())
    }

    /// Ends it as if its process were killed, and returns when it no longer listens.
    pub(crate) async fn kill(&self) {
        let running = self.lock().take();
        if let Some(mut running) = running {
            running.handle.shutdown();
            while running.task.join_next().await.is_some() {}
        }
    }

    /// Ends it as if its process were killed, without waiting.
    pub(crate) fn close(&self) {
        drop(self.lock().take());
    }

    /// Accepts no more connections, and lets requests in progress end within `patience`.
    pub(crate) fn finish(&self, patience: Duration) {
        if let Some(running) = &*self.lock() {
            running.handle.graceful_shutdown(Some(patience));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Tasks of the server that were spawned elsewhere would go on serving their connections.
        self.handle.shutdown();
    }
}

/// Stops and starts the control service as the plan of faults says. Never returns.
pub(crate) async fn follow_plan(server: Arc<Server>, cluster: Arc<Cluster>) {
    let faults = server.api.faults.clone();
    let mut restarts = faults.read(|plan| plan.control().restarts);
    let mut is_up = true;
    loop {
        let wanted = faults.read(FaultPlan::control);
        if is_up && (wanted.stopped || wanted.restarts > restarts) {
            server.kill().await;
            cluster.stop_control();
            is_up = false;
            tracing::info!("The control service has been stopped, as the plan of faults says");
        }
        restarts = wanted.restarts;
        if !is_up && !wanted.stopped {
            if let Err(error) = server.start() {
                tracing::warn!(%error, "The control service cannot be started again yet; the next attempt follows");
                sleep(RETRY).await;
                continue;
            }
            cluster.start_control();
            is_up = true;
            tracing::info!("The control service has been started again");
        }
        faults.control_is(wanted);
        faults.until(|plan| plan.control() != wanted).await;
    }
}
