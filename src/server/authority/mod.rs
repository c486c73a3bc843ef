//! Lets clients in that put the socket's path, or anything else, into `:authority`.
//!
//! The HTTP/2 implementation under tonic resets every request whose `:authority` is no valid one, before any
//! handler sees it. Many gRPC clients send the path of the socket there, or the whole endpoint as it was
//! written: `csc` in its released build, and whatever is built on gRPC's C core since 1.57. So each accepted
//! connection is wrapped in an [`AuthorityStream`], which replaces the value by `localhost` in the bytes on
//! their way in. Nothing else is changed, and on a CSI socket nothing depends on the value.

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

/// How much is read from the connection at a time.
const CHUNK: usize = 8 * 1024;

/// A server's connection whose client may say what it likes in `:authority`.
///
/// What is written goes out untouched. A connection keeps at most 64 KiB of an incomplete header block, one
/// chunk of 8 KiB, and what these become when rewritten.
#[derive(Debug)]
pub struct AuthorityStream<S> {
    inner: S,
    rewriter: Rewriter,
    chunk: Box<[u8]>,
    /// Rewritten bytes, of which the first `taken` have been read.
    ready: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<S> AuthorityStream<S> {
    /// Wraps an accepted connection of which nothing has been read.
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

    /// Returns whether the client has sent enough to be an HTTP/2 client, or something that is none.
    pub fn is_greeted(&self) -> bool {
        self.rewriter.is_greeted()
    }
}

impl<S: AsyncRead + Unpin> AuthorityStream<S> {
    /// Reads and rewrites until there is something to hand out or the client has closed its side.
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

#[cfg(test)]
mod tests;
