//! What is known about one client connection, shared by all its requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::task::AtomicWaker;
use http::{HeaderName, HeaderValue};
use pingora_timeout::fast_timeout::fast_timeout;

use super::handshake::Admitted;
use crate::config::Protocol;
use crate::fields::Fields;
use crate::framing::{Fault, normal_host};
use crate::headers::IdentityHeaders;
use crate::limits::Keys;
use crate::runtime::Runtime;
use crate::telemetry::Leaving;
use crate::trust::ClientIdentity;

/// Unique within the process; shown in hex in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// A thread takes so many at once, lest all threads write to one counter for each connection.
const NUMBERS: u64 = 256;

impl ConnectionId {
    /// Starts at a random number, so that identifiers of two runs do not collide in a log, and an identifier says
    /// nothing about how busy the gateway is.
    pub fn next() -> Self {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(rand::random()));
        thread_local! {
            /// How many numbers this thread has left, and the next one.
            static MINE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
        }
        let (left, next) = match MINE.get() {
            (0, _) => (NUMBERS, NEXT.fetch_add(NUMBERS, Ordering::Relaxed)),
            mine => mine,
        };
        MINE.set((left - 1, next.wrapping_add(1)));
        // An odd multiplier visits every number once before it repeats.
        Self(next.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// A client connection whose handshake succeeded.
pub struct Connection {
    pub id: ConnectionId,
    pub listener: usize,
    pub peer: SocketAddr,
    pub sni: Option<Box<str>>,
    pub identity: Option<Arc<ClientIdentity>>,
    pub tls_version: &'static str,
    pub protocol: Protocol,
    pub opened: Instant,
    requests: AtomicU32,
    headers: ArcSwapOption<RenderedHeaders>,
    told: ArcSwapOption<Told>,
    limit_keys: ArcSwapOption<Keys>,
    /// What was said last is a refusal, and the client may not have done sending.
    lingers: AtomicBool,
    /// What was wrong with the body that a client sends.
    fault: OnceLock<Fault>,
    /// How far it is to its end.
    progress: AtomicU8,
    /// Its client may no longer be there, and that was counted.
    dismissed: AtomicBool,
    /// With those that the same change ends, until it is closed.
    leaving: ArcSwapOption<Leaving>,
    /// The task that serves it, while it waits.
    waiting: AtomicWaker,
}

/// How far a connection is to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    Open,
    /// The gateway stops: the next answer is the last one, and a client that is just about to ask gets it.
    Retiring,
    /// It ends as soon as it has nothing to do.
    Ending,
    /// Nothing is read from it or written to it any more.
    Cut,
}

/// How long the requests of a connection that was cut may take to notice, so that each has its record.
const LAST_MOMENTS: Duration = Duration::from_millis(100);

/// The identity headers as the configuration of one generation wants them.
struct RenderedHeaders {
    generation: u64,
    headers: Arc<[(HeaderName, HeaderValue)]>,
}

/// What origins are told of the client, ready to be sent: rendered once for all requests to one host.
pub struct Told {
    generation: u64,
    /// The host as the client wrote it.
    asked: Box<str>,
    /// In the form in which hosts are compared.
    pub host: Arc<str>,
    /// Header lines: the identity, and where the request came from unless the client is a proxy that says so itself.
    pub block: Box<[u8]>,
}

impl Told {
    fn render(connection: &Connection, runtime: &Runtime, asked: &str) -> Result<Self, Fault> {
        let host = normal_host(asked)?;
        let mut block = Vec::new();
        let mut add = |name: &HeaderName, value: &HeaderValue| {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                block.extend_from_slice(part);
            }
        };
        for (name, value) in &*connection.identity_headers(runtime.generation, &runtime.identity_headers) {
            add(name, value);
        }
        let peer = connection.peer.ip();
        if !runtime.forwarding.trusts(peer) {
            for (name, value) in runtime.forwarding.headers(peer, &host, Fields::Lines(&[])) {
                add(&name, &value);
            }
        }
        Ok(Self {
            generation: runtime.generation,
            asked: asked.into(),
            host: host.into(),
            block: block.into(),
        })
    }
}

impl Connection {
    pub(super) fn new(id: ConnectionId, listener: usize, peer: SocketAddr, client: &Admitted) -> Self {
        Self {
            id,
            listener,
            peer,
            sni: client.sni.as_deref().map(Box::from),
            identity: client.identity.clone(),
            tls_version: client.stream.ssl().version_str(),
            protocol: if client.is_h2 { Protocol::H2 } else { Protocol::Http1 },
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            headers: ArcSwapOption::empty(),
            told: ArcSwapOption::empty(),
            limit_keys: ArcSwapOption::new(client.allowance.as_ref().map(|allowance| allowance.keys.clone())),
            lingers: AtomicBool::new(false),
            fault: OnceLock::new(),
            progress: AtomicU8::new(Progress::Open as u8),
            dismissed: AtomicBool::new(false),
            leaving: ArcSwapOption::empty(),
            waiting: AtomicWaker::new(),
        }
    }

    /// Serves it until that is done, or until it is cut.
    pub async fn serve(&self, mut serving: Pin<&mut impl Future<Output = ()>>) {
        // The waker is that of the task, and stays the same: to register it once is enough, until it was used.
        let mut registered: Option<Waker> = None;
        let is_cut = poll_fn(|cx| {
            if self.progress() > Progress::Open
                || !registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                self.waiting.register(cx.waker());
                registered = Some(cx.waker().clone());
            }
            if self.is_cut() {
                return Poll::Ready(true);
            }
            serving.as_mut().poll(cx).map(|()| false)
        });
        if is_cut.await {
            // Its stream fails from now on. What does not notice is dropped where it stands.
            let _ = fast_timeout(LAST_MOMENTS, serving).await;
        }
    }

    /// Asks it to end with its next answer. One that is idle waits for a request as long as whoever serves it thinks
    /// right: the client may have sent one already.
    pub fn retire(&self) {
        self.advance(Progress::Retiring);
    }

    /// Asks it to end: at once if it is idle, else after the requests under way.
    pub fn end(&self) {
        self.advance(Progress::Ending);
    }

    /// Ends it now, whatever is under way.
    pub fn cut(&self) {
        self.advance(Progress::Cut);
    }

    fn advance(&self, to: Progress) {
        self.progress.fetch_max(to as u8, Ordering::AcqRel);
        self.waiting.wake();
    }

    pub fn progress(&self) -> Progress {
        match self.progress.load(Ordering::Acquire) {
            0 => Progress::Open,
            1 => Progress::Retiring,
            2 => Progress::Ending,
            _ => Progress::Cut,
        }
    }

    pub fn is_cut(&self) -> bool {
        self.progress() == Progress::Cut
    }

    /// True for the first one who says that its client may no longer be there.
    pub fn dismiss(&self) -> bool {
        !self.dismissed.swap(true, Ordering::AcqRel)
    }

    /// Its closing is waited for.
    pub fn leaves_with(&self, leaving: &Arc<Leaving>) {
        self.leaving.store(Some(leaving.join()));
    }

    /// Its socket is closed.
    pub fn closed(&self) {
        // To load is cheaper than to store, and hardly any has been told to leave.
        if self.leaving.load().is_some() {
            self.leaving.store(None);
        }
    }

    /// Whether the client, which may still send, is to hear what we said last.
    pub fn set_lingers(&self, lingers: bool) {
        self.lingers.store(lingers, Ordering::Relaxed);
    }

    pub fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    /// Notes that what the client sends cannot be read in one way; it will not be read any further.
    pub fn set_fault(&self, fault: Fault) {
        let _ = self.fault.set(fault);
    }

    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Ready once it is nearer to its end than `known`. For the one task that serves the connection.
    pub fn poll_progress(&self, cx: &Context<'_>, known: Progress) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.progress() > known { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Counts a request and returns its number on this connection, from 1.
    pub fn count_request(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What origins are told with a request for the host `asked`.
    pub fn told(&self, runtime: &Runtime, asked: &str) -> Result<Arc<Told>, Fault> {
        if let Some(told) = &*self.told.load()
            && told.generation == runtime.generation
            && *told.asked == *asked
        {
            return Ok(told.clone());
        }
        let told = Arc::new(Told::render(self, runtime, asked)?);
        self.told.store(Some(told.clone()));
        Ok(told)
    }

    /// Whom limits count its requests for.
    pub fn limit_keys(&self, runtime: &Runtime) -> Arc<Keys> {
        if let Some(keys) = &*self.limit_keys.load()
            && keys.generation == runtime.generation
        {
            return keys.clone();
        }
        let keys = runtime.limits.keys(runtime.generation, self.identity.as_deref(), self.peer);
        let keys = Arc::new(keys);
        self.limit_keys.store(Some(keys.clone()));
        keys
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
