//! Why a certificate was revoked (RFC 5280, section 5.3.1).

use std::fmt;

/// CRLReason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RevocationReason {
    #[default]
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    CertificateHold,
    RemoveFromCrl,
    PrivilegeWithdrawn,
    AaCompromise,
}

const ALL: [(RevocationReason, u8, &str); 10] = [
    (RevocationReason::Unspecified, 0, "unspecified"),
    (RevocationReason::KeyCompromise, 1, "keyCompromise"),
    (RevocationReason::CaCompromise, 2, "cACompromise"),
    (RevocationReason::AffiliationChanged, 3, "affiliationChanged"),
    (RevocationReason::Superseded, 4, "superseded"),
    (RevocationReason::CessationOfOperation, 5, "cessationOfOperation"),
    (RevocationReason::CertificateHold, 6, "certificateHold"),
    (RevocationReason::RemoveFromCrl, 8, "removeFromCRL"),
    (RevocationReason::PrivilegeWithdrawn, 9, "privilegeWithdrawn"),
    (RevocationReason::AaCompromise, 10, "aACompromise"),
];

impl RevocationReason {
    /// An unknown number is unspecified: the certificate is revoked either way.
    pub fn from_code(code: u8) -> Self {
        ALL.iter().find(|(_, number, _)| *number == code).map_or(Self::Unspecified, |(reason, ..)| *reason)
    }

    pub fn code(self) -> u8 {
        ALL.iter().find(|(reason, ..)| *reason == self).map_or(0, |(_, code, _)| *code)
    }

    /// By the name in the RFC, in any case, with or without `_` and `-` between the words.
    pub fn from_key(key: &str) -> Option<Self> {
        let key: String = key.chars().filter(|c| !matches!(c, '_' | '-')).collect();
        ALL.iter().find(|(.., name)| name.eq_ignore_ascii_case(&key)).map(|(reason, ..)| *reason)
    }

    /// The name in the RFC.
    pub fn key(self) -> &'static str {
        ALL.iter().find(|(reason, ..)| *reason == self).map_or("unspecified", |(.., name)| name)
    }

    /// All names that [`from_key`](Self::from_key) reads.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        ALL.iter().map(|(.., name)| *name)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}
