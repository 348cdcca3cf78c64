//! What is decided about a connection before the handshake, by where it comes from.
//!
//! Whoever is turned away costs us two system calls: no task, no TLS, no line in the log of its own.

mod away;
mod sources;

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use crate::config::DoorConfig;
use crate::runtime::ListenerRuntime;
use crate::telemetry::{HandshakeFailure, Telemetry};
use away::Away;
use sources::{Of, Reached, Sources};

pub(super) use sources::Visit;

/// The door of one listener: what it counts outlives the rules, which come with each configuration.
pub(super) struct Door {
    sources: Arc<Sources>,
    away: Arc<Away>,
}

impl Door {
    pub(super) fn new(listener: &ListenerRuntime, telemetry: Arc<Telemetry>) -> Self {
        Self {
            sources: Arc::new(Sources::for_connections(listener.limits.connections)),
            away: Arc::new(Away::new(telemetry)),
        }
    }

    /// Counts a client that comes from `address` until what is returned is dropped; or why it may not come in.
    pub(super) fn enter(&self, address: IpAddr, rules: &DoorConfig) -> Result<Visit, HandshakeFailure> {
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

    /// Closes a connection of which nothing was read. With a reset: the kernel forgets it at once, where a FIN would leave
    /// it with a connection of nobody that is resent and waited for, for minutes if the stranger likes; and a client knows
    /// at once that it was not served. Nothing was said that could be lost.
    pub(super) fn turn_away(
        &self,
        tcp: &TcpStream,
        peer: SocketAddr,
        listener: &ListenerRuntime,
        reason: HandshakeFailure,
    ) {
        listener.metrics.handshake_failed(reason);
        self.away.add(&listener.name, reason, peer.ip());
        // Should it fail, a FIN does as well.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}
