//! A client of HTTP/2 that keeps to no limit but those without which a server reads nothing.

use std::path::Path;
use std::time::Duration;

use httlib_hpack::Encoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much data a client may send on a new connection.
const WINDOW: i64 = 65_535;
/// The setting by which a client permits no data.
pub(crate) const NO_DATA: [u8; 6] = [0, 4, 0, 0, 0, 0];
/// How long an attacker waits for permission to send more data.
const PERMISSION: Duration = Duration::from_secs(2);

/// What a server did with a connection.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whether it announced the end of the connection.
    pub(crate) goaway: bool,
}

/// A connection whose server's pings are answered.
pub(crate) struct Attacker {
    pub(crate) write: OwnedWriteHalf,
    seen: JoinHandle<Seen>,
    /// How much data the server permits, in total.
    permitted: watch::Receiver<i64>,
    sent: i64,
}

impl Attacker {
    /// Connects and begins with HTTP/2.
    pub(crate) async fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, &[]).await
    }

    /// As [`Self::connect`], with settings.
    pub(crate) async fn connect_with(socket: &Path, settings: &[u8]) -> Self {
        let (read, mut write) = UnixStream::connect(socket).await.unwrap().into_split();
        let begun = [
            PREFACE,
            &frame(SETTINGS, 0, 0, settings),
            &frame(SETTINGS, ACK, 0, &[]),
        ]
        .concat();
        write.write_all(&begun).await.unwrap();
        let (permit, permitted) = watch::channel(WINDOW);
        Self {
            write,
            seen: tokio::spawn(observe(read, permit)),
            permitted,
            sent: 0,
        }
    }

    /// Sends data once the server permits it for the connection; returns whether it has.
    pub(crate) async fn send_data(&mut self, stream: u32, flags: u8, data: &[u8]) -> bool {
        self.sent += i64::try_from(data.len()).unwrap();
        let sent = self.sent;
        let permitted = self.permitted.wait_for(|permitted| *permitted >= sent);
        let permitted = matches!(timeout(PERMISSION, permitted).await, Ok(Ok(_)));
        permitted && self.send(&frame(DATA, flags, stream, data)).await
    }

    /// Sends bytes; returns whether the server still takes any.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// Returns what the server did, once it has closed the connection.
    pub(crate) async fn closed(self) -> Seen {
        self.seen.await.unwrap()
    }

    /// Closes the connection.
    pub(crate) async fn leave(self) {
        drop(self.write);
        self.seen.abort();
        self.seen.await.ok();
    }
}

/// Reads until the server closes the connection.
async fn observe(mut read: OwnedReadHalf, permit: watch::Sender<i64>) -> Seen {
    let mut seen = Seen::default();
    loop {
        let mut head = [0; 9];
        if read.read_exact(&mut head).await.is_err() {
            return seen;
        }
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if read.read_exact(&mut payload).await.is_err() {
            return seen;
        }
        match kind {
            GOAWAY => seen.goaway = true,
            WINDOW_UPDATE if head[5..] == [0; 4] => {
                let more = u32::from_be_bytes(payload.try_into().unwrap());
                permit.send_modify(|permitted| *permitted += i64::from(more));
            }
            _ => {}
        }
    }
}

/// Returns one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the header block of a call.
pub(crate) fn headers(method: &str) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        let field = (
            name.as_bytes().to_vec(),
            value.as_bytes().to_vec(),
            Encoder::NEVER_INDEXED,
        );
        encoder.encode(field, &mut block).unwrap();
    }
    block
}

/// Returns the beginning of a message that announces `length` bytes.
pub(crate) fn announced(length: u32, sent: &[u8]) -> Vec<u8> {
    [&[0], &length.to_be_bytes()[..], sent].concat()
}
