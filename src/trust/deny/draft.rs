//! An entry as it is written, in whichever form: texts that have yet to mean something.

use std::sync::Arc;

use super::fault::{DenyFault, MOST_REASON};
use super::names::{DeniedName, DeniedNames, IssuerName};
use super::{DenyEntry, DenySelector};
use crate::UnixTime;
use crate::certificate::{Attribute, AttributeKind, Fingerprint, SubjectAltName};

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub serial: Option<String>,
    pub issuer: Option<String>,
    pub fingerprint: Option<String>,
    pub key_fingerprint: Option<String>,
    /// Attribute type and value.
    pub subject: Option<Vec<(String, String)>>,
    /// Type and value.
    pub san: Option<Vec<(String, String)>>,
    pub trust: Option<String>,
    pub until: Option<String>,
    pub reason: Option<String>,
}

/// What [`Draft`] has.
pub(super) const KEYS: &str =
    "serial, issuer, fingerprint, key_fingerprint, subject, san, trust, until, reason";

impl Draft {
    /// The first thing that is wrong, if anything is.
    pub(super) fn entry(self) -> Result<DenyEntry, DenyFault> {
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
            selector: self.selector()?,
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
            if names.is_empty() {
                return Err(DenyFault::Nothing(key.to_owned()));
            }
            if let Some((name, _)) = names.iter().find(|(_, value)| value.is_empty()) {
                return Err(DenyFault::Nothing(format!("{key}.{name}")));
            }
        }
        Ok(())
    }

    fn selector(self) -> Result<DenySelector, DenyFault> {
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
            (Some(serial), Some(issuer)) => return by_serial(&serial, &issuer),
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
        for (key, value) in self.subject.unwrap_or_default() {
            names.push(attribute(&key, value, &names)?);
        }
        for (key, value) in self.san.unwrap_or_default() {
            names.push(alternative_name(&key, value, &names)?);
        }
        DeniedNames::new(names).map(DenySelector::Names).ok_or(DenyFault::NobodyNamed)
    }
}

fn by_serial(serial: &str, issuer: &str) -> Result<DenySelector, DenyFault> {
    let serial = serial.parse().map_err(|reason| DenyFault::Hex { key: "serial", reason })?;
    let issuer: IssuerName = issuer.parse().map_err(DenyFault::Issuer)?;
    if issuer.is_empty() {
        return Err(DenyFault::EmptyIssuer);
    }
    Ok(DenySelector::Serial { issuer, serial })
}

fn fingerprint(key: &'static str, text: &str) -> Result<Fingerprint, DenyFault> {
    text.parse().map_err(|reason| DenyFault::Hex { key, reason })
}

fn attribute(key: &str, value: String, before: &[DeniedName]) -> Result<DeniedName, DenyFault> {
    let kind = AttributeKind::from_key(key).ok_or_else(|| DenyFault::UnknownAttribute(key.to_owned()))?;
    check_text("subject", &value)?;
    let is_same = |name: &DeniedName| matches!(name, DeniedName::Subject(known) if known.kind == kind);
    if before.iter().any(is_same) {
        return Err(DenyFault::KeyTwice(format!("subject.{}", kind.key())));
    }
    Ok(DeniedName::Subject(Attribute { kind, value }))
}

fn alternative_name(key: &str, value: String, before: &[DeniedName]) -> Result<DeniedName, DenyFault> {
    check_text("san", &value)?;
    let name = match key {
        "dns" => SubjectAltName::Dns(value),
        "email" => SubjectAltName::Email(value),
        "uri" => SubjectAltName::Uri(value),
        "ip" => SubjectAltName::Ip(value.parse().map_err(|_| DenyFault::NotAnAddress(value))?),
        _ => return Err(DenyFault::UnknownSan(key.to_owned())),
    };
    let kind = std::mem::discriminant(&name);
    let is_same =
        |known: &DeniedName| matches!(known, DeniedName::San(known) if std::mem::discriminant(known) == kind);
    if before.iter().any(is_same) {
        return Err(DenyFault::KeyTwice(format!("san.{key}")));
    }
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
