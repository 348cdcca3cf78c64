//! A connection whose handshake is done, in the shape Pingora serves.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use openssl::ssl::SslRef;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_openssl::SslStream;

use super::connection::{Connection, Progress};
use super::outlet::Outlet;
use super::overhead::Overhead;
use crate::framing::Fault;
use crate::framing::chunks::Chunks;
use crate::framing::frames::Frames;

/// How long a client may take to receive our close_notify before the socket is simply closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What one TLS record holds at most (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The TLS stream together with what is known about its client.
pub struct ClientStream {
    tls: SslStream<Outlet>,
    /// Pingora hands this to every request; it is how a request finds its connection.
    digest: Arc<ProxyDigest>,
    connection: Arc<Connection>,
    socket: Arc<SocketDigest>,
    established: SystemTime,
    handshake: Duration,
    /// Bytes that were read and given back.
    unread: Vec<u8>,
    watched: Watched,
    overhead: Overhead,
    /// What is to be written, until it fills a TLS record or is flushed; only where the writer says when.
    gathered: Option<Vec<u8>>,
}

impl ClientStream {
    pub fn new(tls: SslStream<Outlet>, connection: Arc<Connection>, handshake: Duration) -> io::Result<Self> {
        let response = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        let digest = Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(connection.clone()))));
        let socket = Arc::new(SocketDigest::from_raw_fd(tls.get_ref().as_raw_fd()));
        let overhead = Overhead::new(tls.get_ref().received(), Instant::now());
        Ok(Self {
            tls,
            overhead,
            digest,
            connection,
            socket,
            established: SystemTime::now(),
            handshake,
            unread: Vec::new(),
            watched: Watched::Nothing,
            gathered: None,
        })
    }
}

/// What a client sends that somebody else reads.
#[derive(Default)]
pub enum Watched {
    #[default]
    Nothing,
    /// A body in chunks.
    Body(Box<Chunks>),
    Frames(Box<Frames>),
}

impl Watched {
    fn watch(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Nothing => Ok(()),
            Self::Body(body) => body.watch(bytes),
            Self::Frames(frames) => frames.watch(bytes, Instant::now),
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Self::Frames(frames) = self {
            frames.sent(bytes);
        }
    }
}

impl ClientStream {
    /// Holds back what is written from now on, until it is flushed or the connection is shut down.
    pub fn hold(&mut self) {
        self.tls.get_mut().hold();
    }

    /// Gathers what is written from now on into whole TLS records, until it is flushed. A writer of many small pieces that
    /// flushes after them (HTTP/2: the head of a frame, then its payload) else makes a record and a packet of each.
    pub fn gather(&mut self) {
        self.gathered.get_or_insert_default();
    }

    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(gathered) = &mut self.gathered else { return Poll::Ready(Ok(())) };
        while !gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.tls).poll_write(cx, gathered))?;
            self.watched.sent(written);
            match written {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written if written == gathered.len() => *gathered = Vec::new(),
                written => drop(gathered.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whoever serves a connection that was cut learns it from its stream, as if the client had gone.
    fn check_cut(&self) -> io::Result<()> {
        if self.connection.is_cut() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// After a fault was noted.
    fn fails(&self) -> Poll<io::Result<()>> {
        match self.watched {
            // Whoever serves the connection looks for the fault next, and says goodbye.
            Watched::Frames(_) => Poll::Pending,
            Watched::Nothing | Watched::Body(_) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Whether the client keeps the library busy with what carries nothing.
    fn sends_too_much_overhead(&mut self) -> bool {
        let is_too_much = self.overhead.is_too_much(self.tls.get_ref().received(), Instant::now);
        if is_too_much {
            self.connection.set_fault(Fault::Overhead);
        }
        is_too_much
    }

    /// Whether no further request is to be read.
    pub fn is_retiring(&self) -> bool {
        self.connection.progress() > Progress::Open
    }

    /// From now on, what is read from the client must be this.
    pub fn watch(&mut self, watched: Watched) {
        self.watched = watched;
    }

    /// Gives bytes back, which are the next ones to be read.
    pub fn unread(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.unread.is_empty(), "one reader at a time");
        self.unread = bytes;
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.connection.lingers() {
            self.tls.get_ref().linger();
        }
    }
}

/// The connection that a request came in on.
pub fn connection_of(digest: &ProxyDigest) -> Option<&Arc<Connection>> {
    digest.user_data.as_ref()?.downcast_ref()
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut()?;
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..taken]);
            self.unread.drain(..taken);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tls).poll_read(cx, buf);
        self.overhead.carried(buf.filled().len() - before);
        if self.sends_too_much_overhead() {
            buf.set_filled(before);
            return self.fails();
        }
        ready!(read)?;
        if let Err(fault) = self.watched.watch(&buf.filled()[before..]) {
            // Not a byte of it is for whoever reads.
            buf.set_filled(before);
            self.connection.set_fault(fault);
            return self.fails();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check_cut()?;
        match &mut self.gathered {
            None => Pin::new(&mut self.tls).poll_write(cx, buf),
            Some(gathered) if gathered.len() + buf.len() <= RECORD => {
                gathered.extend_from_slice(buf);
                Poll::Ready(Ok(buf.len()))
            }
            Some(_) => {
                ready!(self.poll_write_gathered(cx))?;
                let written = ready!(Pin::new(&mut self.tls).poll_write(cx, buf))?;
                self.watched.sent(written);
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_cut()?;
        ready!(self.poll_write_gathered(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // A client that is gone or does not read cannot be told; the socket closes either way.
        let _ = within(CLOSE_TIMEOUT, AsyncWriteExt::shutdown(self)).await;
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.tls.get_ref().as_raw_fd()
    }
}

impl Ssl for ClientStream {
    fn get_ssl(&self) -> Option<&SslRef> {
        Some(self.tls.ssl())
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        None
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self.tls.ssl().selected_alpn_protocol()? {
            b"h2" => Some(ALPN::H2),
            b"http/1.1" => Some(ALPN::H1),
            _ => None,
        }
    }
}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest {
            established_ts: self.established,
            establishment_duration: Some(self.handshake),
            offload_wait_duration: None,
        })]
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl Peek for ClientStream {}

impl std::fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientStream").field("fd", &self.tls.get_ref().as_raw_fd()).finish_non_exhaustive()
    }
}
