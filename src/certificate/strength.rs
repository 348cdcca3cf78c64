//! Keys and signatures too weak to prove anything.
//!
//! OpenSSL's security levels would do this inside of a TLS handshake, but not when a chain is verified on its own, and
//! AWS-LC has no such levels. The bounds are those of OpenSSL's level 2 (112 bits), Debian's default.

use std::fmt;

use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// What is too weak, or too large to be computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    ShortKey {
        bits: usize,
    },
    OversizedKey {
        bits: usize,
    },
    /// Signed over an MD2, MD4, MD5 or SHA-1 digest.
    WeakDigest,
}

const SHORTEST_RSA: usize = 2048;
/// A signature made with a longer one takes milliseconds to check.
const LONGEST_RSA: usize = 8192;
const SHORTEST_EC: usize = 224;

/// `md2/md4/md5/sha1WithRSAEncryption`, `ecdsa-with-SHA1`, `dsa-with-sha1`, and OIW's name for SHA-1 with RSA.
const WEAK_SIGNATURES: [Oid<'static>; 7] = [
    oid!(1.2.840.113549.1.1.2),
    oid!(1.2.840.113549.1.1.3),
    oid!(1.2.840.113549.1.1.4),
    oid!(1.2.840.113549.1.1.5),
    oid!(1.2.840.10045.4.1),
    oid!(1.2.840.10040.4.3),
    oid!(1.3.14.3.2.29),
];
const RSASSA_PSS: Oid<'static> = oid!(1.2.840.113549.1.1.10);
const SHA1: Oid<'static> = oid!(1.3.14.3.2.26);

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortKey { bits } => write!(f, "its key of {bits} bits is too short"),
            Self::OversizedKey { bits } => write!(f, "its key of {bits} bits is too long to be used"),
            Self::WeakDigest => f.write_str("its signature uses MD5 or SHA-1"),
        }
    }
}

pub(super) fn weakness(certificate: &X509Certificate<'_>) -> Option<Weakness> {
    key_weakness(certificate).or_else(|| weak_signature(certificate).then_some(Weakness::WeakDigest))
}

fn key_weakness(certificate: &X509Certificate<'_>) -> Option<Weakness> {
    // A key that cannot be decoded here is the TLS library's to refuse.
    let (bits, shortest) = match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => (bit_length(key.modulus), SHORTEST_RSA),
        PublicKey::DSA(key) => (bit_length(key), SHORTEST_RSA),
        PublicKey::EC(point) => (point.key_size(), SHORTEST_EC),
        _ => return None,
    };
    match bits {
        bits if bits + 8 <= shortest => Some(Weakness::ShortKey { bits }),
        bits if bits > LONGEST_RSA => Some(Weakness::OversizedKey { bits }),
        _ => None,
    }
}

fn bit_length(bytes: &[u8]) -> usize {
    let Some(start) = bytes.iter().position(|byte| *byte != 0) else { return 0 };
    (bytes.len() - start) * 8 - bytes[start].leading_zeros() as usize
}

fn weak_signature(certificate: &X509Certificate<'_>) -> bool {
    let algorithm = &certificate.signature_algorithm;
    if algorithm.algorithm != RSASSA_PSS {
        return WEAK_SIGNATURES.contains(&algorithm.algorithm);
    }
    // Parameters left out mean SHA-1 (RFC 4055, section 3.1).
    match algorithm.parameters.as_ref().map(RsaSsaPssParams::try_from) {
        Some(Ok(parameters)) => *parameters.hash_algorithm_oid() == SHA1,
        _ => true,
    }
}
