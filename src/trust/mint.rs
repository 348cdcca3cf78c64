//! Certificates and lists for tests, made in memory: also such as no decent authority would issue.

use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name};

use crate::UnixTime;
use crate::certificate::{Certificate, Name, der};

/// 2026-01-01 00:00:00 UTC: the present, in tests.
pub(crate) const NOW: UnixTime = 1_767_225_600;
pub(crate) const DAY: UnixTime = 86_400;

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Minted {
    pub x509: X509,
    pub key: PKey<Private>,
}

/// What the next certificate says.
#[derive(Clone)]
pub(crate) struct Plan {
    pub subject: String,
    pub serial: u32,
    pub days: std::ops::Range<i64>,
    pub ca: bool,
    pub path_length: Option<u32>,
    pub version_1: bool,
    pub usage: Option<&'static str>,
    pub key_ids: bool,
    pub key: Option<PKey<Private>>,
    pub digest: MessageDigest,
    /// Where its revocation list is published: an address.
    pub list_point: Option<&'static str>,
}

impl Plan {
    pub(crate) fn leaf(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            serial: 0x1000,
            days: -1..365,
            ca: false,
            path_length: None,
            version_1: false,
            usage: Some("clientAuth"),
            key_ids: true,
            key: None,
            digest: MessageDigest::sha256(),
            list_point: None,
        }
    }

    pub(crate) fn ca(subject: &str) -> Self {
        Self { ca: true, usage: None, serial: 0x0ca, days: -100..3650, ..Self::leaf(subject) }
    }

    /// As `openssl x509 -req` of OpenSSL 3.0 makes them.
    pub(crate) fn version_1(subject: &str) -> Self {
        Self { version_1: true, serial: 1, ..Self::leaf(subject) }
    }

    pub(crate) fn self_signed(self) -> Minted {
        self.mint(None)
    }

    pub(crate) fn signed_by(self, issuer: &Minted) -> Minted {
        self.mint(Some(issuer))
    }

    fn mint(self, issuer: Option<&Minted>) -> Minted {
        let key = self.key.clone().unwrap_or_else(new_key);
        let subject = name(&self.subject);
        let issuer_name = issuer
            .map_or_else(|| subject.to_owned().unwrap(), |it| it.x509.subject_name().to_owned().unwrap());
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(if self.version_1 { 0 } else { 2 }).unwrap();
        builder.set_serial_number(&serial(self.serial)).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(&issuer_name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(NOW + self.days.start * DAY).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(NOW + self.days.end * DAY).unwrap()).unwrap();
        if !self.version_1 {
            self.extend(&mut builder, issuer);
        }
        builder.sign(issuer.map_or(&key, |issuer| &issuer.key), self.digest).unwrap();
        Minted { x509: builder.build(), key }
    }

    fn extend(&self, builder: &mut X509Builder, issuer: Option<&Minted>) {
        let mut constraints = BasicConstraints::new();
        if self.ca {
            constraints.critical().ca();
        }
        if let Some(length) = self.path_length {
            constraints.pathlen(length);
        }
        builder.append_extension(constraints.build().unwrap()).unwrap();
        if let Some(usage) = self.usage {
            let mut extension = ExtendedKeyUsage::new();
            for usage in usage.split(',') {
                extension.other(usage);
            }
            builder.append_extension(extension.build().unwrap()).unwrap();
        }
        if let Some(address) = self.list_point {
            let name = der::element(0xa0, &der::element(0xa0, &der::element(0x86, address.as_bytes())));
            let value = Asn1OctetString::new_from_bytes(&der::sequence(&[&der::sequence(&[&name])])).unwrap();
            let oid = Asn1Object::from_str("2.5.29.31").unwrap();
            builder.append_extension(X509Extension::new_from_der(&oid, false, &value).unwrap()).unwrap();
        }
        if self.key_ids {
            let id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(id).unwrap();
            if let Some(issuer) = issuer.filter(|issuer| issuer.x509.subject_key_id().is_some()) {
                let context = builder.x509v3_context(Some(&issuer.x509), None);
                let id = AuthorityKeyIdentifier::new().keyid(true).build(&context).unwrap();
                builder.append_extension(id).unwrap();
            }
        }
    }
}

impl Minted {
    pub(crate) fn der(&self) -> Vec<u8> {
        self.x509.to_der().unwrap()
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_der(&self.der()).unwrap()
    }
}

pub(crate) fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn serial(number: u32) -> Asn1Integer {
    BigNum::from_u32(number).unwrap().to_asn1_integer().unwrap()
}

/// From RFC 4514 text, single-valued RDNs.
fn name(text: &str) -> X509Name {
    let mut builder = X509Name::builder().unwrap();
    for attribute in Name::parse_rfc4514(text).unwrap().into_iter().flatten() {
        builder.append_entry_by_text(attribute.kind.oid(), &attribute.value).unwrap();
    }
    builder.build()
}

/// What the next revocation list says.
pub(crate) struct ListPlan {
    /// Serial and CRLReason.
    pub revoked: Vec<(u32, u8)>,
    pub days: std::ops::Range<i64>,
    pub number: Option<u8>,
    /// DER of further extensions.
    pub extensions: Vec<Vec<u8>>,
    /// DER of extensions of each entry.
    pub entry_extensions: Vec<Vec<u8>>,
}

impl Default for ListPlan {
    fn default() -> Self {
        Self {
            revoked: Vec::new(),
            days: -1..7,
            number: Some(1),
            extensions: Vec::new(),
            entry_extensions: Vec::new(),
        }
    }
}

pub(crate) fn revoking(serials: &[u32]) -> ListPlan {
    ListPlan { revoked: serials.iter().map(|serial| (*serial, 1)).collect(), ..ListPlan::default() }
}

impl ListPlan {
    pub(crate) fn signed_by(&self, issuer: &Minted) -> Vec<u8> {
        self.signed(&issuer.x509.subject_name().to_der().unwrap(), &issuer.key)
    }

    /// By name and key that need not belong together.
    pub(crate) fn signed(&self, issuer: &[u8], key: &PKey<Private>) -> Vec<u8> {
        let algorithm = der::sequence(&[&der::element(der::OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x02")]);
        let entries: Vec<u8> = self.revoked.iter().flat_map(|entry| self.entry(*entry)).collect();
        let entries = if entries.is_empty() { entries } else { der::sequence(&[&entries]) };
        let mut extensions = self.extensions.concat();
        if let Some(number) = self.number {
            extensions.extend(extension(20, false, &der::unsigned(&[number])));
        }
        let signed = der::sequence(&[
            &der::unsigned(&[1]),
            &algorithm,
            issuer,
            &der::time(NOW + self.days.start * DAY),
            &der::time(NOW + self.days.end * DAY),
            &entries,
            &der::element(der::explicit(0), &der::sequence(&[&extensions])),
        ]);
        let signature =
            Signer::new(MessageDigest::sha256(), key).unwrap().sign_oneshot_to_vec(&signed).unwrap();
        let signature = der::element(der::BIT_STRING, &[&[0], signature.as_slice()].concat());
        der::sequence(&[&signed, &algorithm, &signature])
    }

    fn entry(&self, (serial, reason): (u32, u8)) -> Vec<u8> {
        let reason = extension(21, false, &der::element(der::ENUMERATED, &[reason]));
        let extensions = der::sequence(&[&reason, &self.entry_extensions.concat()]);
        der::sequence(&[&der::unsigned(&serial.to_be_bytes()), &der::time(NOW - DAY), &extensions])
    }
}

/// The extension subjectAltName, of DNS names and one URI.
pub(crate) fn alternative_names(dns: &[&str], uri: &str) -> Vec<u8> {
    let mut names: Vec<Vec<u8>> = dns.iter().map(|name| der::element(0x82, name.as_bytes())).collect();
    names.push(der::element(0x86, uri.as_bytes()));
    extension(17, false, &der::sequence(&[&names.concat()]))
}

/// An extension `2.5.29.n`.
pub(crate) fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der::element(der::BOOLEAN, &[0xff]) } else { Vec::new() };
    let oid = der::element(der::OID, &[0x55, 0x1d, number]);
    der::sequence(&[&oid, &critical, &der::element(der::OCTET_STRING, value)])
}

/// An unsigned-for certificate with the given DER of its subject: enough to be read.
pub(crate) fn with_subject(subject: &[u8]) -> Vec<u8> {
    with_parts(subject, &[])
}

/// With the given subject and extensions, both as DER.
pub(crate) fn with_parts(subject: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let algorithm = der::sequence(&[&der::element(der::OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x02")]);
    let key = new_key().public_key_to_der().unwrap();
    let validity = der::sequence(&[&der::time(NOW - DAY), &der::time(NOW + DAY)]);
    let issuer = name("CN=Root").to_der().unwrap();
    let extensions = match extensions {
        [] => Vec::new(),
        some => der::element(der::explicit(3), &der::sequence(&[&some.concat()])),
    };
    let version = der::element(der::explicit(0), &der::unsigned(&[2]));
    let body = der::sequence(&[
        &version,
        &der::unsigned(&[7]),
        &algorithm,
        &issuer,
        &validity,
        subject,
        &key,
        &extensions,
    ]);
    let signature = der::element(der::BIT_STRING, &[0, 1, 2, 3]);
    der::sequence(&[&body, &algorithm, &signature])
}

/// A name of one attribute, its value with any tag and any bytes.
pub(crate) fn raw_name(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    let attribute = der::sequence(&[&der::element(der::OID, oid), &der::element(tag, value)]);
    der::sequence(&[&der::element(0x31, &attribute)])
}
