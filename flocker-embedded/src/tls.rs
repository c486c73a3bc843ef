//! Mutual TLS as the control service does it: a client whose certificate is issued by the cluster's authority for a
//! common name `user-…` may use the whole API, any other is refused in the handshake.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslOptions, SslSessionCacheMode, SslVerifyMode};
use openssl::x509::{X509Ref, X509StoreContextRef, X509VerifyResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::counters::{Counted, Counting};
use crate::pki::Pki;

/// The prefix of every client's common name.
const USER_PREFIX: &str = "user-";

/// OpenSSL's code for an unspecified error. The client receives it as the alert `internal_error`, which is what
/// Flocker sends to a client whose certificate is not a user's.
const UNSPECIFIED: i32 = 1;

const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a refused client may take to read the alert.
const ALERT_TIME: Duration = Duration::from_secs(2);

/// The maximum number of handshakes at the same time; one more ends the oldest, which is the likeliest not to go on.
const HANDSHAKES: usize = 64;
/// The maximum number of clients. The control service has no limit; a plugin has five connections.
const CLIENTS: usize = 512;

/// Performs the handshake with every client, and counts the connection before.
#[derive(Clone)]
pub(crate) struct Acceptor {
    ssl: Arc<SslAcceptor>,
    counting: Arc<Counting>,
    handshakes: Arc<Mutex<VecDeque<CancellationToken>>>,
    clients: Arc<Semaphore>,
}

impl Acceptor {
    pub(crate) fn new(pki: &Pki, counting: Arc<Counting>) -> Result<Self, ErrorStack> {
        Ok(Self {
            ssl: Arc::new(configuration(pki)?),
            counting,
            handshakes: Arc::default(),
            clients: Arc::new(Semaphore::new(CLIENTS)),
        })
    }

    /// Begins a handshake; its token is cancelled when it has to make room for another.
    fn begin_handshake(&self) -> Handshake {
        let ends = CancellationToken::new();
        let mut handshakes = self.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.retain(|handshake| !handshake.is_cancelled());
        if handshakes.len() >= HANDSHAKES
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.cancel();
        }
        handshakes.push_back(ends.clone());
        Handshake(ends)
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = SslStream<TcpStream>;
    type Service = Served<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let open = self.counting.connection();
        let ssl = Ssl::new(self.ssl.context());
        let handshake = self.begin_handshake();
        let clients = Arc::clone(&self.clients);
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let stream = SslStream::new(ssl?, stream)?;
            let shaken = handshake.0.run_until_cancelled(shake_hands(stream)).await;
            let stream = shaken.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
            let Ok(permit) = clients.try_acquire_owned() else {
                tracing::warn!("{CLIENTS} clients are connected, the maximum; another one is refused");
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            drop(handshake);
            let open = Arc::new((open, permit));
            Ok((stream, Served { service, _open: open }))
        })
    }
}

/// A handshake, which is over when this is dropped.
struct Handshake(CancellationToken);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The service of one connection, which counts as open until this is dropped.
#[derive(Clone)]
pub(crate) struct Served<S> {
    service: S,
    _open: Arc<(Counted, OwnedSemaphorePermit)>,
}

impl<S: Service<R>, R> Service<R> for Served<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}

async fn shake_hands(mut stream: SslStream<TcpStream>) -> io::Result<SslStream<TcpStream>> {
    let Ok(outcome) = timeout(HANDSHAKE_TIME, Pin::new(&mut stream).accept()).await else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "Refused a client");
        // Closing with unread bytes would reset the connection, and the client would lose the alert.
        let send_alert = async {
            let stream = stream.get_mut();
            stream.shutdown().await?;
            while stream.read(&mut [0; 1024]).await? > 0 {}
            Ok::<(), io::Error>(())
        };
        match timeout(ALERT_TIME, send_alert).await {
            // The client has closed the connection, or does not; the answer is the same.
            Ok(_) | Err(_) => return Err(io::Error::other(error)),
        }
    }
    Ok(stream)
}

/// Returns the server's side of TLS 1.2 and 1.3.
fn configuration(pki: &Pki) -> Result<SslAcceptor, ErrorStack> {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    acceptor.set_private_key(pki.control.key())?;
    acceptor.set_certificate(pki.control.certificate())?;
    acceptor.add_extra_chain_cert(pki.authority.certificate().clone())?;
    acceptor
        .cert_store_mut()
        .add_cert(pki.authority.certificate().clone())?;
    acceptor.set_verify_callback(
        SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        is_user_of_the_cluster,
    );
    // The control service creates a new context for each connection, so no session can be resumed.
    acceptor.set_session_cache_mode(SslSessionCacheMode::OFF);
    acceptor.set_options(SslOptions::NO_TICKET);
    acceptor.set_num_tickets(0)?;
    Ok(acceptor.build())
}

/// Verifies one certificate of the client's chain, after OpenSSL has.
#[allow(unsafe_code, reason = "the crate has no safe name for this code")]
fn is_user_of_the_cluster(verified: bool, context: &mut X509StoreContextRef) -> bool {
    if !verified {
        return false;
    }
    let is_client = context.error_depth() == 0;
    if is_client && !context.current_cert().is_some_and(is_user) {
        // SAFETY: any number is a valid code to OpenSSL, and this one has a meaning.
        context.set_error(unsafe { X509VerifyResult::from_raw(UNSPECIFIED) });
        return false;
    }
    true
}

fn is_user(certificate: &X509Ref) -> bool {
    let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    names.any(|name| {
        name.data()
            .to_string()
            .is_ok_and(|name| name.starts_with(USER_PREFIX))
    })
}
