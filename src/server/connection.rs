//! A client's connection, which ends when the plugin stops.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use grpc_authority::AuthorityStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::connections::ConnectionUse;
use super::limits::GREETING_TIME;

/// The two stages in which connections end.
#[derive(Clone, Debug, Default)]
pub(super) struct StopTokens {
    /// No new connection or call begins; existing ones continue.
    pub(super) drain: CancellationToken,
    /// All connections end.
    pub(super) abort: CancellationToken,
}

/// An accepted connection.
///
/// The HTTP/2 server waits indefinitely for a client's first bytes, also while it drains. So a client that has sent none
/// is disconnected after [`GREETING_TIME`] and as soon as the server drains, and every client when it aborts.
#[derive(Debug)]
pub(super) struct Connection {
    inner: AuthorityStream<Either<UnixStream, TcpStream>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    close: Pin<Box<WaitForCancellationFutureOwned>>,
    greeting: Pin<Box<Sleep>>,
    entry: ConnectionUse,
}

impl Connection {
    /// Wraps an accepted stream; `close` ends the connection, also when the server aborts.
    pub(super) fn new(
        stream: Either<UnixStream, TcpStream>,
        stop: &StopTokens,
        close: CancellationToken,
        entry: ConnectionUse,
    ) -> Self {
        Self {
            inner: AuthorityStream::new(stream),
            drain: Box::pin(stop.drain.clone().cancelled_owned()),
            close: Box::pin(close.cancelled_owned()),
            greeting: Box::pin(sleep(GREETING_TIME)),
            entry,
        }
    }

    /// Whether the client has not begun with HTTP/2 and must not do so any more.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        !self.inner.is_greeted()
            && (self.drain.as_mut().poll(cx).is_ready() || self.greeting.as_mut().poll(cx).is_ready())
    }

    /// Returns the inner stream, or fails once the connection has to end; the task is woken when it does.
    fn inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> io::Result<Pin<&mut AuthorityStream<Either<UnixStream, TcpStream>>>> {
        if self.close.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the plugin is stopping, or another client needs the connection",
            ));
        }
        Ok(Pin::new(&mut self.inner))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.inner(cx)?.poll_read(cx, buf);
        if read.is_pending() && self.is_late(cx) {
            // The server reads this as the end of the stream.
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner(cx)?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner(cx)?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner(cx)?.poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionUse;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.entry.clone()
    }
}
