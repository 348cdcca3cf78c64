//! What a trust domain asks of a chain besides an anchor.

use std::time::Duration;

use super::Quarantine;

/// What a domain asks of a chain besides an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPolicy {
    pub client_auth_usage: Usage,
    /// How many certificates may stand between the leaf and the anchor.
    pub max_depth: u32,
    /// What all presented certificates together may measure.
    pub max_chain_bytes: usize,
    pub when_stale: WhenStale,
    pub when_missing: WhenMissing,
    pub on_expiry: OnExpiry,
    /// How long requests under way may go on once their client may no longer enter. `None`: as suits the cause.
    pub grace: Option<Duration>,
    /// Who may enter although something is wrong.
    pub quarantine: Quarantine,
}

/// When a leaf must name clientAuth in its extendedKeyUsage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// If it has an extendedKeyUsage.
    #[default]
    WhenPresent,
    Always,
}

/// What to do with clients whose issuer's revocation list is past its nextUpdate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenStale {
    #[default]
    Refuse,
    Believe,
    /// For so long after nextUpdate.
    BelieveFor(Duration),
}

/// What to do with clients when an issuer on their path has no revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenMissing {
    Refuse,
    #[default]
    Believe,
}

/// What becomes of an open connection when a certificate on its path expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExpiry {
    #[default]
    Close,
    Keep,
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self {
            client_auth_usage: Usage::default(),
            max_depth: 5,
            max_chain_bytes: 65_536,
            when_stale: WhenStale::default(),
            when_missing: WhenMissing::default(),
            on_expiry: OnExpiry::default(),
            grace: None,
            quarantine: Quarantine::default(),
        }
    }
}
