//! What a reload means for the clients that are in, so that only those are looked over whom it can concern.
//!
//! Most reloads bring a list on which a few serials are new. To find these takes one pass through two sorted tables; to
//! ask for each of a hundred thousand clients whether it is on a list of a million takes longer.

use std::sync::Arc;

use ahash::AHashSet;

use super::{TrustDomain, TrustSet};
use crate::UnixTime;
use crate::certificate::{Certificate, Serial};

/// Beyond so many, everybody is looked over.
pub(super) const MOST: usize = 10_000;

/// What lies between two trust sets, for clients that may be in by the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Whoever may be in may stay.
    Nothing,
    /// Only certificates with these serials, of whichever issuer, can have become unwelcome.
    Revoked(AHashSet<Serial>),
    /// All are to be looked over.
    Anything,
}

impl Change {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, change) | (change, Self::Nothing) => change,
            (Self::Revoked(mut one), Self::Revoked(other)) => {
                one.extend(other);
                Self::Revoked(one)
            }
            _ => Self::Anything,
        }
    }

    fn concerns(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Nothing => false,
            Self::Revoked(serials) => serials.contains(certificate.serial()),
            Self::Anything => true,
        }
    }
}

impl TrustSet {
    /// What has changed since `before`. What time alone changes is not part of it, but for what it has changed already:
    /// a list may be stale when it is loaded.
    pub fn change_since(&self, before: &Self, now: UnixTime) -> Change {
        let names = |set: &Self| set.domains.iter().map(|domain| domain.name.clone()).collect::<Vec<_>>();
        if names(self) != names(before) {
            return Change::Anything;
        }
        let pairs = self.domains.iter().zip(&before.domains);
        let change =
            pairs.map(|(domain, before)| domain.change_since(before, now)).fold(Change::Nothing, Change::and);
        // Anchors are on paths without being presented.
        let mut anchors = self.domains.iter().flat_map(|domain| &domain.certificates);
        if anchors.any(|anchor| change.concerns(anchor)) { Change::Anything } else { change }
    }
}

impl TrustDomain {
    fn change_since(self: &Arc<Self>, before: &Arc<Self>, now: UnixTime) -> Change {
        if Arc::ptr_eq(self, before) {
            return Change::Nothing;
        }
        // Named one by one: whoever adds a field is asked what it means here.
        let Self {
            name,
            anchors,
            revoked,
            denied,
            policy,
            // These follow from the anchors, and from what is denied.
            certificates: _,
            x509: _,
            positions: _,
            names: _,
            stores: _,
            denies_anchor: _,
            // What `denied` is made of.
            listed: _,
            blocked: _,
        } = &**self;
        let is_same = *name == before.name
            && *anchors == before.anchors
            && denied.is_same_as(&before.denied)
            && *policy == before.policy;
        if !is_same {
            return Change::Anything;
        }
        revoked.change_since(&before.revoked, policy.when_stale, now)
    }
}

#[cfg(test)]
mod tests;
