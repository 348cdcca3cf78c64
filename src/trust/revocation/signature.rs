//! Whether a revocation list was signed by a certificate of the bundle: hashed while the list is read.

use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::md::{Md, MdRef};
use openssl::pkey::{PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::sign::Verifier;
use openssl::x509::{X509, X509Crl};

use super::RevocationError;
use super::read::dotted;
use crate::certificate::der::{self, Reader, element, sequence};
use crate::certificate::{Certificate, Name};

/// What is signed, from its first byte on.
pub(super) struct Signed {
    follow: Follow,
    issuer: String,
    keys: Vec<PKey<Public>>,
}

enum Follow {
    /// As it came: before anybody knows how it is signed, and where it cannot be hashed piece by piece.
    Whole(Vec<u8>),
    Digest(Hasher, Digest),
    /// The library failed.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// How the signature is checked.
enum Scheme {
    Digest(Digest),
    /// Ed25519 hashes by itself, and twice.
    Pure,
    /// RSASSA-PSS has parameters; the library knows how to read them, at the price of parsing the whole list.
    Library,
}

impl Default for Signed {
    fn default() -> Self {
        Self { follow: Follow::Whole(Vec::new()), issuer: String::new(), keys: Vec::new() }
    }
}

impl Signed {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.follow {
            Follow::Whole(whole) => whole.extend_from_slice(bytes),
            Follow::Digest(hasher, _) => {
                if hasher.update(bytes).is_err() {
                    self.follow = Follow::Lost;
                }
            }
            Follow::Lost => {}
        }
    }

    /// `algorithm`: the content of the AlgorithmIdentifier. Any certificate of the issuer's name may have signed: a CA
    /// that changed its key has two.
    pub(super) fn expect(
        &mut self,
        algorithm: &[u8],
        issuer: &Name,
        issuers: &[Certificate],
    ) -> Result<(), RevocationError> {
        let name = issuer.comparable();
        self.issuer = issuer.to_string();
        let mut named = issuers.iter().filter(|it| it.subject().comparable() == name).peekable();
        if named.peek().is_none() {
            return Err(RevocationError::UnknownIssuer { issuer: self.issuer.clone() });
        }
        let may_sign = named.filter(|it| it.may_sign_lists());
        self.keys = may_sign.filter_map(|it| X509::from_der(it.der()).ok()?.public_key().ok()).collect();
        if self.keys.is_empty() {
            return Err(RevocationError::IssuerMayNotSign { issuer: self.issuer.clone() });
        }
        if let (Scheme::Digest(digest), Follow::Whole(before)) = (Scheme::of(algorithm)?, &self.follow) {
            let mut hasher = Hasher::new(digest.of_bytes());
            let begun = hasher.as_mut().is_ok_and(|hasher| hasher.update(before).is_ok());
            self.follow = match hasher {
                Ok(hasher) if begun => Follow::Digest(hasher, digest),
                _ => Follow::Lost,
            };
        }
        Ok(())
    }

    /// `signature` is over everything that was shown.
    pub(super) fn check(self, algorithm: &[u8], signature: &[u8]) -> Result<(), RevocationError> {
        let verified = match self.follow {
            Follow::Digest(mut hasher, digest) => hasher.finish().is_ok_and(|hash| {
                self.keys.iter().any(|key| verifies(key, digest.of_keys(), &hash, signature).unwrap_or(false))
            }),
            Follow::Whole(whole) => {
                let scheme = Scheme::of(algorithm)?;
                let verifies = |key| verifies_whole(key, &scheme, &whole, algorithm, signature);
                self.keys.iter().any(|key| verifies(key).unwrap_or(false))
            }
            Follow::Lost => false,
        };
        // Nothing may stay behind in the library's error queue.
        let _ = ErrorStack::get();
        if verified { Ok(()) } else { Err(RevocationError::BadSignature { issuer: self.issuer }) }
    }
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
                Self::Digest(Digest::Sha256)
            }
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c" | b"\x2a\x86\x48\xce\x3d\x04\x03\x03" => {
                Self::Digest(Digest::Sha384)
            }
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d" | b"\x2a\x86\x48\xce\x3d\x04\x03\x04" => {
                Self::Digest(Digest::Sha512)
            }
            b"\x2b\x65\x70" => Self::Pure,
            b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a" => Self::Library,
            other => return Err(RevocationError::SignatureAlgorithm { oid: dotted(other) }),
        })
    }
}

impl Digest {
    fn of_bytes(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    fn of_keys(self) -> &'static MdRef {
        match self {
            Self::Sha256 => Md::sha256(),
            Self::Sha384 => Md::sha384(),
            Self::Sha512 => Md::sha512(),
        }
    }
}

fn verifies(key: &PKey<Public>, digest: &MdRef, hash: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
    let mut context = PkeyCtx::new(key)?;
    context.verify_init()?;
    context.set_signature_md(digest)?;
    context.verify(hash, signature)
}

fn verifies_whole(
    key: &PKey<Public>,
    scheme: &Scheme,
    signed: &[u8],
    algorithm: &[u8],
    signature: &[u8],
) -> Result<bool, ErrorStack> {
    match scheme {
        Scheme::Pure => Verifier::new_without_digest(key)?.verify_oneshot(signature, signed),
        Scheme::Library => {
            let signature = element(der::BIT_STRING, &[&[0], signature].concat());
            X509Crl::from_der(&sequence(&[signed, &sequence(&[algorithm]), &signature]))?.verify(key)
        }
        Scheme::Digest(_) => Ok(false),
    }
}
