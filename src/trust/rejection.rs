//! Why a chain is not believed, as a label and as a sentence.

use std::sync::Arc;

use openssl::x509::X509VerifyResult;

use crate::UnixTime;
use crate::certificate::Certificate;

/// A chain that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: RejectionReason,
    /// Of the leaf, as far as it could be read.
    pub subject: Option<String>,
    /// The domain that says so.
    pub trust_domain: Option<Arc<str>>,
    /// A sentence for the operator. The client never sees it.
    pub detail: String,
}

impl Rejection {
    /// A domain that knows the issuer says more than one that does not.
    pub(super) fn tells_more_than(&self, other: &Self) -> bool {
        self.reason.weight() > other.reason.weight()
    }
}

/// Each way a verdict can end that is not belief.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionReason {
    NoCertificate,
    UnknownIssuer,
    BadSignature,
    Expired,
    NotYetValid,
    Revoked,
    /// The list that would tell is stale, and the domain's policy does not believe it.
    RevocationUnknown,
    WrongUsage,
    LeafIsCa,
    ChainTooLong,
    ChainTooLarge,
    Malformed,
    /// Any other error of the library's path validation.
    NotAccepted,
    Internal,
}

impl RejectionReason {
    /// The label of the metric, which has fewer than there are variants.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::WrongUsage | Self::LeafIsCa => "wrong_usage",
            Self::ChainTooLong | Self::ChainTooLarge => "chain_too_long",
            Self::Malformed => "malformed",
            Self::NotAccepted => "not_accepted",
            Self::Internal => "internal",
        }
    }

    fn weight(self) -> u8 {
        match self {
            Self::UnknownIssuer => 0,
            Self::NoCertificate | Self::Internal | Self::NotAccepted => 1,
            Self::BadSignature => 2,
            _ => 3,
        }
    }
}

/// RFC 3339, UTC, to the second.
pub(super) fn date(time: UnixTime) -> String {
    jiff::Timestamp::from_second(time).map_or_else(|_| format!("{time}"), |time| time.to_string())
}

pub(super) fn expired(certificate: &Certificate) -> (RejectionReason, String) {
    let detail =
        format!("certificate `{}` expired on {}", certificate.subject(), date(certificate.not_after()));
    (RejectionReason::Expired, detail)
}

pub(super) fn not_yet_valid(certificate: &Certificate) -> (RejectionReason, String) {
    let from = date(certificate.not_before());
    (
        RejectionReason::NotYetValid,
        format!("certificate `{}` is not valid before {from}", certificate.subject()),
    )
}

/// The numbers of `x509_vfy.h`, which are the same in all libraries of OpenSSL's family
/// (`X509_STORE_CTX_get_error(3)`).
pub(super) fn describe(
    result: X509VerifyResult,
    culprit: &Certificate,
    leaf: &Certificate,
    domain: &str,
) -> (RejectionReason, String) {
    let name = culprit.subject();
    match result.as_raw() {
        2 | 20 | 21 | 27 | 33 => (
            RejectionReason::UnknownIssuer,
            format!(
                "no anchor of trust domain `{domain}` vouches for `{}`, which says it was issued by `{}`",
                leaf.subject(),
                leaf.issuer()
            ),
        ),
        18 | 19 => (
            RejectionReason::UnknownIssuer,
            format!("`{name}` is signed by itself and is no anchor of trust domain `{domain}`"),
        ),
        4 | 6 | 7 => (
            RejectionReason::BadSignature,
            format!(
                "the signature on `{name}` is not one of the `{}` that trust domain `{domain}` knows: another \
                 authority of the same name, or a forgery",
                culprit.issuer()
            ),
        ),
        10 => expired(culprit),
        9 => not_yet_valid(culprit),
        13..=16 => (RejectionReason::Malformed, format!("certificate `{name}` has a malformed date")),
        22 => (
            RejectionReason::ChainTooLong,
            format!("the chain of `{}` is longer than allowed", leaf.subject()),
        ),
        23 => (RejectionReason::Revoked, format!("certificate `{name}` is revoked")),
        24 | 26 | 28 | 79 => (
            RejectionReason::WrongUsage,
            format!("certificate `{name}` may not be used for this ({})", result.error_string()),
        ),
        25 => (RejectionReason::ChainTooLong, format!("the path length that `{name}` allows is exceeded")),
        17 => (RejectionReason::Internal, "out of memory".into()),
        _ => (
            RejectionReason::NotAccepted,
            format!("certificate `{name}` is not accepted: {}", result.error_string()),
        ),
    }
}
