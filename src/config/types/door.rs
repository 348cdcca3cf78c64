//! What is decided about a connection before anything is known but where it comes from.

use std::net::IpAddr;
use std::time::Duration;

use crate::headers::Networks;

/// Who may knock at a listener, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorConfig {
    /// `None`: everybody.
    pub allow_from: Option<Networks>,
    /// Counts before `allow_from`.
    pub deny_from: Networks,
    /// Whom the limits below do not concern.
    pub exempt: Networks,
    pub per_address: SourceLimits,
    pub per_network: SourceLimits,
    pub proxy_protocol: Option<ProxyProtocolConfig>,
}

/// Balancers before a listener that pass bytes on and tell who the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocolConfig {
    /// Who must say it, and is believed.
    pub from: Networks,
    pub others: OthersThanProxies,
    /// In which the header must be there.
    pub timeout: Duration,
}

/// What becomes of those who come past the balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OthersThanProxies {
    /// They are who they are; a header of theirs is not believed.
    Direct,
    Refused,
}

impl DoorConfig {
    /// Whether its lists let a client in that comes from `address`.
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.deny_from.contains(address)
            && self.allow_from.as_ref().is_none_or(|allowed| allowed.contains(address))
    }

    /// Whether the lists admit the same clients as those of `other`, as far as can be told without trying.
    pub fn has_lists_of(&self, other: &Self) -> bool {
        self.deny_from == other.deny_from && self.allow_from == other.allow_from
    }
}

/// What one source may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    pub connections: u32,
    pub handshakes_in_flight: u32,
    /// `None`: as many as it likes.
    pub rate: Option<ConnectionRate>,
}

/// A token bucket of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionRate {
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}
