//! Which part of a certificate an identity table is keyed by.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::IdentityTable;
use super::client::{dns, email, lower_case, uri, values};
use crate::certificate::{AttributeKind, BadHex, Certificate, Fingerprint, Serial, SubjectAltName};

/// Written `subject.CN` (or another attribute), `san.dns`, `san.email`, `san.uri`, `fingerprint`, `key_fingerprint`,
/// `serial`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityKey {
    SubjectAttribute(AttributeKind),
    SanDns,
    SanEmail,
    SanUri,
    Fingerprint,
    KeyFingerprint,
    /// Unique only within one issuer: for trust domains with a single CA.
    Serial,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a key of an identity table (expected: `subject.CN` or another attribute, `san.dns`, `san.email`, \
     `san.uri`, `fingerprint`, `key_fingerprint`, or `serial`)"
)]
pub struct KeyError(String);

impl FromStr for IdentityKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(match text {
            "san.dns" => Self::SanDns,
            "san.email" => Self::SanEmail,
            "san.uri" => Self::SanUri,
            "fingerprint" => Self::Fingerprint,
            "key_fingerprint" => Self::KeyFingerprint,
            "serial" => Self::Serial,
            _ => {
                let kind = text.strip_prefix("subject.").and_then(AttributeKind::from_key);
                Self::SubjectAttribute(kind.ok_or_else(|| KeyError(text.to_owned()))?)
            }
        })
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SubjectAttribute(kind) => return write!(f, "subject.{}", kind.key()),
            Self::SanDns => "san.dns",
            Self::SanEmail => "san.email",
            Self::SanUri => "san.uri",
            Self::Fingerprint => "fingerprint",
            Self::KeyFingerprint => "key_fingerprint",
            Self::Serial => "serial",
        })
    }
}

impl IdentityKey {
    /// The one form of a key as a person may write it in a table.
    pub(super) fn normalise<'a>(&self, key: &'a str) -> Result<Cow<'a, str>, BadHex> {
        Ok(match self {
            Self::SubjectAttribute(_) | Self::SanEmail | Self::SanUri => Cow::Borrowed(key),
            Self::SanDns => lower_case(key),
            Self::Fingerprint | Self::KeyFingerprint => Cow::Owned(key.parse::<Fingerprint>()?.to_string()),
            Self::Serial => Cow::Owned(key.parse::<Serial>()?.to_string()),
        })
    }

    /// Shows each value of this part of a certificate, in the one form in which it is compared.
    pub fn each_value(&self, certificate: &Certificate, take: &mut dyn FnMut(&str)) {
        let names = certificate.subject_alternative_names();
        let each = |of: fn(&SubjectAltName) -> Option<&str>| names.iter().filter_map(of);
        match self {
            Self::SubjectAttribute(kind) => values(certificate.subject(), kind).for_each(take),
            Self::SanDns => each(dns).for_each(|name| take(&lower_case(name))),
            Self::SanEmail => each(email).for_each(take),
            Self::SanUri => each(uri).for_each(take),
            Self::Fingerprint => take(&certificate.fingerprint().to_string()),
            Self::KeyFingerprint => take(&certificate.key_fingerprint().to_string()),
            Self::Serial => take(&certificate.serial().to_string()),
        }
    }

    /// The pool of this client.
    ///
    /// Nothing for a certificate that names several common names, or values whose rows disagree: it would be two
    /// clients at once.
    pub(super) fn find_in<'a>(
        &self,
        table: &'a IdentityTable,
        certificate: &Certificate,
    ) -> Option<&'a Arc<str>> {
        let names = certificate.subject_alternative_names();
        let each = |of: fn(&SubjectAltName) -> Option<&str>| names.iter().filter_map(of);
        match self {
            Self::SubjectAttribute(kind) => {
                let values = || values(certificate.subject(), kind);
                let ambiguous = *kind == AttributeKind::CommonName && values().nth(1).is_some();
                if ambiguous { None } else { agreed(values().filter_map(|value| table.find(value))) }
            }
            Self::SanDns => agreed(each(dns).filter_map(|name| table.find(&lower_case(name)))),
            Self::SanEmail => agreed(each(email).filter_map(|name| table.find(name))),
            Self::SanUri => agreed(each(uri).filter_map(|name| table.find(name))),
            Self::Fingerprint => table.find(&certificate.fingerprint().to_string()),
            Self::KeyFingerprint => table.find(&certificate.key_fingerprint().to_string()),
            Self::Serial => table.find(&certificate.serial().to_string()),
        }
    }
}

fn agreed<'a>(mut pools: impl Iterator<Item = &'a Arc<str>>) -> Option<&'a Arc<str>> {
    let first = pools.next()?;
    pools.all(|pool| pool == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::sample::Sample;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in ["subject.CN", "subject.OU", "san.dns", "san.uri", "fingerprint", "serial"] {
            assert_eq!(text.parse::<IdentityKey>().unwrap().to_string(), text);
        }
        for text in ["CN", "subject", "subject.", "subject.XX", "san", ""] {
            assert!(text.parse::<IdentityKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn several_values_must_agree_on_the_pool() {
        let pools = ["p".into(), "q".into()];
        let find = |key: &str, rows: &str, sample: Sample| {
            let key: IdentityKey = key.parse().unwrap();
            let table = IdentityTable::parse_for(&key, rows.as_bytes(), &pools).unwrap();
            key.find_in(&table, &sample.certificate()).map(ToString::to_string)
        };
        let rows = "a,p\nb,p\nc,q\n";
        let ous = |ous: &[&str]| Sample::new().subject_all("OU", ous);
        assert_eq!(find("subject.OU", rows, ous(&["x", "a", "b"])).as_deref(), Some("p"));
        assert_eq!(find("subject.OU", rows, ous(&["a", "c"])), None);
        assert_eq!(find("subject.CN", rows, Sample::new().subject_all("CN", &["a"])).as_deref(), Some("p"));
        assert_eq!(find("subject.CN", rows, Sample::new().subject_all("CN", &["a", "b"])), None);
        assert_eq!(find("subject.CN", rows, Sample::new().subject_all("CN", &["a", "unknown"])), None);
        assert_eq!(find("san.dns", "Api.Example,q", Sample::new().dns("API.example")).as_deref(), Some("q"));
    }

    #[test]
    fn fingerprints_and_serials_are_found_in_any_spelling() {
        let certificate = Sample::new().certificate();
        let spellings = [
            ("fingerprint", certificate.fingerprint().to_string().to_uppercase()),
            ("key_fingerprint", certificate.key_fingerprint().to_string()),
            ("serial", certificate.serial().to_string().to_lowercase()),
        ];
        for (key, spelling) in spellings {
            let key: IdentityKey = key.parse().unwrap();
            let row = format!("{spelling},p");
            let table = IdentityTable::parse_for(&key, row.as_bytes(), &["p".into()]).unwrap();
            assert!(key.find_in(&table, &certificate).is_some(), "{key}");
        }
    }
}
