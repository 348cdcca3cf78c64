//! The trust domains that one listener admits.

use std::sync::Arc;

use openssl::x509::{X509, X509Ref};

use super::memory::{self, Memory, Stretch};
use super::path::{self, Presented, Shown};
use super::{Anchor, ClientIdentity, Rejection, RejectionReason, TrustDomain, TrustPolicy};
use crate::UnixTime;

/// Trust domains in the order of the configuration: the first one that believes a chain says who the client is.
///
/// Domains may overlap, down to the same anchor in two of them. The order decides who the client is, always the same
/// way; a chain that any of them revoked or denies is believed by none.
pub struct TrustSet {
    pub(super) domains: Vec<Arc<TrustDomain>>,
    /// The most that any of the domains would look at.
    limits: TrustPolicy,
    /// When a verdict may change without anybody changing a domain.
    changes: Vec<UnixTime>,
    memory: Memory,
}

impl TrustSet {
    pub fn new(domains: Vec<Arc<TrustDomain>>) -> Self {
        let policies = || domains.iter().map(|domain| &domain.policy);
        let usual = TrustPolicy::default();
        let limits = TrustPolicy {
            max_depth: policies().map(|policy| policy.max_depth).max().unwrap_or(usual.max_depth),
            max_chain_bytes: policies()
                .map(|policy| policy.max_chain_bytes)
                .max()
                .unwrap_or(usual.max_chain_bytes),
            ..usual
        };
        let mut changes: Vec<UnixTime> = domains.iter().flat_map(|domain| domain.changes()).collect();
        changes.sort_unstable();
        changes.dedup();
        Self { domains, limits, changes, memory: Memory::new() }
    }

    /// `presented` is what the client sent, as DER, leaf first; more than the path needs may follow.
    pub fn verify(&self, presented: &[&[u8]], now: UnixTime) -> Result<Arc<ClientIdentity>, Rejection> {
        let presented: Vec<_> = presented.iter().map(|der| Shown::encoded(der)).collect();
        self.judge_once(&presented, now)
    }

    /// The same for certificates that the TLS library has decoded already, which saves decoding them twice.
    pub fn verify_x509(
        &self,
        presented: &[&X509Ref],
        now: UnixTime,
    ) -> Result<Arc<ClientIdentity>, Rejection> {
        let shown: Result<Vec<_>, _> = presented.iter().map(|x509| Shown::decoded(x509)).collect();
        let shown = shown.map_err(|error| Rejection {
            reason: RejectionReason::Internal,
            subject: None,
            trust_domain: None,
            detail: format!("the TLS library could not encode what the client presented: {error}"),
        })?;
        self.judge_once(&shown, now)
    }

    /// Chains that were believed before are not judged again while nothing could change the verdict. One that was not
    /// believed is always judged again: nobody fills the memory who has no certificate.
    fn judge_once(&self, shown: &[Shown<'_>], now: UnixTime) -> Result<Arc<ClientIdentity>, Rejection> {
        let key = memory::key(shown);
        if let Some(identity) = self.memory.recall(&key, now) {
            return Ok(identity);
        }
        let presented = self.read(shown, now)?;
        let identity = Arc::new(self.judge(&presented, now)?);
        self.memory.remember(key, self.stretch(&presented, now), identity.clone());
        Ok(identity)
    }

    /// How long the verdict on a chain stays what it is.
    fn stretch(&self, presented: &Presented, now: UnixTime) -> Stretch {
        let next = self.changes.partition_point(|change| *change <= now);
        let around = self.changes[next.saturating_sub(1)..].iter().take(2).copied();
        let leaf = presented.leaf().not_after();
        let ends = self.domains.iter().flat_map(|domain| domain.policy.quarantine.ends(leaf));
        let denials = self.domains.iter().flat_map(|domain| domain.changes_about(presented));
        Stretch::around(now, around.chain(presented.changes()).chain(ends).chain(denials))
    }

    fn judge(&self, presented: &Presented, now: UnixTime) -> Result<ClientIdentity, Rejection> {
        let (mut believed, mut worst): (Option<ClientIdentity>, _) = (None, None);
        for domain in &self.domains {
            let is_good = believed.as_ref().is_some_and(|identity| identity.standing().is_good());
            // Once a domain believes, the others are asked only for whom they may have revoked or denied.
            if is_good && !domain.may_object(presented) {
                continue;
            }
            match domain.verify(presented, now) {
                Ok(_) if is_good => {}
                // One in whose eyes nothing is wrong comes before one that would put the client in quarantine.
                Ok(identity) if identity.standing().is_good() => believed = Some(identity),
                Ok(identity) => believed = believed.or(Some(identity)),
                // Revoked and denied are final, in whatever order the domains stand: a stolen device that one of them
                // knows about does not get in through another one.
                Err(rejection) if rejection.reason.is_final() => return Err(rejection),
                Err(rejection) => worst = Some(Rejection::more_telling(worst, rejection)),
            }
        }
        if let Some(identity) = believed {
            return Ok(identity);
        }
        Err(worst.map_or_else(|| self.nobody(presented), |rejection| self.in_the_name_of_all(rejection)))
    }

    /// The verdict of each domain, also of those behind the first one that believes.
    pub fn explain(
        &self,
        presented: &[&[u8]],
        now: UnixTime,
    ) -> Vec<(Arc<str>, Result<ClientIdentity, Rejection>)> {
        let presented: Vec<_> = presented.iter().map(|der| Shown::encoded(der)).collect();
        let presented = self.read(&presented, now);
        let verdict = |domain: &Arc<TrustDomain>| match &presented {
            Ok(presented) => domain.verify(presented, now),
            Err(rejection) => Err(rejection.clone()),
        };
        self.domains.iter().map(|domain| (domain.name.clone(), verdict(domain))).collect()
    }

    pub fn domains(&self) -> &[Arc<TrustDomain>] {
        &self.domains
    }

    /// All anchors, each with the name of its domain.
    pub fn anchors(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Anchor>)> {
        self.domains.iter().flat_map(|domain| domain.anchors.iter().map(|anchor| (&domain.name, anchor)))
    }

    /// One certificate for each name that an anchor has, for the list of CA names in a handshake.
    pub fn anchor_certificates(&self) -> Vec<&X509> {
        let mut seen = ahash::AHashSet::new();
        let anchors = self.domains.iter().flat_map(|domain| domain.certificates.iter().zip(&domain.x509));
        anchors
            .filter(|(certificate, _)| seen.insert(certificate.subject().raw()))
            .map(|(_, x509)| x509)
            .collect()
    }

    /// The DER encoding of each name that an anchor has.
    pub fn ca_names(&self) -> Vec<&[u8]> {
        let mut seen = ahash::AHashSet::new();
        let names = self.domains.iter().flat_map(|domain| &domain.certificates);
        names.map(|certificate| certificate.subject().raw()).filter(|name| seen.insert(*name)).collect()
    }

    /// Whether a verdict may have changed since `since`, without anybody changing a domain.
    pub fn changed_between(&self, since: UnixTime, now: UnixTime) -> bool {
        let next = self.changes.partition_point(|change| *change <= since);
        self.changes.get(next).is_some_and(|change| *change <= now)
    }

    /// Limits come before anything that costs time.
    pub(super) fn read(&self, presented: &[Shown<'_>], now: UnixTime) -> Result<Presented, Rejection> {
        let reject = |(reason, detail)| Rejection { reason, subject: None, trust_domain: None, detail };
        if presented.is_empty() {
            let detail = "the client presented no certificate".to_owned();
            return Err(reject((RejectionReason::NoCertificate, detail)));
        }
        let bytes = presented.iter().map(Shown::len).sum();
        path::check_size(bytes, presented.len(), &self.limits).map_err(reject)?;
        Presented::read(presented, now).map_err(reject)
    }

    /// An issuer that nobody knows is not one domain's verdict when several were asked.
    fn in_the_name_of_all(&self, mut rejection: Rejection) -> Rejection {
        if rejection.reason == RejectionReason::UnknownIssuer && self.domains.len() > 1 {
            let names: Vec<_> = self.domains.iter().map(|domain| format!("`{}`", domain.name)).collect();
            rejection.trust_domain = None;
            rejection.detail = format!("{} (asked in turn: {})", rejection.detail, names.join(", "));
        }
        rejection
    }

    fn nobody(&self, presented: &Presented) -> Rejection {
        debug_assert!(self.domains.is_empty());
        Rejection {
            reason: RejectionReason::UnknownIssuer,
            subject: Some(presented.leaf().subject().to_string()),
            trust_domain: None,
            detail: "the listener has no trust domain".into(),
        }
    }
}
