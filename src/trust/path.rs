//! From a leaf to an anchor: what the client presented, OpenSSL's search for a path, and its errors in words.

use std::borrow::Cow;

use ahash::AHashMap;
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContext, X509StoreContextRef};

use super::checks::{leaf_is_ca, not_for_clients};
use super::deny::Role;
use super::glance::Glance;
use super::memory::changes_of_validity;
use super::{Finding, RejectionReason, TrustPolicy};
use crate::UnixTime;
use crate::certificate::{Certificate, ClientUse, MalformedCertificate, Name};

/// What the client sent, read once for all trust domains.
pub(super) struct Presented {
    leaf: Certificate,
    leaf_x509: X509,
    /// What came behind the leaf, each with what we could read of it.
    others: Vec<Companion>,
    stack: Stack<X509>,
    bytes: usize,
    count: usize,
}

struct Companion {
    der: Vec<u8>,
    x509: X509,
    read: Result<Certificate, MalformedCertificate>,
}

/// One certificate as it was presented.
pub(super) struct Shown<'a> {
    der: Cow<'a, [u8]>,
    /// If the TLS library has decoded it already: OpenSSL 3 takes longer to decode a key than to use it.
    x509: Option<X509>,
}

impl<'a> Shown<'a> {
    pub(super) fn encoded(der: &'a [u8]) -> Self {
        Self { der: der.into(), x509: None }
    }

    pub(super) fn decoded(x509: &X509Ref) -> Result<Self, ErrorStack> {
        Ok(Self { der: x509.to_der()?.into(), x509: Some(x509.to_owned()) })
    }

    pub(super) fn len(&self) -> usize {
        self.der.len()
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    fn x509(&self) -> Result<X509, ErrorStack> {
        self.x509.clone().map_or_else(|| X509::from_der(&self.der), Ok)
    }
}

impl Presented {
    pub(super) fn read(presented: &[Shown<'_>], now: UnixTime) -> Result<Self, Finding> {
        let malformed = |detail| (RejectionReason::Malformed, detail);
        let (leaf, rest) = presented
            .split_first()
            .ok_or_else(|| (RejectionReason::NoCertificate, "the client presented no certificate".into()))?;
        let leaf_shown = leaf;
        let leaf = Certificate::from_der(&leaf_shown.der)
            .map_err(|error| malformed(format!("the client's certificate is malformed: {error}")))?;
        let leaf_x509 = leaf_shown.x509().map_err(|error| malformed(undecodable(&leaf, &error)))?;
        let mut others = rest
            .iter()
            .filter(|other| other.der != leaf_shown.der)
            .map(Companion::read)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| malformed(undecodable_companion(&leaf, &error)))?;
        // OpenSSL is told to leave the time to us, so it takes the first issuer that fits: a valid one comes first.
        others.sort_by_key(|other| !other.read.as_ref().is_ok_and(|it| is_valid_at(it, now)));
        let stack = stack(&others)
            .map_err(|error| (RejectionReason::Internal, undecodable_companion(&leaf, &error)))?;
        let bytes = presented.iter().map(Shown::len).sum();
        Ok(Self { leaf, leaf_x509, others, stack, bytes, count: presented.len() })
    }

    pub(super) fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The leaf, and what came behind it as far as it can be read.
    pub(super) fn certificates(&self) -> impl Iterator<Item = (Role, &Certificate)> {
        let others = self.others.iter().filter_map(|other| other.read.as_ref().ok());
        std::iter::once((Role::Leaf, &self.leaf)).chain(others.map(|other| (Role::Authority, other)))
    }

    /// One whose key the TLS library cannot decode: OpenSSL does not look at keys before it needs them.
    fn with_unreadable_key(&self) -> Option<&Certificate> {
        if self.leaf_x509.public_key().is_err() {
            return Some(&self.leaf);
        }
        let other = self.others.iter().find(|other| other.x509.public_key().is_err())?;
        Some(other.read.as_ref().unwrap_or(&self.leaf))
    }

    /// When one of the presented certificates begins or ceases to be valid.
    pub(super) fn changes(&self) -> impl Iterator<Item = UnixTime> {
        let all = self.certificates();
        all.flat_map(|(_, certificate)| {
            changes_of_validity(certificate.not_before(), certificate.not_after())
        })
    }

    /// What came behind the leaf and is not among `path`.
    pub(super) fn besides(&self, path: &[&Certificate]) -> Vec<Vec<u8>> {
        let is_used = |other: &&Companion| path.iter().any(|certificate| certificate.der() == other.der);
        self.others.iter().filter(|other| !is_used(other)).map(|other| other.der.clone()).collect()
    }

    /// At the serials of all of them.
    pub(super) fn glance(&self) -> Glance {
        let others = self.others.iter().map(|other| Some(other.read.as_ref().ok()?.serial()));
        Glance::at([Some(self.leaf.serial())].into_iter().chain(others))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What a certificate on the path says. It must be as well-formed as the leaf.
    pub(super) fn intermediate(&self, der: &[u8]) -> Result<&Certificate, Finding> {
        match self.others.iter().find(|other| other.der == der).map(|other| &other.read) {
            Some(Ok(certificate)) => Ok(certificate),
            Some(Err(error)) => {
                let detail =
                    format!("an intermediate certificate of {} is malformed: {error}", label(&self.leaf));
                Err((RejectionReason::Malformed, detail))
            }
            None => {
                Err((RejectionReason::Internal, "the verified path holds a certificate from nowhere".into()))
            }
        }
    }
}

impl Companion {
    fn read(shown: &Shown<'_>) -> Result<Self, ErrorStack> {
        Ok(Self { der: shown.der.to_vec(), x509: shown.x509()?, read: Certificate::from_der(&shown.der) })
    }
}

fn is_valid_at(certificate: &Certificate, now: UnixTime) -> bool {
    (certificate.not_before()..=certificate.not_after()).contains(&now)
}

fn stack(others: &[Companion]) -> Result<Stack<X509>, ErrorStack> {
    let mut stack = Stack::new()?;
    for other in others {
        stack.push(other.x509.clone())?;
    }
    Ok(stack)
}

fn undecodable(leaf: &Certificate, error: &ErrorStack) -> String {
    format!("{} cannot be decoded by the TLS library: {error}", label(leaf))
}

fn undecodable_companion(leaf: &Certificate, error: &ErrorStack) -> String {
    format!("a certificate that came with {} cannot be decoded by the TLS library: {error}", label(leaf))
}

/// How to call a certificate in a sentence.
pub(super) fn label(certificate: &Certificate) -> String {
    if certificate.subject().is_empty() {
        format!("certificate with serial `{}`", certificate.serial())
    } else {
        format!("certificate `{}`", certificate.subject())
    }
}

/// Bounds the work that a stranger can cause. Clients do send certificates that no path needs, so twice the longest
/// path is let through; the path itself is measured later.
pub(super) fn check_size(bytes: usize, count: usize, policy: &TrustPolicy) -> Result<(), Finding> {
    if bytes > policy.max_chain_bytes {
        let detail = format!(
            "the client presented {bytes} bytes of certificates (allowed: {})",
            policy.max_chain_bytes
        );
        return Err((RejectionReason::ChainTooLarge, detail));
    }
    let most = (policy.max_depth as usize).saturating_add(2).saturating_mul(2);
    if count > most {
        let detail = format!("the client presented {count} certificates (allowed: {most})");
        return Err((RejectionReason::ChainTooLong, detail));
    }
    Ok(())
}

/// As many stores as the most frequent name among the anchors occurs, so that no store holds a name twice.
pub(super) fn stores(certificates: &[Certificate], x509: &[X509]) -> Result<Vec<X509Store>, ErrorStack> {
    let mut occurrences: AHashMap<Box<[u8]>, usize> = AHashMap::with_capacity(certificates.len());
    let mut builders: Vec<X509StoreBuilder> = Vec::new();
    for (certificate, x509) in certificates.iter().zip(x509) {
        let seen = occurrences.entry(certificate.subject().comparable()).or_default();
        if *seen == builders.len() {
            builders.push(store()?);
        }
        builders[*seen].add_cert(x509.clone())?;
        *seen += 1;
    }
    Ok(builders.into_iter().map(X509StoreBuilder::build).collect())
}

/// An empty store; the library's default paths are never added to it.
fn store() -> Result<X509StoreBuilder, ErrorStack> {
    let mut parameters = X509VerifyParam::new()?;
    // Any anchor ends a path, self-signed or not. Time is ours: see `check_time`.
    parameters.set_flags(
        X509VerifyFlags::PARTIAL_CHAIN | X509VerifyFlags::TRUSTED_FIRST | X509VerifyFlags::NO_CHECK_TIME,
    )?;
    parameters.set_purpose(X509PurposeId::SSL_CLIENT)?;
    // The libraries count differently and tell differently, so theirs is only a backstop: see `check_depth`.
    parameters.set_depth(DEPTH_BACKSTOP);
    let mut store = X509StoreBuilder::new()?;
    store.set_param(&parameters)?;
    Ok(store)
}

const DEPTH_BACKSTOP: i32 = 100;

/// The path from the leaf to an anchor, both included, as DER.
pub(super) fn find(store: &X509Store, presented: &Presented) -> Result<Vec<Vec<u8>>, PathFailure> {
    let found = X509StoreContext::new().and_then(|mut context| {
        context.init(store, &presented.leaf_x509, &presented.stack, |context| {
            Ok(if context.verify_cert()? { Ok(ders(context)?) } else { Err(PathFailure::read(context)) })
        })
    });
    // What a failed search leaves in the library's error queue would be taken for an error of the handshake that we
    // are in the middle of (SSL_get_error(3)).
    let _ = ErrorStack::get();
    found.unwrap_or_else(|error| Err(PathFailure { code: 0, text: error.to_string(), culprit: None }))
}

fn ders(context: &X509StoreContextRef) -> Result<Vec<Vec<u8>>, ErrorStack> {
    context.chain().into_iter().flatten().map(X509Ref::to_der).collect()
}

/// Why OpenSSL found no path.
pub(super) struct PathFailure {
    /// `X509_V_ERR_…` of `x509_vfy.h`. Up to 64 the libraries agree, except for 24.
    code: i32,
    text: String,
    /// The certificate that the search stopped at.
    culprit: Option<Box<Certificate>>,
}

impl PathFailure {
    fn read(context: &X509StoreContextRef) -> Self {
        let der = context.current_cert().and_then(|certificate| certificate.to_der().ok());
        Self {
            code: context.error().as_raw(),
            text: context.error().error_string().to_owned(),
            culprit: der.and_then(|der| Certificate::from_der(&der).ok()).map(Box::new),
        }
    }

    /// `known` tells whether an anchor has a name.
    pub(super) fn explain(
        &self,
        presented: &Presented,
        domain: &str,
        known: impl Fn(&Name) -> bool,
    ) -> Finding {
        let leaf = presented.leaf();
        let culprit = self.culprit.as_deref().unwrap_or(leaf);
        match self.code {
            // …_UNABLE_TO_GET_ISSUER_CERT (also _LOCALLY), _UNABLE_TO_VERIFY_LEAF_SIGNATURE, the two about self-signed
            // certificates, _CERT_UNTRUSTED, and the mismatches between a certificate and its issuer.
            2 | 18..=21 | 27 | 29..=31 => {
                (RejectionReason::UnknownIssuer, unknown_issuer(culprit, leaf, domain, &known))
            }
            // …_UNABLE_TO_DECRYPT_CERT_SIGNATURE, _UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY, _CERT_SIGNATURE_FAILURE.
            4 | 6 | 7 => (RejectionReason::BadSignature, bad_signature(culprit)),
            // …_CERT_CHAIN_TOO_LONG, _PATH_LENGTH_EXCEEDED.
            22 | 25 => (RejectionReason::ChainTooLong, self.about(culprit)),
            // …_INVALID_PURPOSE. The most frequent causes deserve a better sentence than the library's.
            26 if culprit == leaf && leaf.is_ca() => leaf_is_ca(leaf),
            26 if culprit == leaf && leaf.client_use() == ClientUse::NotNamed => not_for_clients(leaf),
            26 => {
                let detail = format!("{} must not be used for TLS clients: {}", label(culprit), self.text);
                (RejectionReason::WrongUsage, detail)
            }
            // …_INVALID_CA by its two numbers, _KEYUSAGE_NO_CERTSIGN, _INVALID_NON_CA, _KEYUSAGE_NO_DIGITAL_SIGNATURE.
            24 | 79 | 32 => {
                let detail = format!("{} issued a certificate but is not that of a CA", label(culprit));
                (RejectionReason::WrongUsage, detail)
            }
            37 | 39 => (RejectionReason::WrongUsage, self.about(culprit)),
            // …_ERROR_IN_CERT_NOT_BEFORE_FIELD, _NOT_AFTER_FIELD, _INVALID_EXTENSION, _UNSUPPORTED_NAME_SYNTAX.
            13 | 14 | 41 | 53 => (RejectionReason::Malformed, self.about(culprit)),
            // …_OUT_OF_MEM, and our own number for a search that could not be made.
            0 | 1 | 17 => {
                if let Some(culprit) = presented.with_unreadable_key() {
                    (RejectionReason::Malformed, format!("the key of {} cannot be decoded", label(culprit)))
                } else {
                    let detail = format!("{} could not be verified: {}", label(leaf), self.text);
                    (RejectionReason::Internal, detail)
                }
            }
            _ => (RejectionReason::NotAccepted, self.about(culprit)),
        }
    }

    fn about(&self, culprit: &Certificate) -> String {
        format!("{} is not accepted: {}", label(culprit), self.text)
    }
}

fn unknown_issuer(
    culprit: &Certificate,
    leaf: &Certificate,
    domain: &str,
    known: &dyn Fn(&Name) -> bool,
) -> String {
    let namesake =
        if known(culprit.issuer()) { ", which has an anchor of that name but with another key" } else { "" };
    let of_leaf =
        if culprit == leaf { String::new() } else { format!("the chain of {} ends: ", label(leaf)) };
    let culprit_label = label(culprit);
    if culprit.is_self_issued() {
        return format!(
            "{of_leaf}{culprit_label} is self-signed and no anchor of trust domain `{domain}`{namesake}"
        );
    }
    format!(
        "{of_leaf}the issuer `{}` of {culprit_label} is not known to trust domain `{domain}`{namesake}",
        culprit.issuer()
    )
}

fn bad_signature(culprit: &Certificate) -> String {
    format!(
        "the signature of {} was not made by the `{}` that is known here (altered, or issued by another CA of that name)",
        label(culprit),
        culprit.issuer()
    )
}
