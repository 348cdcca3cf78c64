//! Which clients are meant.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use super::{BadParameter, Parameters};
use crate::certificate::{Attribute, Certificate, DistinguishedNameError, Fingerprint, Name, Serial};
use crate::headers::Prefix;
use crate::trust::{ClientIdentity, IssuerName};

/// Conditions, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    pub connection: Option<ConnectionNumber>,
    pub listener: Option<String>,
    pub address: Option<Prefix>,
    pub trust_domain: Option<String>,
    pub fingerprint: Option<Fingerprint>,
    pub key_fingerprint: Option<Fingerprint>,
    pub serial: Option<Serial>,
    pub issuer: Option<IssuerName>,
    /// Attributes that the subject must have; it may have others.
    pub subject: Option<DistinguishedName>,
}

/// What is there to be named.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    pub listeners: Vec<String>,
    pub trust_domains: Vec<String>,
}

/// An open connection, as far as it can be asked about.
pub struct Candidate<'a> {
    pub connection: u64,
    pub listener: &'a str,
    pub address: IpAddr,
    pub identity: Option<&'a ClientIdentity>,
}

/// As the logs show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionNumber(pub u64);

/// RFC 4514 text, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinguishedName(Vec<Vec<Attribute>>);

impl Selector {
    /// The names of all conditions.
    pub const NAMES: [&'static str; 9] = [
        "connection",
        "listener",
        "address",
        "trust_domain",
        "fingerprint",
        "key_fingerprint",
        "serial",
        "issuer",
        "subject",
    ];

    pub fn take(parameters: &mut Parameters) -> Result<Self, BadParameter> {
        Ok(Self {
            connection: parameters.parsed("connection")?,
            listener: parameters.take("listener"),
            address: parameters.parsed("address")?,
            trust_domain: parameters.take("trust_domain"),
            fingerprint: parameters.parsed("fingerprint")?,
            key_fingerprint: parameters.parsed("key_fingerprint")?,
            serial: parameters.parsed("serial")?,
            issuer: parameters.parsed("issuer")?,
            subject: parameters.parsed("subject")?,
        })
    }

    /// For what does harm: whoever leaves the name out would hit everybody of a trust domain or a network.
    pub fn names_a_client(&self) -> Result<(), BadParameter> {
        if self.serial.is_some() && self.issuer.is_none() {
            return Err(BadParameter::Incomplete(
                "a serial counts only together with its issuer (expected: `issuer`, such as `CN=Fleet CA`)",
            ));
        }
        let named = self.connection.is_some()
            || self.fingerprint.is_some()
            || self.key_fingerprint.is_some()
            || self.serial.is_some()
            || self.subject.is_some();
        let whom = BadParameter::Incomplete(
            "it must be said who (expected: `fingerprint`, `key_fingerprint`, `serial` with `issuer`, `subject` or \
             `connection`)",
        );
        if named { Ok(()) } else { Err(whom) }
    }

    /// A misspelt name must not look as if nobody were there.
    pub fn asks_for_what_there_is(&self, known: &KnownNames) -> Result<(), BadParameter> {
        for (name, wanted, known) in [
            ("listener", &self.listener, &known.listeners),
            ("trust_domain", &self.trust_domain, &known.trust_domains),
        ] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| !known.contains(wanted)) {
                let error = format!("none is called `{wanted}` (expected: {})", known.join(", "));
                return Err(BadParameter::Wrong { name, error });
            }
        }
        Ok(())
    }

    pub fn matches(&self, candidate: &Candidate<'_>) -> bool {
        let fits =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        self.connection.is_none_or(|wanted| wanted.0 == candidate.connection)
            && fits(&self.listener, candidate.listener)
            && self.address.is_none_or(|network| network.contains(candidate.address))
            && match candidate.identity {
                Some(identity) => {
                    fits(&self.trust_domain, identity.trust_domain())
                        && self.matches_certificate(identity.certificate())
                }
                None => !self.asks_of_identity(),
            }
    }

    fn matches_certificate(&self, certificate: &Certificate) -> bool {
        let equal =
            |wanted: Option<Fingerprint>, found: &Fingerprint| wanted.is_none_or(|wanted| wanted == *found);
        equal(self.fingerprint, certificate.fingerprint())
            && equal(self.key_fingerprint, certificate.key_fingerprint())
            && self.serial.as_ref().is_none_or(|wanted| wanted == certificate.serial())
            && self.issuer.as_ref().is_none_or(|wanted| *wanted == IssuerName::of(certificate.issuer()))
            && self.subject.as_ref().is_none_or(|wanted| wanted.is_part_of(certificate.subject()))
    }

    fn asks_of_identity(&self) -> bool {
        self.trust_domain.is_some()
            || self.fingerprint.is_some()
            || self.key_fingerprint.is_some()
            || self.serial.is_some()
            || self.issuer.is_some()
            || self.subject.is_some()
    }

    /// Every condition with its name, as it would be asked for.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        fn shown<T: Display>(value: Option<&T>) -> Option<String> {
            value.map(ToString::to_string)
        }
        let values = [
            shown(self.connection.as_ref()),
            self.listener.clone(),
            shown(self.address.as_ref()),
            self.trust_domain.clone(),
            shown(self.fingerprint.as_ref()),
            shown(self.key_fingerprint.as_ref()),
            shown(self.serial.as_ref()),
            shown(self.issuer.as_ref()),
            shown(self.subject.as_ref()),
        ];
        Self::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.pairs().into_iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

impl DistinguishedName {
    fn is_part_of(&self, name: &Name) -> bool {
        self.attributes().all(|wanted| name.attributes().any(|attribute| attribute.matches(wanted)))
    }

    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.0.iter().flatten()
    }
}

impl FromStr for DistinguishedName {
    type Err = DistinguishedNameError;

    fn from_str(text: &str) -> Result<Self, DistinguishedNameError> {
        let rdns = Name::parse_rfc4514(text)?;
        // Only spaces, or a type without a value: nothing is never taken for everything.
        if rdns.is_empty() || rdns.iter().flatten().any(|attribute| attribute.value.is_empty()) {
            return Err(DistinguishedNameError::NoEquals(text.to_owned()));
        }
        Ok(Self(rdns))
    }
}

impl Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Name::format_rfc4514(&self.0))
    }
}

impl FromStr for ConnectionNumber {
    type Err = BadConnectionNumber;

    fn from_str(text: &str) -> Result<Self, BadConnectionNumber> {
        let hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| hex);
        number.map(Self).ok_or_else(|| BadConnectionNumber(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a connection (expected: 16 hexadecimal digits, as in the logs)")]
pub struct BadConnectionNumber(String);

impl Display for ConnectionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
