//! The names of the clients whose certificates expire next. For the others a name would take more memory than all the
//! rest that is known of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::{Entry, Moment, PREFIX};
use crate::certificate::Fingerprint;

/// Many more than are ever shown: those that are renewed leave room for others, whose names nobody would know.
const MOST: usize = 10_000;

/// Of a subject, in bytes.
const LONGEST: usize = 128;

#[derive(Default)]
pub(super) struct Soonest(BTreeMap<(Moment, Fingerprint), Arc<str>>);

impl Soonest {
    /// Notes a certificate if it is among those that expire next.
    pub(super) fn note(
        &mut self,
        not_after: Moment,
        fingerprint: &Fingerprint,
        now: Moment,
        subject: impl FnOnce() -> String,
    ) {
        let key = (not_after, *fingerprint);
        if not_after < now || self.0.contains_key(&key) {
            return;
        }
        if self.0.len() >= MOST {
            // Those that expired are no news.
            while self.0.first_key_value().is_some_and(|((not_after, _), _)| *not_after < now) {
                self.0.pop_first();
            }
        }
        if self.0.len() >= MOST {
            if self.0.last_key_value().is_some_and(|(last, _)| *last <= key) {
                return;
            }
            self.0.pop_last();
        }
        self.0.insert(key, shortened(subject()).into());
    }

    pub(super) fn forget(&mut self, not_after: Moment, fingerprint: &[u8; PREFIX]) {
        if let Some((key, _)) = self.get(not_after, fingerprint) {
            let key = *key;
            self.0.remove(&key);
        }
    }

    pub(super) fn find(&self, entry: &Entry) -> Option<(Fingerprint, Arc<str>)> {
        let (key, subject) = self.get(entry.not_after, &entry.fingerprint)?;
        Some((key.1, subject.clone()))
    }

    fn get(&self, not_after: Moment, prefix: &[u8; PREFIX]) -> Option<(&(Moment, Fingerprint), &Arc<str>)> {
        let (mut first, mut last) = ([0; 32], [0xff; 32]);
        first[..PREFIX].copy_from_slice(prefix);
        last[..PREFIX].copy_from_slice(prefix);
        self.0.range((not_after, Fingerprint(first))..=(not_after, Fingerprint(last))).next()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for ((not_after, fingerprint), subject) in &other.0 {
            self.note(*not_after, fingerprint, Moment(0), || subject.to_string());
        }
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (Moment, &Fingerprint, &Arc<str>)> {
        self.0.iter().map(|((not_after, fingerprint), subject)| (*not_after, fingerprint, subject))
    }
}

fn shortened(mut subject: String) -> String {
    if subject.len() > LONGEST {
        let end = (0..=LONGEST - '…'.len_utf8()).rev().find(|&at| subject.is_char_boundary(at));
        subject.truncate(end.unwrap_or(0));
        subject.push('…');
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(number: usize) -> Fingerprint {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Fingerprint(bytes)
    }

    #[test]
    fn those_that_expire_later_make_room_and_those_that_expired_first_of_all() {
        let mut soonest = Soonest::default();
        let mut note = |number: usize, not_after: u32, now: u32| {
            soonest.note(Moment(not_after), &fingerprint(number), Moment(now), || format!("CN={number}"));
            soonest.iter().map(|(not_after, ..)| not_after.0).collect::<Vec<_>>()
        };
        for number in 0..MOST {
            note(number, 1000 + number as u32, 500);
        }
        assert_eq!(note(MOST, 20_000, 500).last(), Some(&10_999), "later than all of them");
        assert_eq!(note(MOST, 999, 500).last(), Some(&10_998));
        let left = note(MOST + 1, 20_000, 1100);
        assert_eq!((left.first(), left.last()), (Some(&1100), Some(&20_000)));
        assert_eq!(note(MOST + 2, 1099, 1100), left, "expired already");
    }

    #[test]
    fn a_name_is_found_by_the_beginning_of_the_fingerprint_and_is_never_long() {
        let mut soonest = Soonest::default();
        soonest.note(Moment(5), &fingerprint(1), Moment(0), || "ä".repeat(500));
        let prefix = super::super::entry::prefix(&fingerprint(1));
        let (_, subject) = soonest.get(Moment(5), &prefix).unwrap();
        assert!(subject.len() <= LONGEST && subject.ends_with('…'));
        assert!(soonest.get(Moment(6), &prefix).is_none());
        soonest.forget(Moment(5), &prefix);
        assert_eq!(soonest.iter().len(), 0);
    }
}
