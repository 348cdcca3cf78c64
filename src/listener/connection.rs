//! What is known about one client connection, shared by all its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};

use crate::headers::IdentityHeaders;
use crate::trust::ClientIdentity;

/// Unique within the process; shown in hex in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Starts at a random number, so that identifiers of two runs do not collide in a log, and an identifier says
    /// nothing about how busy the gateway is.
    pub fn next() -> Self {
        static NEXT: std::sync::LazyLock<AtomicU64> =
            std::sync::LazyLock::new(|| AtomicU64::new(rand::random()));
        // An odd multiplier visits every number once before it repeats.
        Self(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// A client connection whose handshake succeeded.
pub struct Connection {
    pub id: ConnectionId,
    pub listener: usize,
    pub peer: SocketAddr,
    pub sni: Option<Box<str>>,
    pub identity: Option<Arc<ClientIdentity>>,
    pub opened: Instant,
    requests: AtomicU32,
    headers: ArcSwapOption<RenderedHeaders>,
}

/// The identity headers as the configuration of one generation wants them.
struct RenderedHeaders {
    generation: u64,
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        listener: usize,
        peer: SocketAddr,
        sni: Option<&str>,
        identity: Option<Arc<ClientIdentity>>,
    ) -> Self {
        Self {
            id,
            listener,
            peer,
            sni: sni.map(Box::from),
            identity,
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            headers: ArcSwapOption::empty(),
        }
    }

    /// Counts a request and returns its number on this connection, from 1.
    pub fn count_request(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The identity headers for an origin, rendered once per connection and configuration.
    pub fn identity_headers(
        &self,
        generation: u64,
        by: &IdentityHeaders,
    ) -> Arc<[(HeaderName, HeaderValue)]> {
        if let Some(rendered) = &*self.headers.load()
            && rendered.generation == generation
        {
            return rendered.headers.clone();
        }
        let headers: Arc<[_]> = by.render(self.identity.as_deref()).into();
        self.headers.store(Some(Arc::new(RenderedHeaders { generation, headers: headers.clone() })));
        headers
    }
}
