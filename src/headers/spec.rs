//! How identity headers are named in the configuration.

use std::fmt;

use http::HeaderName;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::field::{FieldError, IdentityField};
use super::forwarding;
use crate::certificate::AttributeKind;

/// A known set of headers, so that an origin behind another proxy can stay as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderPreset {
    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    Rfc9440,
    /// Envoy's `X-Forwarded-Client-Cert`.
    Xfcc,
    /// `X-SSL-Client-*`, as nginx configurations commonly name them.
    Nginx,
    /// `X-Client-*`: verify, subject, CN, serial, fingerprint, issuer, SAN, trust domain.
    Plain,
}

/// A preset, or one field under a name of one's own.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
pub enum IdentityHeaderSpec {
    Preset(HeaderPreset),
    Named(NamedHeader),
}

/// `{ header: X-Device, field: subject.CN }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedHeader {
    pub header: String,
    /// `verified`, `standing`, `subject`, `subject.CN` (or another attribute), `issuer`, `issuer.CN`, `serial`, `fingerprint`,
    /// `key_fingerprint`, `san`, `san.dns`, `san.email`, `san.uri`, `san.ip`, `trust_domain`, `anchor`, `not_before`,
    /// `not_after`, `certificate`, `certificate_chain`, `certificate_pem`, or `xfcc`.
    pub field: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderSpecError {
    #[error("`{0}` is not a header name (RFC 9110, section 5.1)")]
    Name(String),
    #[error("header `{0}` frames or routes the message; an identity cannot be put into it")]
    Reserved(String),
    #[error("header `{0}` is named twice")]
    Twice(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Headers whose meaning is not ours to change.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl IdentityHeaderSpec {
    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, IdentityField)>, HeaderSpecError> {
        match self {
            Self::Preset(preset) => Ok(preset.headers()),
            Self::Named(named) => Ok(vec![named.read()?]),
        }
    }
}

impl HeaderPreset {
    fn headers(self) -> Vec<(HeaderName, IdentityField)> {
        let headers: &[(&'static str, IdentityField)] = match self {
            Self::Rfc9440 => &[
                ("client-cert", IdentityField::Certificate),
                ("client-cert-chain", IdentityField::CertificateChain),
            ],
            Self::Xfcc => &[("x-forwarded-client-cert", IdentityField::Xfcc)],
            Self::Nginx => &[
                ("x-ssl-client-verify", IdentityField::Verified),
                ("x-ssl-client-s-dn", IdentityField::Subject),
                ("x-ssl-client-i-dn", IdentityField::Issuer),
                ("x-ssl-client-serial", IdentityField::Serial),
                ("x-ssl-client-fingerprint", IdentityField::Fingerprint),
            ],
            Self::Plain => &[
                ("x-client-verify", IdentityField::Verified),
                ("x-client-subject", IdentityField::Subject),
                ("x-client-cn", IdentityField::SubjectAttribute(AttributeKind::CommonName)),
                ("x-client-serial", IdentityField::Serial),
                ("x-client-fingerprint", IdentityField::Fingerprint),
                ("x-client-issuer", IdentityField::Issuer),
                ("x-client-san", IdentityField::San),
                ("x-client-trust-domain", IdentityField::TrustDomain),
            ],
        };
        headers.iter().map(|(name, field)| (HeaderName::from_static(name), field.clone())).collect()
    }
}

impl NamedHeader {
    fn read(&self) -> Result<(HeaderName, IdentityField), HeaderSpecError> {
        let name: HeaderName = self.header.parse().map_err(|_| HeaderSpecError::Name(self.header.clone()))?;
        if FRAMING.contains(&name.as_str()) || forwarding::is_ours(name.as_str()) {
            return Err(HeaderSpecError::Reserved(self.header.clone()));
        }
        Ok((name, self.field.parse()?))
    }
}

/// By hand: what serde says about an untagged enum helps nobody.
impl<'de> Deserialize<'de> for IdentityHeaderSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

struct SpecVisitor;

const EXPECTED: &str = "`rfc9440`, `xfcc`, `nginx`, `plain`, or `{ header: NAME, field: FIELD }`";

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = IdentityHeaderSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<IdentityHeaderSpec, E> {
        let preset = HeaderPreset::deserialize(IntoDeserializer::<E>::into_deserializer(text));
        preset.map(IdentityHeaderSpec::Preset).map_err(|_| E::custom(format_args!("expected {EXPECTED}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IdentityHeaderSpec, A::Error> {
        NamedHeader::deserialize(MapAccessDeserializer::new(map)).map(IdentityHeaderSpec::Named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Vec<IdentityHeaderSpec>, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn presets_and_named_headers_are_read() {
        let specs = read("[rfc9440, {header: X-Device, field: subject.CN}]").unwrap();
        assert_eq!(specs[0], IdentityHeaderSpec::Preset(HeaderPreset::Rfc9440));
        let named = NamedHeader { header: "X-Device".into(), field: "subject.CN".into() };
        assert_eq!(specs[1], IdentityHeaderSpec::Named(named));
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        for (yaml, words) in [
            ("[rfc9441]", "expected `rfc9440`, `xfcc`, `nginx`, `plain`, or"),
            ("[{header: X}]", "missing field `field`"),
            ("[{header: X, field: san, x: 1}]", "unknown field `x`"),
            ("[1]", "expected `rfc9440`, `xfcc`, `nginx`, `plain`, or"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
