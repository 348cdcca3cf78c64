//! The socket beneath a TLS connection, which can hold back what is written to it.
//!
//! The last bytes of an answer and the alert that ends the connection are two writes of the TLS library; held back until
//! both are there, they are one packet and one system call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// More than this is not held back.
const MOST: usize = 64 * 1024;

pub struct Outlet {
    tcp: TcpStream,
    held: Vec<u8>,
    holds: bool,
    /// Something was written, or is held back.
    has_answered: bool,
    /// What was last tried was to write, and it must wait.
    is_blocked: bool,
    /// Bytes that came in.
    received: u64,
}

impl Outlet {
    pub fn new(tcp: TcpStream) -> Self {
        Self { tcp, held: Vec::new(), holds: false, has_answered: false, is_blocked: false, received: 0 }
    }

    /// Holds back what is written from now on, until it is flushed.
    pub fn hold(&mut self) {
        self.holds = true;
    }

    /// Whether the client was told anything yet.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Ready when it is worthwhile to go on with a handshake that had to wait for the client.
    pub fn poll_client(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_blocked { self.tcp.poll_write_ready(cx) } else { self.tcp.poll_read_ready(cx) }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes that came in so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Lets the client hear what was written before the connection is dropped: see [`linger`](super::linger).
    pub fn linger(&self) {
        super::linger::linger(&self.tcp);
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.held.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsRawFd for Outlet {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_blocked = false;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.received += (buf.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.holds && self.held.len() + buf.len() <= MOST {
            self.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_release(cx))?;
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.has_answered |= written.is_ready();
        self.is_blocked = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.holds = false;
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    /// Closing the socket, which follows, says all that shutdown(2) would.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
