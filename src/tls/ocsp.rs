//! The word of an authority that a certificate of ours is not revoked (RFC 6960), stapled to handshakes of clients that
//! ask for it (RFC 6066, section 8; RFC 8446, section 4.4.2.1).

#![allow(unsafe_code)]

use std::sync::Arc;

use foreign_types::ForeignTypeRef;
use openssl::asn1::{Asn1GeneralizedTimeRef, Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::ocsp::{
    OcspBasicResponse, OcspCertId, OcspCertStatus, OcspFlag, OcspRequest, OcspResponse, OcspResponseStatus,
    OcspStatus,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref};
use x509_parser::asn1_rs::{FromDer, oid};
use x509_parser::prelude::X509Certificate;

use crate::UnixTime;
use crate::certificate::utc;

/// A response that was checked. It says `good`, for as long as it may be believed.
#[derive(Debug, Clone)]
pub struct Staple {
    /// As DER.
    pub response: Arc<[u8]>,
    pub this_update: UnixTime,
    pub next_update: UnixTime,
}

/// Why a response is not stapled.
#[derive(Debug, thiserror::Error)]
pub enum StapleError {
    #[error("it is not an OCSP response (expected: DER)")]
    NotAResponse,
    #[error("the responder had no answer: {0}")]
    NoAnswer(&'static str),
    #[error("it is signed neither by the certificate's issuer nor by somebody whom that has authorised")]
    BadSignature,
    #[error("it is about another certificate")]
    OtherCertificate,
    #[error("it says that the certificate was revoked")]
    Revoked,
    #[error("it says that the certificate is not known")]
    Unknown,
    #[error("it does not say until when it may be believed (it has no nextUpdate)")]
    Endless,
    #[error("it comes from the future: its thisUpdate is {} (is the clock right?)", utc(*.0))]
    FromTheFuture(UnixTime),
    #[error("it could be believed until {}", utc(*.0))]
    Expired(UnixTime),
    #[error("the TLS library could not check it")]
    Library(#[from] ErrorStack),
}

impl StapleError {
    /// Whether it is a response to our question, which only happens to be of no use now.
    pub fn is_about_us(&self) -> bool {
        matches!(self, Self::Revoked | Self::Unknown | Self::Expired(_))
    }
}

/// How far the clocks of responder and gateway may be apart.
const CLOCK_SKEW: UnixTime = 300;

impl Staple {
    /// Reads a response about `leaf`, which `issuer` has issued.
    pub fn read(response: &[u8], leaf: &X509, issuer: &X509, now: UnixTime) -> Result<Self, StapleError> {
        let read = OcspResponse::from_der(response);
        // Nothing may stay behind in the library's error queue.
        let answer = read.map_err(|_| StapleError::NotAResponse)?;
        if answer.status() != OcspResponseStatus::SUCCESSFUL {
            return Err(StapleError::NoAnswer(no_answer(answer.status())));
        }
        let basic = answer.basic().map_err(|_| StapleError::NotAResponse)?;
        check_signature(&basic, issuer)?;
        // The responder says which digest it names certificates with; nearly all use the first.
        for digest in [MessageDigest::sha1(), MessageDigest::sha256()] {
            let id = OcspCertId::from_cert(digest, leaf, issuer)?;
            if let Some(status) = basic.find_status(&id) {
                let (this_update, next_update) = believed(&status, now)?;
                return Ok(Self { response: response.into(), this_update, next_update });
            }
        }
        Err(StapleError::OtherCertificate)
    }

    pub(super) fn is_believed(&self, now: UnixTime) -> bool {
        now < self.next_update
    }
}

/// The question to a responder, as DER. Without a nonce: what many clients are given can be made once.
pub fn ocsp_question(leaf: &X509, issuer: &X509) -> Result<Vec<u8>, ErrorStack> {
    let mut request = OcspRequest::new()?;
    request.add_id(OcspCertId::from_cert(MessageDigest::sha1(), leaf, issuer)?)?;
    request.to_der()
}

/// Whether whoever gets the certificate should insist on a staple (RFC 7633).
pub fn must_be_stapled(leaf: &X509Ref) -> bool {
    let feature = oid!(1.3.6.1.5.5.7.1.24);
    // `status_request` as an INTEGER of the SEQUENCE.
    let asks = |value: &[u8]| value.windows(3).any(|window| window == [2, 1, 5]);
    leaf.to_der().is_ok_and(|der| {
        X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| {
            certificate.extensions().iter().any(|it| it.oid == feature && asks(it.value))
        })
    })
}

fn no_answer(status: OcspResponseStatus) -> &'static str {
    match status {
        OcspResponseStatus::MALFORMED_REQUEST => "it takes the question for malformed",
        OcspResponseStatus::INTERNAL_ERROR => "it has an internal error",
        OcspResponseStatus::TRY_LATER => "it asks to try later",
        OcspResponseStatus::SIG_REQUIRED => "it answers signed questions only",
        OcspResponseStatus::UNAUTHORIZED => "it knows nothing of this certificate, or does not tell us",
        _ => "it says why in a way that is not known here",
    }
}

/// The issuer is believed because the operator shows its certificate; where that comes from does not matter.
fn check_signature(basic: &OcspBasicResponse, issuer: &X509) -> Result<(), StapleError> {
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(issuer.clone())?;
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    let mut signers = Stack::new()?;
    signers.push(issuer.clone())?;
    basic.verify(&signers, &store.build(), OcspFlag::empty()).map_err(|_| StapleError::BadSignature)
}

/// From when until when, if the response may be believed now.
fn believed(status: &OcspStatus<'_>, now: UnixTime) -> Result<(UnixTime, UnixTime), StapleError> {
    match status.status {
        OcspCertStatus::GOOD => {}
        OcspCertStatus::REVOKED => return Err(StapleError::Revoked),
        _ => return Err(StapleError::Unknown),
    }
    let this_update = unix_time(status.this_update)?;
    let next_update = unix_time(status.next_update().ok_or(StapleError::Endless)?)?;
    if this_update > now.saturating_add(CLOCK_SKEW) {
        return Err(StapleError::FromTheFuture(this_update));
    }
    if next_update <= now {
        return Err(StapleError::Expired(next_update));
    }
    Ok((this_update, next_update))
}

fn unix_time(time: &Asn1GeneralizedTimeRef) -> Result<UnixTime, ErrorStack> {
    // SAFETY: an ASN1_TIME is an ASN1_STRING that is either an ASN1_UTCTIME or an ASN1_GENERALIZEDTIME.
    let time = unsafe { Asn1TimeRef::from_ptr(time.as_ptr().cast()) };
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(UnixTime::from(since.days) * 86_400 + UnixTime::from(since.secs))
}
