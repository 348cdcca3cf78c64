//! Who is revoked, and until when a list may be believed.
//!
//! A list is read once per load: its signature checked, its entries put into a compact sorted table. A handshake costs
//! one binary search per certificate of the path, whatever the size of the list. OpenSSL is never handed a list: it
//! would hash all of it in every handshake.

mod read;
mod reason;
mod serials;
mod signature;

use ahash::AHashMap;

use super::{Finding, RejectionReason, TrustError, WhenStale};
use crate::UnixTime;
use crate::certificate::{Certificate, Name, Serial, utc};
use serials::SerialTable;

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
    covers: Covers,
    /// The issuing distribution point: lists of one issuer with different ones complement each other.
    scope: Box<[u8]>,
    entries: SerialTable,
}

/// Which certificates of its issuer a list speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covers {
    All,
    Clients,
    Authorities,
}

/// What a list says about a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevocationEntry {
    pub revoked_at: UnixTime,
    pub reason: RevocationReason,
}

impl RevocationList {
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

    /// RFC 4514 text.
    pub fn issuer(&self) -> &str {
        &self.issuer
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

    fn speaks_about(&self, certificate: &Certificate) -> bool {
        match self.covers {
            Covers::All => true,
            Covers::Clients => !certificate.is_ca(),
            Covers::Authorities => certificate.is_ca(),
        }
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

/// Numbers without leading zeros: the longer one is the greater one.
fn rank(number: &Serial) -> (usize, &[u8]) {
    (number.as_bytes().len(), number.as_bytes())
}

/// The lists of a trust domain by issuer.
#[derive(Debug, Default)]
pub(super) struct RevocationIndex {
    by_issuer: AHashMap<Box<[u8]>, Vec<RevocationList>>,
    /// From the issuer's name as the list has it to its key in `by_issuer`: certificates nearly always have it in the
    /// same bytes, and then it need not be brought into a form that can be compared.
    keys: AHashMap<Box<[u8]>, Box<[u8]>>,
}

impl RevocationIndex {
    /// Of several lists for the same issuer and scope the newest one counts.
    pub(super) fn build(lists: Vec<RevocationList>) -> Self {
        let mut index = Self::default();
        for list in lists {
            index.keys.insert(list.issuer_raw.clone(), list.issuer_key.clone());
            let lists = index.by_issuer.entry(list.issuer_key.clone()).or_default();
            match lists.iter_mut().find(|other| other.scope == list.scope) {
                None => lists.push(list),
                Some(other) if list.is_newer_than(other) => *other = list,
                Some(_) => {}
            }
        }
        index
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_issuer.is_empty()
    }

    /// When a list ceases to be believed.
    pub(super) fn changes(&self, when_stale: WhenStale) -> impl Iterator<Item = UnixTime> {
        let until = self.lists().filter_map(move |list| list.believed_until(when_stale));
        until.map(|until| until.saturating_add(1))
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = &RevocationList> {
        self.by_issuer.values().flatten()
    }

    /// Whether there is a list by `issuer`.
    pub(super) fn covers(&self, issuer: &Certificate) -> bool {
        self.by_issuer.contains_key(&issuer.subject().comparable())
    }

    fn lists_by(&self, issuer: &Name) -> Option<&Vec<RevocationList>> {
        match self.keys.get(issuer.raw()) {
            Some(key) => self.by_issuer.get(key),
            None => self.by_issuer.get(&issuer.comparable()),
        }
    }

    /// Whether any list names `certificate`: cheaper than [`check`](Self::check), and no verdict.
    pub(super) fn names(&self, certificate: &Certificate) -> bool {
        let lists = self.lists_by(certificate.issuer());
        lists.is_some_and(|lists| lists.iter().any(|list| list.find(certificate.serial()).is_some()))
    }

    /// A certificate that any list names is revoked, also when that list is stale. One whose issuer has published no
    /// list is not judged.
    pub(super) fn check(
        &self,
        certificate: &Certificate,
        what: &dyn Fn() -> String,
        when_stale: WhenStale,
        now: UnixTime,
    ) -> Result<(), Finding> {
        let Some(lists) = self.lists_by(certificate.issuer()) else { return Ok(()) };
        if let Some(entry) = lists.iter().find_map(|list| list.find(certificate.serial())) {
            let detail = format!("{} was revoked on {} ({})", what(), utc(entry.revoked_at), entry.reason);
            return Err((RejectionReason::Revoked, detail));
        }
        let about = lists.iter().filter(|list| list.speaks_about(certificate));
        let mut stale = about.filter_map(|list| Some((list, list.stale_since(when_stale, now)?)));
        match stale.next() {
            None => Ok(()),
            Some((list, since)) => {
                let detail = format!(
                    "whether {} is revoked is unknown: the revocation list of `{}` should have been replaced by {}",
                    what(),
                    list.issuer,
                    utc(since)
                );
                Err((RejectionReason::RevocationUnknown, detail))
            }
        }
    }

    pub(super) fn check_succession(&self, previous: &Self) -> Result<(), TrustError> {
        for (issuer, lists) in &self.by_issuer {
            let Some(old) = previous.by_issuer.get(issuer) else { continue };
            for list in lists {
                let in_force = old.iter().find(|other| other.scope == list.scope);
                if let Some(in_force) = in_force.filter(|in_force| in_force.is_newer_than(list)) {
                    return Err(TrustError::RolledBack {
                        issuer: list.issuer.clone(),
                        found: number_text(list),
                        in_force: number_text(in_force),
                    });
                }
            }
        }
        Ok(())
    }
}

fn number_text(list: &RevocationList) -> String {
    let number = list.number.as_ref().map_or_else(|| "none".to_owned(), |number| format!("0x{number}"));
    format!("{number} of {}", utc(list.this_update))
}
