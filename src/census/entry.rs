//! One certificate that was seen, in forty bytes, and the place where a million of them lie.

use crate::UnixTime;
use crate::certificate::Fingerprint;

/// As many bytes of a fingerprint as are kept: enough that no two certificates of a million are taken for one.
pub(super) const PREFIX: usize = 16;

/// A certificate that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub fingerprint: [u8; PREFIX],
    /// Of the client: two certificates of one name are those of one client, the one that came later a renewal.
    pub name: u64,
    pub not_after: Moment,
    pub first_seen: Moment,
    pub last_seen: Moment,
    /// Number of the anchor that vouched last.
    pub anchor: u16,
    pub standing: Use,
}

/// Whether a client still needs its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    InUse,
    /// Another certificate of the same name has come since, and this one has not.
    Superseded,
}

/// Seconds since 1970, until 2106; what is later is 2106.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Moment(pub u32);

impl Moment {
    pub(super) fn new(time: UnixTime) -> Self {
        Self(u32::try_from(time.max(0)).unwrap_or(u32::MAX))
    }

    /// `None`: later than can be told.
    pub(super) fn time(self) -> Option<UnixTime> {
        (self.0 < u32::MAX).then_some(self.0.into())
    }
}

pub(super) fn prefix(fingerprint: &Fingerprint) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix.copy_from_slice(&fingerprint.0[..PREFIX]);
    prefix
}

/// Entries by number, from 0. Grows by blocks: nothing is copied, and no more than one block is empty.
#[derive(Default)]
pub(super) struct Entries(Vec<Vec<Entry>>);

const BLOCK: usize = 16 * 1024;

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * BLOCK + last.len())
    }

    /// Its number.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let number = self.len() as u32;
        match self.0.last_mut() {
            Some(last) if last.len() < BLOCK => last.push(entry),
            _ => {
                let mut block = Vec::with_capacity(BLOCK);
                block.push(entry);
                self.0.push(block);
            }
        }
        number
    }

    /// The last entry takes the place of the one that is removed.
    pub(super) fn swap_remove(&mut self, number: u32) {
        let Some(last) = self.0.last_mut().and_then(Vec::pop) else { return };
        if self.0.last().is_some_and(Vec::is_empty) {
            self.0.pop();
        }
        if (number as usize) < self.len() {
            *self.at_mut(number) = last;
        }
    }

    pub(super) fn at(&self, number: u32) -> &Entry {
        &self.0[number as usize / BLOCK][number as usize % BLOCK]
    }

    pub(super) fn at_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.0[number as usize / BLOCK][number as usize % BLOCK]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flatten()
    }

    /// Some in a row, to be written without holding everybody up for all.
    pub(super) fn block(&self, number: usize) -> Option<&[Entry]> {
        self.0.get(number).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> Entry {
        Entry {
            fingerprint: [0; PREFIX],
            name: u64::from(number),
            not_after: Moment(0),
            first_seen: Moment(0),
            last_seen: Moment(0),
            anchor: 0,
            standing: Use::InUse,
        }
    }

    #[test]
    fn forty_bytes_each() {
        assert_eq!(size_of::<Entry>(), 40);
    }

    #[test]
    fn moments_reach_until_2106() {
        assert_eq!(Moment::new(-5), Moment(0));
        assert_eq!(Moment::new(1_800_000_000).time(), Some(1_800_000_000));
        assert_eq!(Moment::new(253_402_300_799).time(), None);
    }

    #[test]
    fn the_last_one_takes_the_place_of_one_that_is_removed() {
        let mut entries = Entries::default();
        let count = BLOCK as u32 + 2;
        for number in 0..count {
            assert_eq!(entries.push(entry(number)), number);
        }
        entries.swap_remove(5);
        assert_eq!((entries.len(), entries.at(5).name), (count as usize - 1, u64::from(count) - 1));
        entries.swap_remove(count - 2);
        entries.swap_remove(0);
        assert_eq!((entries.len(), entries.at(0).name), (BLOCK - 1, BLOCK as u64 - 1));
        assert_eq!(entries.push(entry(9)), BLOCK as u32 - 1);
        let all: Vec<_> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(all.len(), entries.len());
        while entries.len() > 0 {
            entries.swap_remove(0);
        }
        assert_eq!(entries.iter().count(), 0);
    }
}
