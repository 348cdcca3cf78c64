//! Attribute types of a distinguished name, and their values.

use std::fmt;

/// One attribute of a name, its value decoded to text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attribute {
    pub kind: AttributeKind,
    /// Of an [`AttributeKind::Other`] that is no string, the DER encoding as `#` and upper-case hex.
    pub value: String,
}

impl Attribute {
    /// Equality blind to ASCII case and runs of spaces, as names are compared (RFC 5280, section 7.1).
    pub fn matches(&self, other: &Self) -> bool {
        fn words(attribute: &Attribute) -> impl Iterator<Item = &str> {
            attribute.value.split_ascii_whitespace()
        }
        self.kind == other.kind
            && words(self).count() == words(other).count()
            && words(self).zip(words(other)).all(|(one, other)| one.eq_ignore_ascii_case(other))
    }
}

/// The attribute types that can be routed by, and all others by their OID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttributeKind {
    CommonName,
    OrganizationalUnit,
    Organization,
    Locality,
    State,
    Country,
    SerialNumber,
    UserId,
    DomainComponent,
    EmailAddress,
    /// The OID in dotted form.
    Other(String),
}

/// Kind, the name people write, OID (RFC 4514, section 3; RFC 5280, appendix A.1; RFC 2985 for emailAddress).
const KNOWN: [(AttributeKind, &str, &str); 10] = [
    (AttributeKind::CommonName, "CN", "2.5.4.3"),
    (AttributeKind::OrganizationalUnit, "OU", "2.5.4.11"),
    (AttributeKind::Organization, "O", "2.5.4.10"),
    (AttributeKind::Locality, "L", "2.5.4.7"),
    (AttributeKind::State, "ST", "2.5.4.8"),
    (AttributeKind::Country, "C", "2.5.4.6"),
    (AttributeKind::SerialNumber, "serialNumber", "2.5.4.5"),
    (AttributeKind::UserId, "UID", "0.9.2342.19200300.100.1.1"),
    (AttributeKind::DomainComponent, "DC", "0.9.2342.19200300.100.1.25"),
    (AttributeKind::EmailAddress, "emailAddress", "1.2.840.113549.1.9.1"),
];

impl AttributeKind {
    /// The names of those that can be routed by.
    pub const KEYS: [&str; 10] =
        ["CN", "OU", "O", "L", "ST", "C", "serialNumber", "UID", "DC", "emailAddress"];

    /// `CN`, `OU`, `O`, `L`, `ST`, `C`, `serialNumber`, `UID`, `DC`, `emailAddress`, in any case, or a dotted OID.
    pub fn from_key(key: &str) -> Option<Self> {
        let known = KNOWN.into_iter().find(|(_, name, _)| name.eq_ignore_ascii_case(key));
        known.map(|(kind, ..)| kind).or_else(|| is_dotted_oid(key).then(|| Self::from_oid(key)))
    }

    /// `oid` in dotted form.
    pub fn from_oid(oid: &str) -> Self {
        let known = KNOWN.into_iter().find(|(.., dotted)| *dotted == oid);
        known.map_or_else(|| Self::Other(oid.to_owned()), |(kind, ..)| kind)
    }

    /// What [`from_key`](Self::from_key) reads.
    pub fn key(&self) -> &str {
        match self {
            Self::Other(oid) => oid,
            known => KNOWN.iter().find(|(kind, ..)| kind == known).map_or("", |(_, name, _)| name),
        }
    }

    /// The OID in dotted form.
    pub fn oid(&self) -> &str {
        match self {
            Self::Other(oid) => oid,
            known => KNOWN.iter().find(|(kind, ..)| kind == known).map_or("", |(.., oid)| oid),
        }
    }
}

impl fmt::Display for AttributeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// Two arcs or more, without leading zeros, the first one at most 2 (RFC 4512, section 1.4).
fn is_dotted_oid(text: &str) -> bool {
    let arc = |arc: &str| {
        !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()) && (arc == "0" || !arc.starts_with('0'))
    };
    text.contains('.') && text.split('.').all(arc) && matches!(text.split('.').next(), Some("0" | "1" | "2"))
}
