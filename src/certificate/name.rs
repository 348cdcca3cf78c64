//! Distinguished names, decoded to attributes.

use std::borrow::Borrow;
use std::fmt;

use x509_parser::asn1_rs::{Any, Class, FromDer, Oid, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::rfc4514::{self, DistinguishedNameError};
use super::{Attribute, AttributeKind, der};

/// A distinguished name: what was encoded, and its attributes as text.
///
/// Decisions are made on the attributes. The text form (RFC 4514, `Display`) is for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    raw: Box<[u8]>,
    rdns: Vec<Vec<Attribute>>,
}

/// What is wrong with a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("the value of {0} contains the control character U+{code:04X}", code = *.1 as u32)]
    ControlCharacter(AttributeKind, char),
    #[error("the value of {0} is not text of the type it claims to be ({1})")]
    WrongText(AttributeKind, &'static str),
    #[error("the value of {0} is not a string")]
    NotText(AttributeKind),
    #[error("the value of {0} is text that reads like an encoded value")]
    Ambiguous(AttributeKind),
    #[error("the type of an attribute is no object identifier")]
    WrongType,
}

impl Name {
    pub(super) fn decode(parsed: &X509Name<'_>) -> Result<Self, BadName> {
        let rdns = parsed.iter().map(|rdn| rdn.iter().map(attribute).collect()).collect::<Result<_, _>>()?;
        Ok(Self { raw: parsed.as_raw().into(), rdns })
    }

    /// From a DER encoding with nothing behind it; `None` when it is no name at all.
    pub(crate) fn from_der(der: &[u8]) -> Option<Result<Self, BadName>> {
        match X509Name::from_der(der) {
            Ok(([], parsed)) => Some(Self::decode(&parsed)),
            _ => None,
        }
    }

    /// The RDNs of a name in RFC 4514 text, in the order in which they are encoded (the text has them reversed).
    pub fn parse_rfc4514(text: &str) -> Result<Vec<Vec<Attribute>>, DistinguishedNameError> {
        rfc4514::parse(text)
    }

    /// The RFC 4514 text of RDNs given in the order in which they are encoded.
    pub fn format_rfc4514(rdns: &[Vec<Attribute>]) -> String {
        rfc4514::Text(rdns).to_string()
    }

    /// The DER encoding.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Sets of attributes, in the order in which they are encoded; nearly always one attribute each.
    pub fn rdns(&self) -> &[Vec<Attribute>] {
        &self.rdns
    }

    /// All attributes, in the order in which they are encoded.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.rdns.iter().flatten()
    }

    /// The values of one attribute type, in the order in which they are encoded.
    pub fn values(&self, kind: impl Borrow<AttributeKind>) -> impl Iterator<Item = &str> {
        self.attributes()
            .filter(move |attribute| attribute.kind == *kind.borrow())
            .map(|attribute| attribute.value.as_str())
    }

    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// Equality as a chain is built by it: blind to string types, ASCII case and runs of spaces (RFC 5280, section
    /// 7.1, in the reading that OpenSSL has of it).
    pub fn matches(&self, other: &Self) -> bool {
        self.raw == other.raw || self.comparable() == other.comparable()
    }

    /// Equal bytes for names that [match](Self::matches).
    pub(crate) fn comparable(&self) -> Box<[u8]> {
        comparable(&self.rdns)
    }

    /// The same for RDNs that were read from text.
    pub(crate) fn comparable_rdns(rdns: &[Vec<Attribute>]) -> Box<[u8]> {
        comparable(rdns)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc4514::Text(&self.rdns).fmt(f)
    }
}

fn attribute(parsed: &AttributeTypeAndValue<'_>) -> Result<Attribute, BadName> {
    let kind = attribute_type(parsed.attr_type()).ok_or(BadName::WrongType)?;
    let value = match text(&kind, parsed.attr_value()) {
        Err(BadName::NotText(AttributeKind::Other(_))) => encoded(parsed.attr_value()),
        other => legible(&kind, other?)?,
    };
    Ok(Attribute { kind, value })
}

/// The parser takes any bytes for an identifier: none at all, and such as DER does not allow, in which it would see another
/// attribute than others do (X.690, section 8.19.2).
fn attribute_type(oid: &Oid<'_>) -> Option<AttributeKind> {
    let mut begins = true;
    for byte in oid.as_bytes() {
        if begins && *byte == 0x80 {
            return None;
        }
        begins = byte & 0x80 == 0;
    }
    if begins { AttributeKind::from_key(&oid.to_id_string()) } else { None }
}

/// Decodes a string type to text (X.690, section 8.23; RFC 5280, section 4.1.2.4).
pub(super) fn text(kind: &AttributeKind, value: &Any<'_>) -> Result<String, BadName> {
    let wrong = |name| BadName::WrongText(kind.clone(), name);
    if value.class() != Class::Universal {
        return Err(BadName::NotText(kind.clone()));
    }
    let (name, ascii) = match value.tag() {
        Tag::Utf8String => {
            return String::from_utf8(value.data.to_vec()).map_err(|_| wrong("UTF8String"));
        }
        Tag::BmpString => return big_endian::<2>(value.data).ok_or_else(|| wrong("BMPString")),
        Tag::UniversalString => {
            return big_endian::<4>(value.data).ok_or_else(|| wrong("UniversalString"));
        }
        Tag::PrintableString => ("PrintableString", value.data),
        Tag::Ia5String => ("IA5String", value.data),
        Tag::VisibleString => ("VisibleString", value.data),
        Tag::NumericString => ("NumericString", value.data),
        // T.61 proper and the Latin-1 that most encoders mean by it agree on ASCII only. Guessing which one was meant
        // would let two readers see two names.
        Tag::T61String => ("TeletexString, of which only ASCII is unambiguous", value.data),
        _ => return Err(BadName::NotText(kind.clone())),
    };
    match std::str::from_utf8(ascii) {
        Ok(text) if text.is_ascii() => Ok(text.to_owned()),
        _ => Err(wrong(name)),
    }
}

/// UCS-2 and UCS-4: code points only, so a surrogate is an error.
fn big_endian<const WIDTH: usize>(data: &[u8]) -> Option<String> {
    let (units, rest) = data.as_chunks::<WIDTH>();
    if !rest.is_empty() {
        return None;
    }
    units
        .iter()
        .map(|unit| char::from_u32(unit.iter().fold(0, |code, byte| code << 8 | u32::from(*byte))))
        .collect()
}

/// Refuses what could break out of a header, a log line or a comparison.
fn legible(kind: &AttributeKind, value: String) -> Result<String, BadName> {
    if let Some(control) = value.chars().find(|c| c.is_control()) {
        return Err(BadName::ControlCharacter(kind.clone(), control));
    }
    if matches!(kind, AttributeKind::Other(_)) && is_encoded(&value) {
        return Err(BadName::Ambiguous(kind.clone()));
    }
    Ok(value)
}

fn encoded(value: &Any<'_>) -> String {
    // Tag numbers above 30 do not occur in names; such a value is shown by its content alone.
    let class = (value.class() as u8) << 6 | u8::from(value.header.constructed()) << 5;
    let tag = class | (value.tag().0 & 0x1f) as u8;
    format!("#{}", super::fingerprint::upper_hex(&der::element(tag, value.data)))
}

/// The form in which [`Attribute::value`] holds what is not a string.
pub(super) fn is_encoded(value: &str) -> bool {
    value.strip_prefix('#').is_some_and(|hex| {
        !hex.is_empty()
            && hex.len().is_multiple_of(2)
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
    })
}

fn comparable(rdns: &[Vec<Attribute>]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(64);
    for rdn in rdns {
        let mut set: Vec<(&str, String)> =
            rdn.iter().map(|attribute| (attribute.kind.oid(), folded(&attribute.value))).collect();
        // The members of a set have no order.
        set.sort_unstable();
        for (oid, value) in set {
            bytes.extend_from_slice(oid.as_bytes());
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
            // Values hold no control character, so this ends one for certain.
            bytes.push(0);
        }
        bytes.push(1);
    }
    bytes.into_boxed_slice()
}

/// Blind to ASCII case and to runs of spaces.
pub(crate) fn folded(value: &str) -> String {
    let mut folded = String::with_capacity(value.len());
    for word in value.split_ascii_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.extend(word.chars().map(|c| c.to_ascii_lowercase()));
    }
    folded
}
