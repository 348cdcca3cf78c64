//! The fields of an identity, and their text in a header.

use std::fmt;
use std::str::FromStr;

use super::{encode, xfcc};
use crate::certificate::{AttributeKind, Name, SubjectAltName};
use crate::trust::ClientIdentity;

/// What a header can say about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityField {
    /// `SUCCESS`, `FAILED:reason` for a client in quarantine, or `NONE` without an identity, as nginx has it: the one
    /// field that is never missing.
    Verified,
    /// `good`, or what is wrong with a client in quarantine.
    Standing,
    /// RFC 4514.
    Subject,
    SubjectAttribute(AttributeKind),
    /// RFC 4514.
    Issuer,
    IssuerAttribute(AttributeKind),
    /// Upper-case hex.
    Serial,
    /// SHA-256 of the certificate, lower-case hex.
    Fingerprint,
    /// SHA-256 of the public key, lower-case hex.
    KeyFingerprint,
    /// All types that are known, each name with its type.
    San,
    SanOf(SanType),
    TrustDomain,
    /// The subject of the anchor, RFC 4514.
    Anchor,
    /// Seconds since 1970.
    NotBefore,
    /// Seconds since 1970.
    NotAfter,
    /// `Client-Cert` of RFC 9440.
    Certificate,
    /// `Client-Cert-Chain` of RFC 9440.
    CertificateChain,
    /// Percent-encoded PEM, as `$ssl_client_escaped_cert` of nginx.
    CertificatePem,
    /// Envoy's `X-Forwarded-Client-Cert`.
    Xfcc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanType {
    Dns,
    Email,
    Uri,
    Ip,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no field of an identity")]
pub struct FieldError(pub String);

/// Fields and how they are written, but for the attributes.
const NAMED: [(&str, IdentityField); 19] = [
    ("verified", IdentityField::Verified),
    ("standing", IdentityField::Standing),
    ("subject", IdentityField::Subject),
    ("issuer", IdentityField::Issuer),
    ("serial", IdentityField::Serial),
    ("fingerprint", IdentityField::Fingerprint),
    ("key_fingerprint", IdentityField::KeyFingerprint),
    ("san", IdentityField::San),
    ("san.dns", IdentityField::SanOf(SanType::Dns)),
    ("san.email", IdentityField::SanOf(SanType::Email)),
    ("san.uri", IdentityField::SanOf(SanType::Uri)),
    ("san.ip", IdentityField::SanOf(SanType::Ip)),
    ("trust_domain", IdentityField::TrustDomain),
    ("anchor", IdentityField::Anchor),
    ("not_before", IdentityField::NotBefore),
    ("not_after", IdentityField::NotAfter),
    ("certificate", IdentityField::Certificate),
    ("certificate_chain", IdentityField::CertificateChain),
    ("certificate_pem", IdentityField::CertificatePem),
];

impl FromStr for IdentityField {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let attribute = |prefix: &str| text.strip_prefix(prefix).and_then(AttributeKind::from_key);
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, field)| field.clone());
        named
            .or_else(|| (text == "xfcc").then_some(Self::Xfcc))
            .or_else(|| attribute("subject.").map(Self::SubjectAttribute))
            .or_else(|| attribute("issuer.").map(Self::IssuerAttribute))
            .ok_or_else(|| FieldError(text.to_owned()))
    }
}

impl fmt::Display for IdentityField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubjectAttribute(kind) => write!(f, "subject.{}", kind.key()),
            Self::IssuerAttribute(kind) => write!(f, "issuer.{}", kind.key()),
            Self::Xfcc => f.write_str("xfcc"),
            named => f.write_str(NAMED.iter().find(|(_, field)| field == named).map_or("", |(name, _)| name)),
        }
    }
}

impl IdentityField {
    /// `None` where the client does not have it. Always visible ASCII and inner spaces.
    pub(super) fn value(&self, identity: Option<&ClientIdentity>) -> Option<String> {
        match (self, identity) {
            (Self::Verified, Some(identity)) => Some(match identity.standing().fault() {
                None => "SUCCESS".to_owned(),
                Some(fault) => format!("FAILED:{}", fault.kind.sentence()),
            }),
            (Self::Verified, None) => Some("NONE".to_owned()),
            (_, None) => None,
            (field, Some(identity)) => field.of(identity),
        }
    }

    fn of(&self, identity: &ClientIdentity) -> Option<String> {
        let certificate = identity.certificate();
        let names = certificate.subject_alternative_names();
        Some(match self {
            Self::Verified => return None,
            Self::Standing => identity.standing().to_string(),
            Self::Subject => encode::text(&certificate.subject().to_string()),
            Self::SubjectAttribute(kind) => return attribute(certificate.subject(), kind),
            Self::Issuer => encode::text(&certificate.issuer().to_string()),
            Self::IssuerAttribute(kind) => return attribute(certificate.issuer(), kind),
            Self::Serial => certificate.serial().to_string(),
            Self::Fingerprint => certificate.fingerprint().to_string(),
            Self::KeyFingerprint => certificate.key_fingerprint().to_string(),
            Self::San => return encode::list(names.iter().filter_map(typed)),
            Self::SanOf(kind) => return encode::list(names.iter().filter_map(|name| kind.of(name))),
            Self::TrustDomain => encode::text(identity.trust_domain()),
            Self::Anchor => encode::text(&identity.anchor().subject),
            Self::NotBefore => certificate.not_before().to_string(),
            Self::NotAfter => certificate.not_after().to_string(),
            Self::Certificate => encode::byte_sequence(certificate.der()),
            Self::CertificateChain => return encode::byte_sequences(identity.intermediates()),
            Self::CertificatePem => encode::pem([certificate.der()]),
            Self::Xfcc => xfcc::element(identity),
        })
    }
}

/// An origin takes the common name for the client: a certificate with two has none. Of other attributes, all.
fn attribute(name: &Name, kind: &AttributeKind) -> Option<String> {
    let mut values =
        name.attributes().filter(|attribute| attribute.kind == *kind).map(|attribute| &attribute.value);
    if *kind == AttributeKind::CommonName {
        let only = values.next().filter(|_| values.next().is_none());
        return only.map(|value| encode::text(value));
    }
    encode::list(values)
}

fn typed(name: &SubjectAltName) -> Option<String> {
    Some(match name {
        SubjectAltName::Dns(name) => format!("DNS:{name}"),
        SubjectAltName::Email(name) => format!("email:{name}"),
        SubjectAltName::Uri(name) => format!("URI:{name}"),
        SubjectAltName::Ip(ip) => format!("IP:{ip}"),
        SubjectAltName::Other => return None,
    })
}

impl SanType {
    pub(super) fn of(self, name: &SubjectAltName) -> Option<String> {
        match (self, name) {
            (Self::Dns, SubjectAltName::Dns(name))
            | (Self::Email, SubjectAltName::Email(name))
            | (Self::Uri, SubjectAltName::Uri(name)) => Some(name.clone()),
            (Self::Ip, SubjectAltName::Ip(ip)) => Some(ip.to_string()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_field() {
        let reference = include_str!("../../docs/configuration.md");
        for (name, _) in NAMED {
            assert!(reference.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn fields_are_read_as_they_are_written() {
        let attributes = ["subject.CN", "subject.OU", "issuer.CN", "xfcc"];
        for text in NAMED.iter().map(|(text, _)| *text).chain(attributes) {
            assert_eq!(text.parse::<IdentityField>().unwrap().to_string(), text);
        }
        for text in ["", "CN", "subject.", "subject.XX", "san.other", "Subject"] {
            assert_eq!(text.parse::<IdentityField>(), Err(FieldError(text.to_owned())));
        }
    }
}
