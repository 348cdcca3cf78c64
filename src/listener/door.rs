//! What is decided about a connection before the handshake, by where it comes from.
//!
//! Whoever is turned away costs us, once accepted, two system calls: no task, no TLS, no line in the log of its own.

mod away;
mod introduction;
mod sources;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::connection::ConnectionId;
use crate::config::{DoorConfig, OthersThanProxies};
use crate::proxy_protocol::Header;
use crate::runtime::ListenerRuntime;
use crate::telemetry::{ConnectionRecord, HandshakeFailure, Telemetry};
use away::Away;
use introduction::Unintroduced;
use sources::{Of, Reached, Sources};

pub(super) use sources::Visit;

/// The door of one listener: what it counts outlives the rules, which come with each configuration.
pub(super) struct Door {
    sources: Arc<Sources>,
    away: Arc<Away>,
    telemetry: Arc<Telemetry>,
}

/// Who has knocked.
pub(super) enum Knock {
    Client(Visit),
    /// A balancer, which says for whom: see [`Door::introduce`].
    Proxy,
}

impl Door {
    pub(super) fn new(listener: &ListenerRuntime, telemetry: Arc<Telemetry>) -> Self {
        Self {
            sources: Arc::new(Sources::for_connections(listener.limits.connections)),
            away: Arc::new(Away::new(telemetry.clone())),
            telemetry,
        }
    }

    /// What is known about a connection as soon as it is accepted; or why it may not come in.
    pub(super) fn knock(&self, address: IpAddr, rules: &DoorConfig) -> Result<Knock, HandshakeFailure> {
        match &rules.proxy_protocol {
            Some(proxies) if proxies.from.contains(address) => Ok(Knock::Proxy),
            Some(proxies) if proxies.others == OthersThanProxies::Refused => {
                Err(HandshakeFailure::AddressDenied)
            }
            _ => self.enter(address, rules).map(Knock::Client),
        }
    }

    /// For whom `proxy` passes the connection on, who counts from here on in its place. `None`: nobody who may come in.
    pub(super) async fn introduce(
        &self,
        tcp: &mut TcpStream,
        id: ConnectionId,
        proxy: SocketAddr,
        since: Instant,
        listener: &ListenerRuntime,
    ) -> Option<(SocketAddr, Visit)> {
        // A reload may have made an end of it.
        let limit = listener.door.proxy_protocol.as_ref().map_or(Duration::ZERO, |proxies| proxies.timeout);
        let client = match introduction::header(tcp, limit).await {
            Ok(Header::Client { source, .. }) => SocketAddr::new(source.ip().to_canonical(), source.port()),
            Ok(Header::Own) => proxy,
            Err(why) => {
                let mut record = ConnectionRecord::new(id.0, listener.name.clone(), proxy);
                record.duration = since.elapsed();
                self.refuse(tcp, record, listener, &why);
                return None;
            }
        };
        match self.enter(client.ip(), &listener.door) {
            Ok(visit) => Some((client, visit)),
            Err(reason) => {
                self.turn_away(tcp, client, listener, reason);
                None
            }
        }
    }

    fn refuse(
        &self,
        tcp: &TcpStream,
        mut record: ConnectionRecord,
        listener: &ListenerRuntime,
        why: &Unintroduced,
    ) {
        let reason = match why {
            // Balancers see in this way whether somebody listens.
            Unintroduced::Gone => HandshakeFailure::Disconnected,
            Unintroduced::Late(_) | Unintroduced::Fault(_) => HandshakeFailure::ProxyHeader,
        };
        listener.metrics.handshake_failed(reason);
        record.outcome = Some(reason);
        record.message = why.to_string();
        self.telemetry.connection(record);
        reset(tcp);
    }

    /// Counts a client that comes from `address` until what is returned is dropped; or why it may not come in.
    fn enter(&self, address: IpAddr, rules: &DoorConfig) -> Result<Visit, HandshakeFailure> {
        if !rules.admits(address) {
            return Err(HandshakeFailure::AddressDenied);
        }
        self.sources.enter(address, rules).map_err(|reached| match reached {
            (Of::Address, Reached::Connections) => HandshakeFailure::AddressConnections,
            (Of::Address, Reached::Handshakes) => HandshakeFailure::AddressHandshakes,
            (Of::Address, Reached::Rate) => HandshakeFailure::AddressRate,
            (Of::Network, Reached::Connections) => HandshakeFailure::NetworkConnections,
            (Of::Network, Reached::Handshakes) => HandshakeFailure::NetworkHandshakes,
            (Of::Network, Reached::Rate) => HandshakeFailure::NetworkRate,
        })
    }

    /// Closes a connection on which nothing was said.
    pub(super) fn turn_away(
        &self,
        tcp: &impl AsFd,
        peer: SocketAddr,
        listener: &ListenerRuntime,
        reason: HandshakeFailure,
    ) {
        self.counts_away(peer, listener, reason);
        reset(tcp);
    }

    /// Of one that somebody else turns away.
    pub(super) fn counts_away(&self, peer: SocketAddr, listener: &ListenerRuntime, reason: HandshakeFailure) {
        listener.metrics.handshake_failed(reason);
        self.away.add(&listener.name, reason, peer.ip());
    }
}

/// Whoever drops it resets it. The kernel forgets it at once then, where a FIN would leave it with a connection of nobody
/// that is resent and waited for, for minutes if the stranger likes; and a client knows at once that it was not served.
pub(super) fn reset(tcp: &impl AsFd) {
    // Should it fail, a FIN does as well.
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}
