//! Tells the origin who is calling, in a way that nobody can forge.
//!
//! Whatever looks like such a header and comes from a client is removed; what is added is encoded so that no name in a
//! certificate can break out of its field.

mod encode;
mod family;
mod forwarding;

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::certificate::{AttributeKind, SubjectAltName};
use crate::trust::ClientIdentity;

pub use forwarding::{DROPPED, Forwarding, Prefix, PrefixError};

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
    /// `X-Client-*`: subject, CN, serial, fingerprint, issuer, SAN, trust domain.
    Plain,
}

/// A preset, or one field under a name of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected `rfc9440`, `xfcc`, `nginx`, `plain`, or `{ header: NAME, field: FIELD }`"
)]
pub enum IdentityHeaderSpec {
    Preset(HeaderPreset),
    Named(NamedHeader),
}

/// `{ header: X-Device, field: subject.CN }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedHeader {
    pub header: String,
    /// `subject`, `subject.CN` (or another attribute), `issuer`, `serial`, `fingerprint`, `key_fingerprint`, `san`,
    /// `san.dns`, `san.email`, `san.uri`, `san.ip`, `trust_domain`, `anchor`, `not_before`, `not_after`.
    pub field: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderSpecError {
    #[error("`{0}` is not a header name (RFC 9110, section 5.1)")]
    Name(String),
    #[error("header `{0}` frames or routes the message; an identity cannot be put into it")]
    Reserved(String),
    #[error("`{0}` is no field of an identity")]
    Field(String),
}

/// One field of an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Subject,
    Attribute(AttributeKind),
    Issuer,
    Serial,
    Fingerprint,
    KeyFingerprint,
    San,
    SanOf(SanType),
    TrustDomain,
    Anchor,
    NotBefore,
    NotAfter,
    /// `SUCCESS` or `NONE`.
    Verified,
    ClientCert,
    ClientCertChain,
    Xfcc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SanType {
    Dns,
    Email,
    Uri,
    Ip,
}

/// The headers that origins get, and those that clients may not send.
#[derive(Debug)]
pub struct IdentityHeaders {
    headers: Vec<(HeaderName, Field)>,
    /// Folded names beyond the well-known family.
    own: Vec<String>,
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

impl IdentityHeaders {
    pub fn new(specs: &[IdentityHeaderSpec]) -> Result<Self, HeaderSpecError> {
        let mut headers = Vec::new();
        for spec in specs {
            match spec {
                IdentityHeaderSpec::Preset(preset) => headers.extend(preset.headers()),
                IdentityHeaderSpec::Named(named) => headers.push(named.read()?),
            }
        }
        let own = headers.iter().map(|(name, _)| family::fold(name.as_str())).collect();
        Ok(Self { headers, own })
    }

    /// Done once per connection and configuration.
    pub fn render(&self, identity: Option<&ClientIdentity>) -> Vec<(HeaderName, HeaderValue)> {
        let value = |field: &Field| match identity {
            Some(identity) => field.value(identity),
            None => (*field == Field::Verified).then(|| "NONE".to_owned()),
        };
        self.headers
            .iter()
            .filter_map(|(name, field)| Some((name.clone(), HeaderValue::from_str(&value(field)?).ok()?)))
            .collect()
    }

    /// Whether a client may not send it, under any spelling that an origin may take for one of ours.
    pub fn is_reserved(&self, name: &str) -> bool {
        family::contains(name) || self.own.iter().any(|own| family::same(own, name))
    }

    /// Those of `headers` that must go. Does not allocate where there are none.
    pub fn reserved_in(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| self.is_reserved(name.as_str())).cloned().collect()
    }
}

impl HeaderPreset {
    fn headers(self) -> Vec<(HeaderName, Field)> {
        let name = HeaderName::from_static;
        match self {
            Self::Rfc9440 => vec![
                (name("client-cert"), Field::ClientCert),
                (name("client-cert-chain"), Field::ClientCertChain),
            ],
            Self::Xfcc => vec![(name("x-forwarded-client-cert"), Field::Xfcc)],
            Self::Nginx => vec![
                (name("x-ssl-client-verify"), Field::Verified),
                (name("x-ssl-client-s-dn"), Field::Subject),
                (name("x-ssl-client-i-dn"), Field::Issuer),
                (name("x-ssl-client-serial"), Field::Serial),
                (name("x-ssl-client-fingerprint"), Field::Fingerprint),
            ],
            Self::Plain => vec![
                (name("x-client-subject"), Field::Subject),
                (name("x-client-cn"), Field::Attribute(AttributeKind::CommonName)),
                (name("x-client-serial"), Field::Serial),
                (name("x-client-fingerprint"), Field::Fingerprint),
                (name("x-client-issuer"), Field::Issuer),
                (name("x-client-san"), Field::San),
                (name("x-client-trust-domain"), Field::TrustDomain),
            ],
        }
    }
}

impl NamedHeader {
    fn read(&self) -> Result<(HeaderName, Field), HeaderSpecError> {
        let name: HeaderName = self.header.parse().map_err(|_| HeaderSpecError::Name(self.header.clone()))?;
        if FRAMING.contains(&name.as_str()) {
            return Err(HeaderSpecError::Reserved(self.header.clone()));
        }
        let field = Field::parse(&self.field).ok_or_else(|| HeaderSpecError::Field(self.field.clone()))?;
        Ok((name, field))
    }
}

impl Field {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "subject" => Self::Subject,
            "issuer" => Self::Issuer,
            "serial" => Self::Serial,
            "fingerprint" => Self::Fingerprint,
            "key_fingerprint" => Self::KeyFingerprint,
            "san" => Self::San,
            "san.dns" => Self::SanOf(SanType::Dns),
            "san.email" => Self::SanOf(SanType::Email),
            "san.uri" => Self::SanOf(SanType::Uri),
            "san.ip" => Self::SanOf(SanType::Ip),
            "trust_domain" => Self::TrustDomain,
            "anchor" => Self::Anchor,
            "not_before" => Self::NotBefore,
            "not_after" => Self::NotAfter,
            _ => Self::Attribute(AttributeKind::from_key(text.strip_prefix("subject.")?)?),
        })
    }

    /// `None` where the identity does not have it: the header is then missing, not empty.
    fn value(&self, identity: &ClientIdentity) -> Option<String> {
        let certificate = identity.certificate();
        let text = match self {
            Self::Subject => certificate.subject().to_string(),
            Self::Issuer => certificate.issuer().to_string(),
            Self::Attribute(kind) => return list(certificate.subject().values(kind.clone())),
            Self::Serial => certificate.serial().to_string(),
            Self::Fingerprint => certificate.fingerprint().to_string(),
            Self::KeyFingerprint => certificate.key_fingerprint().to_string(),
            Self::San => return list(certificate.subject_alternative_names().iter().filter_map(typed)),
            Self::SanOf(san) => {
                return list(certificate.subject_alternative_names().iter().filter_map(|name| san.of(name)));
            }
            Self::TrustDomain => identity.trust_domain().to_string(),
            Self::Anchor => identity.anchor().subject.clone(),
            Self::NotBefore => certificate.not_before().to_string(),
            Self::NotAfter => certificate.not_after().to_string(),
            Self::Verified => "SUCCESS".to_owned(),
            // These are encoded by their own rules.
            Self::ClientCert => return Some(encode::byte_sequence(certificate.der())),
            Self::ClientCertChain => return encode::byte_sequences(identity.intermediates()),
            Self::Xfcc => return Some(encode::xfcc(identity)),
        };
        Some(encode::text(&text))
    }
}

/// Values joined by commas; a comma inside a value is percent-encoded, so that it cannot pretend to be two.
fn list(values: impl Iterator<Item = impl AsRef<str>>) -> Option<String> {
    let values: Vec<String> = values.map(|value| encode::text(value.as_ref()).replace(',', "%2C")).collect();
    (!values.is_empty()).then(|| values.join(","))
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
    fn of(self, name: &SubjectAltName) -> Option<String> {
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
    use base64::Engine;
    use proptest::prelude::*;

    use super::*;
    use crate::pki::test_certificate;

    fn headers(presets: &[HeaderPreset]) -> IdentityHeaders {
        let specs: Vec<_> = presets.iter().map(|preset| IdentityHeaderSpec::Preset(*preset)).collect();
        IdentityHeaders::new(&specs).unwrap()
    }

    fn rendered(preset: HeaderPreset, identity: Option<&ClientIdentity>) -> Vec<(String, String)> {
        let render = headers(&[preset]).render(identity);
        render.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn without_an_identity_nothing_claims_one() {
        for preset in [HeaderPreset::Rfc9440, HeaderPreset::Xfcc, HeaderPreset::Plain] {
            assert_eq!(rendered(preset, None), []);
        }
        assert_eq!(rendered(HeaderPreset::Nginx, None), [("x-ssl-client-verify".into(), "NONE".into())]);
    }

    #[test]
    fn the_certificate_of_rfc_9440_is_the_presented_one() {
        let identity = ClientIdentity::for_tests("fleet", test_certificate(&[("CN", "a")]));
        let headers = rendered(HeaderPreset::Rfc9440, Some(&identity));
        let inner = headers[0].1.strip_prefix(':').and_then(|value| value.strip_suffix(':')).unwrap();
        let der = base64::engine::general_purpose::STANDARD.decode(inner).unwrap();
        assert_eq!(der, identity.certificate().der());
    }

    #[test]
    fn a_header_of_the_family_is_reserved_under_every_spelling() {
        let headers = IdentityHeaders::new(&[IdentityHeaderSpec::Named(NamedHeader {
            header: "X-Device".into(),
            field: "subject.CN".into(),
        })])
        .unwrap();
        for name in [
            "Client-Cert",
            "client_cert",
            "CLIENT-CERT-CHAIN",
            "X-Forwarded-Client-Cert",
            "x_forwarded_client_cert",
            "X-SSL-Client-Verify",
            "x-ssl_client-anything",
            "ssl-client-cert",
            "X-Client-CN",
            "X-Device",
            "x_device",
            "X-Client-Cert",
            "x-tls-client-subject",
        ] {
            assert!(headers.is_reserved(name), "{name}");
        }
        for name in
            ["Accept", "X-Clientele", "X-Request-Id", "Client-Certainty", "X-Devices", "x-client-version"]
        {
            assert!(!headers.is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a_framing_header_cannot_be_an_identity_header() {
        for name in ["Host", "Transfer-Encoding", "Connection"] {
            let spec = NamedHeader { header: name.into(), field: "subject".into() };
            assert!(matches!(
                IdentityHeaders::new(&[IdentityHeaderSpec::Named(spec)]),
                Err(HeaderSpecError::Reserved(_))
            ));
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_field(cn in "[^\\x00-\\x1f\\x7f-\\x9f]{1,30}") {
            let identity = ClientIdentity::for_tests("fleet", test_certificate(&[("CN", &cn)]));
            for preset in [HeaderPreset::Nginx, HeaderPreset::Plain, HeaderPreset::Xfcc] {
                for (name, value) in rendered(preset, Some(&identity)) {
                    prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{} {}", name, value);
                }
            }
            let xfcc = &rendered(HeaderPreset::Xfcc, Some(&identity))[0].1;
            let fields = encode::tests::parse_xfcc(xfcc).unwrap();
            let subject = fields.iter().find(|(key, _)| key == "Subject").map(|(_, value)| value.clone());
            prop_assert_eq!(subject, Some(encode::text(&identity.certificate().subject().to_string())));
            prop_assert_eq!(fields.iter().filter(|(key, _)| key == "Hash").count(), 1);
        }
    }
}
