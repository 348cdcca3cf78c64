//! Revocation lists (RFC 5280, section 5): read and checked once when they are loaded, then a compact index.
//!
//! The TLS library never sees a list: it would verify its signature again, over the whole list, at every handshake.

use std::collections::HashMap;

use openssl::x509::X509Crl;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::WhenStale;
use crate::UnixTime;
use crate::certificate::{Certificate, Serial, pem_blocks};

/// Why a file is no list that can be believed.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("it holds no revocation list (expected: PEM blocks of type X509 CRL, or DER)")]
    None,
    #[error("it is not a revocation list: {0}")]
    Malformed(String),
    #[error("its issuer `{0}` is no anchor of the trust domain")]
    UnknownIssuer(String),
    #[error("its signature is not one of its issuer `{0}`")]
    BadSignature(String),
    #[error("it is dated {0}, which is in the future")]
    FromTheFuture(String),
    #[error("it is a delta list; only complete lists are supported")]
    Delta,
    #[error(
        "it is an indirect list, or covers only some certificates (issuingDistributionPoint): not supported"
    )]
    Partial,
    #[error("it has the critical extension {0}, which is not understood")]
    Critical(String),
}

/// One list whose signature was verified.
pub struct RevocationList {
    issuer: Box<[u8]>,
    this_update: UnixTime,
    /// RFC 5280 demands one; a list without it is never stale.
    next_update: Option<UnixTime>,
    number: Vec<u8>,
    entries: Vec<(Serial, UnixTime)>,
}

/// Clocks differ a little.
const FUTURE_TOLERANCE: i64 = 300;

impl RevocationList {
    /// All lists of a file, PEM or DER. `issuers`: the certificates whose lists are believed.
    pub fn read_all(
        bytes: &[u8],
        issuers: &[Certificate],
        now: UnixTime,
    ) -> Result<Vec<Self>, RevocationError> {
        let blocks = if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
            pem_blocks(bytes, "X509 CRL").map_err(|error| RevocationError::Malformed(error.to_string()))?
        } else {
            vec![bytes.to_vec()]
        };
        if blocks.is_empty() {
            return Err(RevocationError::None);
        }
        blocks.iter().map(|der| Self::read(der, issuers, now)).collect()
    }

    fn read(der: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, RevocationError> {
        let (rest, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| RevocationError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RevocationError::Malformed("bytes follow the list, or it is truncated".into()));
        }
        let issuer = list.issuer().as_raw();
        verify_signature(der, issuer, &list.issuer().to_string(), issuers)?;
        check_extensions(&list)?;
        let this_update = list.last_update().timestamp();
        if this_update > now + FUTURE_TOLERANCE {
            return Err(RevocationError::FromTheFuture(super::rejection::date(this_update)));
        }
        Ok(Self {
            issuer: issuer.into(),
            this_update,
            next_update: list.next_update().map(|time| time.timestamp()),
            number: list.crl_number().map(x509_parser::num_bigint::BigUint::to_bytes_be).unwrap_or_default(),
            entries: list
                .iter_revoked_certificates()
                .map(|entry| (Serial::new(entry.raw_serial()), entry.revocation_date.timestamp()))
                .collect(),
        })
    }

    /// The higher cRLNumber is newer; where there is none, the later date.
    fn is_newer_than(&self, other: &Self) -> bool {
        let number = |list: &Self| (list.number.len(), list.number.clone());
        (number(self), self.this_update) > (number(other), other.this_update)
    }
}

/// Several authorities may have one name (a renewed key): any of them may have signed.
fn verify_signature(
    der: &[u8],
    issuer: &[u8],
    issuer_text: &str,
    issuers: &[Certificate],
) -> Result<(), RevocationError> {
    let malformed = |error: openssl::error::ErrorStack| RevocationError::Malformed(error.to_string());
    let crl = X509Crl::from_der(der).map_err(malformed)?;
    let mut known = false;
    for candidate in issuers.iter().filter(|candidate| candidate.subject().raw() == issuer) {
        known = true;
        let certificate = openssl::x509::X509::from_der(candidate.der()).map_err(malformed)?;
        let verified = certificate.public_key().and_then(|key| crl.verify(&key));
        if verified.unwrap_or(false) {
            return Ok(());
        }
    }
    let _ = openssl::error::ErrorStack::get();
    let issuer = issuer_text.to_owned();
    Err(if known { RevocationError::BadSignature(issuer) } else { RevocationError::UnknownIssuer(issuer) })
}

fn check_extensions(list: &CertificateRevocationList<'_>) -> Result<(), RevocationError> {
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::IssuingDistributionPoint(_) => return Err(RevocationError::Partial),
            _ if extension.oid.to_id_string() == "2.5.29.27" => return Err(RevocationError::Delta),
            ParsedExtension::CRLNumber(_) | ParsedExtension::AuthorityKeyIdentifier(_) => {}
            _ if extension.critical => return Err(RevocationError::Critical(extension.oid.to_id_string())),
            _ => {}
        }
    }
    Ok(())
}

/// What is known of one certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    Revoked {
        at: UnixTime,
    },
    /// The list that would tell is stale.
    Unknown {
        next_update: UnixTime,
    },
}

/// Serials by issuer; 12 to 40 bytes for each.
pub(super) struct RevocationIndex {
    issuers: HashMap<Box<[u8]>, IssuerIndex>,
    when_stale: WhenStale,
}

struct IssuerIndex {
    next_update: Option<UnixTime>,
    /// All serials, one after the other.
    bytes: Box<[u8]>,
    /// Sorted by serial.
    entries: Box<[Entry]>,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    len: u8,
    /// Seconds since 1970; good until 2106.
    at: u32,
}

impl RevocationIndex {
    /// Of several lists of one issuer the newest counts.
    pub(super) fn build(lists: Vec<RevocationList>, when_stale: WhenStale) -> Self {
        let mut newest: HashMap<Box<[u8]>, RevocationList> = HashMap::new();
        for list in lists {
            match newest.get(&list.issuer) {
                Some(known) if !list.is_newer_than(known) => {}
                _ => {
                    newest.insert(list.issuer.clone(), list);
                }
            }
        }
        let issuers = newest.into_iter().map(|(issuer, list)| (issuer, IssuerIndex::build(list))).collect();
        Self { issuers, when_stale }
    }

    pub(super) fn len(&self) -> usize {
        self.issuers.values().map(|issuer| issuer.entries.len()).sum()
    }

    /// `issuer`: DER of the name. Revoked stays revoked, however old the list is.
    pub(super) fn standing(&self, issuer: &[u8], serial: &Serial, now: UnixTime) -> Standing {
        let Some(index) = self.issuers.get(issuer) else { return Standing::Good };
        if let Some(at) = index.find(serial) {
            return Standing::Revoked { at };
        }
        match index.next_update {
            Some(next_update) if now > next_update && !self.believes(now - next_update) => {
                Standing::Unknown { next_update }
            }
            _ => Standing::Good,
        }
    }

    fn believes(&self, seconds_past: i64) -> bool {
        match self.when_stale {
            WhenStale::Refuse => false,
            WhenStale::Believe => true,
            WhenStale::BelieveFor(time) => seconds_past <= time.as_secs() as i64,
        }
    }
}

impl IssuerIndex {
    fn build(mut list: RevocationList) -> Self {
        list.entries.sort_unstable();
        list.entries.dedup_by(|a, b| a.0 == b.0);
        let mut bytes = Vec::new();
        let mut entries = Vec::with_capacity(list.entries.len());
        for (serial, at) in &list.entries {
            let serial = serial.as_bytes();
            entries.push(Entry {
                start: bytes.len() as u32,
                // RFC 5280 allows 20 octets; a longer one is cut, and can then match nothing.
                len: serial.len().min(255) as u8,
                at: (*at).clamp(0, i64::from(u32::MAX)) as u32,
            });
            bytes.extend_from_slice(&serial[..serial.len().min(255)]);
        }
        Self {
            next_update: list.next_update,
            bytes: bytes.into_boxed_slice(),
            entries: entries.into_boxed_slice(),
        }
    }

    fn serial(&self, entry: Entry) -> &[u8] {
        &self.bytes[entry.start as usize..][..entry.len.into()]
    }

    fn find(&self, serial: &Serial) -> Option<UnixTime> {
        let found = self.entries.binary_search_by(|entry| self.serial(*entry).cmp(serial.as_bytes()));
        found.ok().map(|index| self.entries[index].at.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn list(entries: Vec<(Serial, UnixTime)>, next_update: Option<UnixTime>) -> RevocationList {
        RevocationList {
            issuer: b"ca".as_slice().into(),
            this_update: 0,
            next_update,
            number: vec![1],
            entries,
        }
    }

    proptest! {
        #[test]
        fn the_index_answers_as_a_plain_map_would(
            entries in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..21), 0_i64..4_000_000_000), 0..60),
            asked in proptest::collection::vec(any::<u8>(), 1..21),
        ) {
            let entries: BTreeMap<Serial, UnixTime> =
                entries.into_iter().map(|(bytes, at)| (Serial::new(&bytes), at)).collect();
            let index = RevocationIndex::build(
                vec![list(entries.clone().into_iter().collect(), None)],
                WhenStale::Refuse,
            );
            let known = entries.keys().cloned().chain([Serial::new(&asked)]);
            for serial in known {
                let expected = entries.get(&serial).map_or(Standing::Good, |at| Standing::Revoked { at: *at });
                prop_assert_eq!(index.standing(b"ca", &serial, 0), expected);
                prop_assert_eq!(index.standing(b"other", &serial, 0), Standing::Good);
            }
        }
    }

    #[test]
    fn a_stale_list_is_worth_what_the_policy_says() {
        let serial = Serial::new(&[1]);
        let standing = |when_stale, now| {
            RevocationIndex::build(vec![list(vec![], Some(100))], when_stale).standing(b"ca", &serial, now)
        };
        let unknown = Standing::Unknown { next_update: 100 };
        assert_eq!(standing(WhenStale::Refuse, 100), Standing::Good);
        assert_eq!(standing(WhenStale::Refuse, 101), unknown);
        assert_eq!(standing(WhenStale::Believe, 1_000_000), Standing::Good);
        assert_eq!(standing(WhenStale::BelieveFor(Duration::from_secs(10)), 110), Standing::Good);
        assert_eq!(standing(WhenStale::BelieveFor(Duration::from_secs(10)), 111), unknown);
    }

    #[test]
    fn of_two_lists_the_one_with_the_higher_number_counts() {
        let revoked = Serial::new(&[9]);
        let older = list(vec![], None);
        let mut newer = list(vec![(revoked.clone(), 5)], None);
        newer.number = vec![1, 0];
        let mut again = list(vec![], None);
        again.number = older.number.clone();
        let index = RevocationIndex::build(vec![older, newer, again], WhenStale::Refuse);
        assert_eq!(index.standing(b"ca", &revoked, 0), Standing::Revoked { at: 5 });
    }
}
