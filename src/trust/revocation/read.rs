//! Reads a revocation list: PEM or DER, complete or delta, direct, signed by a certificate of the bundle.

use std::io::{self, BufRead, Read};

use x509_parser::asn1_rs::Oid;

use super::scope::Scope;
use super::serials::{Room, SerialTable, SerialTableBuilder};
use super::signature::Signed;
use super::stream::{End, Fault, Stream};
use super::{RevocationEntry, RevocationList, RevocationReason};
use crate::UnixTime;
use crate::certificate::der::{self, NotDer, Reader};
use crate::certificate::{Certificate, Name, PemError, PemReader, Serial, utc};

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
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("there is no memory for its entries")]
    NoMemory,
    #[error("it is a delta list without a cRLNumber, so nobody can tell what it follows")]
    UnnumberedDelta,
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

/// Reads all lists of a file while it comes, so that a list of any length takes no more memory than its table.
pub(super) fn read_all(
    mut source: impl BufRead,
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<Vec<RevocationList>, RevocationError> {
    let mut first = Vec::new();
    source.by_ref().take(2).read_to_end(&mut first).map_err(unreadable)?;
    // DER starts with a SEQUENCE; no text does with this byte followed by a long length.
    let is_der = matches!(*first, [der::SEQUENCE, 0x80..=0xff]);
    let source = io::Cursor::new(first).chain(source);
    if is_der {
        return read(source, issuers, now).map(|list| vec![list]);
    }
    let mut blocks = PemReader::new(source, "X509 CRL");
    let mut lists: Vec<Result<RevocationList, RevocationError>> = Vec::new();
    while blocks.next_block().map_err(unreadable)? {
        lists.push(read(&mut blocks, issuers, now));
        if matches!(lists.last(), Some(Err(RevocationError::Pem(_) | RevocationError::Unreadable(_)))) {
            break;
        }
    }
    match lists.len() {
        0 => Err(RevocationError::NoList),
        1 => lists.into_iter().collect(),
        _ => lists
            .into_iter()
            .enumerate()
            .map(|(index, list)| list.map_err(|error| in_list(index, error)))
            .collect(),
    }
}

fn in_list(index: usize, reason: RevocationError) -> RevocationError {
    match reason {
        // It says itself which block it is.
        RevocationError::Pem(_) | RevocationError::Unreadable(_) => reason,
        reason => RevocationError::InList { number: index + 1, reason: Box::new(reason) },
    }
}

fn unreadable(error: io::Error) -> RevocationError {
    match error.downcast::<PemError>() {
        Ok(error) => RevocationError::Pem(error),
        Err(error) => RevocationError::Unreadable(error.to_string()),
    }
}

/// What a fault means in the part of a list that is called `what`.
fn malformed(what: &'static str) -> impl Fn(Fault) -> RevocationError {
    move |fault| match fault {
        Fault::NotDer => RevocationError::Malformed(what),
        Fault::Unreadable(error) => unreadable(error),
    }
}

fn read(
    source: impl Read,
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<RevocationList, RevocationError> {
    let mut stream = Stream::new(source);
    let whole = stream.enter(der::SEQUENCE).map_err(malformed("structure"))?;
    stream.begin_signed();
    let body = stream.enter(der::SEQUENCE).map_err(malformed("structure"))?;
    let head = Head::read(&mut stream, body)?;
    // Whose list it is decides whether its entries are looked at; whether it says so rightly turns out at its end.
    stream.signed().expect(&head.algorithm, &head.issuer, issuers)?;
    let entries = match stream.next_tag(body).map_err(malformed("list of entries"))? {
        Some(der::SEQUENCE) => entries(&mut stream)?,
        _ => SerialTable::default(),
    };
    let extensions = match stream.next_tag(body).map_err(malformed("extensions"))? {
        Some(_) => stream.expect(der::explicit(0)).map_err(malformed("extensions"))?.content.to_vec(),
        None => Vec::new(),
    };
    if !stream.is_at(body) {
        return Err(RevocationError::Malformed("end"));
    }
    let signed = stream.end_signed();
    check_signature(stream, whole, signed, &head.algorithm)?;
    let extensions = ListExtensions::read(Reader::new(&extensions))?;
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
        base: extensions.base,
        scope: extensions.scope,
        entries,
    })
}

/// What stands behind the signed part: its signature, and nothing else.
fn check_signature(
    mut stream: Stream<impl Read>,
    whole: End,
    signed: Signed,
    expected: &[u8],
) -> Result<(), RevocationError> {
    let algorithm = stream.expect(der::SEQUENCE).map_err(malformed("signature algorithm"))?.content.to_vec();
    if algorithm != expected {
        return Err(RevocationError::Malformed("signature algorithm"));
    }
    let signature = stream.expect(der::BIT_STRING).map_err(malformed("signature"))?.content.to_vec();
    if !stream.is_at(whole) {
        return Err(RevocationError::Malformed("structure"));
    }
    stream.finish().map_err(malformed("end"))?;
    // The first byte counts unused bits; a signature has none.
    let signature = signature.strip_prefix(&[0]).ok_or(RevocationError::Malformed("signature"))?;
    signed.check(&algorithm, signature)
}

/// TBSCertList up to its entries.
struct Head {
    algorithm: Vec<u8>,
    issuer: Name,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
}

impl Head {
    fn read(stream: &mut Stream<impl Read>, body: End) -> Result<Self, RevocationError> {
        if stream.next_tag(body).map_err(malformed("version"))? == Some(der::INTEGER) {
            stream.any().map_err(malformed("version"))?;
        }
        let algorithm =
            stream.expect(der::SEQUENCE).map_err(malformed("signature algorithm"))?.content.to_vec();
        let issuer = stream.expect(der::SEQUENCE).map_err(malformed("issuer"))?.raw;
        let issuer =
            Name::from_der(issuer).and_then(Result::ok).ok_or(RevocationError::Malformed("issuer"))?;
        let this_update = time(stream).map_err(malformed("thisUpdate"))?;
        let next_update = match stream.next_tag(body).map_err(malformed("nextUpdate"))? {
            Some(der::UTC_TIME | der::GENERALIZED_TIME) => {
                Some(time(stream).map_err(malformed("nextUpdate"))?)
            }
            _ => None,
        };
        Ok(Self { algorithm, issuer, this_update, next_update })
    }
}

fn time(stream: &mut Stream<impl Read>) -> Result<UnixTime, Fault> {
    Ok(Reader::new(stream.any()?.raw).time()?)
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
    /// BaseCRLNumber: it is a delta list.
    base: Option<Serial>,
    scope: Scope,
}

impl ListExtensions {
    fn read(mut outer: Reader<'_>) -> Result<Self, RevocationError> {
        let malformed = |_: NotDer| RevocationError::Malformed("extensions");
        let mut read = Self { number: None, base: None, scope: Scope::default() };
        if outer.is_empty() {
            return Ok(read);
        }
        let mut extensions = Reader::new(outer.expect(der::SEQUENCE).map_err(malformed)?.content);
        outer.finish().map_err(malformed)?;
        while !extensions.is_empty() {
            let extension = Extension::read(&mut extensions).map_err(malformed)?;
            read.take(&extension)?;
        }
        if read.base.is_some() && read.number.is_none() {
            return Err(RevocationError::UnnumberedDelta);
        }
        Ok(read)
    }

    fn take(&mut self, extension: &Extension<'_>) -> Result<(), RevocationError> {
        if extension.oid == DELTA_CRL_INDICATOR {
            self.base = Some(number(extension.value).ok_or(RevocationError::Malformed("deltaCRLIndicator"))?);
            return Ok(());
        }
        if extension.oid == CRL_NUMBER {
            self.number = Some(number(extension.value).ok_or(RevocationError::Malformed("cRLNumber"))?);
            return Ok(());
        }
        if extension.oid == ISSUING_DISTRIBUTION_POINT {
            self.scope = Scope::read(extension.value)?;
            return Ok(());
        }
        if extension.critical && extension.oid != AUTHORITY_KEY_IDENTIFIER {
            return Err(RevocationError::UnknownExtension { oid: dotted(extension.oid) });
        }
        Ok(())
    }
}

fn number(value: &[u8]) -> Option<Serial> {
    let mut value = Reader::new(value);
    let number = value.expect(der::INTEGER).ok()?;
    value.finish().ok()?;
    Serial::from_be_bytes(number.content)
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

fn entries(stream: &mut Stream<impl Read>) -> Result<SerialTable, RevocationError> {
    let end = stream.enter(der::SEQUENCE).map_err(malformed("list of entries"))?;
    let mut table = SerialTableBuilder::new(Room::Encoded(stream.remaining(end)));
    while !stream.is_at(end) {
        if stream.remaining(end) == 0 {
            return Err(RevocationError::Malformed("list of entries"));
        }
        let entry = stream.expect(der::SEQUENCE).map_err(malformed("list of entries"))?;
        let mut fields = Reader::new(entry.content);
        let (serial, revoked_at) =
            serial_and_date(&mut fields).map_err(|_| RevocationError::Malformed("entry"))?;
        let reason = entry_reason(fields)?;
        table.push(serial, RevocationEntry { revoked_at, reason }).map_err(|_| RevocationError::NoMemory)?;
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
