//! Accepts connections, shakes hands, and hands clients that are believed to Pingora.
//!
//! Pingora's stock listener waits a fixed minute for a handshake, cannot tell failures apart and cannot be reloaded;
//! this one is a Pingora service of its own that knows its clients before HTTP starts.

mod admission;
mod allowance;
pub mod connection;
pub mod contexts;
mod door;
mod doorkeeper;
mod handshake;
mod linger;
mod live;
mod outlet;
mod overhead;
mod proof;
mod socket;
pub mod stream;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::apps::HttpServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use pingora_proxy::HttpProxy;
use tokio::net::TcpStream;

use crate::gateway::Gateway;
use crate::panics::{self, Vital};
use crate::relay::Relay;
use crate::runtime::Cell;
use crate::telemetry::{HandshakeFailure, HandshakeInFlight, Telemetry};
use crate::tls;
use admission::{Intake, Next, Place};
use connection::{Connection, ConnectionId};
use door::{Door, Knock};
use live::Entered;
use socket::Accepting;
use stream::ClientStream;

pub use doorkeeper::Doorkeeper;
pub use live::{Arrivals, LiveConnections};
pub use proof::{ProofError, refuses_strangers};
pub use socket::{BindError, BoundSocket, bind, inherited};
pub use stream::connection_of;

/// All listeners as one Pingora service.
pub struct Edge {
    cell: Arc<Cell>,
    telemetry: Arc<Telemetry>,
    proxy: Arc<HttpProxy<Gateway>>,
    relay: Arc<Relay>,
    sockets: Vec<Option<BoundSocket>>,
    live: Arc<LiveConnections>,
    doorkeeper: Arc<Doorkeeper>,
    started: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Edge {
    /// `sockets[i]` belongs to the i-th listener; `None` means that it comes from the process being upgraded.
    /// `started` is called once every listener accepts.
    pub fn new(
        cell: Arc<Cell>,
        telemetry: Arc<Telemetry>,
        proxy: HttpProxy<Gateway>,
        sockets: Vec<Option<BoundSocket>>,
        live: Arc<LiveConnections>,
        doorkeeper: Arc<Doorkeeper>,
        started: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        let proxy = Arc::new(proxy);
        let relay = Arc::new(Relay::new(cell.clone(), telemetry.clone(), proxy.clone()));
        Self { cell, telemetry, proxy, relay, sockets, live, doorkeeper, started: Some(Box::new(started)) }
    }

    /// Takes each socket from where it is: bound at start, or inherited from the process that is being upgraded.
    fn claim(&mut self, fds: Option<&ListenFds>) -> Result<Vec<Accepting>, BindError> {
        let runtime = self.cell.load_full();
        let mut listeners = Vec::new();
        for (listener, bound) in runtime.listeners.iter().zip(&mut self.sockets) {
            let key = listener.address.to_string();
            let socket = match bound.take() {
                Some(bound) => bound,
                None => socket::inherited(&key, fds)?,
            };
            if let Some(fds) = fds {
                fds.lock().add(key, socket.as_raw_fd());
            }
            listeners.push(socket.into_accepting()?);
        }
        Ok(listeners)
    }
}

#[async_trait]
impl Service for Edge {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let listeners = match self.claim(fds.as_ref()) {
            Ok(listeners) => listeners,
            Err(error) => {
                log::error!("{error}");
                // Nothing is served yet, so nothing is lost; an operator must act (systemd does not restart on 1).
                std::process::exit(1);
            }
        };
        let runtime = self.cell.load_full();
        let accepting: Vec<_> = listeners
            .into_iter()
            .zip(&runtime.listeners)
            .enumerate()
            .map(|(index, (socket, listener))| {
                let acceptor = Arc::new(Acceptor {
                    index,
                    door: Door::new(listener, self.telemetry.clone()),
                    cell: self.cell.clone(),
                    telemetry: self.telemetry.clone(),
                    relay: self.relay.clone(),
                    live: self.live.clone(),
                    doorkeeper: self.doorkeeper.clone(),
                    shutdown: shutdown.clone(),
                });
                tokio::spawn(acceptor.run(socket))
            })
            .collect();
        if let Some(started) = self.started.take() {
            started();
        }
        for task in accepting {
            let _ = task.await;
        }
        // Ends kept-alive connections that wait for a request; those that serve one finish it.
        self.live.retire_all();
        self.proxy.http_cleanup().await;
    }

    fn name(&self) -> &'static str {
        "edge"
    }
}

/// The accept loop of one listener.
struct Acceptor {
    index: usize,
    door: Door,
    cell: Arc<Cell>,
    telemetry: Arc<Telemetry>,
    relay: Arc<Relay>,
    live: Arc<LiveConnections>,
    doorkeeper: Arc<Doorkeeper>,
    shutdown: ShutdownWatch,
}

/// After an accept that failed for want of a resource, give others time to release theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often the log hears of it while it goes on.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Accepted, and not yet taken up by the thread that serves them; never more than these.
const ON_THE_WAY: usize = 1024;

impl Acceptor {
    async fn run(self: Arc<Self>, socket: Accepting) {
        let _vital = Vital("the accept loop of a listener");
        let mut shutdown = self.shutdown.clone();
        let mut told: Option<Instant> = None;
        let mut intake = Intake::default();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = shutdown.wait_for(|stopping| *stopping) => break,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    let _ = panics::contain(|| self.admit(tcp, peer));
                    self.next(&mut intake).wait().await;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
                        log::error!(
                            "listener cannot accept: {error} (hint: raise LimitNOFILE or `ulimit -n`)"
                        );
                        told = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Unless somebody else has the socket too, whoever waits in its queue is turned away when it is closed.
        for (tcp, peer) in socket.waiting() {
            panics::contain(|| self.admit(tcp, peer));
        }
    }

    /// When the next one may be accepted: not at once where too many wait for their handshakes.
    fn next(&self, intake: &mut Intake) -> Next {
        let runtime = self.cell.load();
        let Some(listener) = runtime.listeners.get(self.index) else { return Next::AtOnce };
        let metrics = &listener.metrics;
        intake.next(metrics.handshakes_waiting(), || metrics.handshakes_computed())
    }

    /// Refuses what is over a limit before it costs anything; serves the rest on a worker thread.
    fn admit(self: &Arc<Self>, tcp: std::net::TcpStream, peer: SocketAddr) {
        panics::provoke("accept");
        let runtime = self.cell.load();
        let Some(listener) = runtime.listeners.get(self.index) else { return };
        let metrics = &listener.metrics;
        // Who has to go where too many shake hands is decided by `admission`, on the thread that would serve this one. Many
        // may be on their way there.
        let is_full = metrics.open_connections() >= listener.limits.connections
            || metrics.handshakes_in_flight()
                >= listener.limits.handshakes_in_flight.saturating_add(ON_THE_WAY);
        let handshake = metrics.handshake_started();
        // `[::]` takes IPv4 clients too, whose addresses are written as they know them.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let knock = if is_full {
            Err(HandshakeFailure::Overloaded)
        } else {
            self.door.knock(peer.ip(), &listener.door)
        };
        let knock = match knock {
            Ok(knock) => knock,
            Err(reason) => return self.door.turn_away(&tcp, peer, listener, reason),
        };
        // Counted here: many may be accepted before a worker takes up the first of them.
        let open = metrics.connection_opened();
        let since = Instant::now();
        let acceptor = self.clone();
        let entered = self.live.enter();
        pingora_runtime::current_handle().spawn(async move {
            // The socket is registered with the reactor of the worker that serves it.
            let Ok(tcp) = TcpStream::from_std(tcp) else { return };
            let _open = open;
            acceptor.serve(&entered, tcp, peer, handshake, knock, since).await;
        });
    }

    async fn serve(
        &self,
        entered: &Entered,
        mut tcp: TcpStream,
        peer: SocketAddr,
        in_flight: HandshakeInFlight,
        knock: Knock,
        since: Instant,
    ) {
        let id = ConnectionId::next();
        let runtime = self.cell.pin();
        let Some(listener) = runtime.listeners.get(self.index) else { return };
        let (peer, mut visit) = match knock {
            Knock::Client(visit) => (peer, visit),
            // Boxed, for it is rare: every connection would carry the room for it.
            Knock::Proxy => match Box::pin(self.door.introduce(&mut tcp, id, peer, since, listener)).await {
                Some(introduced) => introduced,
                None => return,
            },
        };
        let place = Place::take(self.index, listener, peer.ip(), since, in_flight);
        let outcome =
            handshake::accept(&runtime, listener, tcp, id, peer, place, &self.telemetry, &self.door).await;
        visit.is_known();
        let Some(mut client) = outcome else { return };
        let connection = Arc::new(Connection::new(id, self.index, peer, &client));
        let _allowance = client.allowance.take();
        // The snapshot the client was admitted under is not kept: each request pins its own.
        let generation = runtime.generation;
        drop(runtime);
        let Ok(stream) = ClientStream::new(client.stream, connection.clone(), client.duration) else {
            return;
        };
        let _admitted = entered.admit(&connection);
        if self.cell.load().generation != generation {
            // Whoever replaced it may have looked through the open connections before this one was among them.
            self.doorkeeper.review_one(&connection, tls::now());
        }
        let serving = pin!(async {
            if client.is_h2 {
                self.relay.serve_http2(stream, &connection, &self.shutdown).await;
            } else {
                self.relay.serve_http1(stream, &connection, &self.shutdown).await;
            }
        });
        connection.serve(serving).await;
        self.telemetry.connection_ended(&connection);
    }
}

/// Errors of `accept(2)` that belong to the one connection that failed, not to the listener.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
