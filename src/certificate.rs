//! What a certificate says. Reading it is not believing it: that is `trust`'s part.
//!
//! Read with `x509-parser` (RFC 5280); anything it cannot read in one way only makes the certificate malformed.

pub mod name;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use openssl::sha::sha256;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::UnixTime;
pub use name::{Attribute, AttributeKind, Name, NameError};

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCertificate {
    #[error("it is not DER of an X.509 certificate ({0})")]
    Der(String),
    #[error("bytes follow the certificate")]
    TrailingBytes,
    #[error("its {field} is malformed: {source}")]
    Name { field: &'static str, source: NameError },
    #[error("its subject alternative names are malformed: {0}")]
    AlternativeName(String),
    #[error("its extension {0} cannot be read")]
    Extension(String),
}

/// Why a PEM file is no bundle of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("certificate {number} of the file: {source}")]
    Certificate { number: usize, source: MalformedCertificate },
    #[error("the PEM is broken after block {after}: {detail}")]
    Pem { after: usize, detail: String },
}

/// A certificate, parsed once and never changed.
#[derive(Clone)]
pub struct Certificate {
    der: Box<[u8]>,
    subject: Name,
    issuer: Name,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    alternative_names: Vec<SubjectAltName>,
    is_ca: bool,
    has_extensions: bool,
    fingerprint: Fingerprint,
    key_fingerprint: Fingerprint,
}

impl Certificate {
    pub fn from_der(der: &[u8]) -> Result<Self, MalformedCertificate> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| MalformedCertificate::Der(error.to_string()))?;
        if !rest.is_empty() {
            return Err(MalformedCertificate::TrailingBytes);
        }
        let name =
            |field, name| Name::read(name).map_err(|source| MalformedCertificate::Name { field, source });
        let (alternative_names, is_ca) = extensions(&parsed)?;
        Ok(Self {
            subject: name("subject", parsed.subject())?,
            issuer: name("issuer", parsed.issuer())?,
            serial: Serial::new(parsed.raw_serial()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            alternative_names,
            is_ca,
            has_extensions: !parsed.extensions().is_empty(),
            fingerprint: Fingerprint(sha256(der)),
            key_fingerprint: Fingerprint(sha256(parsed.public_key().raw)),
            der: der.into(),
        })
    }

    /// All certificates of a PEM file, in its order; other kinds of blocks are passed over.
    pub fn from_pem_bundle(pem: &[u8]) -> Result<Vec<Self>, BundleError> {
        let blocks = pem_blocks(pem, "CERTIFICATE")?;
        let read = |(index, der): (usize, Vec<u8>)| {
            Self::from_der(&der).map_err(|source| BundleError::Certificate { number: index + 1, source })
        };
        blocks.into_iter().enumerate().map(read).collect()
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn subject(&self) -> &Name {
        &self.subject
    }

    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    pub fn subject_alternative_names(&self) -> &[SubjectAltName] {
        &self.alternative_names
    }

    /// `basicConstraints` says CA:TRUE (RFC 5280, section 4.2.1.9).
    pub fn is_ca(&self) -> bool {
        self.is_ca
    }

    /// A version 1 certificate has none; then nothing says whether it is a CA.
    pub fn has_extensions(&self) -> bool {
        self.has_extensions
    }

    /// SHA-256 of the DER.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// SHA-256 of the SubjectPublicKeyInfo: stays the same when a certificate is renewed for the same key.
    pub fn key_fingerprint(&self) -> &Fingerprint {
        &self.key_fingerprint
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject, self.fingerprint)
    }
}

/// The DER of every block of type `label`, in the file's order.
pub fn pem_blocks(pem: &[u8], label: &str) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut blocks = Vec::new();
    for (number, block) in x509_parser::pem::Pem::iter_from_buffer(pem).enumerate() {
        match block {
            Ok(block) if block.label == label => blocks.push(block.contents),
            Ok(_) => {}
            Err(error) => return Err(BundleError::Pem { after: number, detail: error.to_string() }),
        }
    }
    Ok(blocks)
}

fn extensions(parsed: &X509Certificate<'_>) -> Result<(Vec<SubjectAltName>, bool), MalformedCertificate> {
    let (mut names, mut is_ca) = (Vec::new(), false);
    let mut seen = Vec::new();
    for extension in parsed.extensions() {
        // RFC 5280, section 4.2: no extension twice.
        if seen.contains(&&extension.oid) {
            return Err(MalformedCertificate::Extension(extension.oid.to_id_string()));
        }
        seen.push(&extension.oid);
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                for general in &san.general_names {
                    names.push(SubjectAltName::read(general)?);
                }
            }
            ParsedExtension::BasicConstraints(constraints) => is_ca = constraints.ca,
            ParsedExtension::ParseError { .. } => {
                return Err(MalformedCertificate::Extension(extension.oid.to_id_string()));
            }
            _ => {}
        }
    }
    Ok((names, is_ca))
}

/// One subject alternative name, by type: a name never matches a rule for another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectAltName {
    Dns(String),
    Email(String),
    Uri(String),
    Ip(IpAddr),
    /// Directory names, registered ids and the like: known to be there, matched by nothing.
    Other,
}

impl SubjectAltName {
    fn read(general: &GeneralName<'_>) -> Result<Self, MalformedCertificate> {
        let text = |text: &str| {
            // IA5String, RFC 5280, section 4.2.1.6; a NUL or a line break never belongs to a name.
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
                return Err(MalformedCertificate::AlternativeName(format!("`{}`", text.escape_debug())));
            }
            Ok(text.to_owned())
        };
        Ok(match general {
            GeneralName::DNSName(name) => Self::Dns(text(name)?),
            GeneralName::RFC822Name(name) => Self::Email(text(name)?),
            GeneralName::URI(name) => Self::Uri(text(name)?),
            GeneralName::IPAddress(bytes) => {
                match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                    (Ok(v4), _) => Self::Ip(v4.into()),
                    (_, Ok(v6)) => Self::Ip(v6.into()),
                    _ => {
                        return Err(MalformedCertificate::AlternativeName(
                            "an IP address of a wrong length".into(),
                        ));
                    }
                }
            }
            GeneralName::Invalid(..) => {
                return Err(MalformedCertificate::AlternativeName("a name that cannot be read".into()));
            }
            _ => Self::Other,
        })
    }
}

/// A serial number: unsigned, big-endian, without leading zeros. Shown in upper-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<[u8]>);

impl Serial {
    pub fn new(bytes: &[u8]) -> Self {
        let leading = bytes.iter().take_while(|&&byte| byte == 0).count();
        Self(bytes[leading..].into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with a hex text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct HexError {
    text: String,
    expected: &'static str,
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let digits = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    if !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

impl FromStr for Serial {
    type Err = HexError;

    /// Hex, with or without colons, of either case.
    fn from_str(text: &str) -> Result<Self, HexError> {
        let bytes = hex_bytes(text).filter(|bytes| !bytes.is_empty());
        bytes
            .map(|bytes| Self::new(&bytes))
            .ok_or(HexError { text: text.into(), expected: "a serial number in hex" })
    }
}

/// SHA-256. Shown in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = HexError;

    /// Hex, with or without colons, of either case.
    fn from_str(text: &str) -> Result<Self, HexError> {
        let bytes = hex_bytes(text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes
            .map(Self)
            .ok_or(HexError { text: text.into(), expected: "a SHA-256 fingerprint: 64 hex digits" })
    }
}
