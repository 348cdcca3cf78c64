//! Subject alternative names, by type (RFC 5280, section 4.2.1.6).

use std::fmt;
use std::net::IpAddr;

use x509_parser::asn1_rs::FromDer;
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};

use super::MalformedCertificate;

/// A name of a given type. Types are never mixed up: an e-mail address that looks like a host name is no host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectAltName {
    /// Literal: in a client's certificate `*.example.com` means nothing but itself.
    Dns(String),
    Email(String),
    /// Also SPIFFE IDs.
    Uri(String),
    Ip(IpAddr),
    /// Directory names, registered IDs and whatever others there are: never matched.
    Other,
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Email(address) => write!(f, "email:{address}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// From the content of the extension.
pub(super) fn decode(value: &[u8]) -> Result<Box<[SubjectAltName]>, MalformedCertificate> {
    let Ok(([], names)) = SubjectAlternativeName::from_der(value) else {
        return Err(MalformedCertificate::Extension("subjectAltName"));
    };
    names.general_names.iter().map(general_name).collect()
}

fn general_name(name: &GeneralName<'_>) -> Result<SubjectAltName, MalformedCertificate> {
    Ok(match name {
        GeneralName::DNSName(text) => SubjectAltName::Dns(ia5(text, "DNS name")?),
        GeneralName::RFC822Name(text) => SubjectAltName::Email(ia5(text, "e-mail address")?),
        GeneralName::URI(text) => SubjectAltName::Uri(ia5(text, "URI")?),
        GeneralName::IPAddress(bytes) => SubjectAltName::Ip(address(bytes)?),
        GeneralName::Invalid(tag, _) => {
            return Err(malformed(format!("one of type {} cannot be decoded", tag.0)));
        }
        _ => SubjectAltName::Other,
    })
}

/// IA5String is ASCII; a control character in a name is an attack on whoever prints or compares it.
fn ia5(text: &str, what: &str) -> Result<String, MalformedCertificate> {
    match text.chars().find(|c| !c.is_ascii() || c.is_ascii_control()) {
        None => Ok(text.to_owned()),
        Some(c) if c.is_ascii() => {
            Err(malformed(format!("a {what} contains the control character U+{:04X}", c as u32)))
        }
        Some(_) => Err(malformed(format!("a {what} is not ASCII"))),
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, MalformedCertificate> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).map_err(|_| malformed(format!("an IP address has {} bytes", bytes.len())))
}

fn malformed(why: String) -> MalformedCertificate {
    MalformedCertificate::AlternativeName(why)
}
