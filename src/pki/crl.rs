//! Writes a revocation list (RFC 5280, section 5.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;

use super::der::{BIT_STRING, OCTET_STRING, integer, null, oid, sequence, time, tlv};
use crate::certificate::Serial;

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
        sequence(&[oid(SHA256_WITH_RSA), null()])
    } else {
        sequence(&[oid(ECDSA_WITH_SHA256)])
    };
    let number = sequence(&[oid(CRL_NUMBER), tlv(OCTET_STRING, &integer(&number.to_be_bytes()))]);
    let mut parts = vec![
        integer(&[1]),
        algorithm.clone(),
        issuer.subject_name().to_der()?,
        time(now),
        time(now + i64::from(days) * 86_400),
    ];
    if !revoked.is_empty() {
        let entry = |(serial, at): &(Serial, i64)| sequence(&[integer(serial.as_bytes()), time(*at)]);
        parts.push(sequence(&revoked.iter().map(entry).collect::<Vec<_>>()));
    }
    parts.push(tlv(0xa0, &sequence(&[number])));
    let to_be_signed = sequence(&parts);
    let signature = Signer::new(MessageDigest::sha256(), key)?.sign_oneshot_to_vec(&to_be_signed)?;
    let bits = [&[0][..], &signature].concat();
    Ok(sequence(&[to_be_signed, algorithm, tlv(BIT_STRING, &bits)]))
}

pub(super) fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}
