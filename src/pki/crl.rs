//! Writes a revocation list (RFC 5280, section 5.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;

use crate::certificate::Serial;
use crate::certificate::der::{BIT_STRING, NULL, OCTET_STRING, OID, element, sequence, time, unsigned};

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];

pub(super) fn sign(
    issuer: &X509,
    key: &PKey<Private>,
    number: u64,
    revoked: &[(Serial, i64)],
    now: i64,
    days: u32,
) -> Result<Vec<u8>, ErrorStack> {
    let algorithm = if key.id() == Id::RSA {
        all(&[element(OID, SHA256_WITH_RSA), element(NULL, &[])])
    } else {
        all(&[element(OID, ECDSA_WITH_SHA256)])
    };
    let number = all(&[element(OID, CRL_NUMBER), element(OCTET_STRING, &unsigned(&number.to_be_bytes()))]);
    let mut parts = vec![
        unsigned(&[1]),
        algorithm.clone(),
        issuer.subject_name().to_der()?,
        time(now),
        time(now + i64::from(days) * 86_400),
    ];
    if !revoked.is_empty() {
        let entry = |(serial, at): &(Serial, i64)| all(&[unsigned(serial.as_bytes()), time(*at)]);
        parts.push(all(&revoked.iter().map(entry).collect::<Vec<_>>()));
    }
    parts.push(element(0xa0, &all(&[number])));
    let to_be_signed = all(&parts);
    let signature = Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(&to_be_signed)?;
    let bits = [&[0][..], &signature].concat();
    Ok(all(&[to_be_signed, algorithm, element(BIT_STRING, &bits)]))
}

/// A SEQUENCE of parts that are encoded already.
fn all(parts: &[Vec<u8>]) -> Vec<u8> {
    sequence(&[&parts.concat()])
}

pub(super) fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}
