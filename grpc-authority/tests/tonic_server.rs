//! A tonic server on a Unix socket, called by a client that sends the socket's path as `:authority`.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in test functions; this is for what they have in common"
)]

use std::path::Path;

use grpc_authority::AuthorityStream;
use httlib_hpack::Encoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router, UdsConnectInfo};
use tonic::{Request, Status};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How the server ended a call.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// With this message.
    Answered(Vec<u8>),
    /// With an error of HTTP/2.
    Reset(u32),
}

/// The error that a malformed request is reset with (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;

/// A gRPC message with the one field of a health check's answer: SERVING.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];

/// Sends a health check with an `:authority`, and returns how it ended.
async fn check_health(socket: &Path, authority: &str) -> Ended {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let sent = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[]),
        &frame(HEADERS, END_HEADERS, 1, &headers(authority)),
        &frame(DATA, END_STREAM, 1, &[0; 5]),
    ]
    .concat();
    stream.write_all(&sent).await.unwrap();
    let mut data = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        match kind {
            SETTINGS if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
            }
            DATA => data.extend(payload),
            HEADERS if flags & END_STREAM != 0 => return Ended::Answered(data),
            RST_STREAM => return Ended::Reset(u32::from_be_bytes(payload.try_into().unwrap())),
            _ => {}
        }
    }
}

fn headers(authority: &str) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        let field = (
            name.as_bytes().to_vec(),
            value.as_bytes().to_vec(),
            Encoder::WITH_INDEXING,
        );
        encoder.encode(field, &mut block).unwrap();
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A health service for clients whose process the connection information names: this one.
fn router() -> Router {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let of_this_process = |request: Request<()>| {
        let peer = request.extensions().get::<UdsConnectInfo>();
        match peer.and_then(|peer| peer.peer_cred?.pid()) {
            Some(process) if process.unsigned_abs() == std::process::id() => Ok(request),
            other => Err(Status::permission_denied(format!("called by {other:?}"))),
        }
    };
    Server::builder().add_service(InterceptedService::new(health, of_this_process))
}

/// Serves on a Unix socket, calls it with its path and with `localhost` as `:authority`, and returns how that ended.
async fn call_by_path_and_by_name<S>(wrap: fn(UnixStream) -> S) -> [Ended; 2]
where
    S: AsyncRead + AsyncWrite + Connected<ConnectInfo = UdsConnectInfo> + Send + Unpin + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("health.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let connections = UnixListenerStream::new(listener).map(move |accepted| accepted.map(wrap));
    let serving = tokio::spawn(router().serve_with_incoming(connections));
    let ended = [
        check_health(&socket, socket.to_str().unwrap()).await,
        check_health(&socket, "localhost").await,
    ];
    serving.abort();
    ended
}

#[tokio::test]
async fn a_client_that_sends_the_path_of_the_socket_is_answered() {
    let answered = || Ended::Answered(SERVING.to_vec());
    assert_eq!(
        call_by_path_and_by_name(AuthorityStream::new).await,
        [answered(), answered()]
    );
}

/// Once this fails, tonic accepts such clients by itself, and this crate has served its purpose.
#[tokio::test]
async fn without_the_repair_the_same_call_is_reset() {
    assert_eq!(
        call_by_path_and_by_name(std::convert::identity).await,
        [Ended::Reset(PROTOCOL_ERROR), Ended::Answered(SERVING.to_vec())]
    );
}
