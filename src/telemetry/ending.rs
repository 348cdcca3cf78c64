//! Why open connections are ended by us: each a label of the metrics.

use crate::trust::{Lapse, RejectionReason};

/// Why the client of an open connection may no longer be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndCause {
    Revoked,
    /// By a deny list of the operator.
    Denied,
    /// The revocation list has become too old to say.
    RevocationUnknown,
    Expired,
    /// Its trust domain or anchor is not admitted any more.
    TrustRemoved,
    /// It showed no certificate, and the listener demands one now.
    CertificateRequired,
    /// Where it comes from is not let in any more.
    AddressDenied,
    /// Whatever else the policy asks for now.
    NotAdmitted,
    /// An operator wanted it to end.
    Kicked,
    /// It was in quarantine, and need not be any more.
    StandingRestored,
}

impl EndCause {
    /// In the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::Revoked,
        Self::Denied,
        Self::RevocationUnknown,
        Self::Expired,
        Self::TrustRemoved,
        Self::CertificateRequired,
        Self::AddressDenied,
        Self::NotAdmitted,
        Self::Kicked,
        Self::StandingRestored,
    ];

    /// The label `cause` of `portcullis_connections_ended_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::RevocationUnknown => "revocation_unknown",
            Self::Expired => "expired",
            Self::TrustRemoved => "trust_removed",
            Self::CertificateRequired => "certificate_required",
            Self::AddressDenied => "address_denied",
            Self::NotAdmitted => "not_admitted",
            Self::Kicked => "kicked",
            Self::StandingRestored => "standing_restored",
        }
    }
}

impl From<&Lapse> for EndCause {
    fn from(lapse: &Lapse) -> Self {
        match lapse {
            Lapse::TrustRemoved(_) => Self::TrustRemoved,
            Lapse::StandingRestored => Self::StandingRestored,
            Lapse::Rejected(rejection) => match rejection.reason {
                RejectionReason::Revoked => Self::Revoked,
                RejectionReason::Denied => Self::Denied,
                RejectionReason::RevocationUnknown => Self::RevocationUnknown,
                RejectionReason::Expired => Self::Expired,
                _ => Self::NotAdmitted,
            },
        }
    }
}
