//! Who is believed: trust domains, and the verdict on a chain at one moment.
//!
//! A [`TrustDomain`] is a named set of trust anchors with the revocation lists of their issuers. It is built once per
//! load and shared. A [`TrustSet`] is the domains that one listener admits; its [`verify`](TrustSet::verify) is the only
//! way to a [`ClientIdentity`].
//!
//! OpenSSL builds the path and checks signatures, basic and name constraints and usages. Time, revocation, limits
//! and strength are checked here, because they depend on `now`, on our own index, or differ between the libraries
//! that can stand behind the `openssl` crate.

mod change;
mod checks;
mod deny;
mod glance;
mod identity;
mod memory;
mod path;
mod policy;
mod review;
mod revocation;
mod set;
mod standing;
mod verdict;

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use openssl::error::ErrorStack;
use openssl::x509::X509;
use openssl::x509::store::X509Store;

use crate::UnixTime;
use crate::certificate::{Certificate, Fingerprint, Name};
use checks::{Path, leaf_is_ca};
use deny::{Denied, Role};
use identity::Companions;
use path::{PathFailure, Presented};
use revocation::RevocationIndex;

pub use change::Change;
pub use deny::{
    DeniedName, DeniedNames, DenyEntry, DenyFault, DenyForm, DenyIndex, DenyIndexBuilder, DenyList,
    DenyListError, DenySelector, IssuerName, Place,
};
pub use identity::ClientIdentity;
pub use policy::{OnExpiry, TrustPolicy, Usage, WhenMissing, WhenStale};
pub use review::{Lapse, Review};
pub use revocation::{
    AwaitedList, ListAge, RevocationEntry, RevocationError, RevocationList, RevocationReason,
};
pub use set::TrustSet;
pub use standing::{Fault, FaultKind, Quarantine, Standing};
pub use verdict::{Rejection, RejectionReason};

/// A named set of trust anchors, who of their clients is revoked, and how much a client may present.
#[derive(Clone)]
pub struct TrustDomain {
    name: Arc<str>,
    anchors: Vec<Arc<Anchor>>,
    /// What the anchors say; the same order as `anchors`.
    certificates: Vec<Certificate>,
    x509: Vec<X509>,
    /// Which anchor has a given fingerprint.
    positions: AHashMap<Fingerprint, usize>,
    /// The subjects of all anchors, in a form that can be compared.
    names: AHashSet<Box<[u8]>>,
    /// OpenSSL takes the first anchor with the issuer's name and never tries a second one. So anchors of one name (a
    /// CA that changed its key, or renewed its certificate) lie in different stores, which are tried in turn. There is
    /// one store unless names repeat.
    stores: Arc<[X509Store]>,
    revoked: RevocationIndex,
    /// Whom the lists deny that the configuration names.
    listed: Vec<Arc<DenyIndex>>,
    /// Whom the gateway itself has blocked.
    blocked: Arc<DenyIndex>,
    /// Both.
    denied: Denied,
    /// Whether `denied` names one of the anchors.
    denies_anchor: bool,
    policy: TrustPolicy,
}

/// A certificate that is believed because the operator says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// RFC 4514 text.
    pub subject: String,
    pub fingerprint: Fingerprint,
    pub not_after: UnixTime,
}

/// Why certificates and lists make no trust domain.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("there is no trust anchor (an empty set would believe nobody)")]
    NoAnchors,
    #[error(
        "`{subject}` is not the certificate of a CA (expected: basicConstraints CA:TRUE, or a self-signed certificate of X.509 version 1)"
    )]
    NotAnAnchor { subject: String },
    #[error("the TLS library does not take `{subject}` as a trust anchor")]
    Anchor { subject: String, source: ErrorStack },
    #[error("the TLS library could not make a certificate store")]
    Library(#[from] ErrorStack),
    #[error(
        "the revocation list of `{issuer}` is older than the one in force (cRLNumber {found}, in force {in_force}): an old list would bring revoked clients back"
    )]
    RolledBack { issuer: String, found: String, in_force: String },
    #[error(
        "the delta list 0x{number} of `{issuer}` says only what has changed since list 0x{base}, and {found}: without a complete list of at least that number nobody knows who is revoked"
    )]
    DeltaWithoutBase { issuer: String, number: String, base: String, found: String },
    #[error("there is no memory for the revocation lists")]
    NoMemory,
    #[error(
        "the revocation list of `{issuer}` that is in force (cRLNumber {in_force}) is gone: clients that it revoked would come back"
    )]
    Gone { issuer: String, in_force: String },
    #[error("there is no list of `{issuer}` in it any more: clients that it revoked would come back")]
    FellSilent { issuer: String },
}

impl TrustDomain {
    /// `certificates` is the bundle in any order. Each one is an anchor, intermediates too: a chain is believed as soon
    /// as it reaches one of them.
    pub fn build(
        name: &str,
        certificates: Vec<Certificate>,
        lists: Vec<Arc<RevocationList>>,
        policy: TrustPolicy,
    ) -> Result<Self, TrustError> {
        let mut domain = Self {
            name: name.into(),
            anchors: Vec::with_capacity(certificates.len()),
            certificates: Vec::with_capacity(certificates.len()),
            x509: Vec::with_capacity(certificates.len()),
            positions: AHashMap::with_capacity(certificates.len()),
            names: AHashSet::with_capacity(certificates.len()),
            stores: Arc::default(),
            revoked: RevocationIndex::build(lists)?,
            listed: Vec::new(),
            blocked: Arc::default(),
            denied: Denied::default(),
            denies_anchor: false,
            policy,
        };
        for certificate in certificates {
            domain.add_anchor(certificate)?;
        }
        if domain.anchors.is_empty() {
            return Err(TrustError::NoAnchors);
        }
        domain.stores = path::stores(&domain.certificates, &domain.x509)?.into();
        Ok(domain)
    }

    /// Keeps out whom these indexes name, whatever the configuration named before.
    #[must_use]
    pub fn denying(mut self, listed: Vec<Arc<DenyIndex>>) -> Self {
        self.listed = listed;
        self.deny();
        self
    }

    /// Keeps out whom this index names, whomever the gateway has blocked before.
    #[must_use]
    pub fn blocking(mut self, blocked: Arc<DenyIndex>) -> Self {
        self.blocked = blocked;
        self.deny();
        self
    }

    fn deny(&mut self) {
        self.denied = Denied::new(self.listed.iter().chain([&self.blocked]).cloned().collect());
        let is_named = |anchor: &Certificate| self.denied.names(anchor, role_of_anchor(anchor));
        self.denies_anchor = self.certificates.iter().any(is_named);
    }

    fn add_anchor(&mut self, certificate: Certificate) -> Result<(), TrustError> {
        let fingerprint = *certificate.fingerprint();
        if self.positions.contains_key(&fingerprint) {
            return Ok(());
        }
        let subject = certificate.subject().to_string();
        if !certificate.may_be_anchor() {
            return Err(TrustError::NotAnAnchor { subject });
        }
        let x509 = X509::from_der(certificate.der())
            .map_err(|source| TrustError::Anchor { subject: subject.clone(), source })?;
        self.positions.insert(fingerprint, self.anchors.len());
        self.names.insert(certificate.subject().comparable());
        self.anchors.push(Arc::new(Anchor { subject, fingerprint, not_after: certificate.not_after() }));
        self.certificates.push(certificate);
        self.x509.push(x509);
        Ok(())
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// In the order of the bundle, each one once.
    pub fn anchors(&self) -> &[Arc<Anchor>] {
        &self.anchors
    }

    /// What the anchors say, in the same order.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Those that name anybody.
    pub fn denying_indexes(&self) -> Vec<Arc<DenyIndex>> {
        self.denied.indexes().to_vec()
    }

    pub fn policy(&self) -> &TrustPolicy {
        &self.policy
    }

    /// How many certificates are revoked, in all lists.
    pub fn revoked(&self) -> usize {
        self.revocation_lists().map(|list| list.len()).sum()
    }

    /// The lists that are looked at, the newest one for each issuer and scope, deltas included.
    pub fn revocation_lists(&self) -> impl Iterator<Item = &Arc<RevocationList>> {
        self.revoked.lists()
    }

    /// The domain as it is while lists that it should have were never obtained: what the policy says of a stale list
    /// holds for every client whose issuer has no complete list of its own.
    #[must_use]
    pub fn awaiting(mut self, lists: Vec<AwaitedList>) -> Self {
        self.revoked.await_lists(lists);
        self
    }

    /// The lists that were never obtained.
    pub fn awaited_lists(&self) -> &[AwaitedList] {
        self.revoked.awaited()
    }

    /// Anchors whose clients no list speaks about, in a domain that has lists: worth a warning.
    pub fn anchors_without_list(&self) -> Vec<&Arc<Anchor>> {
        // Of an awaited list nobody knows whose it will be.
        if self.revoked.is_empty() || !self.revoked.awaited().is_empty() {
            return Vec::new();
        }
        let pairs = self.anchors.iter().zip(&self.certificates);
        pairs.filter(|(_, certificate)| !self.revoked.covers(certificate)).map(|(anchor, _)| anchor).collect()
    }

    /// How many entries of deny lists there are.
    pub fn denied(&self) -> usize {
        self.denied.len()
    }

    /// What of a deny list is legal but should be looked at: entries that can mean nobody.
    pub fn doubts_about(&self, denied: &DenyIndex, now: UnixTime) -> Vec<String> {
        denied.doubts(now, |issuer| self.names.contains(issuer))
    }

    /// Anchors that a deny list names, each with the reason: worth a warning, since it shuts everybody out.
    pub fn denied_anchors(&self, now: UnixTime) -> impl Iterator<Item = (&Arc<Anchor>, String)> {
        let pairs = self.anchors.iter().zip(&self.certificates);
        pairs.filter_map(move |(anchor, certificate)| {
            Some((anchor, self.denied.find(certificate, role_of_anchor(certificate), now)?))
        })
    }

    /// Whether it could have something against a client that another domain believes.
    fn may_object(&self, presented: &Presented) -> bool {
        let is_named = |(role, certificate): (Role, &Certificate)| self.denied.names(certificate, role);
        !self.revoked.is_empty() || self.denies_anchor || presented.certificates().any(is_named)
    }

    /// Whether this domain may take the place of `previous`: not when one of its lists is older.
    pub fn check_succession(&self, previous: &Self) -> Result<(), TrustError> {
        self.revoked.check_succession(&previous.revoked)
    }

    /// Whether every list of `previous` still has a successor here: not where an anchor's list is simply gone.
    pub fn check_completeness(&self, previous: &Self) -> Result<(), TrustError> {
        self.revoked.check_completeness(&previous.revoked, |issuer| self.names.contains(issuer))
    }

    /// When a verdict may change without anybody changing the domain.
    fn changes(&self) -> impl Iterator<Item = UnixTime> {
        let anchors = self
            .certificates
            .iter()
            .flat_map(|anchor| memory::changes_of_validity(anchor.not_before(), anchor.not_after()));
        let when_stale = self.policy.when_stale;
        let beliefs = [when_stale].into_iter().chain(self.policy.quarantine.beliefs(when_stale));
        let denied =
            self.certificates.iter().flat_map(|anchor| self.denied.changes(anchor, role_of_anchor(anchor)));
        anchors.chain(beliefs.flat_map(|belief| self.revoked.changes(belief))).chain(denied)
    }

    /// When a deny list ceases to speak about what a client presents.
    fn changes_about<'a>(&'a self, presented: &'a Presented) -> impl Iterator<Item = UnixTime> + 'a {
        presented.certificates().flat_map(|(role, certificate)| self.denied.changes(certificate, role))
    }

    /// The verdict on a chain. Every way in which it can end is a [`RejectionReason`].
    fn verify(&self, presented: &Presented, now: UnixTime) -> Result<ClientIdentity, Rejection> {
        self.check_size(presented)?;
        let (mut worst, mut quarantined) = (None, None);
        for store in &*self.stores {
            let rejection = match path::find(store, presented) {
                Ok(found) => match self.judge(presented, &found, now) {
                    Ok(identity) if identity.standing().is_good() => return Ok(identity),
                    Ok(identity) => {
                        quarantined = quarantined.or(Some(identity));
                        continue;
                    }
                    Err(rejection) => rejection,
                },
                Err(failure) => self.explain(presented, &failure),
            };
            worst = Some(Rejection::more_telling(worst, rejection));
        }
        // Its only fault, by whatever path: one by which it is revoked or denied is another one.
        let is_final = |worst: &Rejection| worst.reason.is_final();
        if let Some(identity) = quarantined.filter(|_| !worst.as_ref().is_some_and(is_final)) {
            return Ok(identity);
        }
        // A domain always has a store; without one nobody is believed.
        Err(worst
            .unwrap_or_else(|| self.reject(presented, RejectionReason::Internal, "no trust anchor".into())))
    }

    fn check_size(&self, presented: &Presented) -> Result<(), Rejection> {
        path::check_size(presented.bytes(), presented.count(), &self.policy)
            .map_err(|(reason, detail)| self.reject(presented, reason, detail))
    }

    /// What OpenSSL has believed, judged by what it was not asked.
    fn judge(
        &self,
        presented: &Presented,
        found: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<ClientIdentity, Rejection> {
        let reject = |(reason, detail)| self.reject(presented, reason, detail);
        let (path, anchor) = self.resolve(presented, found).map_err(reject)?;
        path.check_denial(&self.denied, now).map_err(reject)?;
        let standing = path.standing(&self.policy, &self.revoked, now).map_err(reject)?;
        Ok(ClientIdentity::new(
            self.name.clone(),
            self.anchors[anchor].clone(),
            path.leaf.clone(),
            Companions {
                intermediates: path.intermediates.iter().map(|it| it.der().to_vec()).collect(),
                others: presented.besides(&path.intermediates),
                glance: presented.glance(),
            },
            standing,
            path.valid_until(standing),
        ))
    }

    /// The path as certificates that we have read, cut at the first anchor, with the position of that one.
    fn resolve<'a>(
        &'a self,
        presented: &'a Presented,
        found: &[Vec<u8>],
    ) -> Result<(Path<'a>, usize), Finding> {
        let mut intermediates = Vec::new();
        for (position, der) in found.iter().enumerate() {
            let fingerprint = Fingerprint(openssl::sha::sha256(der));
            if let Some(&at) = self.positions.get(&fingerprint) {
                if position == 0 {
                    return Err(leaf_is_ca(presented.leaf()));
                }
                let anchor = &self.certificates[at];
                return Ok((Path { leaf: presented.leaf(), intermediates, anchor }, at));
            }
            if position > 0 {
                intermediates.push(presented.intermediate(der)?);
            }
        }
        // Not believed without an anchor that can be named.
        Err((RejectionReason::Internal, "the verified path ends in no anchor of the trust domain".into()))
    }

    /// OpenSSL's verdict in words.
    fn explain(&self, presented: &Presented, failure: &PathFailure) -> Rejection {
        let known = |name: &Name| self.names.contains(&name.comparable());
        let (reason, detail) = failure.explain(presented, &self.name, known);
        self.reject(presented, reason, detail)
    }

    fn reject(&self, presented: &Presented, reason: RejectionReason, detail: String) -> Rejection {
        Rejection {
            reason,
            subject: Some(presented.leaf().subject().to_string()),
            trust_domain: Some(self.name.clone()),
            detail,
        }
    }
}

fn role_of_anchor(anchor: &Certificate) -> Role {
    if anchor.is_self_issued() { Role::Root } else { Role::Authority }
}

/// A reason with its sentence.
type Finding = (RejectionReason, String);

#[cfg(test)]
pub(crate) mod mint;
#[cfg(test)]
mod tests;
