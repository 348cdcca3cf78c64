//! The conditions of a route. Each check exists once: `matches` asks it, `misses` tells its reason.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, Method};

use super::{RequestView, common_name};
use crate::certificate::{AttributeKind, Certificate, Fingerprint, Name, Serial, SubjectAltName};
use crate::pattern::Pattern;
use crate::trust::ClientIdentity;

/// Which clients a route is for.
#[derive(Debug, Clone)]
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
    pub dns: Vec<Pattern>,
    pub email: Vec<Pattern>,
    pub uri: Vec<Pattern>,
    pub ip: Vec<IpAddr>,
}

/// A serial counts only together with its issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialMatch {
    /// RFC 4514, as `explain` and the log show it.
    pub issuer: String,
    pub serial: Serial,
}

/// What a request must be.
#[derive(Debug, Clone, Default)]
pub struct RequestRule {
    pub host: Vec<Pattern>,
    /// `/a/*` matches everything below `/a/`.
    pub path: Vec<Pattern>,
    pub method: Vec<Method>,
    pub header: Vec<(HeaderName, Pattern)>,
}

/// Gathers why something does not match, or stops at the first reason when only the answer is wanted.
struct Misses<'a>(Option<&'a mut Vec<String>>);

impl Misses<'_> {
    /// Returns whether to go on.
    fn check(&mut self, holds: bool, reason: impl FnOnce() -> String) -> bool {
        if holds {
            return true;
        }
        match &mut self.0 {
            Some(reasons) => {
                reasons.push(reason());
                true
            }
            None => false,
        }
    }
}

impl ClientRule {
    pub(super) fn matches(&self, identity: Option<&ClientIdentity>) -> bool {
        self.check(identity, &mut Misses(None))
    }

    pub(super) fn misses(&self, identity: Option<&ClientIdentity>) -> Vec<String> {
        let mut reasons = Vec::new();
        self.check(identity, &mut Misses(Some(&mut reasons)));
        reasons
    }

    fn check(&self, identity: Option<&ClientIdentity>, misses: &mut Misses<'_>) -> bool {
        match (self, identity) {
            (Self::Anyone, _) => true,
            (Self::Anonymous, identity) => {
                misses.check(identity.is_none(), || "the client has a certificate, wanted none".into())
            }
            (Self::Verified(client), Some(identity)) => client.check(identity, misses),
            (Self::Verified(_), None) => misses.check(false, || "the client has no certificate".into()),
        }
    }
}

impl ClientMatch {
    fn check(&self, identity: &ClientIdentity, misses: &mut Misses<'_>) -> bool {
        let certificate = identity.certificate();
        let trusted = self.trust.is_empty() || self.trust.contains(identity.trust_domain());
        misses.check(trusted, || {
            format!("trust domain is `{}`, wanted {}", identity.trust_domain(), any_of(&self.trust))
        }) && self.check_attributes(
            "subject",
            certificate.subject(),
            &self.subject,
            Some(certificate),
            misses,
        ) && self.check_attributes("issuer", certificate.issuer(), &self.issuer, None, misses)
            && self.san.check(certificate, misses)
            && self.check_numbers(certificate, misses)
    }

    fn check_attributes(
        &self,
        what: &str,
        name: &Name,
        wanted: &[(AttributeKind, Vec<Pattern>)],
        single_common_name: Option<&Certificate>,
        misses: &mut Misses<'_>,
    ) -> bool {
        wanted.iter().all(|(kind, patterns)| {
            let any = |value: &str| patterns.iter().any(|pattern| pattern.matches(value));
            let holds = match single_common_name {
                // Two common names are a way to be two clients at once.
                Some(certificate) if *kind == AttributeKind::CommonName => {
                    common_name(certificate).is_some_and(any)
                }
                _ => name.values(kind.clone()).any(any),
            };
            misses.check(holds, || {
                let values: Vec<&str> = name.values(kind.clone()).collect();
                let found = match (values.as_slice(), kind) {
                    ([], _) => "missing".to_owned(),
                    ([_, _, ..], AttributeKind::CommonName) => format!("not single ({})", any_of(&values)),
                    (values, _) => any_of(values),
                };
                format!("{what} {} is {found}, wanted {}", kind.key(), any_of(patterns))
            })
        })
    }

    fn check_numbers(&self, certificate: &Certificate, misses: &mut Misses<'_>) -> bool {
        let one_of = |wanted: &[Fingerprint], found| wanted.is_empty() || wanted.contains(found);
        let (fingerprint, key) = (certificate.fingerprint(), certificate.key_fingerprint());
        let serial = self.serial.is_empty()
            || self.serial.iter().any(|wanted| {
                wanted.serial == *certificate.serial() && wanted.issuer == certificate.issuer().to_string()
            });
        misses.check(one_of(&self.fingerprint, fingerprint), || format!("fingerprint is {fingerprint}"))
            && misses.check(one_of(&self.key_fingerprint, key), || format!("key fingerprint is {key}"))
            && misses
                .check(serial, || format!("serial is {} of `{}`", certificate.serial(), certificate.issuer()))
    }
}

impl SanMatch {
    fn check(&self, certificate: &Certificate, misses: &mut Misses<'_>) -> bool {
        let names = certificate.subject_alternative_names();
        let mut typed = |what: &str, wanted: &[Pattern], of: fn(&SubjectAltName) -> Option<&str>| {
            let values = || names.iter().filter_map(of);
            let holds = wanted.is_empty() || values().any(|value| wanted.iter().any(|p| p.matches(value)));
            misses.check(holds, || {
                let values: Vec<&str> = values().collect();
                let found = if values.is_empty() { "missing".to_owned() } else { any_of(&values) };
                format!("SAN {what} is {found}, wanted {}", any_of(wanted))
            })
        };
        typed("dns", &self.dns, dns)
            && typed("email", &self.email, email)
            && typed("uri", &self.uri, uri)
            && {
                let holds = self.ip.is_empty()
                    || names
                        .iter()
                        .any(|name| matches!(name, SubjectAltName::Ip(ip) if self.ip.contains(ip)));
                misses.check(holds, || format!("no SAN ip is {}", any_of(&self.ip)))
            }
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

impl RequestRule {
    pub(super) fn matches(&self, request: &RequestView<'_>) -> bool {
        self.check(request, &mut Misses(None))
    }

    pub(super) fn misses(&self, request: &RequestView<'_>) -> Vec<String> {
        let mut reasons = Vec::new();
        self.check(request, &mut Misses(Some(&mut reasons)));
        reasons
    }

    fn check(&self, request: &RequestView<'_>, misses: &mut Misses<'_>) -> bool {
        let any =
            |patterns: &[Pattern], value| patterns.is_empty() || patterns.iter().any(|p| p.matches(value));
        let method = self.method.is_empty() || self.method.contains(request.method);
        misses.check(any(&self.host, request.host), || {
            format!("host is `{}`, wanted {}", request.host, any_of(&self.host))
        }) && misses.check(any(&self.path, request.path), || {
            format!("path is `{}`, wanted {}", request.path, any_of(&self.path))
        }) && misses
            .check(method, || format!("method is {}, wanted {}", request.method, any_of(&self.method)))
            && self.header.iter().all(|(name, pattern)| {
                let values = request.headers.get_all(name);
                let holds =
                    values.iter().any(|value| value.to_str().is_ok_and(|value| pattern.matches(value)));
                misses.check(holds, || format!("header {name} is not `{pattern}`"))
            })
    }
}

fn any_of(values: &[impl Display]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
    quoted.join(" or ")
}
