//! Just enough DER (X.690) to walk a revocation list of a million entries without building a tree of it, and to write
//! one: the `openssl` crate does neither.

use super::{Civil, civil, unix_time};
use crate::UnixTime;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;

/// `[number]`, constructed.
pub(crate) const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

/// The bytes are not the DER that was expected here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDer;

/// Reads one element after another.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// With tag and length.
    pub raw: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(der: &'a [u8]) -> Self {
        Self(der)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn next_tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, NotDer> {
        let mut rest = *self;
        let (tag, length) = rest.header()?;
        let (content, tail) = rest.0.split_at_checked(length).ok_or(NotDer)?;
        let raw = &self.0[..self.0.len() - tail.len()];
        self.0 = tail;
        Ok(Element { tag, content, raw })
    }

    /// Tag and length of the next element: one-byte tags, definite lengths up to four bytes. Its content comes next.
    pub(crate) fn header(&mut self) -> Result<(u8, usize), NotDer> {
        let (&tag, rest) = self.0.split_first().ok_or(NotDer)?;
        let (&first, mut rest) = rest.split_first().ok_or(NotDer)?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, tail) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(NotDer)?;
                rest = tail;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return Err(NotDer),
        };
        self.0 = rest;
        Ok((tag, length))
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, NotDer> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(NotDer) }
    }

    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, NotDer> {
        if self.next_tag() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// UTCTime or GeneralizedTime, in the one form that RFC 5280, section 4.1.2.5, allows.
    pub(crate) fn time(&mut self) -> Result<UnixTime, NotDer> {
        let element = self.any()?;
        let digits = element.content.strip_suffix(b"Z").ok_or(NotDer)?;
        let (year, rest) = match (element.tag, digits.len()) {
            (UTC_TIME, 12) => {
                let year = number(&digits[..2])?;
                (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
            }
            (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
            _ => return Err(NotDer),
        };
        unix_time(Civil {
            year,
            month: number(&rest[..2])?,
            day: number(&rest[2..4])?,
            hour: number(&rest[4..6])?,
            minute: number(&rest[6..8])?,
            second: number(&rest[8..])?,
        })
        .ok_or(NotDer)
    }

    pub(crate) fn finish(self) -> Result<(), NotDer> {
        if self.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

fn number(digits: &[u8]) -> Result<i64, NotDer> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + i64::from(digit - b'0')),
        _ => Err(NotDer),
    })
}

/// Tag, length and content.
pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = Vec::with_capacity(content.len() + 6);
    der.push(tag);
    match content.len() {
        length @ 0..=0x7f => der.push(length as u8),
        length => {
            let bytes = length.to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            der.push(0x80 | (bytes.len() - skip) as u8);
            der.extend_from_slice(&bytes[skip..]);
        }
    }
    der.extend_from_slice(content);
    der
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// An INTEGER that is not negative, from its bytes.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let significant = super::Serial::significant(bytes).unwrap_or(&[0]);
    match significant.first() {
        Some(0x80..) => element(INTEGER, &[&[0], significant].concat()),
        _ => element(INTEGER, significant),
    }
}

/// UTCTime up to 2049, GeneralizedTime from then on (RFC 5280, section 4.1.2.5).
pub(crate) fn time(time: UnixTime) -> Vec<u8> {
    let Civil { year, month, day, hour, minute, second } = civil(time);
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if (1950..2050).contains(&year) {
        element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{year:04}{rest}").as_bytes())
    }
}
