//! Header values that nothing can break out of.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Percent-encodes everything but visible ASCII and single words' spaces: control characters, what is not ASCII, the
/// quote, and the percent sign itself, so that decoding gives back exactly what the certificate says. A space at either
/// end is encoded too, because HTTP would drop it.
pub(super) fn text(value: &str) -> String {
    escaped(value, |_| false)
}

/// Values with `, ` between them. A comma inside of one is encoded and cannot pretend to be two. An empty one says nothing,
/// and would leave a comma at the end behind it.
pub(super) fn list(values: impl Iterator<Item = impl AsRef<str>>) -> Option<String> {
    let values = values.filter(|value| !value.as_ref().is_empty());
    let values: Vec<String> = values.map(|value| escaped(value.as_ref(), |byte| byte == b',')).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Encodes as [`text`] does, and what `special` names.
pub(super) fn escaped(value: &str, special: impl Fn(u8) -> bool) -> String {
    let mut encoded = String::with_capacity(value.len() + 8);
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let inner_space = byte == b' ' && at != 0 && at != last;
        let plain = (byte.is_ascii_graphic() && !matches!(byte, b'%' | b'"')) || inner_space;
        if plain && !special(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A byte sequence (RFC 8941, section 3.3.5).
pub(super) fn byte_sequence(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

/// A list of byte sequences; an empty list is no header.
pub(super) fn byte_sequences(certificates: &[Vec<u8>]) -> Option<String> {
    let items: Vec<String> = certificates.iter().map(|der| byte_sequence(der)).collect();
    (!items.is_empty()).then(|| items.join(", "))
}

/// What RFC 3986 calls unreserved stays.
const PEM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encoded PEM blocks.
pub(super) fn pem<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(der).as_bytes().chunks(64) {
            text.extend(line.iter().map(|byte| char::from(*byte)));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    utf8_percent_encode(&text, PEM).to_string()
}
