//! What the configuration says of a limit.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::bucket::Bucket;
use super::quota::Quota;
use crate::route::{ClientRule, IdentityKey};

/// One limit, of one or more measures.
#[derive(Debug, Clone)]
pub struct LimitSpec {
    pub name: Arc<str>,
    /// Whom and what each count is for.
    pub per: Vec<Per>,
    /// Whom it concerns.
    pub client: ClientRule,
    /// Names of the routes that it concerns; `None`: all.
    pub routes: Option<Vec<Arc<str>>>,
    pub mode: Mode,
    pub tells: Tells,
    /// So many keys are counted at most, for each measure.
    pub keys: usize,
    pub measures: Vec<Measure>,
}

/// What tells one count from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Per {
    /// The certificate; of a client without one, its address.
    Client,
    TrustDomain,
    /// The whole one of IPv4, the first 64 bits of IPv6.
    Address,
    Route,
    /// All values together of a part of the certificate, within its trust domain.
    Part(IdentityKey),
}

/// What becomes of those who are over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// They are counted.
    Shadow,
}

/// Which answers say what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    Refusals,
    Always,
}

/// What is counted, and how much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Requests(Bucket),
    /// Of the bodies, in both directions.
    Bytes(Bucket),
    /// Requests, in a fixed window.
    Quota(Quota),
    /// Requests under way.
    Concurrent(u32),
    /// Handshakes, also those that resume a session.
    Handshakes(Bucket),
    /// Connections that are open.
    Connections(u32),
    /// Networks from which there are connections.
    Networks(u32),
}

/// When a limit is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The handshake is done, and the client is known.
    Connection,
    /// The route is known.
    Request,
}

impl Measure {
    pub const NAMES: [&str; 7] =
        ["requests", "bytes", "quota", "concurrent", "handshakes", "connections", "networks"];

    /// The label `measure` of the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests(_) => "requests",
            Self::Bytes(_) => "bytes",
            Self::Quota(_) => "quota",
            Self::Concurrent(_) => "concurrent",
            Self::Handshakes(_) => "handshakes",
            Self::Connections(_) => "connections",
            Self::Networks(_) => "networks",
        }
    }

    pub fn stage(self) -> Stage {
        match self {
            Self::Requests(_) | Self::Bytes(_) | Self::Quota(_) | Self::Concurrent(_) => Stage::Request,
            Self::Handshakes(_) | Self::Connections(_) | Self::Networks(_) => Stage::Connection,
        }
    }

    /// Whether what was counted by `other` still says something.
    pub(super) fn goes_on_from(self, other: Self) -> bool {
        match (self, other) {
            (Self::Quota(new), Self::Quota(old)) => new.window() == old.window(),
            (Self::Concurrent(_), Self::Concurrent(_))
            | (Self::Connections(_), Self::Connections(_))
            | (Self::Networks(_), Self::Networks(_)) => true,
            (new, old) => new == old,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(bucket) => write!(f, "{} requests, {} at once", bucket.rate(), bucket.burst()),
            Self::Bytes(bucket) => write!(f, "{} bytes, {} at once", bucket.rate(), bucket.burst()),
            Self::Quota(quota) => {
                write!(f, "{} requests in {} seconds", quota.most(), quota.window().as_secs())
            }
            Self::Concurrent(most) => write!(f, "{most} requests at a time"),
            Self::Handshakes(bucket) => {
                write!(f, "{} handshakes, {} at once", bucket.rate(), bucket.burst())
            }
            Self::Connections(most) => write!(f, "connections: {most}"),
            Self::Networks(most) => write!(f, "networks with connections: {most}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is nothing to count by (expected: `client`, `trust_domain`, `address`, `route`, or a part of the certificate: \
     `subject.OU` or another attribute, `san.dns`, `san.email`, `san.uri`, `key_fingerprint`)"
)]
pub struct BadPer(String);

impl FromStr for Per {
    type Err = BadPer;

    fn from_str(text: &str) -> Result<Self, BadPer> {
        Ok(match text {
            "client" => Self::Client,
            "trust_domain" => Self::TrustDomain,
            "address" => Self::Address,
            "route" => Self::Route,
            _ => Self::Part(text.parse().map_err(|_| BadPer(text.to_owned()))?),
        })
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::TrustDomain => f.write_str("trust_domain"),
            Self::Address => f.write_str("address"),
            Self::Route => f.write_str("route"),
            Self::Part(key) => key.fmt(f),
        }
    }
}
