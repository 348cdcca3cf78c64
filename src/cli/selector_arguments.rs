//! The flags that say which clients are meant.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::admin::{ConnectionNumber, DistinguishedName, Selector};
use crate::certificate::{Certificate, Fingerprint, Serial, pem_encode};
use crate::headers::Prefix;
use crate::trust::IssuerName;

/// Bytes of PEM: what fits into the target of a request.
const LARGEST_CHAIN: usize = 48 * 1024;

/// All that are given must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which clients")]
pub(super) struct SelectorArguments {
    /// The subject has these attributes, as RFC 4514 text, such as `CN=device-1,OU=sensors`
    #[arg(long, value_name = "NAME")]
    subject: Option<DistinguishedName>,
    /// The serial number, in hexadecimal
    #[arg(long, value_name = "HEX")]
    serial: Option<Serial>,
    /// The name of the issuer, as RFC 4514 text
    #[arg(long, value_name = "NAME")]
    issuer: Option<IssuerName>,
    /// SHA-256 of the certificate
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// SHA-256 of the public key, which a renewal may keep
    #[arg(long, value_name = "HEX")]
    key_fingerprint: Option<Fingerprint>,
    /// The certificate itself, PEM or DER
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    cert: Option<PathBuf>,
    /// The number of one connection, as the logs show it
    #[arg(long, value_name = "ID")]
    connection: Option<ConnectionNumber>,
    /// Only clients of this trust domain
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<String>,
    /// Only connections of this listener
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only connections from this address or network
    #[arg(long, value_name = "NETWORK")]
    address: Option<Prefix>,
}

impl SelectorArguments {
    /// The certificate file as PEM, with whatever follows the first.
    pub(super) fn certificate(&self) -> Result<Option<String>, String> {
        let Some(file) = &self.cert else { return Ok(None) };
        let certificates = read(file)?;
        let pem: String = certificates.iter().map(|it| pem_encode(it.der(), "CERTIFICATE")).collect();
        if pem.len() > LARGEST_CHAIN {
            let count = certificates.len();
            return Err(format!(
                "`{}` holds {count} certificates (expected: that of the client, and what it sends along)",
                file.display()
            ));
        }
        Ok(Some(pem))
    }

    pub(super) fn selector(self) -> Result<Selector, String> {
        let of_file = self.cert.map(|file| fingerprint(&file)).transpose()?;
        Ok(Selector {
            connection: self.connection,
            listener: self.listener,
            address: self.address,
            trust_domain: self.trust_domain,
            fingerprint: self.fingerprint.or(of_file),
            key_fingerprint: self.key_fingerprint,
            serial: self.serial,
            issuer: self.issuer,
            subject: self.subject,
        })
    }
}

fn fingerprint(file: &Path) -> Result<Fingerprint, String> {
    // Whatever follows the first is what the client sends along.
    read(file).map(|certificates| *certificates[0].fingerprint())
}

/// At least one.
fn read(file: &Path) -> Result<Vec<Certificate>, String> {
    let told = |what: String| format!("`{}` {what}", file.display());
    let bytes = std::fs::read(file).map_err(|error| told(format!("cannot be read: {error}")))?;
    match Certificate::from_pem_bundle(&bytes) {
        Ok(bundle) if !bundle.is_empty() => Ok(bundle),
        Ok(_) => {
            Certificate::from_der(&bytes).map(|it| vec![it]).map_err(|_| told("holds no certificate".into()))
        }
        Err(error) => Err(told(format!("cannot be used: {error}"))),
    }
}
