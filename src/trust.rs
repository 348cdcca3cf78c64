//! Trust domains: whose word is believed, and the verdict on a chain.
//!
//! A domain is a set of trust anchors and the revocation lists of their authorities. Nothing but the given
//! certificates is ever trusted: no default paths, no system store.

pub mod identity;
pub mod rejection;
pub mod revocation;

use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509StoreContext, X509VerifyResult};

use crate::UnixTime;
use crate::certificate::{Certificate, Fingerprint};
use revocation::{RevocationIndex, Standing};

pub use identity::ClientIdentity;
pub use rejection::{Rejection, RejectionReason};
pub use revocation::{RevocationError, RevocationList};

/// What makes a set of files unfit to be a trust domain.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("a trust domain without anchors would trust nobody, or everybody; it cannot be built")]
    Empty,
    #[error("`{0}` is no certificate authority (basicConstraints CA:FALSE); it cannot be a trust anchor")]
    NotACa(String),
    #[error("the TLS library refuses an anchor: {0}")]
    Library(#[from] ErrorStack),
}

/// What is asked of a chain beyond its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPolicy {
    pub client_auth_usage: Usage,
    /// Intermediates between leaf and anchor, at most.
    pub max_depth: u32,
    /// Of the presented chain, in all.
    pub max_chain_bytes: usize,
    pub when_stale: WhenStale,
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self {
            client_auth_usage: Usage::WhenPresent,
            max_depth: 5,
            max_chain_bytes: 64 * 1024,
            when_stale: WhenStale::Refuse,
        }
    }
}

/// Whether the leaf's extended key usage must allow client authentication (RFC 5280, section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A leaf without the extension may do anything; one with it must say clientAuth.
    WhenPresent,
    Always,
}

/// What a revocation list past its nextUpdate is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStale {
    /// Nobody gets in whose authority's list is stale.
    Refuse,
    Believe,
    BelieveFor(Duration),
}

/// A certificate whose word is believed.
#[derive(Debug, PartialEq, Eq)]
pub struct Anchor {
    /// RFC 4514.
    pub subject: String,
    pub fingerprint: Fingerprint,
    pub not_after: UnixTime,
}

/// A named set of anchors with what their authorities revoked.
pub struct TrustDomain {
    name: Arc<str>,
    anchors: Vec<Arc<Anchor>>,
    certificates: Vec<X509>,
    store: X509Store,
    revoked: RevocationIndex,
    policy: TrustPolicy,
}

impl TrustDomain {
    /// Every certificate of the bundle is an anchor: a chain may end at an intermediate that is listed.
    pub fn build(
        name: &str,
        bundle: &[Certificate],
        lists: Vec<RevocationList>,
        policy: TrustPolicy,
    ) -> Result<Self, TrustError> {
        if bundle.is_empty() {
            return Err(TrustError::Empty);
        }
        if let Some(leaf) =
            bundle.iter().find(|certificate| certificate.has_extensions() && !certificate.is_ca())
        {
            return Err(TrustError::NotACa(leaf.subject().to_string()));
        }
        let mut store = X509StoreBuilder::new()?;
        let mut parameters = X509VerifyParam::new()?;
        parameters.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
        parameters.set_depth(policy.max_depth as i32);
        parameters.set_purpose(X509PurposeId::SSL_CLIENT)?;
        store.set_param(&parameters)?;
        let (mut anchors, mut certificates) = (Vec::new(), Vec::new());
        for certificate in bundle {
            let anchor = X509::from_der(certificate.der())?;
            store.add_cert(anchor.clone())?;
            certificates.push(anchor);
            anchors.push(Arc::new(Anchor {
                subject: certificate.subject().to_string(),
                fingerprint: *certificate.fingerprint(),
                not_after: certificate.not_after(),
            }));
        }
        Ok(Self {
            name: name.into(),
            anchors,
            certificates,
            store: store.build(),
            revoked: RevocationIndex::build(lists, policy.when_stale),
            policy,
        })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn anchors(&self) -> &[Arc<Anchor>] {
        &self.anchors
    }

    /// How many serials are revoked.
    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }

    fn verify(&self, presented: &Presented, now: UnixTime) -> Result<ClientIdentity, Rejection> {
        let reject = |reason, detail| Rejection {
            reason,
            subject: Some(presented.leaf.subject().to_string()),
            trust_domain: Some(self.name.clone()),
            detail,
        };
        if presented.bytes > self.policy.max_chain_bytes {
            let detail = format!(
                "the presented chain has {} bytes; trust domain `{}` takes {}",
                presented.bytes, self.name, self.policy.max_chain_bytes
            );
            return Err(reject(RejectionReason::ChainTooLarge, detail));
        }
        let path = self.path(presented).map_err(|failure| {
            let (reason, detail) = failure.describe(&presented.leaf, &self.name);
            reject(reason, detail)
        })?;
        self.check_leaf(presented).map_err(|(reason, detail)| reject(reason, detail))?;
        let path = read_path(&path).map_err(|detail| reject(RejectionReason::Malformed, detail))?;
        check_validity(&path, now).map_err(|(reason, detail)| reject(reason, detail))?;
        self.check_revocation(&path, now).map_err(|(reason, detail)| reject(reason, detail))?;
        let last =
            path.last().ok_or_else(|| reject(RejectionReason::Internal, "the path is empty".into()))?;
        let anchor = self.anchors.iter().find(|anchor| anchor.fingerprint == *last.fingerprint());
        let anchor = anchor.ok_or_else(|| {
            reject(RejectionReason::Internal, "the path ends at no anchor of the domain".into())
        })?;
        Ok(ClientIdentity::new(self.name.clone(), anchor.clone(), presented.leaf.clone(), &path))
    }

    /// The path from leaf to anchor, found and verified by the TLS library (RFC 5280, section 6).
    fn path(&self, presented: &Presented) -> Result<Vec<X509>, PathFailure> {
        let mut context = X509StoreContext::new()?;
        let outcome = context.init(&self.store, &presented.certificate, &presented.others, |context| {
            if context.verify_cert()? {
                let path =
                    context.chain().map(|chain| chain.iter().map(std::borrow::ToOwned::to_owned).collect());
                return Ok(Ok(path.unwrap_or_default()));
            }
            let culprit = context.current_cert().and_then(|culprit| culprit.to_der().ok());
            Ok(Err(PathFailure::Refused { result: context.error(), culprit }))
        });
        // What the library noted on the way must not be taken for an error of the connection.
        let _ = ErrorStack::get();
        outcome?
    }

    fn check_leaf(&self, presented: &Presented) -> Result<(), (RejectionReason, String)> {
        let leaf = &presented.leaf;
        if leaf.is_ca() {
            let detail = format!(
                "certificate `{}` is one of a certificate authority, not of a client",
                leaf.subject()
            );
            return Err((RejectionReason::LeafIsCa, detail));
        }
        if self.policy.client_auth_usage == Usage::Always && !presented.says_client_auth {
            let detail = format!(
                "certificate `{}` does not say that it is for client authentication, which trust domain `{}` demands",
                leaf.subject(),
                self.name
            );
            return Err((RejectionReason::WrongUsage, detail));
        }
        Ok(())
    }

    /// The anchor itself is in force because the configuration says so; everything below it can be revoked.
    fn check_revocation(&self, path: &[Certificate], now: UnixTime) -> Result<(), (RejectionReason, String)> {
        for certificate in &path[..path.len().saturating_sub(1)] {
            match self.revoked.standing(certificate.issuer().raw(), certificate.serial(), now) {
                Standing::Good => {}
                Standing::Revoked { at } => {
                    let detail = format!(
                        "certificate `{}` (serial {}) was revoked on {}",
                        certificate.subject(),
                        certificate.serial(),
                        rejection::date(at)
                    );
                    return Err((RejectionReason::Revoked, detail));
                }
                Standing::Unknown { next_update } => {
                    let detail = format!(
                        "the revocation list for `{}` expired on {}: whether certificate `{}` is revoked cannot be \
                         told",
                        certificate.issuer(),
                        rejection::date(next_update),
                        certificate.subject()
                    );
                    return Err((RejectionReason::RevocationUnknown, detail));
                }
            }
        }
        Ok(())
    }
}

/// Why the library found no path.
enum PathFailure {
    Library(ErrorStack),
    Refused { result: X509VerifyResult, culprit: Option<Vec<u8>> },
}

impl From<ErrorStack> for PathFailure {
    fn from(stack: ErrorStack) -> Self {
        Self::Library(stack)
    }
}

impl PathFailure {
    fn describe(self, leaf: &Certificate, domain: &str) -> (RejectionReason, String) {
        match self {
            Self::Library(stack) => (RejectionReason::Internal, format!("the TLS library failed: {stack}")),
            Self::Refused { result, culprit } => {
                let culprit = culprit.and_then(|der| Certificate::from_der(&der).ok());
                rejection::describe(result, culprit.as_ref().unwrap_or(leaf), leaf, domain)
            }
        }
    }
}

/// The library looked at its own clock already; `now` decides.
fn check_validity(path: &[Certificate], now: UnixTime) -> Result<(), (RejectionReason, String)> {
    for certificate in path {
        if now > certificate.not_after() {
            return Err(rejection::expired(certificate));
        }
        if now < certificate.not_before() {
            return Err(rejection::not_yet_valid(certificate));
        }
    }
    Ok(())
}

fn read_path(path: &[X509]) -> Result<Vec<Certificate>, String> {
    path.iter()
        .map(|certificate| {
            let der = certificate.to_der().map_err(|error| error.to_string())?;
            Certificate::from_der(&der)
                .map_err(|error| format!("a certificate of the chain is malformed: {error}"))
        })
        .collect()
}

/// A chain as a client presented it, read once for all domains.
struct Presented {
    leaf: Certificate,
    certificate: X509,
    others: Stack<X509>,
    says_client_auth: bool,
    bytes: usize,
}

impl Presented {
    fn read(chain: &[&[u8]]) -> Result<Self, Rejection> {
        let bare = |reason, detail| Rejection { reason, subject: None, trust_domain: None, detail };
        let (first, rest) = chain.split_first().ok_or_else(|| {
            bare(RejectionReason::NoCertificate, "the client presented no certificate".into())
        })?;
        let leaf = Certificate::from_der(first).map_err(|error| {
            bare(RejectionReason::Malformed, format!("the client's certificate is malformed: {error}"))
        })?;
        let library = |error: ErrorStack| {
            bare(RejectionReason::Malformed, format!("the chain cannot be read: {error}"))
        };
        let certificate = X509::from_der(first).map_err(library)?;
        let mut others = Stack::new().map_err(library)?;
        for der in rest {
            others.push(X509::from_der(der).map_err(library)?).map_err(library)?;
        }
        Ok(Self {
            says_client_auth: says_client_auth(first),
            leaf,
            certificate,
            others,
            bytes: chain.iter().map(|der| der.len()).sum(),
        })
    }
}

fn says_client_auth(der: &[u8]) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return false };
    matches!(parsed.extended_key_usage(), Ok(Some(usage)) if usage.value.client_auth)
}

/// The domains that one listener admits, in the order of its configuration.
///
/// Where domains overlap, the first that believes a chain decides; nothing is ever believed twice.
pub struct TrustSet(Vec<Arc<TrustDomain>>);

impl TrustSet {
    pub fn new(domains: Vec<Arc<TrustDomain>>) -> Self {
        Self(domains)
    }

    /// `presented`: DER, leaf first. Of several rejections the most telling one is returned: a domain that knows the
    /// issuer says more than one that does not.
    pub fn verify(&self, presented: &[&[u8]], now: UnixTime) -> Result<ClientIdentity, Rejection> {
        let presented = Presented::read(presented)?;
        let mut worst: Option<Rejection> = None;
        for domain in &self.0 {
            match domain.verify(&presented, now) {
                Ok(identity) => return Ok(identity),
                // A domain that revoked the chain has the last word: no other may let it in.
                Err(rejection) if rejection.reason == RejectionReason::Revoked => return Err(rejection),
                Err(rejection) => {
                    if worst.as_ref().is_none_or(|worst| rejection.tells_more_than(worst)) {
                        worst = Some(rejection);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| Rejection {
            reason: RejectionReason::UnknownIssuer,
            subject: Some(presented.leaf.subject().to_string()),
            trust_domain: None,
            detail: "the listener admits no trust domain".into(),
        }))
    }

    /// What each domain by itself says.
    pub fn explain(
        &self,
        presented: &[&[u8]],
        now: UnixTime,
    ) -> Vec<(Arc<str>, Result<ClientIdentity, Rejection>)> {
        let read = Presented::read(presented);
        let judge = |domain: &Arc<TrustDomain>| match &read {
            Ok(presented) => domain.verify(presented, now),
            Err(rejection) => Err(rejection.clone()),
        };
        self.0.iter().map(|domain| (domain.name.clone(), judge(domain))).collect()
    }

    /// Each anchor with the name of its domain.
    pub fn anchors(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Anchor>)> {
        self.0.iter().flat_map(|domain| domain.anchors.iter().map(|anchor| (&domain.name, anchor)))
    }

    /// For the names that a handshake's CertificateRequest may carry.
    pub fn anchor_certificates(&self) -> Vec<&X509> {
        self.0.iter().flat_map(|domain| &domain.certificates).collect()
    }
}
