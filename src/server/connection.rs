//! A client's connection, which ends when the plugin stops.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use grpc_authority::AuthorityStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

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
/// is disconnected as soon as the server drains, and every client when it aborts.
#[derive(Debug)]
pub(super) struct Connection {
    inner: AuthorityStream<Either<UnixStream, TcpStream>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    pub(super) fn new(stream: Either<UnixStream, TcpStream>, stop: &StopTokens) -> Self {
        Self {
            inner: AuthorityStream::new(stream),
            drain: Box::pin(stop.drain.clone().cancelled_owned()),
            abort: Box::pin(stop.abort.clone().cancelled_owned()),
        }
    }

    /// Returns the inner stream, or fails once the server has aborted; the task is woken when it does.
    fn inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> io::Result<Pin<&mut AuthorityStream<Either<UnixStream, TcpStream>>>> {
        if self.abort.as_mut().poll(cx).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the plugin is stopping",
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
        if read.is_pending() && !self.inner.is_greeted() && self.drain.as_mut().poll(cx).is_ready() {
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
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
