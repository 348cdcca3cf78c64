//! Whether a client that was believed would be believed now: what its open connections depend on.
//!
//! A signature that was right stays right, so the path that was verified is judged again without one. What can have
//! changed is who is asked (domains, anchors), what they ask for (policy), who is revoked, and the time.

use std::sync::Arc;

use ahash::AHashMap;

use super::checks::Path;
use super::deny::Role;
use super::glance::Tags;
use super::path::{Shown, check_size};
use super::{
    Change, ClientIdentity, Fault, Finding, OnExpiry, Rejection, RejectionReason, Standing, TrustDomain,
    TrustSet,
};
use crate::UnixTime;
use crate::certificate::Certificate;

/// Why a client that was believed would not be now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lapse {
    /// The trust domain, or the anchor that vouched, is not asked any more. Maybe another one would vouch; but then the
    /// client would be another one to whoever goes by domain and anchor.
    #[error("{0}")]
    TrustRemoved(String),
    /// Nothing is wrong any more: whoever comes again is let in to everything.
    #[error("the client is in good standing again")]
    StandingRestored,
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// The clients of one trust set at one moment, one after the other.
pub struct Review<'a> {
    set: &'a TrustSet,
    now: UnixTime,
    /// Domains that know of something revoked or denied among their own anchors: no glance at a client's certificates tells
    /// whether it is on the client's path.
    doubtful: Vec<bool>,
    /// What has changed since they were believed.
    change: &'a Change,
    /// Of the serials that are new on a list.
    tags: Tags,
    /// Certificates other than leaves. A fleet has few, so each is read once.
    read: AHashMap<Box<[u8]>, Option<Arc<Certificate>>>,
}

impl TrustSet {
    pub fn review(&self, now: UnixTime) -> Review<'_> {
        self.review_after(&Change::Anything, now)
    }

    /// For clients of whom it is known that they might stay before `change`.
    pub fn review_after<'a>(&'a self, change: &'a Change, now: UnixTime) -> Review<'a> {
        let doubtful = self.domains.iter().map(|domain| domain.has_doubtful_anchor()).collect();
        let serials = match change {
            Change::Revoked(serials) => Some(serials),
            Change::Nothing | Change::Anything => None,
        };
        let tags = Tags::of(serials.into_iter().flatten());
        Review { set: self, now, doubtful, change, tags, read: AHashMap::new() }
    }
}

impl TrustDomain {
    fn has_doubtful_anchor(&self) -> bool {
        let is_revoked = |anchor: &Certificate| self.revoked.names(anchor);
        self.denies_anchor || (!self.revoked.is_empty() && self.certificates.iter().any(is_revoked))
    }
}

impl Review<'_> {
    /// Whether the client may stay.
    pub fn judge(&mut self, identity: &ClientIdentity) -> Result<(), Lapse> {
        if !self.is_concerned(identity) {
            return Ok(());
        }
        let set = self.set;
        let name = identity.trust_domain();
        let Some(domain) = set.domains.iter().find(|domain| domain.name() == name) else {
            let gone = format!("trust domain `{name}` is not admitted any more");
            return Err(Lapse::TrustRemoved(gone));
        };
        let Some(&position) = domain.positions.get(&identity.anchor().fingerprint) else {
            let anchor = &identity.anchor().subject;
            return Err(Lapse::TrustRemoved(format!(
                "`{anchor}` is no anchor of trust domain `{name}` any more"
            )));
        };
        let standing = self
            .judge_path(identity, domain, &domain.certificates[position])
            .map_err(|(reason, detail)| rejection(identity, reason, detail))?;
        if standing.is_good() && !identity.standing().is_good() {
            return Err(Lapse::StandingRestored);
        }
        self.ask_others(identity, domain).map_err(Lapse::Rejected)
    }

    fn is_concerned(&mut self, identity: &ClientIdentity) -> bool {
        match self.change {
            Change::Nothing => false,
            Change::Anything => true,
            // Whoever is in quarantine may have come into good standing.
            Change::Revoked(_) if !identity.standing().is_good() => true,
            Change::Revoked(_) if !self.tags.may_be_in(identity.glance()) => false,
            Change::Revoked(serials) => {
                serials.contains(identity.certificate().serial())
                    || identity.presented().skip(1).any(|der| {
                        // What cannot be read is looked at in earnest.
                        self.certificate(der).is_none_or(|certificate| serials.contains(certificate.serial()))
                    })
            }
        }
    }

    /// In what standing the client would be. One in good standing is not put into quarantine: it has to go, and may come
    /// again.
    fn judge_path(
        &mut self,
        identity: &ClientIdentity,
        domain: &TrustDomain,
        anchor: &Certificate,
    ) -> Result<Standing, Finding> {
        let policy = &domain.policy;
        let (bytes, count) =
            identity.presented().fold((0, 0), |(bytes, count), der| (bytes + der.len(), count + 1));
        check_size(bytes, count, policy)?;
        let intermediates: Option<Vec<_>> =
            identity.intermediates().iter().map(|der| self.certificate(der)).collect();
        let intermediates = intermediates.ok_or_else(|| {
            (RejectionReason::Internal, "the verified path cannot be read again".to_owned())
        })?;
        let path = Path {
            leaf: identity.certificate(),
            intermediates: intermediates.iter().map(Arc::as_ref).collect(),
            anchor,
        };
        // Denied and revoked come first: they are final, also where an expired certificate may stay.
        path.check_denial(&domain.denied, self.now)?;
        if let Standing::Quarantined(fault) = identity.standing() {
            return Self::judge_quarantined(fault, &path, domain, self.now);
        }
        path.check_revocation(policy, policy.when_stale, &domain.revoked, self.now)?;
        let valid_at = match policy.on_expiry {
            OnExpiry::Close => self.now,
            OnExpiry::Keep => self.now.min(identity.valid_until()),
        };
        path.check_validity(policy, valid_at)?;
        Ok(Standing::Good)
    }

    /// Until the span is over by which it was let in, whatever `on_expiry` says.
    fn judge_quarantined(
        fault: Fault,
        path: &Path<'_>,
        domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<Standing, Finding> {
        let Err(finding) = path.check(&domain.policy, &domain.revoked, now) else {
            return Ok(Standing::Good);
        };
        if !domain.policy.quarantine.admits(fault) {
            return Err(finding);
        }
        path.check_but(fault, &domain.policy, &domain.revoked, now)?;
        Ok(Standing::Quarantined(fault))
    }

    /// Whoever is revoked or denied by one domain of the set is believed by none. A domain is asked in earnest only if it knows
    /// something of one of the certificates, which may be those of a namesake.
    fn ask_others(&mut self, identity: &ClientIdentity, own: &TrustDomain) -> Result<(), Rejection> {
        let set = self.set;
        let others = set.domains.iter().zip(0..).filter(|(other, _)| other.name != own.name);
        let knows = |other: &TrustDomain| !other.revoked.is_empty() || !other.denied.is_empty();
        for (other, index) in others.filter(|(other, _)| knows(other)) {
            if !self.doubtful[index] && !self.is_named(identity, other) {
                continue;
            }
            let shown: Vec<_> = identity.presented().map(Shown::encoded).collect();
            let presented = set.read(&shown, self.now)?;
            match other.verify(&presented, self.now) {
                Err(rejection) if rejection.reason.is_final() => return Err(rejection),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_named(&mut self, identity: &ClientIdentity, domain: &TrustDomain) -> bool {
        let names = |certificate: &Certificate, role| {
            domain.revoked.names(certificate) || domain.denied.names(certificate, role)
        };
        names(identity.certificate(), Role::Leaf)
            || identity.presented().skip(1).any(|der| {
                self.certificate(der).is_some_and(|certificate| names(&certificate, Role::Authority))
            })
    }

    /// `None` for what is no certificate: it was presented, but is on no path.
    fn certificate(&mut self, der: &[u8]) -> Option<Arc<Certificate>> {
        if let Some(read) = self.read.get(der) {
            return read.clone();
        }
        let read = Certificate::from_der(der).ok().map(Arc::new);
        self.read.insert(der.into(), read.clone());
        read
    }
}

fn rejection(identity: &ClientIdentity, reason: RejectionReason, detail: String) -> Rejection {
    Rejection {
        reason,
        subject: Some(identity.certificate().subject().to_string()),
        trust_domain: Some(identity.trust_domain().clone()),
        detail,
    }
}
