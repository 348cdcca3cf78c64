//! Distinguished names: attributes in their order, and the text of RFC 4514 for people to read.

use std::fmt;

use x509_parser::der_parser::asn1_rs::{Any, Tag};
use x509_parser::x509::X509Name;

/// A value that no name may hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("attribute {0} holds a control character")]
    ControlCharacter(String),
    #[error("attribute {0} is not a valid string of its type")]
    Encoding(String),
    #[error("`{0}` is not a distinguished name (RFC 4514)")]
    Text(String),
}

/// A distinguished name (RFC 5280, section 4.1.2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    raw: Box<[u8]>,
    /// In encoded order; `rdn` numbers the relative distinguished name an attribute belongs to.
    attributes: Vec<(usize, Attribute)>,
}

/// One attribute of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub kind: AttributeKind,
    pub value: String,
}

macro_rules! kinds {
    ($($variant:ident $key:literal $oid:literal,)*) => {
        /// The type of an attribute.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum AttributeKind {
            $(#[doc = $key] $variant,)*
            /// Any other type, as a dotted OID.
            Other(String),
        }

        impl AttributeKind {
            /// The keys of the configuration.
            pub const KEYS: &'static [&'static str] = &[$($key,)*];

            pub fn from_key(key: &str) -> Option<Self> {
                match key { $($key => Some(Self::$variant),)* _ => None }
            }

            pub fn key(&self) -> &str {
                match self { $(Self::$variant => $key,)* Self::Other(oid) => oid }
            }

            fn from_oid(oid: &str) -> Self {
                match oid { $($oid => Self::$variant,)* other => Self::Other(other.to_owned()) }
            }
        }
    };
}

kinds! {
    CommonName "CN" "2.5.4.3",
    OrganizationalUnit "OU" "2.5.4.11",
    Organization "O" "2.5.4.10",
    Locality "L" "2.5.4.7",
    State "ST" "2.5.4.8",
    Country "C" "2.5.4.6",
    SerialNumber "serialNumber" "2.5.4.5",
    UserId "UID" "0.9.2342.19200300.100.1.1",
    DomainComponent "DC" "0.9.2342.19200300.100.1.25",
    EmailAddress "emailAddress" "1.2.840.113549.1.9.1",
}

impl Name {
    pub(super) fn read(name: &X509Name<'_>) -> Result<Self, NameError> {
        let mut attributes = Vec::new();
        for (rdn, set) in name.iter_rdn().enumerate() {
            for attribute in set.iter() {
                let oid = attribute.attr_type().to_id_string();
                let value = value(attribute.attr_value(), &oid)?;
                attributes.push((rdn, Attribute { kind: AttributeKind::from_oid(&oid), value }));
            }
        }
        Ok(Self { raw: name.as_raw().into(), attributes })
    }

    /// The DER: what names are compared by.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// In encoded order.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().map(|(_, attribute)| attribute)
    }

    pub fn values(&self, kind: AttributeKind) -> impl Iterator<Item = &str> {
        self.attributes()
            .filter(move |attribute| attribute.kind == kind)
            .map(|attribute| attribute.value.as_str())
    }

    fn rdns(&self) -> impl DoubleEndedIterator<Item = &[(usize, Attribute)]> {
        self.attributes.chunk_by(|a, b| a.0 == b.0)
    }
}

/// RFC 4514: the last relative distinguished name first.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, rdn) in self.rdns().rev().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            for (index, (_, attribute)) in rdn.iter().enumerate() {
                if index > 0 {
                    f.write_str("+")?;
                }
                write!(f, "{}=", attribute.kind.key())?;
                escape(&attribute.value, f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 4514, section 2.4.
fn escape(value: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (c == '#' && index == 0)
            || (c == ' ' && (index == 0 || index == last));
        if special {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    Ok(())
}

/// The text of an attribute, if its bytes are a valid string of the type they claim to be.
fn value(any: &Any<'_>, oid: &str) -> Result<String, NameError> {
    let encoding = || NameError::Encoding(oid.to_owned());
    let ascii = |valid: fn(u8) -> bool| {
        let text = std::str::from_utf8(any.data).ok().filter(|text| text.bytes().all(valid));
        text.map(str::to_owned).ok_or_else(encoding)
    };
    let text = match any.tag() {
        Tag::Utf8String => String::from_utf8(any.data.to_vec()).map_err(|_| encoding())?,
        // Certificates in the field put `@`, `*`, `_` and `&` into PrintableStrings; ASCII is what is held to.
        Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => ascii(|byte| byte.is_ascii())?,
        Tag::NumericString => ascii(|byte| byte.is_ascii_digit() || byte == b' ')?,
        // T.61 has no agreed meaning beyond ASCII.
        Tag::T61String => ascii(|byte| byte.is_ascii())?,
        Tag::BmpString => {
            let (pairs, rest) = any.data.as_chunks::<2>();
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.ok().filter(|_| rest.is_empty()).ok_or_else(encoding)?
        }
        Tag::UniversalString => {
            let (quads, rest) = any.data.as_chunks::<4>();
            let text: Option<String> =
                quads.iter().map(|quad| char::from_u32(u32::from_be_bytes(*quad))).collect();
            text.filter(|_| rest.is_empty()).ok_or_else(encoding)?
        }
        _ => return Err(encoding()),
    };
    if text.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter(oid.to_owned()));
    }
    Ok(text)
}

/// The attributes of an RFC 4514 text, by relative distinguished name, in the text's order.
pub fn parse_rfc4514(text: &str) -> Result<Vec<Vec<Attribute>>, NameError> {
    let bad = || NameError::Text(text.to_owned());
    let mut rdns = vec![Vec::new()];
    let mut rest = text.chars().peekable();
    if rest.peek().is_none() {
        return Ok(Vec::new());
    }
    loop {
        let mut key = String::new();
        loop {
            match rest.next().ok_or_else(bad)? {
                '=' => break,
                c => key.push(c),
            }
        }
        let key = key.trim();
        let is_oid = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let kind = AttributeKind::from_key(key).or_else(|| is_oid.then(|| AttributeKind::Other(key.into())));
        let kind = kind.ok_or_else(bad)?;
        let mut value = String::new();
        let end = loop {
            match rest.next() {
                None => break None,
                Some('\\') => value.push(rest.next().ok_or_else(bad)?),
                Some(c @ (',' | '+')) => break Some(c),
                Some('"' | ';' | '<' | '>') => return Err(bad()),
                Some(c) => value.push(c),
            }
        };
        if let Some(rdn) = rdns.last_mut() {
            rdn.push(Attribute { kind, value });
        }
        match end {
            None => return Ok(rdns),
            Some(',') => rdns.push(Vec::new()),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(attributes: Vec<(usize, Attribute)>) -> Name {
        Name { raw: Box::default(), attributes }
    }

    proptest! {
        #[test]
        fn a_name_that_is_printed_reads_back(
            values in proptest::collection::vec(("[^\\x00-\\x1f\\x7f-\\x9f]{1,12}", any::<bool>()), 1..6),
        ) {
            let kinds = ["CN", "OU", "O", "emailAddress"];
            let mut rdn = 0;
            let attributes: Vec<_> = values.into_iter().enumerate().map(|(index, (value, same_rdn))| {
                rdn += usize::from(!same_rdn);
                let kind = AttributeKind::from_key(kinds[index % 4]).unwrap();
                (rdn, Attribute { kind, value })
            }).collect();
            let name = name(attributes);
            let mut expected: Vec<Vec<Attribute>> =
                name.rdns().map(|rdn| rdn.iter().map(|(_, attribute)| attribute.clone()).collect()).collect();
            expected.reverse();
            prop_assert_eq!(parse_rfc4514(&name.to_string()).unwrap(), expected);
        }
    }

    #[test]
    fn a_value_cannot_pretend_to_be_another_attribute() {
        let value = "x,CN=admin".to_owned();
        let name = name(vec![(0, Attribute { kind: AttributeKind::Organization, value })]);
        assert_eq!(name.to_string(), "O=x\\,CN=admin");
        assert_eq!(name.values(AttributeKind::CommonName).count(), 0);
    }
}
