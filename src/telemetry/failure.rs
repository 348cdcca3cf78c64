//! The ways a handshake can fail: each a label of the metrics and a sentence for the log.

use crate::trust::RejectionReason;

macro_rules! failures {
    ($($variant:ident $label:literal $sentence:literal,)*) => {
        /// Why a handshake did not succeed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum HandshakeFailure { $(#[doc = $sentence] $variant,)* }

        impl HandshakeFailure {
            /// In the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label `reason` of `portcullis_tls_handshake_failures_total`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// For the log, where nothing more exact is known.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

failures! {
    NoCertificate "no_certificate" "the client presented no certificate",
    UnknownIssuer "unknown_issuer" "no trust anchor vouches for the certificate",
    BadSignature "bad_signature" "a signature in the chain is wrong",
    Expired "expired" "a certificate of the chain has expired",
    NotYetValid "not_yet_valid" "a certificate of the chain is not valid yet",
    Revoked "revoked" "a certificate of the chain is revoked",
    Denied "denied" "a deny list names a certificate of the chain",
    RevocationUnknown "revocation_unknown" "it cannot be told whether the certificate is revoked",
    WrongUsage "wrong_usage" "the certificate is not one for clients",
    ChainTooLong "chain_too_long" "the chain is longer than allowed",
    Malformed "malformed" "the certificate is malformed",
    NotAccepted "not_accepted" "the TLS library does not accept the chain",
    NoSharedVersion "no_shared_version" "client and listener share no TLS version",
    NoSharedCipher "no_shared_cipher" "client and listener share no cipher suite",
    NoSharedGroup "no_shared_group" "client and listener share no key-exchange group",
    PlainHttp "plain_http" "the client spoke plain HTTP to the TLS port",
    ClientAlert "client_alert" "the client ended the handshake with an alert",
    Timeout "timeout" "the handshake took longer than the listener allows",
    Disconnected "disconnected" "the client went away during the handshake",
    Overloaded "overloaded" "a limit of the listener was reached",
    Limited "limited" "the client is over one of its limits",
    AddressDenied "address_denied" "the listener's lists keep the client's address out",
    AddressConnections "address_connections" "the client's address has as many connections as it may",
    AddressHandshakes "address_handshakes" "the client's address has as many handshakes under way as it may",
    AddressRate "address_rate" "the client's address makes more connections a second than it may",
    NetworkConnections "network_connections" "the client's network has as many connections as it may",
    NetworkHandshakes "network_handshakes" "the client's network has as many handshakes under way as it may",
    NetworkRate "network_rate" "the client's network makes more connections a second than it may",
    ProxyHeader "proxy_header" "a balancer sent no header that says who the client is",
    WaitedTooLong "waited_too_long" "it would have waited too long for its turn",
    Protocol "protocol" "the client broke the TLS protocol",
    Internal "internal" "the handshake failed on our side",
}

impl HandshakeFailure {
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

impl From<RejectionReason> for HandshakeFailure {
    fn from(reason: RejectionReason) -> Self {
        match reason {
            RejectionReason::NoCertificate => Self::NoCertificate,
            RejectionReason::UnknownIssuer => Self::UnknownIssuer,
            RejectionReason::BadSignature => Self::BadSignature,
            RejectionReason::Expired => Self::Expired,
            RejectionReason::NotYetValid => Self::NotYetValid,
            RejectionReason::Revoked => Self::Revoked,
            RejectionReason::Denied => Self::Denied,
            RejectionReason::RevocationUnknown => Self::RevocationUnknown,
            RejectionReason::WrongUsage | RejectionReason::LeafIsCa => Self::WrongUsage,
            RejectionReason::ChainTooLong | RejectionReason::ChainTooLarge => Self::ChainTooLong,
            RejectionReason::Malformed => Self::Malformed,
            RejectionReason::NotAccepted => Self::NotAccepted,
            RejectionReason::Internal => Self::Internal,
        }
    }
}
