//! Why a TLS session that a client offered was not resumed: each a label of the metrics.

use crate::trust::RejectionReason;

/// Why a client had to make a full handshake although it came with a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Declined {
    /// The ticket is sealed under a key that is not held: it expired, or belongs to somebody else.
    UnknownKey,
    /// Damaged, forged, or of another TLS library.
    Malformed,
    /// The full handshake is too long ago, or lies in the future.
    TooOld,
    /// The session is another listener's, or its settings have changed since.
    Policy,
    /// The session began under another server name.
    ServerName,
    /// Another anchor or trust domain vouches now, or none.
    TrustRemoved,
    Revoked,
    /// By a deny list of the operator.
    Denied,
    /// The revocation list has become too old to say.
    RevocationUnknown,
    Expired,
    /// Whatever else a full handshake would be refused for.
    NotAdmitted,
}

impl Declined {
    /// In the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::UnknownKey,
        Self::Malformed,
        Self::TooOld,
        Self::Policy,
        Self::ServerName,
        Self::TrustRemoved,
        Self::Revoked,
        Self::Denied,
        Self::RevocationUnknown,
        Self::Expired,
        Self::NotAdmitted,
    ];

    /// The label `cause` of `portcullis_tls_resumptions_declined_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::Malformed => "malformed",
            Self::TooOld => "too_old",
            Self::Policy => "policy",
            Self::ServerName => "server_name",
            Self::TrustRemoved => "trust_removed",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::RevocationUnknown => "revocation_unknown",
            Self::Expired => "expired",
            Self::NotAdmitted => "not_admitted",
        }
    }
}

impl From<RejectionReason> for Declined {
    fn from(reason: RejectionReason) -> Self {
        match reason {
            RejectionReason::Revoked => Self::Revoked,
            RejectionReason::Denied => Self::Denied,
            RejectionReason::RevocationUnknown => Self::RevocationUnknown,
            RejectionReason::Expired => Self::Expired,
            RejectionReason::UnknownIssuer => Self::TrustRemoved,
            _ => Self::NotAdmitted,
        }
    }
}
