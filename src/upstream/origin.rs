//! Connections of our own to endpoints that speak plain HTTP/1.1, kept alive between requests.
//!
//! Each worker thread keeps those it opened: nothing is shared, so nothing is locked. (Connections with TLS or HTTP/2
//! are Pingora's, in its own pool.)

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Idle connections of one worker thread, in all.
const MOST_IDLE: usize = 2048;

/// How often those whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What one read takes at most.
const READ: usize = 32 * 1024;

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
    /// Where bytes land first: a connection that waits for an answer holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A connection to an endpoint.
pub struct Origin {
    address: SocketAddr,
    tcp: TcpStream,
    reused: bool,
}

impl Origin {
    /// One that is idle, if there is one that is still open.
    pub fn kept(address: SocketAddr) -> Option<Self> {
        IDLE.with_borrow_mut(|idle| idle.take(address)).map(|tcp| Self { address, tcp, reused: true })
    }

    pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let connecting = tokio::time::timeout(limit, TcpStream::connect(address));
        let tcp = connecting.await.map_err(|_| io::ErrorKind::TimedOut)??;
        // A request is written at once and whole; nothing is gained by waiting for more.
        tcp.set_nodelay(true)?;
        Ok(Self { address, tcp, reused: false })
    }

    /// Whether it had served another request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    /// Appends what has arrived to `buffer`, and says how much that is; 0 at the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Keeps it for the next request, for at most `idle`.
    pub fn keep(self, idle: Duration) {
        let until = Instant::now() + idle;
        IDLE.with_borrow_mut(|all| all.put(self.address, self.tcp, until));
    }
}

#[derive(Default)]
struct Idle {
    by_address: AHashMap<SocketAddr, Vec<(TcpStream, Instant)>>,
    count: usize,
    sweeping: bool,
}

impl Idle {
    /// The one used last: those that are not needed grow old and are closed.
    fn take(&mut self, address: SocketAddr) -> Option<TcpStream> {
        let kept = self.by_address.get_mut(&address)?;
        while let Some((tcp, until)) = kept.pop() {
            self.count -= 1;
            if until > Instant::now() && is_silent(&tcp) {
                return Some(tcp);
            }
        }
        None
    }

    fn put(&mut self, address: SocketAddr, tcp: TcpStream, until: Instant) {
        if self.count >= MOST_IDLE {
            return;
        }
        self.count += 1;
        self.by_address.entry(address).or_default().push((tcp, until));
        if !std::mem::replace(&mut self.sweeping, true) {
            tokio::spawn(sweep());
        }
    }

    /// Closes those whose time is over; whether any are left.
    fn close_old(&mut self, now: Instant) -> bool {
        for kept in self.by_address.values_mut() {
            kept.retain(|(tcp, until)| *until > now && is_silent(tcp));
        }
        self.by_address.retain(|_, kept| !kept.is_empty());
        self.count = self.by_address.values().map(Vec::len).sum();
        self.sweeping = self.count > 0;
        self.sweeping
    }
}

/// An idle connection on which something arrives was closed by the endpoint, or is out of step with it. As long as
/// nothing has arrived this is no system call.
fn is_silent(tcp: &TcpStream) -> bool {
    matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP).await;
        if !IDLE.with_borrow_mut(|idle| idle.close_old(Instant::now())) {
            return;
        }
    }
}
