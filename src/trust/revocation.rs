//! Who is revoked, and until when a list may be believed.
//!
//! A list is read once per load, while it comes from the file: its entries put into a compact sorted table, its signature
//! checked. A handshake costs one binary search per certificate of the path, whatever the size of the list. OpenSSL is
//! never handed a list: it would hash all of it in every handshake.

mod age;
mod awaited;
mod delta;
mod index;
mod read;
mod reason;
mod scope;
mod serials;
mod signature;
mod stream;

use std::io::BufRead;

use super::{TrustError, WhenStale};
use crate::UnixTime;
use crate::certificate::{Certificate, Serial, utc};
use scope::Scope;
use serials::SerialTable;

pub use age::ListAge;
pub use awaited::AwaitedList;
pub(super) use index::RevocationIndex;
pub use read::RevocationError;
pub use reason::RevocationReason;

/// One certificate revocation list (RFC 5280, section 5), its signature already checked.
#[derive(Debug)]
pub struct RevocationList {
    /// RFC 4514 text.
    issuer: String,
    issuer_key: Box<[u8]>,
    /// As it is encoded.
    issuer_raw: Box<[u8]>,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    /// cRLNumber, as the bytes of the integer.
    number: Option<Serial>,
    /// BaseCRLNumber: it says only what has changed since the list of that number.
    base: Option<Serial>,
    /// Lists of one issuer with different ones complement each other.
    scope: Scope,
    entries: SerialTable,
}

/// What a list says about a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationEntry {
    pub revoked_at: UnixTime,
    pub reason: RevocationReason,
}

impl RevocationList {
    /// The endings of files that are revocation lists.
    pub const ENDINGS: &'static [&'static str] = &["crl", "pem", "der"];

    /// Reads one list, PEM or DER. `issuers` is the bundle of the trust domain: a list by anyone else is refused.
    pub fn read(bytes: &[u8], issuers: &[Certificate], now: UnixTime) -> Result<Self, RevocationError> {
        let mut lists = Self::read_all(bytes, issuers, now)?;
        match (lists.pop(), lists.is_empty()) {
            (Some(list), true) => Ok(list),
            _ => Err(RevocationError::SeveralLists),
        }
    }

    /// Reads all lists of a file: PEM blocks, or one list as DER.
    pub fn read_all(
        bytes: &[u8],
        issuers: &[Certificate],
        now: UnixTime,
    ) -> Result<Vec<Self>, RevocationError> {
        read::read_all(bytes, issuers, now)
    }

    /// The same while the file is read: nothing is in memory but what becomes of it.
    pub fn read_from(
        source: impl BufRead,
        issuers: &[Certificate],
        now: UnixTime,
    ) -> Result<Vec<Self>, RevocationError> {
        read::read_all(source, issuers, now)
    }

    /// Whether `lists` may take the place of `previous`: not where one of them is older, or where nothing is said any more
    /// about what was spoken of.
    pub fn check_succession(lists: &[Self], previous: &[Self]) -> Result<(), TrustError> {
        for old in previous {
            let mut same =
                lists.iter().filter(|new| new.issuer_key == old.issuer_key && new.scope == old.scope);
            let Some(first) = same.next() else {
                return Err(TrustError::FellSilent { issuer: old.issuer.clone() });
            };
            let newest = same.fold(first, |newest, new| if new.is_newer_than(newest) { new } else { newest });
            if old.is_newer_than(newest) {
                return Err(TrustError::rolled_back(newest, old));
            }
        }
        Ok(())
    }

    /// Whether it has the name of `issuer`.
    pub fn is_by(&self, issuer: &Certificate) -> bool {
        *self.issuer_key == *issuer.subject().comparable()
    }

    /// RFC 4514 text.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Which of its issuer's certificates it speaks about; empty: all of them.
    pub fn scope(&self) -> String {
        self.scope.to_string()
    }

    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// When the issuer promised a newer list; `None`: it promised nothing, and the list does not grow stale.
    pub fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// cRLNumber.
    pub fn number(&self) -> Option<&Serial> {
        self.number.as_ref()
    }

    /// Whether it says only what has changed since another one.
    pub fn is_delta(&self) -> bool {
        self.base.is_some()
    }

    /// How many certificates are revoked.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&self, serial: &Serial) -> Option<RevocationEntry> {
        self.entries.find(serial)
    }

    /// Later in the issuer's sequence: by cRLNumber, or by thisUpdate when one of the two has none.
    fn is_newer_than(&self, other: &Self) -> bool {
        match (&self.number, &other.number) {
            (Some(ours), Some(theirs)) if ours != theirs => rank(ours) > rank(theirs),
            _ => self.this_update > other.this_update,
        }
    }

    /// Whether it speaks about everything that its issuer has issued.
    fn is_whole(&self) -> bool {
        self.scope == Scope::default()
    }

    /// Until when the list may be believed, that moment included.
    fn believed_until(&self, when_stale: WhenStale) -> Option<UnixTime> {
        let grace = match when_stale {
            WhenStale::Believe => return None,
            WhenStale::Refuse => 0,
            WhenStale::BelieveFor(grace) => UnixTime::try_from(grace.as_secs()).unwrap_or(UnixTime::MAX),
        };
        Some(self.next_update?.saturating_add(grace))
    }

    /// Since when the list should have been replaced, if it may not be believed any more.
    fn stale_since(&self, when_stale: WhenStale, now: UnixTime) -> Option<UnixTime> {
        self.believed_until(when_stale).filter(|until| now > *until).and(self.next_update)
    }
}

impl TrustError {
    fn rolled_back(found: &RevocationList, in_force: &RevocationList) -> Self {
        Self::RolledBack {
            issuer: found.issuer.clone(),
            found: number_text(found),
            in_force: number_text(in_force),
        }
    }

    fn gone(list: &RevocationList) -> Self {
        Self::Gone { issuer: list.issuer.clone(), in_force: number_text(list) }
    }
}

/// cRLNumber and thisUpdate, for a message.
fn number_text(list: &RevocationList) -> String {
    let number = list.number.as_ref().map_or_else(|| "none".to_owned(), |number| format!("0x{number}"));
    format!("{number} of {}", utc(list.this_update))
}

/// Numbers without leading zeros: the longer one is the greater one.
fn rank(number: &Serial) -> (usize, &[u8]) {
    (number.as_bytes().len(), number.as_bytes())
}
