//! An entry as it is written, in whichever form: texts that have yet to mean something.

use std::borrow::Cow;
use std::sync::Arc;

use super::fault::{DenyFault, MOST_REASON};
use super::names::{DeniedName, DeniedNames, IssuerName};
use super::{DenyEntry, DenySelector};
use crate::UnixTime;
use crate::certificate::{Attribute, AttributeKind, Fingerprint, Name, SubjectAltName};

#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    pub serial: Option<Cow<'a, str>>,
    pub issuer: Option<Cow<'a, str>>,
    pub fingerprint: Option<Cow<'a, str>>,
    pub key_fingerprint: Option<Cow<'a, str>>,
    pub subject: Option<Names<'a>>,
    pub san: Option<Names<'a>>,
    pub trust: Option<Cow<'a, str>>,
    pub until: Option<Cow<'a, str>>,
    pub reason: Option<Cow<'a, str>>,
}

/// Names that a certificate must have, in either way of writing them.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    /// `{ CN: device-1 }`, `{ dns: device-1.example.com }`.
    pub pairs: Vec<Pair<'a>>,
    /// `CN=device-1,OU=sensors`, `dns:device-1.example.com`: as they are shown everywhere.
    pub texts: Vec<Cow<'a, str>>,
}

/// Key and value.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What [`Draft`] has.
pub(super) const KEYS: &str =
    "serial, issuer, fingerprint, key_fingerprint, subject, san, trust, until, reason";

/// The issuer that was read last: nearly always that of the next entry too.
#[derive(Default)]
pub(super) struct Issuers(Option<(String, IssuerName)>);

impl Issuers {
    fn read(&mut self, text: &str) -> Result<IssuerName, DenyFault> {
        if let Some((_, issuer)) = self.0.as_ref().filter(|(known, _)| known == text) {
            return Ok(issuer.clone());
        }
        let issuer: IssuerName = text.parse().map_err(DenyFault::Issuer)?;
        self.0 = Some((text.to_owned(), issuer.clone()));
        Ok(issuer)
    }
}

impl Draft<'_> {
    /// The first thing that is wrong, if anything is.
    pub(super) fn entry(self, issuers: &mut Issuers) -> Result<DenyEntry, DenyFault> {
        self.refuse_nothing()?;
        let until = self.until.as_deref().map(moment).transpose()?;
        if let Some(reason) = &self.reason {
            check_text("reason", reason)?;
            if reason.len() > MOST_REASON {
                return Err(DenyFault::LongReason(reason.len()));
            }
        }
        if let Some(trust) = &self.trust {
            check_text("trust", trust)?;
        }
        Ok(DenyEntry {
            until,
            reason: self.reason.as_deref().map(|reason| Arc::from(reason.trim())),
            trust_domain: self.trust.as_deref().map(Arc::from),
            selector: self.selector(issuers)?,
        })
    }

    /// A key with nothing behind it is a slip, and must not widen what an entry means.
    fn refuse_nothing(&self) -> Result<(), DenyFault> {
        let texts = [
            ("serial", &self.serial),
            ("issuer", &self.issuer),
            ("fingerprint", &self.fingerprint),
            ("key_fingerprint", &self.key_fingerprint),
            ("trust", &self.trust),
            ("until", &self.until),
            ("reason", &self.reason),
        ];
        for (key, text) in texts {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return Err(DenyFault::Nothing(key.to_owned()));
            }
        }
        for (key, names) in [("subject", &self.subject), ("san", &self.san)] {
            let Some(names) = names else { continue };
            if (names.pairs.is_empty() && names.texts.is_empty())
                || names.texts.iter().any(|text| text.trim().is_empty())
            {
                return Err(DenyFault::Nothing(key.to_owned()));
            }
            if let Some((name, _)) = names.pairs.iter().find(|(_, value)| value.trim().is_empty()) {
                return Err(DenyFault::Nothing(format!("{key}.{name}")));
            }
        }
        Ok(())
    }

    fn selector(self, issuers: &mut Issuers) -> Result<DenySelector, DenyFault> {
        let by_names = if self.subject.is_some() { "subject" } else { "san" };
        let ways = [
            ("serial", self.serial.is_some()),
            ("fingerprint", self.fingerprint.is_some()),
            ("key_fingerprint", self.key_fingerprint.is_some()),
            (by_names, self.subject.is_some() || self.san.is_some()),
        ];
        let mut given = ways.iter().filter(|(_, is_there)| *is_there).map(|(key, _)| *key);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err(DenyFault::NamedTwice(first, second));
        }
        match (self.serial, self.issuer) {
            (Some(serial), Some(issuer)) => {
                let serial = serial.parse().map_err(|reason| DenyFault::Hex { key: "serial", reason })?;
                return Ok(DenySelector::Serial { issuer: issuers.read(&issuer)?, serial });
            }
            (Some(_), None) => return Err(DenyFault::NoIssuer),
            (None, Some(_)) => return Err(DenyFault::NoSerial),
            (None, None) => {}
        }
        if let Some(text) = self.fingerprint {
            return fingerprint("fingerprint", &text).map(DenySelector::Fingerprint);
        }
        if let Some(text) = self.key_fingerprint {
            return fingerprint("key_fingerprint", &text).map(DenySelector::KeyFingerprint);
        }
        let mut names = Vec::new();
        let subject = self.subject.unwrap_or_default();
        for (key, value) in subject.pairs {
            names.push(attribute(&key, value.into_owned(), &names)?);
        }
        for text in subject.texts {
            names.extend(attributes(&text)?);
        }
        let san = self.san.unwrap_or_default();
        for (key, value) in san.pairs {
            let name = alternative_name(&key, value.into_owned())?;
            if names.iter().any(|known| known.is_of_the_kind_of(&name)) {
                return Err(DenyFault::KeyTwice(format!("san.{key}")));
            }
            names.push(name);
        }
        for text in san.texts {
            let (key, value) =
                text.split_once(':').ok_or_else(|| DenyFault::NotASan(text.clone().into_owned()))?;
            names.push(alternative_name(key.trim(), value.to_owned())?);
        }
        DeniedNames::new(names).map(DenySelector::Names).ok_or(DenyFault::NobodyNamed)
    }
}

fn fingerprint(key: &'static str, text: &str) -> Result<Fingerprint, DenyFault> {
    text.parse().map_err(|reason| DenyFault::Hex { key, reason })
}

pub(super) fn attribute_kind(key: &str) -> Result<AttributeKind, DenyFault> {
    AttributeKind::from_key(key).ok_or_else(|| DenyFault::UnknownAttribute(key.to_owned()))
}

pub(super) fn check_san_kind(key: &str) -> Result<(), DenyFault> {
    let is_known = matches!(key, "dns" | "email" | "uri" | "ip");
    if is_known { Ok(()) } else { Err(DenyFault::UnknownSan(key.to_owned())) }
}

fn attribute(key: &str, value: String, before: &[DeniedName]) -> Result<DeniedName, DenyFault> {
    let kind = attribute_kind(key)?;
    check_text("subject", &value)?;
    let is_same = |name: &DeniedName| matches!(name, DeniedName::Subject(known) if known.kind == kind);
    if before.iter().any(is_same) {
        return Err(DenyFault::KeyTwice(format!("subject.{}", kind.key())));
    }
    Ok(Attribute { kind, value }.into())
}

/// From the text of a name, or of a part of one.
fn attributes(text: &str) -> Result<Vec<DeniedName>, DenyFault> {
    let rdns = Name::parse_rfc4514(text).map_err(DenyFault::Subject)?;
    let attributes: Vec<_> = rdns.into_iter().flatten().collect();
    attributes.iter().try_for_each(|attribute| check_text("subject", &attribute.value))?;
    if let Some(attribute) = attributes.iter().find(|attribute| attribute.value.trim().is_empty()) {
        return Err(DenyFault::Nothing(format!("subject.{}", attribute.kind.key())));
    }
    Ok(attributes.into_iter().map(DeniedName::from).collect())
}

fn alternative_name(key: &str, value: String) -> Result<DeniedName, DenyFault> {
    check_san_kind(key)?;
    check_text("san", &value)?;
    if value.is_empty() {
        return Err(DenyFault::Nothing(format!("san.{key}")));
    }
    let name = match key {
        "email" => SubjectAltName::Email(value),
        "uri" => SubjectAltName::Uri(value),
        "ip" => SubjectAltName::Ip(value.parse().map_err(|_| DenyFault::NotAnAddress(value))?),
        _ => SubjectAltName::Dns(value),
    };
    Ok(name.into())
}

/// No name in a certificate that we read has control characters; and a reason must not break a line.
fn check_text(key: &'static str, text: &str) -> Result<(), DenyFault> {
    match text.trim().chars().find(|c| c.is_control()) {
        Some(character) => Err(DenyFault::ControlCharacter { key, character }),
        None => Ok(()),
    }
}

/// Rounded up to the second: what is denied a little longer is not let in too early.
fn moment(text: &str) -> Result<UnixTime, DenyFault> {
    let moment: jiff::Timestamp =
        text.trim().parse().map_err(|_| DenyFault::NotAMoment(text.trim().to_owned()))?;
    Ok(moment.as_second() + UnixTime::from(moment.subsec_nanosecond() > 0))
}
