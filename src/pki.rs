//! A small certificate authority for trials, tests and closed fleets, in one directory:
//!
//! - `ca.crt`, `ca.key`: the authority;
//! - `NAME.crt`, `NAME.key`: what it issued;
//! - `revoked.json`: what it revoked; `ca.crl`: the list made of it.

mod crl;

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use serde::{Deserialize, Serialize};

use crate::certificate::{AttributeKind, Certificate, Serial};

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("`{path}`: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("`{0}` exists already; it is not overwritten (hint: choose another directory or name)")]
    Exists(PathBuf),
    #[error("`{path}` is not what this authority wrote: {detail}")]
    Damaged { path: PathBuf, detail: String },
    #[error("`{0}` is not a name for files: letters, digits, `-`, `_` and `.` only")]
    FileName(String),
    #[error("`{0}` is not a subject (expected: `CN=device-1,OU=sensors`)")]
    Subject(String),
    #[error("the TLS library failed: {0}")]
    Library(#[from] ErrorStack),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyType {
    P256,
    Rsa2048,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Client,
    Server,
}

/// What is to be issued.
pub struct Request {
    /// Names the files.
    pub name: String,
    pub kind: Kind,
    pub subject: Vec<(AttributeKind, String)>,
    pub dns: Vec<String>,
    pub email: Vec<String>,
    pub uri: Vec<String>,
    pub ip: Vec<IpAddr>,
    pub days: u32,
    pub key_type: KeyType,
}

/// An authority in its directory.
pub struct Pki {
    directory: PathBuf,
    certificate: X509,
    key: PKey<Private>,
}

#[derive(Default, Serialize, Deserialize)]
struct Revoked {
    /// Of the last list made.
    crl_number: u64,
    entries: Vec<RevokedEntry>,
}

#[derive(Serialize, Deserialize)]
struct RevokedEntry {
    /// Hex.
    serial: String,
    /// Seconds since 1970.
    at: i64,
}

impl Pki {
    /// Makes a new authority. Never overwrites one.
    pub fn init(directory: &Path, common_name: &str, days: u32, key_type: KeyType) -> Result<Self, PkiError> {
        let file = |source| PkiError::File { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(file)?;
        let path = directory.join("ca.crt");
        if path.exists() {
            return Err(PkiError::Exists(path));
        }
        let key = make_key(key_type)?;
        let name = x509_name(&[(AttributeKind::CommonName, common_name.to_owned())])?;
        let mut builder = builder(&name, &key, days)?;
        builder.set_issuer_name(&name)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        write(&path, &certificate.to_pem()?, 0o644)?;
        write(&directory.join("ca.key"), &key.private_key_to_pem_pkcs8()?, 0o600)?;
        Ok(Self { directory: directory.to_owned(), certificate, key })
    }

    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let damaged = |path: &Path| {
            let path = path.to_owned();
            move |error: ErrorStack| PkiError::Damaged { path, detail: error.to_string() }
        };
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        Ok(Self {
            certificate: X509::from_pem(&read(&certificate)?).map_err(damaged(&certificate))?,
            key: PKey::private_key_from_pem(&read(&key)?).map_err(damaged(&key))?,
            directory: directory.to_owned(),
        })
    }

    /// Writes `NAME.crt` and `NAME.key`; returns the certificate's path.
    pub fn issue(&self, request: &Request) -> Result<PathBuf, PkiError> {
        check_file_name(&request.name)?;
        let path = self.directory.join(format!("{}.crt", request.name));
        if path.exists() {
            return Err(PkiError::Exists(path));
        }
        let key = make_key(request.key_type)?;
        let certificate = self.sign(request, &key)?;
        write(
            &self.directory.join(format!("{}.key", request.name)),
            &key.private_key_to_pem_pkcs8()?,
            0o600,
        )?;
        write(&path, &certificate.to_pem()?, 0o644)?;
        Ok(path)
    }

    fn sign(&self, request: &Request, key: &PKey<Private>) -> Result<X509, PkiError> {
        let mut builder = builder(&*x509_name(&request.subject)?, key, request.days)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        let mut usage = ExtendedKeyUsage::new();
        match request.kind {
            Kind::Client => usage.client_auth(),
            Kind::Server => usage.server_auth(),
        };
        builder.append_extension(usage.build()?)?;
        let mut names = SubjectAlternativeName::new();
        for name in &request.dns {
            names.dns(name);
        }
        for name in &request.email {
            names.email(name);
        }
        for name in &request.uri {
            names.uri(name);
        }
        for ip in &request.ip {
            names.ip(&ip.to_string());
        }
        if !(request.dns.is_empty()
            && request.email.is_empty()
            && request.uri.is_empty()
            && request.ip.is_empty())
        {
            builder.append_extension(names.build(&builder.x509v3_context(Some(&self.certificate), None))?)?;
        }
        let mut identifier = AuthorityKeyIdentifier::new();
        identifier.keyid(true);
        let identifier = identifier.build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(identifier)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }

    /// Notes that a certificate file is revoked, from now on; [`Pki::crl`] makes it known.
    pub fn revoke(&self, certificate: &Path) -> Result<Serial, PkiError> {
        let damaged = |detail: String| PkiError::Damaged { path: certificate.to_owned(), detail };
        let bundle =
            Certificate::from_pem_bundle(&read(certificate)?).map_err(|error| damaged(error.to_string()))?;
        let leaf = bundle.into_iter().next().ok_or_else(|| damaged("it holds no certificate".into()))?;
        if leaf.issuer().raw() != self.certificate.subject_name().to_der()? {
            return Err(damaged(format!("it was issued by `{}`", leaf.issuer())));
        }
        if !X509::from_der(leaf.der())?.verify(&*self.certificate.public_key()?)? {
            return Err(damaged("another authority of the same name issued it".into()));
        }
        let serial = leaf.serial().clone();
        let mut revoked = self.revoked()?;
        let text = serial.to_string();
        if !revoked.entries.iter().any(|entry| entry.serial == text) {
            revoked.entries.push(RevokedEntry { serial: text, at: now() });
            self.store(&revoked)?;
        }
        Ok(serial)
    }

    /// Writes `ca.crl`, good for `days`; returns its path.
    pub fn crl(&self, days: u32) -> Result<PathBuf, PkiError> {
        let mut revoked = self.revoked()?;
        revoked.crl_number += 1;
        let path = self.directory.join("revoked.json");
        // What cannot be read must not be left out of the list.
        let read = |entry: &RevokedEntry| {
            let damaged = |_| PkiError::Damaged {
                path: path.clone(),
                detail: format!("`{}` is not a serial number", entry.serial),
            };
            Ok((entry.serial.parse::<Serial>().map_err(damaged)?, entry.at))
        };
        let entries: Vec<(Serial, i64)> =
            revoked.entries.iter().map(read).collect::<Result<_, PkiError>>()?;
        let der = crl::sign(&self.certificate, &self.key, revoked.crl_number, &entries, now(), days)?;
        let path = self.directory.join("ca.crl");
        replace(&path, crl::pem(&der).as_bytes())?;
        self.store(&revoked)?;
        Ok(path)
    }

    fn revoked(&self) -> Result<Revoked, PkiError> {
        let path = self.directory.join("revoked.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| PkiError::Damaged { path, detail: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Revoked::default()),
            Err(source) => Err(PkiError::File { path, source }),
        }
    }

    fn store(&self, revoked: &Revoked) -> Result<(), PkiError> {
        let text = serde_json::to_vec_pretty(revoked).unwrap_or_default();
        replace(&self.directory.join("revoked.json"), &text)
    }
}

/// `CN=device-1,OU=sensors`: as RFC 4514 has it, the last one is encoded first.
pub fn parse_subject(text: &str) -> Result<Vec<(AttributeKind, String)>, PkiError> {
    let error = || PkiError::Subject(text.to_owned());
    let rdns = crate::certificate::Name::parse_rfc4514(text).map_err(|_| error())?;
    let attributes: Vec<_> = rdns.into_iter().flatten().map(|a| (a.kind, a.value)).collect();
    let is_named = attributes.iter().all(|(kind, _)| !matches!(kind, AttributeKind::Other(_)));
    if attributes.is_empty() || !is_named { Err(error()) } else { Ok(attributes) }
}

fn check_file_name(name: &str) -> Result<(), PkiError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || name == "ca" || !name.bytes().all(legal) {
        return Err(PkiError::FileName(name.to_owned()));
    }
    Ok(())
}

fn make_key(key_type: KeyType) -> Result<PKey<Private>, ErrorStack> {
    match key_type {
        KeyType::P256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)
        }
        KeyType::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
    }
}

fn x509_name(attributes: &[(AttributeKind, String)]) -> Result<X509Name, ErrorStack> {
    let mut name = X509NameBuilder::new()?;
    for (kind, value) in attributes {
        name.append_entry_by_text(kind.key(), value)?;
    }
    Ok(name.build())
}

/// Everything but issuer, extensions and signature.
fn builder(
    subject: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    days: u32,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    // RFC 5280, section 4.1.2.2: positive, at most 20 octets; random, so that it cannot be guessed.
    let mut serial = [0; 16];
    openssl::rand::rand_bytes(&mut serial)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    builder.set_serial_number(&*Asn1Integer::from_bn(&*BigNum::from_slice(&serial)?)?)?;
    builder.set_subject_name(subject)?;
    builder.set_pubkey(key)?;
    // A little in the past: the clocks of those who check it differ.
    builder.set_not_before(&*Asn1Time::from_unix(now() - 300)?)?;
    builder.set_not_after(&*Asn1Time::from_unix(now() + i64::from(days) * 86_400)?)?;
    Ok(builder)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PkiError> {
    let file = |source| PkiError::File { path: path.to_owned(), source };
    let mut output =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).map_err(file)?;
    output.write_all(bytes).map_err(file)
}

/// A reader sees the old file or the new one, never half of one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let temporary = path.with_extension("new");
    write(&temporary, bytes, 0o644)?;
    fs::rename(&temporary, path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}
