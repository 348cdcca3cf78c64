//! What a route asks of the client.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};
use std::net::IpAddr;
use std::sync::Arc;

use super::miss::{Checked, Misses, StopAtFirst, all_of, any_of};
use crate::certificate::{AttributeKind, Certificate, Fingerprint, Name, Serial, SubjectAltName};
use crate::pattern::Pattern;
use crate::trust::ClientIdentity;

/// Which clients a route is for.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly every rule is of the large kind")]
pub enum ClientRule {
    /// Only those without an identity.
    Anonymous,
    /// With or without an identity.
    Anyone,
    Verified(ClientMatch),
}

/// What a verified identity must be. Every field that is not empty must match; of its values, any.
#[derive(Debug, Clone, Default)]
pub struct ClientMatch {
    pub trust: Vec<Arc<str>>,
    /// An attribute that a name has several times matches if any of its values does; but a rule on the subject's CN
    /// needs exactly one.
    pub subject: Vec<(AttributeKind, Vec<Pattern>)>,
    pub issuer: Vec<(AttributeKind, Vec<Pattern>)>,
    pub san: SanMatch,
    pub fingerprint: Vec<Fingerprint>,
    pub key_fingerprint: Vec<Fingerprint>,
    pub serial: Vec<SerialMatch>,
}

/// Subject alternative names, by type.
#[derive(Debug, Clone, Default)]
pub struct SanMatch {
    /// Compared in lower case. A `*` in the certificate is a character like any other.
    pub dns: Vec<Pattern>,
    pub email: Vec<Pattern>,
    pub uri: Vec<Pattern>,
    pub ip: Vec<IpAddr>,
}

/// A serial counts only together with its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialMatch {
    /// RFC 4514 as [`Name`] writes it, which is a different text for each different name.
    pub issuer: String,
    pub serial: Serial,
}

impl ClientRule {
    /// Of a rule that is [`normalised`](Self::normalised).
    pub fn matches(&self, identity: Option<&ClientIdentity>) -> bool {
        self.check(identity, &mut StopAtFirst).is_continue()
    }

    /// Patterns for domain names in the form in which they are compared.
    #[must_use]
    pub fn normalised(self) -> Self {
        match self {
            Self::Verified(mut client) => {
                client.san.dns = client.san.dns.into_iter().map(Pattern::lower_case).collect();
                Self::Verified(client)
            }
            other => other,
        }
    }

    pub(super) fn check(&self, identity: Option<&ClientIdentity>, misses: &mut impl Misses) -> Checked {
        match (self, identity) {
            (Self::Anyone, _) | (Self::Anonymous, None) => Checked::Continue(()),
            (Self::Anonymous, Some(_)) => {
                misses.missed(|| "the client has a certificate, wanted one without".to_owned())
            }
            (Self::Verified(_), None) => misses.missed(|| "the client has no certificate".to_owned()),
            (Self::Verified(client), Some(identity)) => client.check(identity, misses),
        }
    }
}

impl ClientMatch {
    fn check(&self, identity: &ClientIdentity, misses: &mut impl Misses) -> Checked {
        let certificate = identity.certificate();
        misses.require(self.trust.is_empty() || self.trust.contains(identity.trust_domain()), || {
            format!("trust domain is `{}`, wanted {}", identity.trust_domain(), any_of(&self.trust))
        })?;
        for (kind, patterns) in &self.subject {
            check_subject(certificate.subject(), kind, patterns, misses)?;
        }
        for (kind, patterns) in &self.issuer {
            let values = || values(certificate.issuer(), kind);
            check_any(&format_args!("issuer {}", kind.key()), values, patterns, misses)?;
        }
        self.san.check(certificate.subject_alternative_names(), misses)?;
        self.check_numbers(certificate, misses)
    }

    fn check_numbers(&self, certificate: &Certificate, misses: &mut impl Misses) -> Checked {
        let among = |wanted: &[Fingerprint], found| wanted.is_empty() || wanted.contains(found);
        let found = certificate.fingerprint();
        misses.require(among(&self.fingerprint, found), || {
            format!("fingerprint is `{found}`, wanted {}", any_of(&self.fingerprint))
        })?;
        let found = certificate.key_fingerprint();
        misses.require(among(&self.key_fingerprint, found), || {
            format!("key fingerprint is `{found}`, wanted {}", any_of(&self.key_fingerprint))
        })?;
        let numbered = self.serial.is_empty() || self.serial.iter().any(|wanted| wanted.matches(certificate));
        misses.require(numbered, || {
            let found = format!("`{}` of `{}`", certificate.serial(), certificate.issuer());
            format!("serial is {found}, wanted {}", any_of(&self.serial))
        })
    }
}

fn check_subject(
    subject: &Name,
    kind: &AttributeKind,
    patterns: &[Pattern],
    misses: &mut impl Misses,
) -> Checked {
    let values = || values(subject, kind);
    // Two common names are a way to be two clients at once.
    if *kind == AttributeKind::CommonName && values().nth(1).is_some() {
        return misses.missed(|| format!("subject CN is {} at once, wanted exactly one", all_of(values())));
    }
    check_any(&format_args!("subject {}", kind.key()), values, patterns, misses)
}

fn check_any<'a, I: Iterator<Item = &'a str>>(
    what: &dyn Display,
    values: impl Fn() -> I,
    patterns: &[Pattern],
    misses: &mut impl Misses,
) -> Checked {
    let holds = values().any(|value| patterns.iter().any(|pattern| pattern.matches(value)));
    misses.require(holds, || {
        let found = if values().next().is_none() { "missing".to_owned() } else { all_of(values()) };
        format!("{what} is {found}, wanted {}", any_of(patterns))
    })
}

/// The values of one attribute type.
pub(super) fn values<'a>(name: &'a Name, kind: &'a AttributeKind) -> impl Iterator<Item = &'a str> {
    name.attributes()
        .filter(move |attribute| attribute.kind == *kind)
        .map(|attribute| attribute.value.as_str())
}

impl SanMatch {
    fn check(&self, names: &[SubjectAltName], misses: &mut impl Misses) -> Checked {
        self.check_dns(names, misses)?;
        if !self.email.is_empty() {
            check_any(&"SAN email", || names.iter().filter_map(email), &self.email, misses)?;
        }
        if !self.uri.is_empty() {
            check_any(&"SAN uri", || names.iter().filter_map(uri), &self.uri, misses)?;
        }
        let addresses = || names.iter().filter_map(ip);
        misses.require(self.ip.is_empty() || addresses().any(|address| self.ip.contains(&address)), || {
            let found = if addresses().next().is_none() { "missing".to_owned() } else { all_of(addresses()) };
            format!("SAN ip is {found}, wanted {}", any_of(&self.ip))
        })
    }

    fn check_dns(&self, names: &[SubjectAltName], misses: &mut impl Misses) -> Checked {
        let values = || names.iter().filter_map(dns);
        let fits = |name: &str| {
            let name = lower_case(name);
            self.dns.iter().any(|pattern| pattern.matches(&name))
        };
        misses.require(self.dns.is_empty() || values().any(fits), || {
            let found = if values().next().is_none() { "missing".to_owned() } else { all_of(values()) };
            format!("SAN dns is {found}, wanted {}", any_of(&self.dns))
        })
    }
}

/// Allocates only where there is an upper-case letter: nearly never.
pub(super) fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

pub(super) fn dns(name: &SubjectAltName) -> Option<&str> {
    if let SubjectAltName::Dns(name) = name { Some(name) } else { None }
}

pub(super) fn email(name: &SubjectAltName) -> Option<&str> {
    if let SubjectAltName::Email(name) = name { Some(name) } else { None }
}

pub(super) fn uri(name: &SubjectAltName) -> Option<&str> {
    if let SubjectAltName::Uri(name) = name { Some(name) } else { None }
}

pub(super) fn ip(name: &SubjectAltName) -> Option<IpAddr> {
    if let SubjectAltName::Ip(address) = name { Some(*address) } else { None }
}

impl SerialMatch {
    fn matches(&self, certificate: &Certificate) -> bool {
        let mut issuer = Rest(&self.issuer);
        self.serial == *certificate.serial()
            && write!(issuer, "{}", certificate.issuer()).is_ok()
            && issuer.0.is_empty()
    }
}

impl Display for SerialMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}` of `{}", self.serial, self.issuer)
    }
}

/// What is left of a text after taking off what is written to it: compares without allocating.
struct Rest<'a>(&'a str);

impl Write for Rest<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}
