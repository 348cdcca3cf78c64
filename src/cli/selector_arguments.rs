//! The flags that say which clients are meant.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::admin::{ConnectionNumber, DistinguishedName, Selector};
use crate::certificate::{Certificate, Fingerprint, Serial};
use crate::headers::Prefix;
use crate::trust::IssuerName;

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
    let told = |what: String| format!("`{}` {what}", file.display());
    let bytes = std::fs::read(file).map_err(|error| told(format!("cannot be read: {error}")))?;
    let certificate = match Certificate::from_pem_bundle(&bytes) {
        Ok(bundle) if !bundle.is_empty() => bundle.into_iter().next(),
        Ok(_) => Certificate::from_der(&bytes).ok(),
        Err(error) => return Err(told(error.to_string())),
    };
    // Whatever follows the first is what the client sends along.
    certificate.map(|it| *it.fingerprint()).ok_or_else(|| told("holds no certificate".into()))
}
