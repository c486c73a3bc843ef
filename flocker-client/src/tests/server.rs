//! A TLS server that behaves like the control service and records its requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use openssl::{
    nid::Nid,
    ssl::{HandshakeError, SslAcceptor, SslMethod, SslStream, SslVerifyMode, SslVersion},
    x509::store::X509StoreBuilder,
};

use super::pki::{Authority, Issued};

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// What the server does with a request.
pub(crate) enum Reply {
    /// Answers and keeps the connection.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Answers and closes the connection.
    Last { body: Vec<u8> },
    /// Promises more than it sends, then closes the connection.
    Half,
    /// Closes the connection without an answer.
    Close,
    /// Never answers.
    Silence,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::json(200, body)
    }

    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer {
            status,
            headers: vec![json_content()],
            body: body.into(),
        }
    }
}

fn json_content() -> (&'static str, String) {
    ("Content-Type", "application/json".to_owned())
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; dropping it stops it from accepting.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    accepted: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub(crate) fn start(
        tls: SslAcceptor,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), tls, handler)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        tls: SslAcceptor,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let server = Self {
            address,
            seen: seen.clone(),
            stopping: stopping.clone(),
        };
        let (tls, handler): (_, Arc<Handler>) = (Arc::new(tls), Arc::new(handler));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                seen.accepted.fetch_add(1, Ordering::SeqCst);
                let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                thread::spawn(move || match tls.accept(stream) {
                    Ok(stream) => serve(stream, &*handler, &seen),
                    Err(HandshakeError::Failure(refused)) => linger(refused.get_ref()),
                    Err(_) => {}
                });
            }
        });
        server
    }

    /// Starts a server that answers everything with a version.
    pub(crate) fn of_version(tls: SslAcceptor) -> Self {
        Self::start(tls, |_| Reply::ok(r#"{"flocker": "1.15.0"}"#))
    }

    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Returns `METHOD path` of every request so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails, the thread has already ended.
        drop(TcpStream::connect(self.address));
    }
}

/// Returns the TLS configuration of a control service, which accepts only users of its cluster.
pub(crate) fn tls(authority: &Authority, certificate: &Issued, version: SslVersion) -> SslAcceptor {
    let mut tls = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    tls.set_min_proto_version(Some(version)).unwrap();
    tls.set_max_proto_version(Some(version)).unwrap();
    tls.set_certificate(&certificate.certificate).unwrap();
    tls.set_private_key(&certificate.key).unwrap();
    let mut store = X509StoreBuilder::new().unwrap();
    store.add_cert(authority.certificate.clone()).unwrap();
    tls.set_verify_cert_store(store.build()).unwrap();
    tls.set_verify_callback(
        SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        |valid, context| {
            let leaf = context.error_depth() == 0;
            let user = context.current_cert().is_some_and(|certificate| {
                let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
                name.is_some_and(|name| name.data().as_slice().starts_with(b"user-"))
            });
            valid && (user || !leaf)
        },
    );
    tls.build()
}

/// Returns the TLS 1.3 configuration of the control service of an authority.
pub(crate) fn stock_tls(authority: &Authority) -> SslAcceptor {
    tls(authority, &authority.control(), SslVersion::TLS1_3)
}

/// Waits for the client to close a connection on which an alert has been sent.
///
/// If the server closed it first, with the client's request unread, the client might not receive the alert.
fn linger(mut stream: &TcpStream) {
    drop(stream.shutdown(Shutdown::Write));
    drop(std::io::copy(&mut stream, &mut std::io::sink()));
}

fn serve(stream: SslStream<TcpStream>, handler: &Handler, seen: &Seen) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        seen.requests.lock().unwrap().push(request.clone());
        let tls = stream.get_mut();
        let sent = match handler(&request) {
            Reply::Answer {
                status,
                headers,
                body,
            } => answer(tls, status, &headers, &body).is_ok(),
            Reply::Last { body } => {
                let headers = [json_content(), ("Connection", "close".to_owned())];
                drop(answer(tls, 200, &headers, &body));
                drop(tls.shutdown());
                false
            }
            Reply::Half => {
                drop(tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{"));
                false
            }
            Reply::Close => false,
            Reply::Silence => {
                // Returns when the client closes the connection.
                drop(tls.read(&mut [0]));
                false
            }
        };
        if !sent {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Request { method, path, body })
}

/// Answers in chunks, as the control service does.
fn answer(
    stream: &mut impl Write,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Status\r\nTransfer-Encoding: chunked\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    for chunk in body.chunks(1 << 16) {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}

/// Returns an address that accepts connections and never sends anything.
pub(crate) fn mute() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
