//! Whether a revocation list was signed by a certificate of the bundle.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::sign::Verifier;
use openssl::x509::{X509, X509Crl};

use super::RevocationError;
use super::read::{Encoded, dotted};
use crate::certificate::der::{self, Reader};
use crate::certificate::{Certificate, Name};

/// Any certificate of the issuer's name may have signed: a CA that changed its key has two.
pub(super) fn check_signature(
    list: &Encoded<'_>,
    issuer: &Name,
    issuers: &[Certificate],
) -> Result<(), RevocationError> {
    let name = issuer.comparable();
    let named = issuers.iter().filter(|it| it.subject().comparable() == name);
    let mut error = RevocationError::UnknownIssuer { issuer: issuer.to_string() };
    for candidate in named {
        if !candidate.may_sign_lists() {
            error = RevocationError::IssuerMayNotSign { issuer: issuer.to_string() };
            continue;
        }
        let scheme = Scheme::of(list.algorithm)?;
        let verified = verifies(list, &scheme, candidate);
        // Nothing may stay behind in the library's error queue.
        let _ = ErrorStack::get();
        match verified {
            Ok(true) => return Ok(()),
            _ => error = RevocationError::BadSignature { issuer: issuer.to_string() },
        }
    }
    Err(error)
}

/// How the signature is checked.
enum Scheme {
    /// Over the bytes of the list, as they are.
    Digest(MessageDigest),
    /// Ed25519 hashes by itself.
    Pure,
    /// RSASSA-PSS has parameters; the library knows how to read them, at the price of parsing the whole list.
    Library,
}

impl Scheme {
    /// From an AlgorithmIdentifier's content.
    fn of(algorithm: &[u8]) -> Result<Self, RevocationError> {
        let oid = Reader::new(algorithm)
            .expect(der::OID)
            .map_err(|_| RevocationError::Malformed("signature algorithm"))?;
        Ok(match oid.content {
            // sha256/384/512WithRSAEncryption, then ecdsa-with-SHA256/384/512 (RFC 4055, RFC 5758).
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b" | b"\x2a\x86\x48\xce\x3d\x04\x03\x02" => {
                Self::Digest(MessageDigest::sha256())
            }
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c" | b"\x2a\x86\x48\xce\x3d\x04\x03\x03" => {
                Self::Digest(MessageDigest::sha384())
            }
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d" | b"\x2a\x86\x48\xce\x3d\x04\x03\x04" => {
                Self::Digest(MessageDigest::sha512())
            }
            b"\x2b\x65\x70" => Self::Pure,
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a" => Self::Library,
            other => return Err(RevocationError::SignatureAlgorithm { oid: dotted(other) }),
        })
    }
}

fn verifies(list: &Encoded<'_>, scheme: &Scheme, issuer: &Certificate) -> Result<bool, ErrorStack> {
    let key = X509::from_der(issuer.der())?.public_key()?;
    match scheme {
        Scheme::Digest(digest) => Verifier::new(*digest, &key)?.verify_oneshot(list.signature, list.signed),
        Scheme::Pure => Verifier::new_without_digest(&key)?.verify_oneshot(list.signature, list.signed),
        Scheme::Library => X509Crl::from_der(list.whole)?.verify(&key),
    }
}
