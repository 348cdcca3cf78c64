//! What is written about connections that were closed before the handshake: one record for many of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::HandshakeFailure;
use super::line::Line;

/// Connections that one listener turned away for one reason.
pub struct TurnedAwayRecord {
    pub time: SystemTime,
    pub listener: Arc<str>,
    pub reason: HandshakeFailure,
    pub connections: u64,
    /// In how much time.
    pub within: Duration,
    /// Where more than half of them came from, if there is such an address; the last one's if it cannot be told.
    pub peer: IpAddr,
}

impl TurnedAwayRecord {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.text("listener", &self.listener);
        line.text("reason", self.reason.as_str());
        line.text("message", self.reason.sentence());
        line.plain("connections", self.connections);
        line.seconds("within_seconds", self.within);
        line.shown("peer", self.peer);
    }
}
