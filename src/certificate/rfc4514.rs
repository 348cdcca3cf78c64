//! Distinguished names as text (RFC 4514), written and read.

use std::fmt::{self, Write};

use x509_parser::asn1_rs::{Any, FromDer};

use super::name::is_encoded;
use super::{Attribute, AttributeKind};

/// Writes RDNs, given in encoded order, the way RFC 4514 wants them: the last one first.
///
/// One liberty: attribute types that we know only by OID show their text, where the RFC asks for hex. People read it.
pub(super) struct Text<'a>(pub &'a [Vec<Attribute>]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, rdn) in self.0.iter().rev().enumerate() {
            if position > 0 {
                f.write_char(',')?;
            }
            for (position, attribute) in rdn.iter().enumerate() {
                if position > 0 {
                    f.write_char('+')?;
                }
                write!(f, "{}=", attribute.kind.key())?;
                value(f, attribute)?;
            }
        }
        Ok(())
    }
}

fn value(f: &mut fmt::Formatter<'_>, attribute: &Attribute) -> fmt::Result {
    let value = &attribute.value;
    if matches!(attribute.kind, AttributeKind::Other(_)) && is_encoded(value) {
        return f.write_str(value);
    }
    let last = value.char_indices().next_back().map(|(at, _)| at);
    for (at, c) in value.char_indices() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}")?,
            ' ' if at == 0 || Some(at) == last => f.write_str("\\ ")?,
            '#' if at == 0 => f.write_str("\\#")?,
            // Cannot come out of a certificate; written so that no caller can break a line with it.
            c if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|b| write!(f, "\\{b:02X}"))?;
            }
            c => f.write_char(c)?,
        }
    }
    Ok(())
}

/// What is wrong with the text of a distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DistinguishedNameError {
    #[error(
        "`{0}` is not an attribute type (expected: CN, OU, O, L, ST, C, serialNumber, UID, DC, emailAddress, or a dotted OID)"
    )]
    UnknownType(String),
    #[error("`{0}` is not `TYPE=value`")]
    NoEquals(String),
    #[error("`{0}` must be escaped with a backslash (at byte {1})")]
    NotEscaped(char, usize),
    #[error("the backslash at byte {0} escapes nothing (expected: a special character or two hex digits)")]
    BadEscape(usize),
    #[error("the escaped bytes of {0} are not UTF-8")]
    NotUtf8(AttributeKind),
    #[error("`{0}` is not `#` and the hex digits of a DER value")]
    BadHexValue(String),
    #[error("the text of {0} reads like an encoded value: no certificate that is read has it")]
    Ambiguous(AttributeKind),
}

pub(super) fn parse(text: &str) -> Result<Vec<Vec<Attribute>>, DistinguishedNameError> {
    if text.trim_matches(' ').is_empty() {
        return Ok(Vec::new());
    }
    let mut parser = Parser { text, at: 0 };
    let mut rdns = vec![Vec::new()];
    loop {
        let attribute = parser.attribute()?;
        if let Some(rdn) = rdns.last_mut() {
            rdn.push(attribute);
        }
        match parser.take() {
            Some(b'+') => {}
            // RFC 2253 allows the semicolon too.
            Some(b',' | b';') => rdns.push(Vec::new()),
            _ => break,
        }
    }
    rdns.reverse();
    Ok(rdns)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// `TYPE=value`, with the spaces around both that people type.
    fn attribute(&mut self) -> Result<Attribute, DistinguishedNameError> {
        let rest = &self.text[self.at..];
        let end = rest.find(['=', ',', '+', ';']).unwrap_or(rest.len());
        if rest.as_bytes().get(end) != Some(&b'=') {
            return Err(DistinguishedNameError::NoEquals(rest[..end].trim().to_owned()));
        }
        let key = rest[..end].trim_matches(' ');
        let kind = AttributeKind::from_key(key)
            .ok_or_else(|| DistinguishedNameError::UnknownType(key.to_owned()))?;
        self.at += end + 1;
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
        let value = if self.peek() == Some(b'#') { self.hex_value(&kind)? } else { self.string(&kind)? };
        Ok(Attribute { kind, value })
    }

    fn string(&mut self, kind: &AttributeKind) -> Result<String, DistinguishedNameError> {
        let mut value = Vec::new();
        // Spaces at the end count only when they are escaped.
        let mut keep = 0;
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b'+' | b';' => break,
                b'"' | b'<' | b'>' => return Err(DistinguishedNameError::NotEscaped(byte.into(), self.at)),
                b'\\' => {
                    value.push(self.escape()?);
                    keep = value.len();
                    continue;
                }
                _ => value.push(byte),
            }
            if byte != b' ' {
                keep = value.len();
            }
            self.at += 1;
        }
        value.truncate(keep);
        let value = String::from_utf8(value).map_err(|_| DistinguishedNameError::NotUtf8(kind.clone()))?;
        if matches!(kind, AttributeKind::Other(_)) && is_encoded(&value) {
            return Err(DistinguishedNameError::Ambiguous(kind.clone()));
        }
        Ok(value)
    }

    /// At a backslash: the byte it stands for.
    fn escape(&mut self) -> Result<u8, DistinguishedNameError> {
        let bad = DistinguishedNameError::BadEscape(self.at);
        self.at += 1;
        let first = self.take().ok_or(bad.clone())?;
        if matches!(first, b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b' ' | b'#' | b'=') {
            return Ok(first);
        }
        let second = self.take().ok_or(bad.clone())?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match (digit(first), digit(second)) {
            (Some(high), Some(low)) => Ok((high << 4 | low) as u8),
            _ => Err(bad),
        }
    }

    /// At a `#`: the DER encoding in hex. A string type is decoded, anything else stays as it is.
    fn hex_value(&mut self, kind: &AttributeKind) -> Result<String, DistinguishedNameError> {
        let rest = &self.text[self.at..];
        let end = rest.find([',', '+', ';']).unwrap_or(rest.len());
        self.at += end;
        let value = rest[..end].trim_end_matches(' ').to_ascii_uppercase();
        let bad = || DistinguishedNameError::BadHexValue(value.clone());
        let der = super::fingerprint::from_hex(value.trim_start_matches('#')).ok_or_else(bad)?;
        let Ok(([], any)) = Any::from_der(&der) else { return Err(bad()) };
        match (super::name::text(kind, &any), kind) {
            (Ok(text), _) => Ok(text),
            (Err(_), AttributeKind::Other(_)) => Ok(value),
            (Err(_), _) => Err(bad()),
        }
    }
}
