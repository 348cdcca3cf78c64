//! In what standing a client is let in: in good standing, or with one fault that some route accepts.

use std::fmt;
use std::time::Duration;

use super::{RejectionReason, WhenStale};
use crate::UnixTime;

/// Part of every identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is wrong.
    Good,
    /// Only one thing is wrong. It reaches the routes that accept that, and nothing else.
    Quarantined(Fault),
}

/// The one thing that is wrong with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The shortest span of all that routes accept which it is not past: when that is over, so is what it was let in by.
    pub within: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The client's own certificate has expired.
    Expired,
    /// A revocation list that speaks about its path is past its nextUpdate.
    RevocationStale,
}

impl FaultKind {
    pub const ALL: [Self; 2] = [Self::Expired, Self::RevocationStale];

    /// The word in metrics, logs and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::RevocationStale => "revocation_stale",
        }
    }

    /// For a person.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Expired => "certificate has expired",
            Self::RevocationStale => "revocation list is stale",
        }
    }

    /// What it would be refused for.
    fn reason(self) -> RejectionReason {
        match self {
            Self::Expired => RejectionReason::Expired,
            Self::RevocationStale => RejectionReason::RevocationUnknown,
        }
    }
}

impl Standing {
    pub fn is_good(self) -> bool {
        self == Self::Good
    }

    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Good => None,
            Self::Quarantined(fault) => Some(fault),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault().map_or("good", |fault| fault.kind.as_str()))
    }
}

/// The faults with which clients of a trust domain may enter, because some route accepts them. Usually none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quarantine {
    /// Ascending.
    expired: Vec<Duration>,
    revocation_stale: Vec<Duration>,
}

impl Quarantine {
    /// Lets in whoever has that fault for no longer than `within`.
    pub fn admit(&mut self, kind: FaultKind, within: Duration) {
        let spans = match kind {
            FaultKind::Expired => &mut self.expired,
            FaultKind::RevocationStale => &mut self.revocation_stale,
        };
        if let Err(position) = spans.binary_search(&within) {
            spans.insert(position, within);
        }
    }

    /// The spans that somebody accepts, the shortest first.
    pub fn spans(&self, kind: FaultKind) -> &[Duration] {
        match kind {
            FaultKind::Expired => &self.expired,
            FaultKind::RevocationStale => &self.revocation_stale,
        }
    }

    /// What a client that would be refused for `reason` may be forgiven, the least first.
    pub(super) fn faults(&self, reason: RejectionReason) -> impl Iterator<Item = Fault> {
        let kinds = FaultKind::ALL.into_iter().filter(move |kind| kind.reason() == reason);
        kinds.flat_map(|kind| self.spans(kind).iter().map(move |&within| Fault { kind, within }))
    }

    /// Whether a fault is still accepted by somebody.
    pub(super) fn admits(&self, fault: Fault) -> bool {
        self.spans(fault.kind).last().is_some_and(|longest| *longest >= fault.within)
    }

    /// When a client with a certificate until `not_after` is past one of the spans.
    pub(super) fn ends(&self, not_after: UnixTime) -> impl Iterator<Item = UnixTime> {
        self.expired.iter().map(move |within| plus(not_after, *within).saturating_add(1))
    }

    /// As which lists are to be taken for each of the spans.
    pub(super) fn beliefs(&self, usual: WhenStale) -> impl Iterator<Item = WhenStale> {
        self.revocation_stale.iter().map(move |within| usual.at_least(*within))
    }
}

pub(super) fn plus(time: UnixTime, span: Duration) -> UnixTime {
    time.saturating_add(UnixTime::try_from(span.as_secs()).unwrap_or(UnixTime::MAX))
}

impl WhenStale {
    /// The policy of somebody who believes a list for so long after its nextUpdate, if not longer anyway.
    pub(super) fn at_least(self, grace: Duration) -> Self {
        match self {
            Self::Believe => Self::Believe,
            Self::Refuse => Self::BelieveFor(grace),
            Self::BelieveFor(usual) => Self::BelieveFor(usual.max(grace)),
        }
    }
}
