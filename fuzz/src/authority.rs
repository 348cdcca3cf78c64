//! An authority that signs whatever it is asked to, so that strangers' bytes get past the signature.
//!
//! Its keys are the same in each run, and known to everybody: an input does in each run what it did in the one before.

use std::sync::{Arc, OnceLock};

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;
use portcullis::UnixTime;
use portcullis::certificate::Certificate;
use portcullis::trust::{TrustDomain, TrustPolicy, TrustSet};

use crate::der::{element, extension, sequence};

/// 2026-06-01 00:00:00 UTC: the present.
pub const NOW: UnixTime = 1_780_272_000;

/// ecdsa-with-SHA256.
pub const ALGORITHM: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

pub struct Authority {
    pub key: PKey<Private>,
    pub certificate: Certificate,
    pub x509: X509,
    /// A client of it.
    pub leaf: Certificate,
    /// One that it has put in its place, and a client of that.
    pub intermediate: Certificate,
    pub below: Certificate,
    pub trust: TrustSet,
}

pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

impl Authority {
    fn new() -> Self {
        let (key, second, client) = (key(7), key(8), key(9));
        let ca = [extension(19, &sequence(&[&[1, 1, 0xff]]))];
        let uses = [extension(37, &sequence(&[&[6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2]]))];
        let (root, middle) = (common_name("Root"), common_name("Middle"));
        let read = |der: Vec<u8>| Certificate::from_der(&der).expect("it is well formed");
        let certificate = read(sign(&certificate(1, &root, &root, &public(&key), &ca), &key));
        let leaf =
            read(sign(&self::certificate(2, &root, &common_name("sensor-1"), &public(&client), &uses), &key));
        let intermediate = read(sign(&self::certificate(3, &root, &middle, &public(&second), &ca), &key));
        let below =
            sign(&self::certificate(4, &middle, &common_name("sensor-2"), &public(&client), &uses), &second);
        let domain =
            TrustDomain::build("fleet", vec![certificate.clone()], Vec::new(), TrustPolicy::default());
        let domain = domain.expect("one anchor is enough");
        Self {
            x509: X509::from_der(certificate.der()).expect("the library reads it too"),
            trust: TrustSet::new(vec![Arc::new(domain)]),
            below: read(below),
            key,
            certificate,
            leaf,
            intermediate,
        }
    }
}

/// What is signed, its algorithm and the signature, as certificates and lists have them.
pub fn sign(signed: &[u8], key: &PKey<Private>) -> Vec<u8> {
    let signature =
        Signer::new(MessageDigest::sha256(), key).and_then(|mut it| it.sign_oneshot_to_vec(signed));
    let signature = signature.expect("the key can sign");
    sequence(&[signed, ALGORITHM, &element(3, &[&[0], signature.as_slice()].concat())])
}

/// What of a certificate is signed. `subject` and `extensions` as DER.
pub fn certificate(serial: u8, issuer: &[u8], subject: &[u8], key: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    let validity = sequence(&[&element(0x17, b"260101000000Z"), &element(0x17, b"460101000000Z")]);
    sequence(&[
        &element(0xa0, &[2, 1, 2]),
        &[2, 1, serial],
        ALGORITHM,
        issuer,
        &validity,
        subject,
        key,
        &element(0xa3, &sequence(&[&extensions.concat()])),
    ])
}

pub fn common_name(text: &str) -> Vec<u8> {
    sequence(&[&attribute(&[0x55, 4, 3], 0x0c, text.as_bytes())])
}

/// A set of one attribute; its OID as encoded.
pub fn attribute(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    element(0x31, &sequence(&[&element(6, oid), &element(tag, value)]))
}

pub fn public(key: &PKey<Private>) -> Vec<u8> {
    key.public_key_to_der().expect("the key can be encoded")
}

/// On P-256, with this private number.
fn key(number: u32) -> PKey<Private> {
    let make = || -> Result<PKey<Private>, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let number = BigNum::from_u32(number)?;
        let mut point = EcPoint::new(&group)?;
        point.mul_generator2(&group, &number, &mut *BigNumContext::new()?)?;
        PKey::from_ec_key(EcKey::from_private_components(&group, &number, &point)?)
    };
    make().expect("the library makes keys")
}
