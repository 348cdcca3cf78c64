//! Serial numbers and SHA-256 fingerprints, as bytes and as hex.

use std::fmt;
use std::str::FromStr;

/// A SHA-256 digest. Shown as lower-case hex; read with or without colons, in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// A certificate's serial number: the bytes of the integer, most significant first, without leading zeros.
///
/// Unique within its issuer only. Shown as upper-case hex, read like a fingerprint.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<[u8]>);

/// Text that is not the hex form of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHex {
    #[error("`{0}` is not hexadecimal (expected: digits 0-9 and a-f, in pairs, with or without colons)")]
    NotHex(String),
    #[error("`{text}` has {found} hex digits (expected: 64, the SHA-256 digest)")]
    WrongLength { text: String, found: usize },
}

impl Serial {
    /// From the content of a DER INTEGER; `None` when it is empty.
    ///
    /// A negative serial, which RFC 5280 forbids and some have issued, is read as the unsigned number with the same
    /// bytes.
    pub fn from_be_bytes(bytes: &[u8]) -> Option<Self> {
        Self::significant(bytes).map(|bytes| Self(bytes.into()))
    }

    /// The bytes that [`from_be_bytes`](Self::from_be_bytes) would keep.
    pub(crate) fn significant(bytes: &[u8]) -> Option<&[u8]> {
        let last = bytes.len().checked_sub(1)?;
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(last);
        bytes.get(start..)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = BadHex;

    fn from_str(text: &str) -> Result<Self, BadHex> {
        let digits = digits(text);
        // People drop the leading zero of an odd number of digits.
        let padded = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
        from_hex(&padded)
            .and_then(|bytes| Self::from_be_bytes(&bytes))
            .ok_or_else(|| BadHex::NotHex(text.to_owned()))
    }
}

impl FromStr for Fingerprint {
    type Err = BadHex;

    fn from_str(text: &str) -> Result<Self, BadHex> {
        // As programs write it, a million times.
        if let Some(digest) = plain_digest(text.as_bytes()) {
            return Ok(Self(digest));
        }
        let digits = digits(text);
        if digits.chars().any(|c| !c.is_ascii_hexdigit()) {
            return Err(BadHex::NotHex(text.to_owned()));
        }
        from_hex(&digits)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| BadHex::WrongLength { text: text.to_owned(), found: digits.len() })
    }
}

/// Nothing but 64 digits.
fn plain_digest(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = byte_of(*pair)?;
    }
    Some(digest)
}

fn byte_of([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

fn digits(text: &str) -> String {
    text.trim().chars().filter(|c| *c != ':').collect()
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&upper_hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn upper_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// `None` for an odd number of digits, or for none at all.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|pair| byte_of(*pair)).collect()
}
