//! Which certificates were seen: bounded, found by fingerprint, counted by anchor.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;
use openssl::sha::Sha256;

use super::entry::{Entries, Entry, Moment, PREFIX, Use, prefix};
use super::soonest::Soonest;
use super::tally::{Tally, Window};
use crate::UnixTime;
use crate::certificate::{Certificate, Fingerprint, SubjectAltName};
use crate::trust::{Anchor, ClientIdentity};

/// An anchor that vouched for somebody who was seen, in the trust domain that asked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Voucher {
    pub trust_domain: Arc<str>,
    pub anchor: Arc<Anchor>,
}

/// What is known of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub trust_domain: Arc<str>,
    pub anchor: Arc<Anchor>,
    /// `None`: after 2106.
    pub not_after: Option<UnixTime>,
    pub first_seen: UnixTime,
    pub last_seen: UnixTime,
    /// Another certificate of the same name has come since, and this one has not.
    pub is_superseded: bool,
    /// Kept only for those that expire next.
    pub subject: Option<Arc<str>>,
}

/// Both indices hold numbers of entries, which they compare by; so an identity costs forty bytes and two places in a
/// table.
#[derive(Default)]
pub(super) struct Ledger {
    entries: Entries,
    by_fingerprint: HashTable<u32>,
    /// The certificate of each name that came last for the first time.
    by_name: HashTable<u32>,
    hasher: RandomState,
    vouchers: Vec<Voucher>,
    voucher_numbers: AHashMap<Fingerprint, Vec<u16>>,
    soonest: Soonest,
    /// Went because there were too many.
    evicted: u64,
    /// Nobody goes, and no entry changes its place.
    is_frozen: bool,
}

/// One in so many goes when there are too many, lest each one that comes costs a look at all of them.
const EVICTED_AT_ONCE: usize = 64;

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Tables that grow leave the smaller ones behind, until somebody else needs the memory.
    pub(super) fn reserve(&mut self, entries: usize) {
        let Self { entries: known, hasher, by_fingerprint, by_name, .. } = self;
        by_fingerprint.reserve(entries, |number| hasher.hash_one(known.at(*number).fingerprint));
        by_name.reserve(entries, |number| hasher.hash_one(known.at(*number).name));
    }

    pub(super) fn set_frozen(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    pub(super) fn vouchers(&self) -> &[Voucher] {
        &self.vouchers
    }

    pub(super) fn soonest(&self) -> &Soonest {
        &self.soonest
    }

    pub(super) fn block(&self, number: usize) -> Option<&[Entry]> {
        self.entries.block(number)
    }

    /// Notes that the client was there at `now`.
    pub(super) fn saw(&mut self, identity: &ClientIdentity, most: usize, now: UnixTime) {
        let certificate = identity.certificate();
        let fingerprint = certificate.fingerprint();
        let Some(anchor) = self.voucher(identity.trust_domain(), identity.anchor()) else { return };
        let now = Moment::new(now);
        let seen = Entry {
            fingerprint: prefix(fingerprint),
            name: 0,
            not_after: Moment::new(certificate.not_after()),
            first_seen: now,
            last_seen: now,
            anchor,
            standing: Use::InUse,
        };
        self.note(seen, most, || name(identity.trust_domain(), certificate));
        let number = self.number(&seen.fingerprint);
        if number.is_some_and(|number| self.entries.at(number).standing == Use::InUse) {
            self.soonest.note(seen.not_after, fingerprint, now, || certificate.subject().to_string());
        }
    }

    /// `name` is asked for only where the certificate is not known yet.
    fn note(&mut self, seen: Entry, most: usize, name: impl FnOnce() -> u64) {
        match self.number(&seen.fingerprint) {
            Some(number) => self.seen_again(number, &seen),
            None => self.add(Entry { name: name(), ..seen }, most),
        }
    }

    fn seen_again(&mut self, number: u32, seen: &Entry) {
        let entry = self.entries.at_mut(number);
        entry.first_seen = entry.first_seen.min(seen.first_seen);
        if seen.last_seen >= entry.last_seen {
            (entry.last_seen, entry.anchor) = (seen.last_seen, seen.anchor);
        }
        let standing = self.standing(number);
        self.entries.at_mut(number).standing = standing;
    }

    /// Superseded is a certificate that was not seen any more after another one of its name had come for the first time. Not
    /// the dates in it decide: a renewal may be for a shorter time.
    fn standing(&self, number: u32) -> Use {
        let entry = self.entries.at(number);
        let hash = self.hasher.hash_one(entry.name);
        let latest = self.by_name.find(hash, |other| self.entries.at(*other).name == entry.name);
        let is_over =
            |latest: &Entry| latest.fingerprint != entry.fingerprint && latest.first_seen >= entry.last_seen;
        if latest.is_some_and(|latest| is_over(self.entries.at(*latest))) {
            Use::Superseded
        } else {
            Use::InUse
        }
    }

    /// The number of an anchor. `None`: there are more of them than anybody has.
    pub(super) fn voucher(&mut self, trust_domain: &Arc<str>, anchor: &Arc<Anchor>) -> Option<u16> {
        let numbers = self.voucher_numbers.entry(anchor.fingerprint).or_default();
        let known =
            numbers.iter().find(|number| self.vouchers[usize::from(**number)].trust_domain == *trust_domain);
        if let Some(known) = known {
            return Some(*known);
        }
        let number = u16::try_from(self.vouchers.len()).ok()?;
        numbers.push(number);
        self.vouchers.push(Voucher { trust_domain: trust_domain.clone(), anchor: anchor.clone() });
        Some(number)
    }

    /// One that is not there yet, or another sighting of one that is.
    pub(super) fn add(&mut self, entry: Entry, most: usize) {
        if most == 0 {
            return;
        }
        if let Some(number) = self.number(&entry.fingerprint) {
            self.seen_again(number, &entry);
            return;
        }
        if self.entries.len() >= most {
            if self.is_frozen {
                // It will come again.
                self.evicted += 1;
                return;
            }
            self.evict(most);
        }
        let number = self.entries.push(entry);
        let Self { entries, hasher, .. } = self;
        let hash = |number: &u32| hasher.hash_one(entries.at(*number).fingerprint);
        self.by_fingerprint.insert_unique(hash(&number), number, hash);
        self.file_name(number);
    }

    /// Files it under its name, and finds out which certificate of the name is superseded by it, or whether it is itself.
    fn file_name(&mut self, number: u32) {
        let Self { entries, hasher, by_name, .. } = self;
        let added = entries.at(number);
        let hash = hasher.hash_one(added.name);
        let Some(latest) = by_name.find_mut(hash, |other| entries.at(*other).name == added.name) else {
            by_name.insert_unique(hash, number, |number| hasher.hash_one(entries.at(*number).name));
            return;
        };
        let is_later = entries.at(*latest).first_seen <= added.first_seen;
        let earlier = if is_later { std::mem::replace(latest, number) } else { number };
        if self.standing(earlier) == Use::Superseded {
            let entry = self.entries.at_mut(earlier);
            entry.standing = Use::Superseded;
            self.soonest.forget(entry.not_after, &entry.fingerprint);
        }
    }

    fn number(&self, fingerprint: &[u8; PREFIX]) -> Option<u32> {
        let hash = self.hasher.hash_one(fingerprint);
        self.by_fingerprint.find(hash, |number| self.entries.at(*number).fingerprint == *fingerprint).copied()
    }

    pub(super) fn find(&self, fingerprint: &Fingerprint) -> Option<Seen> {
        let entry = self.entries.at(self.number(&prefix(fingerprint))?);
        let voucher = self.vouchers.get(usize::from(entry.anchor))?;
        Some(Seen {
            trust_domain: voucher.trust_domain.clone(),
            anchor: voucher.anchor.clone(),
            not_after: entry.not_after.time(),
            first_seen: entry.first_seen.0.into(),
            last_seen: entry.last_seen.0.into(),
            is_superseded: entry.standing == Use::Superseded,
            subject: self.soonest.find(entry).map(|(_, subject)| subject),
        })
    }

    /// Forgets who was not seen since.
    pub(super) fn forget_before(&mut self, since: UnixTime) {
        let since = Moment::new(since);
        self.remove(|entry| entry.last_seen < since);
    }

    /// Makes room: those not seen for the longest time go first.
    fn evict(&mut self, most: usize) {
        let before = self.entries.len();
        let leave = most - (most / EVICTED_AT_ONCE).max(1).min(most);
        let goes = before - leave;
        let mut seen: Vec<Moment> = self.entries.iter().map(|entry| entry.last_seen).collect();
        let (_, newest_of_them, _) = seen.select_nth_unstable(goes - 1);
        // Many may have come in the same second: no more of them go than must.
        let last = *newest_of_them;
        let earlier = self.entries.iter().filter(|entry| entry.last_seen < last).count();
        let mut of_that_second = goes - earlier;
        self.remove(|entry| {
            let is_one = entry.last_seen == last && of_that_second > 0;
            of_that_second -= usize::from(is_one);
            is_one || entry.last_seen < last
        });
        self.evicted += (before - self.entries.len()) as u64;
    }

    fn remove(&mut self, mut goes: impl FnMut(&Entry) -> bool) {
        // From the end: what takes the place of one that goes has been looked at.
        for number in (0..self.entries.len() as u32).rev() {
            if goes(self.entries.at(number)) {
                self.remove_one(number);
            }
        }
    }

    fn remove_one(&mut self, number: u32) {
        let entry = *self.entries.at(number);
        let last = self.entries.len() as u32 - 1;
        let moved = *self.entries.at(last);
        let hashes =
            |entry: &Entry| (self.hasher.hash_one(entry.fingerprint), self.hasher.hash_one(entry.name));
        let (by_fingerprint, by_name) = hashes(&entry);
        let (moved_by_fingerprint, moved_by_name) = hashes(&moved);
        for (index, hash, hash_of_moved) in [
            (&mut self.by_fingerprint, by_fingerprint, moved_by_fingerprint),
            (&mut self.by_name, by_name, moved_by_name),
        ] {
            if let Ok(found) = index.find_entry(hash, |found| *found == number) {
                found.remove();
            }
            if let Some(found) = index.find_mut(hash_of_moved, |found| *found == last) {
                *found = number;
            }
        }
        self.soonest.forget(entry.not_after, &entry.fingerprint);
        self.entries.swap_remove(number);
    }

    /// What is to be told of all who were seen within the window.
    pub(super) fn tally(&self, window: Window) -> Tally {
        let mut tally = Tally::new(window, self.vouchers.len());
        self.entries.iter().for_each(|entry| tally.add(entry));
        tally
    }

    /// Everything that another process, or this one before it was restarted, had seen. The smaller one is put into the
    /// larger one: a million certificates are not held twice.
    pub(super) fn unite(&mut self, mut other: Self, most: usize) {
        if other.len() > self.len() {
            std::mem::swap(self, &mut other);
            self.evicted += other.evicted;
            self.is_frozen = other.is_frozen;
        }
        self.merge(&other, most);
    }

    fn merge(&mut self, other: &Self, most: usize) {
        for entry in other.entries.iter() {
            let Some(voucher) = other.vouchers.get(usize::from(entry.anchor)) else { continue };
            let Some(anchor) = self.voucher(&voucher.trust_domain, &voucher.anchor) else { continue };
            self.add(Entry { anchor, ..*entry }, most);
        }
        self.soonest.merge(&other.soonest);
    }

    pub(super) fn restore_subject(&mut self, not_after: Moment, fingerprint: &Fingerprint, subject: &str) {
        self.soonest.note(not_after, fingerprint, Moment(0), || subject.to_owned());
    }
}

/// Stays the same when a certificate is renewed: the trust domain, and every name in the certificate. The file keeps it,
/// so it must not depend on this process.
fn name(trust_domain: &str, certificate: &Certificate) -> u64 {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u32).to_be_bytes());
        digest.update(bytes);
    };
    part(trust_domain.as_bytes());
    part(certificate.subject().raw());
    for name in certificate.subject_alternative_names() {
        match name {
            SubjectAltName::Dns(name) | SubjectAltName::Email(name) | SubjectAltName::Uri(name) => {
                part(name.as_bytes());
            }
            SubjectAltName::Ip(address) => part(address.to_string().as_bytes()),
            SubjectAltName::Other => part(b""),
        }
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finish()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests;
