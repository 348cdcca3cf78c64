//! Why a chain was not believed.

use std::fmt;
use std::sync::Arc;

/// A client's certificate was not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Rejection {
    pub reason: RejectionReason,
    /// The leaf's subject in RFC 4514 text, when it could be read.
    pub subject: Option<String>,
    /// Whose verdict it is, when it is one domain's.
    pub trust_domain: Option<Arc<str>>,
    /// A sentence for the operator. Never sent to the client.
    pub detail: String,
}

/// Every way in which a verdict can be no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionReason {
    NoCertificate,
    UnknownIssuer,
    BadSignature,
    Expired,
    NotYetValid,
    Revoked,
    /// By a deny list of the operator.
    Denied,
    /// The revocation list is too old to say.
    RevocationUnknown,
    WrongUsage,
    LeafIsCa,
    ChainTooLong,
    ChainTooLarge,
    Malformed,
    /// Whatever else the TLS library finds, and keys or signatures that are too weak.
    NotAccepted,
    /// Our own fault.
    Internal,
}

impl RejectionReason {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::RevocationUnknown => "revocation_unknown",
            Self::WrongUsage | Self::LeafIsCa => "wrong_usage",
            Self::ChainTooLong | Self::ChainTooLarge => "chain_too_long",
            Self::Malformed => "malformed",
            Self::NotAccepted => "not_accepted",
            Self::Internal => "internal",
        }
    }

    /// How much it tells about the client: whoever knows the issuer knows more than who does not, and a certificate
    /// that was issued and withdrawn says more than one that was never right.
    fn weight(self) -> u8 {
        match self {
            Self::Internal => 0,
            Self::UnknownIssuer => 1,
            Self::BadSignature => 2,
            Self::Revoked => 4,
            Self::Denied => 5,
            _ => 3,
        }
    }

    /// Whoever is out for good in one trust domain is believed by no other one either.
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Revoked | Self::Denied)
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Rejection {
    /// Of equals, the earlier one.
    pub(super) fn more_telling(earlier: Option<Self>, later: Self) -> Self {
        match earlier {
            Some(earlier) if earlier.reason.weight() >= later.reason.weight() => earlier,
            _ => later,
        }
    }
}
