//! A gRPC call as a kubelet makes it: with the socket's path, escaped, as `:authority`.
//!
//! Rust's clients cannot send that, so this module writes the frames of HTTP/2 itself.

use std::path::Path;

use httlib_hpack::Encoder;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Calls a method of the registration over a connection of its own.
pub(super) async fn call<A: Message + Default>(socket: &Path, method: &str, question: impl Message) -> A {
    let answer = timeout(PATIENCE, answer(socket, method, question.encode_to_vec()));
    let answer = answer
        .await
        .unwrap_or_else(|_| panic!("{method} is answered in time"));
    let message = answer.get(5..).unwrap_or_else(|| panic!("{method} failed"));
    A::decode(message).unwrap()
}

/// Returns the data of the answer, which is none when the call failed.
async fn answer(socket: &Path, method: &str, message: Vec<u8>) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let data = [&[0], &length[..], &message].concat();
    let sent = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &headers(socket, method)),
        frame(DATA, END_STREAM, 1, &data),
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
            HEADERS if flags & END_STREAM != 0 => return data,
            _ => {}
        }
    }
}

fn headers(socket: &Path, method: &str) -> Vec<u8> {
    let authority = socket.to_str().unwrap().replace('/', "%2F");
    let path = format!("/pluginregistration.Registration/{method}");
    let mut encoder = Encoder::default();
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &*path),
        (":authority", &*authority),
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

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
