//! Repairs the `:authority` that gRPC clients send, so that servers built on hyper and tonic accept their calls.
//!
//! The HTTP/2 implementation under hyper and tonic resets every request whose `:authority` is not a valid one, before
//! any handler sees the request. On a Unix socket there is no host to name, and many clients send something else in
//! its place: grpc-go before 1.31, or with a dialer of the caller, sends the path or the whole target, and everything
//! that is built on gRPC's C core since 1.57 (such as Python's grpcio) sends the path in percent-encoding.
//!
//! [`AuthorityStream`] wraps an accepted connection and replaces the value by `localhost` in the bytes that the server
//! reads. Nothing else changes: the other fields, their representation and the client's HPACK table stay as they are,
//! and what is not HTTP/2, or is malformed, passes unchanged for the server to refuse. Use it where nothing depends on
//! the name by which a client addresses the server, as on a Unix socket.
//!
//! ```no_run
//! # #[cfg(feature = "tonic")]
//! # async fn serve(router: tonic::transport::server::Router) -> Result<(), Box<dyn std::error::Error>> {
//! use grpc_authority::AuthorityStream;
//! use tokio::net::UnixListener;
//! use tokio_stream::{StreamExt, wrappers::UnixListenerStream};
//!
//! let listener = UnixListener::bind("/run/example.sock")?;
//! let connections = UnixListenerStream::new(listener).map(|accepted| accepted.map(AuthorityStream::new));
//! router.serve_with_incoming(connections).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `tonic`, on by default, the stream is [`Connected`](tonic::transport::server::Connected), so that
//! handlers find the connection information of the stream inside, such as the credentials of a Unix socket's peer.
//! Without it the crate needs only tokio's I/O traits, and serves hyper as well.

mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hpack;
mod huffman;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use frames::Rewriter;

/// The most bytes that one read of the connection takes.
const CHUNK: usize = 8 * 1024;

/// A server's connection whose client may send any `:authority`: the server reads `localhost`.
///
/// Writes pass unchanged. A connection keeps at most 64 KiB of an incomplete header block, a buffer of 8 KiB for reads,
/// and the rewritten form of both.
#[derive(Debug)]
pub struct AuthorityStream<S> {
    inner: S,
    rewriter: Rewriter,
    chunk: Box<[u8]>,
    /// Rewritten bytes, of which the server has read the first `taken`.
    ready: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<S> AuthorityStream<S> {
    /// Wraps an accepted connection from which no byte has been read.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            rewriter: Rewriter::default(),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            ready: Vec::new(),
            taken: 0,
            ended: false,
        }
    }

    /// Returns whether the client has sent HTTP/2's whole connection preface, or bytes that cannot be one.
    ///
    /// A server that drains waits for the preface of every client; this says which clients have not begun.
    pub fn is_greeted(&self) -> bool {
        self.rewriter.is_greeted()
    }

    /// Returns the wrapped connection.
    ///
    /// Bytes that are read from it directly are missing from what the server reads.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AuthorityStream<S> {
    /// Reads and rewrites until rewritten bytes are ready or the client has closed its side.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken == self.ready.len() && !self.ended {
            self.ready.clear();
            self.taken = 0;
            let mut chunk = ReadBuf::new(&mut self.chunk);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                self.ended = true;
                self.rewriter.finish(&mut self.ready);
            } else {
                self.rewriter.push(chunk.filled(), &mut self.ready);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_fill(cx))?;
        let rest = this.ready.get(this.taken..).unwrap_or_default();
        let (now, _) = rest.split_at(rest.len().min(buf.remaining()));
        buf.put_slice(now);
        this.taken += now.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(feature = "tonic")]
impl<S: tonic::transport::server::Connected> tonic::transport::server::Connected for AuthorityStream<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests;
