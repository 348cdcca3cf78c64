//! What a certificate says. Reading only: whether it is believed is decided in [`trust`](crate::trust).
//!
//! A certificate is parsed once and kept as plain owned values. Everything that a name, a SAN or an extension can get
//! wrong is a value of [`MalformedCertificate`], never a panic: these bytes come from strangers.

mod alt_name;
mod attribute;
pub(crate) mod der;
mod fingerprint;
mod list_points;
mod name;
mod pem;
mod pem_reader;
mod rfc4514;
mod strength;
mod time;

use openssl::sha::sha256;
use x509_parser::asn1_rs::{FromDer, Oid, oid};
use x509_parser::certificate::X509CertificateParser;
use x509_parser::extensions::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use x509_parser::nom::Parser;
use x509_parser::prelude::{X509Certificate, X509Extension};

use crate::UnixTime;

pub use alt_name::SubjectAltName;
pub use attribute::{Attribute, AttributeKind};
pub use fingerprint::{BadHex, Fingerprint, Serial};
pub use list_points::ListPoints;
pub(crate) use name::folded;
pub use name::{BadName, Name};
pub use pem::{PemError, pem_blocks, pem_encode};
pub use pem_reader::PemReader;
pub use rfc4514::DistinguishedNameError;
pub use strength::Weakness;
pub use time::utc;
use time::{Civil, civil, unix_time};

/// An X.509 certificate of any version (RFC 5280, section 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Box<[u8]>,
    version: u32,
    subject: Name,
    issuer: Name,
    serial: Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    alternative_names: Box<[SubjectAltName]>,
    list_points: ListPoints,
    authority: Authority,
    purposes: Purposes,
    weakness: Option<Weakness>,
    fingerprint: Fingerprint,
    key_fingerprint: Fingerprint,
}

/// Why bytes that call themselves a certificate are not taken for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCertificate {
    #[error("it is not a DER encoded X.509 certificate")]
    NotX509,
    #[error("{0} bytes follow the certificate")]
    TrailingBytes(usize),
    #[error("its subject is malformed: {0}")]
    Subject(BadName),
    #[error("its issuer is malformed: {0}")]
    Issuer(BadName),
    #[error("its extension {0} appears twice")]
    RepeatedExtension(&'static str),
    #[error("its extension {0} cannot be decoded")]
    Extension(&'static str),
    #[error("a subject alternative name is malformed: {0}")]
    AlternativeName(String),
    #[error("it has no serial number")]
    EmptySerial,
}

/// A bundle that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("certificate {block} of the bundle is malformed: {reason}")]
    Malformed { block: usize, reason: MalformedCertificate },
}

/// What basicConstraints says about issuing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authority {
    /// No CA, or nothing said.
    No,
    Yes {
        path_length: Option<u32>,
    },
}

/// What extendedKeyUsage and keyUsage leave the key to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Purposes {
    client: ClientUse,
    may_sign_lists: bool,
}

/// What extendedKeyUsage says about acting as a TLS client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientUse {
    /// No extendedKeyUsage: nothing is ruled out.
    NotRestricted,
    /// clientAuth is named.
    Named,
    /// extendedKeyUsage is there, without clientAuth.
    NotNamed,
}

impl Certificate {
    pub fn from_der(der: &[u8]) -> Result<Self, MalformedCertificate> {
        // Extensions are decoded below, only those that we read: the rest is for the TLS library to judge.
        let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
        let (rest, parsed) = parser.parse(der).map_err(|_| MalformedCertificate::NotX509)?;
        if !rest.is_empty() {
            return Err(MalformedCertificate::TrailingBytes(rest.len()));
        }
        Self::from_parsed(der, &parsed)
    }

    fn from_parsed(der: &[u8], parsed: &X509Certificate<'_>) -> Result<Self, MalformedCertificate> {
        let extensions = Extensions::decode(parsed.extensions())?;
        Ok(Self {
            der: der.into(),
            version: parsed.version.0 + 1,
            subject: Name::decode(&parsed.subject).map_err(MalformedCertificate::Subject)?,
            issuer: Name::decode(&parsed.issuer).map_err(MalformedCertificate::Issuer)?,
            serial: Serial::from_be_bytes(parsed.raw_serial()).ok_or(MalformedCertificate::EmptySerial)?,
            not_before: parsed.validity.not_before.timestamp(),
            not_after: parsed.validity.not_after.timestamp(),
            alternative_names: extensions.alternative_names,
            list_points: extensions.list_points,
            authority: extensions.authority,
            purposes: extensions.purposes,
            weakness: strength::weakness(parsed),
            fingerprint: Fingerprint(sha256(der)),
            key_fingerprint: Fingerprint(sha256(parsed.public_key().raw)),
        })
    }

    /// All blocks of type CERTIFICATE; anything else in the file is passed over.
    pub fn from_pem_bundle(pem: &[u8]) -> Result<Vec<Self>, BundleError> {
        let blocks = pem_blocks(pem, "CERTIFICATE")?;
        let numbered = blocks.iter().enumerate();
        numbered
            .map(|(index, der)| {
                let malformed = |reason| BundleError::Malformed { block: index + 1, reason };
                Self::from_der(der).map_err(malformed)
            })
            .collect()
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// 1, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
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

    /// The last second at which the certificate is valid.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    pub fn subject_alternative_names(&self) -> &[SubjectAltName] {
        &self.alternative_names
    }

    /// Where its issuer publishes the revocation list that speaks about it.
    pub fn list_points(&self) -> &ListPoints {
        &self.list_points
    }

    /// basicConstraints says CA:TRUE.
    pub fn is_ca(&self) -> bool {
        matches!(self.authority, Authority::Yes { .. })
    }

    /// How many certificates that are not self-issued may stand between it and the leaf: basicConstraints'
    /// pathLenConstraint.
    pub fn path_length(&self) -> Option<u32> {
        match self.authority {
            Authority::Yes { path_length } => path_length,
            Authority::No => None,
        }
    }

    /// Whether it may stand at the head of a chain: a CA, or a self-issued certificate of version 1, which has no way
    /// to say that it is one.
    pub fn may_be_anchor(&self) -> bool {
        self.is_ca() || (self.version == 1 && self.is_self_issued())
    }

    /// Subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject.matches(&self.issuer)
    }

    pub fn client_use(&self) -> ClientUse {
        self.purposes.client
    }

    /// False when keyUsage is there without cRLSign.
    pub fn may_sign_lists(&self) -> bool {
        self.purposes.may_sign_lists
    }

    /// What makes its key or its signature too weak to build on.
    pub fn weakness(&self) -> Option<&Weakness> {
        self.weakness.as_ref()
    }

    /// SHA-256 of the DER encoding.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// SHA-256 of the SubjectPublicKeyInfo: survives a renewal that keeps the key.
    pub fn key_fingerprint(&self) -> &Fingerprint {
        &self.key_fingerprint
    }
}

/// The extensions that mean something to us.
struct Extensions {
    alternative_names: Box<[SubjectAltName]>,
    list_points: ListPoints,
    authority: Authority,
    purposes: Purposes,
}

const SUBJECT_ALT_NAME: Oid<'static> = oid!(2.5.29.17);
const CRL_DISTRIBUTION_POINTS: Oid<'static> = oid!(2.5.29.31);
const BASIC_CONSTRAINTS: Oid<'static> = oid!(2.5.29.19);
const KEY_USAGE: Oid<'static> = oid!(2.5.29.15);
const EXTENDED_KEY_USAGE: Oid<'static> = oid!(2.5.29.37);

impl Extensions {
    fn decode(extensions: &[X509Extension<'_>]) -> Result<Self, MalformedCertificate> {
        let alternative_names = match find(extensions, &SUBJECT_ALT_NAME, "subjectAltName")? {
            Some(value) => alt_name::decode(value)?,
            None => Box::default(),
        };
        let points = find(extensions, &CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints")?;
        let constraints: Option<BasicConstraints> =
            decode(extensions, &BASIC_CONSTRAINTS, "basicConstraints")?;
        let usage: Option<KeyUsage> = decode(extensions, &KEY_USAGE, "keyUsage")?;
        let extended: Option<ExtendedKeyUsage<'_>> =
            decode(extensions, &EXTENDED_KEY_USAGE, "extendedKeyUsage")?;
        let client = match extended {
            None => ClientUse::NotRestricted,
            Some(usage) if usage.client_auth => ClientUse::Named,
            Some(_) => ClientUse::NotNamed,
        };
        let authority = match constraints {
            Some(it) if it.ca => Authority::Yes { path_length: it.path_len_constraint },
            _ => Authority::No,
        };
        Ok(Self {
            alternative_names,
            list_points: points.map(ListPoints::read).unwrap_or_default(),
            authority,
            purposes: Purposes { client, may_sign_lists: usage.is_none_or(|usage| usage.crl_sign()) },
        })
    }
}

fn find<'a>(
    extensions: &[X509Extension<'a>],
    oid: &Oid<'_>,
    name: &'static str,
) -> Result<Option<&'a [u8]>, MalformedCertificate> {
    let mut found = extensions.iter().filter(|extension| extension.oid == *oid);
    let value = found.next().map(|extension| extension.value);
    if found.next().is_some() {
        // Two readers could each believe another one (RFC 5280, section 4.2, forbids it).
        return Err(MalformedCertificate::RepeatedExtension(name));
    }
    Ok(value)
}

fn decode<'a, T, E>(
    extensions: &[X509Extension<'a>],
    oid: &Oid<'_>,
    name: &'static str,
) -> Result<Option<T>, MalformedCertificate>
where
    T: FromDer<'a, E>,
{
    let Some(value) = find(extensions, oid, name)? else { return Ok(None) };
    match T::from_der(value) {
        Ok(([], decoded)) => Ok(Some(decoded)),
        _ => Err(MalformedCertificate::Extension(name)),
    }
}

#[cfg(test)]
mod tests;
