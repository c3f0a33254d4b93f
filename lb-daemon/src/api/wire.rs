//! A client's socket as answers are written to it: who takes nothing of what is written for too long is let go, and so gives his
//! place up. Nobody waits here for whoever reads, however slowly.
//!
//! One who follows the events has a small buffer in the kernel: else hours of silence would fit into it before it is seen that he
//! does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;

use super::client::Client;

/// How long nothing may be taken of what is written.
pub const STALL_MAX: Duration = Duration::from_secs(30);
/// What the kernel keeps for one who follows, in bytes; each write costs it some 800 at least.
const FOLLOWER_BUFFER: usize = 8 << 10;

/// See the module.
pub struct Wire {
    stream: UnixStream,
    client: Arc<Client>,
    patience: Duration,
    /// Runs while nothing is taken.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Has the small buffer.
    follows: bool,
}

impl Wire {
    pub fn new(stream: UnixStream, client: Arc<Client>, patience: Duration) -> Self {
        Self { stream, client, patience, stalled: None, follows: false }
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        let words = format!("nothing was taken for {patience:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, words)))
    }

    /// Makes the buffer small when the client has begun to follow.
    fn narrow(&mut self) {
        if !self.follows && self.client.is_following() {
            self.follows = true;
            if let Err(error) = setsockopt(&self.stream, sockopt::SndBuf, &FOLLOWER_BUFFER) {
                tracing::debug!("the buffer of a client that follows stays large: {error}");
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.narrow();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.narrow();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, parts);
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
