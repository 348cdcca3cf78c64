//! Names by which a deny list knows a certificate: its issuer's, or its own.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::certificate::{Attribute, DistinguishedNameError, Name, SubjectAltName, folded};

/// The name of an issuer. Two are equal if a chain could be built by either: blind to case and runs of spaces.
#[derive(Debug, Clone)]
pub struct IssuerName {
    /// RFC 4514 text.
    text: Arc<str>,
    comparable: Arc<[u8]>,
}

impl IssuerName {
    pub fn of(name: &Name) -> Self {
        Self { text: name.to_string().into(), comparable: name.comparable().into() }
    }

    /// Equal bytes for equal names.
    pub(super) fn comparable(&self) -> &[u8] {
        &self.comparable
    }
}

impl FromStr for IssuerName {
    type Err = DistinguishedNameError;

    /// From RFC 4514 text, as `portcullis explain` shows it.
    fn from_str(text: &str) -> Result<Self, DistinguishedNameError> {
        let rdns = Name::parse_rfc4514(text)?;
        // Only spaces: nothing is never taken for a name.
        if rdns.is_empty() {
            return Err(DistinguishedNameError::NoEquals(text.to_owned()));
        }
        Ok(Self { text: Name::format_rfc4514(&rdns).into(), comparable: Name::comparable_rdns(&rdns).into() })
    }
}

impl PartialEq for IssuerName {
    fn eq(&self, other: &Self) -> bool {
        self.comparable == other.comparable
    }
}

impl Eq for IssuerName {}

impl Hash for IssuerName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.comparable.hash(state);
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One name that a certificate may have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeniedName {
    /// An attribute of the subject, in the form in which names are compared (RFC 5280, section 7.1): whoever writes a
    /// name in another case means the same client. A subject that has the attribute several times has it.
    Subject(Attribute),
    /// A subject alternative name. DNS names are in lower case, without a dot behind them.
    San(SubjectAltName),
}

impl DeniedName {
    /// It looks like a pattern. There are none here: `*` stands for itself.
    pub fn has_asterisk(&self) -> bool {
        match self {
            Self::Subject(attribute) => attribute.value.contains('*'),
            Self::San(
                SubjectAltName::Dns(text) | SubjectAltName::Email(text) | SubjectAltName::Uri(text),
            ) => text.contains('*'),
            Self::San(SubjectAltName::Ip(_) | SubjectAltName::Other) => false,
        }
    }

    pub(super) fn is_of_the_kind_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Subject(one), Self::Subject(other)) => one.kind == other.kind,
            (Self::San(one), Self::San(other)) => {
                std::mem::discriminant(one) == std::mem::discriminant(other)
            }
            _ => false,
        }
    }
}

impl From<SubjectAltName> for DeniedName {
    fn from(name: SubjectAltName) -> Self {
        match name {
            SubjectAltName::Dns(name) => Self::San(SubjectAltName::Dns(comparable_dns(&name))),
            other => Self::San(other),
        }
    }
}

impl From<Attribute> for DeniedName {
    fn from(Attribute { kind, value }: Attribute) -> Self {
        Self::Subject(Attribute { kind, value: folded(&value) })
    }
}

/// Blind to case (RFC 4343) and to whether the root is written out.
pub(super) fn comparable_dns(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl fmt::Display for DeniedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(attribute) => {
                f.write_str(&Name::format_rfc4514(std::slice::from_ref(&vec![attribute.clone()])))
            }
            Self::San(name) => name.fmt(f),
        }
    }
}

/// At least one name; a certificate must have all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeniedNames(Box<[DeniedName]>);

impl DeniedNames {
    /// In any order; `None` when there are none, which would mean everybody, or when one is a
    /// [`SubjectAltName::Other`], which says nothing.
    pub fn new(names: impl IntoIterator<Item = DeniedName>) -> Option<Self> {
        let mut names: Vec<DeniedName> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let says_nothing = names.contains(&DeniedName::San(SubjectAltName::Other));
        (!names.is_empty() && !says_nothing).then(|| Self(names.into()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &DeniedName> {
        self.0.iter()
    }
}

impl fmt::Display for DeniedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { " and " };
            write!(f, "{separator}`{name}`")?;
        }
        Ok(())
    }
}
