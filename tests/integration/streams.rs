//! The bytes that real clients sent on a CSI socket, replayed.
//!
//! `csc` in two builds and Python's grpcio, with every endpoint form that each supports. Most of them put
//! something into `:authority` that the HTTP/2 implementation refuses.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use flocker_csi::config::Endpoint;
use futures::stream::{self, StreamExt};
use grpc_authority::AuthorityStream;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::recorder::{PATIENCE, ReceivedCall, Served, call, wait_until};

#[derive(Deserialize)]
struct Recording {
    client: String,
    endpoint: String,
    command: String,
    calls: Vec<RecordedCall>,
    /// Of each connection, in hexadecimal digits.
    bytes: Vec<String>,
}

#[derive(Deserialize)]
struct RecordedCall {
    path: String,
    message: String,
}

impl Recording {
    fn name(&self) -> String {
        format!("{}: {} on {}", self.client, self.command, self.endpoint)
    }

    fn is_tcp(&self) -> bool {
        self.endpoint.starts_with("tcp://")
    }

    fn connections(&self) -> impl Iterator<Item = Vec<u8>> {
        self.bytes.iter().map(|bytes| unhex(bytes))
    }

    /// The calls that the services must get.
    fn expected(&self) -> Vec<ReceivedCall> {
        self.calls
            .iter()
            .map(|it| call(&it.path, &unhex(&it.message)))
            .collect()
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn recordings() -> Vec<Recording> {
    let recordings: Vec<Recording> = include_str!("../data/client-streams.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(recordings.len(), 45, "recorded streams");
    assert_eq!(
        recordings.iter().filter(|it| it.is_tcp()).count(),
        3,
        "streams over TCP"
    );
    recordings
}
/// Two servers with recording services, one on a Unix socket and one on TCP.
struct Servers {
    unix: Served,
    tcp: Served,
    _directory: tempfile::TempDir,
}

impl Servers {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = Endpoint::Unix(directory.path().join("csi.sock"));
        let tcp = "tcp://127.0.0.1:0".parse().unwrap();
        Self {
            unix: Served::start(&socket, true, PATIENCE).await,
            tcp: Served::start(&tcp, true, PATIENCE).await,
            _directory: directory,
        }
    }

    /// Replays a recording in the pieces that `cut` makes of each connection, and checks the calls that reached the
    /// services.
    async fn play(&self, recording: &Recording, cut: impl Fn(Vec<u8>) -> Vec<Vec<u8>>) {
        let served = if recording.is_tcp() { &self.tcp } else { &self.unix };
        let mut connections = Vec::new();
        for bytes in recording.connections() {
            let mut client = Client::connect(&served.endpoint).await;
            for piece in cut(bytes) {
                client.send(&piece).await;
            }
            connections.push(client);
        }
        let calls = served.recorder.take(recording.calls.len()).await;
        assert_eq!(calls, recording.expected(), "{}", recording.name());
    }

    async fn stop(self) {
        self.unix.stop().await;
        self.tcp.stop().await;
    }
}

/// The client's end of a connection. The server's answers are left unread.
enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    async fn connect(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(path) => Self::Unix(UnixStream::connect(path).await.unwrap()),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Self::Tcp(stream)
            }
        }
    }

    /// Sends a piece and, on a Unix socket, waits until the server has read it; TCP does not report that.
    async fn send(&mut self, piece: &[u8]) {
        match self {
            Self::Unix(stream) => {
                write(stream, piece).await;
                wait_until(|| unread(stream) == 0, "the server to read").await;
            }
            Self::Tcp(stream) => write(stream, piece).await,
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), piece: &[u8]) {
    stream.write_all(piece).await.unwrap();
    stream.flush().await.unwrap();
}

/// Returns how many sent bytes on a Unix socket have not been read.
#[allow(unsafe_code, reason = "no dependency wraps SIOCOUTQ")]
fn unread(stream: &UnixStream) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the kernel writes one int to
    // `bytes`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes
}

/// Cuts what was sent into single bytes.
fn bytewise(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.iter().map(|byte| vec![*byte]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_stream_reaches_its_calls() {
    let servers = Servers::start().await;
    for recording in &recordings() {
        servers.play(recording, |bytes| vec![bytes]).await;
    }
    servers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_stream_reaches_its_calls_one_byte_at_a_time() {
    let servers = Servers::start().await;
    for recording in &recordings() {
        servers.play(recording, |bytes| bytewise(&bytes)).await;
    }
    servers.stop().await;
}

/// The number of concurrent replays, each with servers of its own: they mostly wait for the server.
const TOGETHER: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_stream_reaches_its_calls_cut_at_every_position() {
    let played = stream::iter(recordings()).map(|recording| async move {
        let servers = Servers::start().await;
        let longest = recording.connections().map(|bytes| bytes.len()).max().unwrap();
        for position in 1..longest {
            let cut = |bytes: Vec<u8>| {
                let (first, second) = bytes.split_at(position.min(bytes.len()));
                vec![first.to_vec(), second.to_vec()]
            };
            servers.play(&recording, cut).await;
        }
        servers.stop().await;
    });
    let played = played.buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
    assert_eq!(played.len(), 45);
}

/// A stream that returns one piece per read.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            buf.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

async fn rewritten(pieces: Vec<Vec<u8>>) -> Vec<u8> {
    // An empty piece would be read as the end.
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let mut read = Vec::new();
    AuthorityStream::new(Pieces(pieces))
        .read_to_end(&mut read)
        .await
        .unwrap();
    read
}

#[tokio::test]
async fn a_recorded_stream_is_rewritten_the_same_however_it_is_cut() {
    for recording in recordings() {
        for bytes in recording.connections() {
            let whole = rewritten(vec![bytes.clone()]).await;
            assert_eq!(
                rewritten(bytewise(&bytes)).await,
                whole,
                "{} one byte at a time",
                recording.name()
            );
            for position in 1..bytes.len() {
                let (first, second) = bytes.split_at(position);
                let cut = rewritten(vec![first.to_vec(), second.to_vec()]).await;
                assert_eq!(cut, whole, "{} cut at {position}", recording.name());
            }
        }
    }
}

/// Returns the frames of a client's side of a connection that hold no headers.
fn frames_without_headers(bytes: &[u8]) -> Vec<&[u8]> {
    let mut rest = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let (frame, after) = rest.split_at(9 + len);
        if frame[3] != 1 {
            frames.push(frame);
        }
        rest = after;
    }
    frames
}

#[tokio::test]
async fn nothing_but_headers_is_rewritten() {
    for recording in recordings() {
        for bytes in recording.connections() {
            let rewritten = rewritten(vec![bytes.clone()]).await;
            let frames = frames_without_headers(&rewritten);
            assert_eq!(frames, frames_without_headers(&bytes), "{}", recording.name());
            for call in &recording.calls {
                let message = unhex(&call.message);
                assert!(
                    frames.iter().any(|it| it[3] == 0 && it.ends_with(&message)),
                    "{}",
                    recording.name()
                );
            }
        }
    }
}
