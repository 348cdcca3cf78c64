//! Just enough DER (X.690) to write a revocation list; the `openssl` crate can only read them.

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const NULL: u8 = 0x05;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Tag, length, contents.
pub(super) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = contents.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len() - 1);
        out.push(0x80 | (bytes.len() - first) as u8);
        out.extend(&bytes[first..]);
    }
    out.extend(contents);
    out
}

/// An unsigned integer: a leading zero where the first bit would make it negative.
pub(super) fn integer(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    let mut contents = bytes[first..].to_vec();
    if contents.first().is_none_or(|&byte| byte >= 0x80) {
        contents.insert(0, 0);
    }
    tlv(INTEGER, &contents)
}

pub(super) fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(OBJECT_IDENTIFIER, encoded)
}

pub(super) fn null() -> Vec<u8> {
    vec![NULL, 0]
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280, section 4.1.2.5).
pub(super) fn time(unix: i64) -> Vec<u8> {
    let time = jiff::Timestamp::from_second(unix).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    if (1950..2050).contains(&time.year()) {
        tlv(UTC_TIME, time.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

pub(super) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &parts.concat())
}
