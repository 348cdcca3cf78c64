//! Reads a revocation list: PEM or DER, complete, direct, signed by a certificate of the bundle.

use x509_parser::asn1_rs::Oid;

use super::serials::{SerialTable, SerialTableBuilder};
use super::signature::check_signature;
use super::{Covers, RevocationEntry, RevocationList, RevocationReason};
use crate::UnixTime;
use crate::certificate::der::{self, NotDer, Reader};
use crate::certificate::{Certificate, Name, PemError, Serial, pem_blocks, utc};

/// Why a file is not taken for a revocation list. None of them ever means that nobody is revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("it holds no revocation list (expected: PEM blocks of type X509 CRL, or one list as DER)")]
    NoList,
    #[error("it holds several revocation lists where one is expected")]
    SeveralLists,
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("list {number} of the file: {reason}")]
    InList { number: usize, reason: Box<RevocationError> },
    #[error("its {0} cannot be decoded: it is not a revocation list, or cut off, or damaged")]
    Malformed(&'static str),
    #[error(
        "its issuer `{issuer}` is not among the certificates of the trust domain (a list is believed only if its issuer is: add the issuer to the anchors, or remove the list)"
    )]
    UnknownIssuer { issuer: String },
    #[error("its signature is not that of its issuer `{issuer}`")]
    BadSignature { issuer: String },
    #[error("its issuer `{issuer}` may not sign revocation lists (its keyUsage lacks cRLSign)")]
    IssuerMayNotSign { issuer: String },
    #[error("it is signed with the algorithm {oid}, which is too weak or not supported")]
    SignatureAlgorithm { oid: String },
    #[error("it is a delta list, which says only what has changed (expected: a complete list)")]
    Delta,
    #[error(
        "it is an indirect list, which speaks for other issuers (expected: the list of each issuer by itself)"
    )]
    Indirect,
    #[error(
        "it lists only some reasons for revocation, or only attribute certificates (expected: a complete list)"
    )]
    Partial,
    #[error("it has the critical extension {oid}, whose meaning is not known here")]
    UnknownExtension { oid: String },
    #[error("it comes from the future: its thisUpdate is {} (is the clock right?)", utc(*.0))]
    FromTheFuture(UnixTime),
}

/// How far the clocks of issuer and gateway may be apart.
const CLOCK_SKEW: UnixTime = 300;

pub(super) fn read_all(
    bytes: &[u8],
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<Vec<RevocationList>, RevocationError> {
    // DER starts with a SEQUENCE; no text does with this byte followed by a long length.
    if matches!(bytes, [der::SEQUENCE, 0x80..=0xff, ..]) {
        return read(bytes, issuers, now).map(|list| vec![list]);
    }
    let blocks = pem_blocks(bytes, "X509 CRL")?;
    match blocks.as_slice() {
        [] => Err(RevocationError::NoList),
        [only] => read(only, issuers, now).map(|list| vec![list]),
        several => {
            several.iter().enumerate().map(|(index, block)| read_one_of(index, block, issuers, now)).collect()
        }
    }
}

fn read_one_of(
    index: usize,
    block: &[u8],
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<RevocationList, RevocationError> {
    read(block, issuers, now)
        .map_err(|reason| RevocationError::InList { number: index + 1, reason: Box::new(reason) })
}

fn read(der: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<RevocationList, RevocationError> {
    let list = Encoded::split(der).map_err(|_| RevocationError::Malformed("structure"))?;
    let head = Head::read(list.body)?;
    if head.algorithm != list.algorithm {
        return Err(RevocationError::Malformed("signature algorithm"));
    }
    let extensions = ListExtensions::read(head.extensions)?;
    // The signature comes before the entries: whose list it is decides whether they are looked at.
    check_signature(&list, &head.issuer, issuers)?;
    if head.this_update > now.saturating_add(CLOCK_SKEW) {
        return Err(RevocationError::FromTheFuture(head.this_update));
    }
    Ok(RevocationList {
        issuer: head.issuer.to_string(),
        issuer_key: head.issuer.comparable(),
        issuer_raw: head.issuer.raw().into(),
        this_update: head.this_update,
        next_update: head.next_update,
        number: extensions.number,
        covers: extensions.covers,
        scope: extensions.scope,
        entries: entries(head.entries)?,
    })
}

/// CertificateList in its three parts.
pub(super) struct Encoded<'a> {
    pub whole: &'a [u8],
    /// TBSCertList, with its tag: what is signed.
    pub signed: &'a [u8],
    body: Reader<'a>,
    /// The content of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn split(der: &'a [u8]) -> Result<Self, NotDer> {
        let mut outer = Reader::new(der);
        let mut parts = Reader::new(outer.expect(der::SEQUENCE)?.content);
        outer.finish()?;
        let body = parts.expect(der::SEQUENCE)?;
        let algorithm = parts.expect(der::SEQUENCE)?;
        let signature = parts.expect(der::BIT_STRING)?.content;
        parts.finish()?;
        Ok(Self {
            whole: der,
            signed: body.raw,
            body: Reader::new(body.content),
            algorithm: algorithm.content,
            // The first byte counts unused bits; a signature has none.
            signature: signature.strip_prefix(&[0]).ok_or(NotDer)?,
        })
    }
}

/// TBSCertList up to its entries, which are left encoded.
struct Head<'a> {
    algorithm: &'a [u8],
    issuer: Name,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    entries: Reader<'a>,
    extensions: Reader<'a>,
}

impl<'a> Head<'a> {
    fn read(mut body: Reader<'a>) -> Result<Self, RevocationError> {
        let malformed = |what| move |_: NotDer| RevocationError::Malformed(what);
        body.optional(der::INTEGER).map_err(malformed("version"))?;
        let algorithm = body.expect(der::SEQUENCE).map_err(malformed("signature algorithm"))?.content;
        let issuer = body.expect(der::SEQUENCE).map_err(malformed("issuer"))?.raw;
        let issuer =
            Name::from_der(issuer).and_then(Result::ok).ok_or(RevocationError::Malformed("issuer"))?;
        let this_update = body.time().map_err(malformed("thisUpdate"))?;
        let next_update = match body.next_tag() {
            Some(der::UTC_TIME | der::GENERALIZED_TIME) => {
                Some(body.time().map_err(malformed("nextUpdate"))?)
            }
            _ => None,
        };
        let entries = body.optional(der::SEQUENCE).map_err(malformed("list of entries"))?;
        let extensions = body.optional(der::explicit(0)).map_err(malformed("extensions"))?;
        body.finish().map_err(malformed("end"))?;
        let content =
            |element: Option<der::Element<'a>>| Reader::new(element.map_or(&[], |element| element.content));
        Ok(Self {
            algorithm,
            issuer,
            this_update,
            next_update,
            entries: content(entries),
            extensions: content(extensions),
        })
    }
}

/// `2.5.29.n` as encoded.
const fn id_ce(last: u8) -> [u8; 3] {
    [0x55, 0x1d, last]
}
const CRL_NUMBER: [u8; 3] = id_ce(20);
const REASON_CODE: [u8; 3] = id_ce(21);
const INVALIDITY_DATE: [u8; 3] = id_ce(24);
const DELTA_CRL_INDICATOR: [u8; 3] = id_ce(27);
const ISSUING_DISTRIBUTION_POINT: [u8; 3] = id_ce(28);
const CERTIFICATE_ISSUER: [u8; 3] = id_ce(29);
const AUTHORITY_KEY_IDENTIFIER: [u8; 3] = id_ce(35);

struct ListExtensions {
    number: Option<Serial>,
    covers: Covers,
    scope: Box<[u8]>,
}

impl ListExtensions {
    fn read(mut outer: Reader<'_>) -> Result<Self, RevocationError> {
        let malformed = |_| RevocationError::Malformed("extensions");
        let mut read = Self { number: None, covers: Covers::All, scope: Box::default() };
        if outer.is_empty() {
            return Ok(read);
        }
        let mut extensions = Reader::new(outer.expect(der::SEQUENCE).map_err(malformed)?.content);
        outer.finish().map_err(malformed)?;
        while !extensions.is_empty() {
            let extension = Extension::read(&mut extensions).map_err(malformed)?;
            read.take(&extension)?;
        }
        Ok(read)
    }

    fn take(&mut self, extension: &Extension<'_>) -> Result<(), RevocationError> {
        if extension.oid == DELTA_CRL_INDICATOR {
            return Err(RevocationError::Delta);
        }
        if extension.oid == CRL_NUMBER {
            let number = Reader::new(extension.value).expect(der::INTEGER).ok();
            self.number = number.and_then(|number| Serial::from_be_bytes(number.content));
            return self.number.as_ref().map(|_| ()).ok_or(RevocationError::Malformed("cRLNumber"));
        }
        if extension.oid == ISSUING_DISTRIBUTION_POINT {
            self.scope = extension.value.into();
            self.covers = covers(extension.value)?;
            return Ok(());
        }
        if extension.critical && extension.oid != AUTHORITY_KEY_IDENTIFIER {
            return Err(RevocationError::UnknownExtension { oid: dotted(extension.oid) });
        }
        Ok(())
    }
}

/// IssuingDistributionPoint (RFC 5280, section 5.2.5).
fn covers(value: &[u8]) -> Result<Covers, RevocationError> {
    let malformed = |_| RevocationError::Malformed("issuing distribution point");
    let mut fields = Reader::new(Reader::new(value).expect(der::SEQUENCE).map_err(malformed)?.content);
    let mut covers = Covers::All;
    while !fields.is_empty() {
        let field = fields.any().map_err(malformed)?;
        let is_true = field.content.iter().any(|byte| *byte != 0);
        match field.tag {
            0x81 if is_true => covers = Covers::Clients,
            0x82 if is_true => covers = Covers::Authorities,
            // distributionPoint (0) tells where it is published; onlySomeReasons (3), onlyContainsAttributeCerts.
            0x83 => return Err(RevocationError::Partial),
            0x85 if is_true => return Err(RevocationError::Partial),
            0x84 if is_true => return Err(RevocationError::Indirect),
            0xa0 | 0x81 | 0x82 | 0x84 | 0x85 => {}
            _ => return Err(RevocationError::Malformed("issuing distribution point")),
        }
    }
    Ok(covers)
}

struct Extension<'a> {
    oid: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

impl<'a> Extension<'a> {
    fn read(extensions: &mut Reader<'a>) -> Result<Self, NotDer> {
        let mut fields = Reader::new(extensions.expect(der::SEQUENCE)?.content);
        let oid = fields.expect(der::OID)?.content;
        let critical = fields.optional(der::BOOLEAN)?.is_some_and(|flag| flag.content != [0]);
        let value = fields.expect(der::OCTET_STRING)?.content;
        fields.finish()?;
        Ok(Self { oid, critical, value })
    }
}

fn entries(mut encoded: Reader<'_>) -> Result<SerialTable, RevocationError> {
    let mut table = SerialTableBuilder::default();
    while !encoded.is_empty() {
        let mut fields = encoded
            .expect(der::SEQUENCE)
            .map(|entry| Reader::new(entry.content))
            .map_err(|_| RevocationError::Malformed("list of entries"))?;
        let (serial, revoked_at) =
            serial_and_date(&mut fields).map_err(|_| RevocationError::Malformed("entry"))?;
        let reason = entry_reason(fields)?;
        table.push(serial, RevocationEntry { revoked_at, reason });
    }
    Ok(table.build())
}

fn serial_and_date<'a>(fields: &mut Reader<'a>) -> Result<(&'a [u8], UnixTime), NotDer> {
    let serial = fields.expect(der::INTEGER)?.content;
    let serial = Serial::significant(serial).ok_or(NotDer)?;
    Ok((serial, fields.time()?))
}

fn entry_reason(mut fields: Reader<'_>) -> Result<RevocationReason, RevocationError> {
    let malformed = |_| RevocationError::Malformed("entry");
    let mut reason = RevocationReason::Unspecified;
    let Some(extensions) = fields.optional(der::SEQUENCE).map_err(malformed)? else {
        fields.finish().map_err(malformed)?;
        return Ok(reason);
    };
    fields.finish().map_err(malformed)?;
    let mut extensions = Reader::new(extensions.content);
    while !extensions.is_empty() {
        let extension = Extension::read(&mut extensions).map_err(malformed)?;
        if extension.oid == REASON_CODE {
            let code = Reader::new(extension.value).expect(der::ENUMERATED).map_err(malformed)?.content;
            reason = RevocationReason::from_code(code.last().copied().unwrap_or(0));
        } else if extension.oid == CERTIFICATE_ISSUER {
            return Err(RevocationError::Indirect);
        } else if extension.critical && extension.oid != INVALIDITY_DATE {
            return Err(RevocationError::UnknownExtension { oid: dotted(extension.oid) });
        }
    }
    Ok(reason)
}

pub(super) fn dotted(oid: &[u8]) -> String {
    Oid::new(oid.into()).to_id_string()
}
