//! Chains that were believed before, so that a client that comes again costs no signature.
//!
//! The key is every byte the client presented, never a digest of them. A verdict depends on these bytes, on the trust
//! set (each has a memory of its own) and on the time: on what is valid or stale at that moment. It is remembered for
//! the stretch of time in which none of that changes, so that nobody can tell whether it was.

use std::sync::Arc;

use ahash::RandomState;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use super::ClientIdentity;
use super::path::Shown;
use crate::UnixTime;

/// Bytes of chains and identities that one trust set remembers: about ten thousand clients.
const CAPACITY: u64 = 32 * 1024 * 1024;

/// Of one identity, besides what grows with its chain.
const IDENTITY: u64 = 1024;

/// From the first moment at which a verdict holds to the first at which it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    from: UnixTime,
    until: UnixTime,
}

impl Stretch {
    /// Between those of `changes` that are next to `now`.
    pub(super) fn around(now: UnixTime, changes: impl Iterator<Item = UnixTime>) -> Self {
        let mut stretch = Self { from: UnixTime::MIN, until: UnixTime::MAX };
        for change in changes {
            if change <= now {
                stretch.from = stretch.from.max(change);
            } else {
                stretch.until = stretch.until.min(change);
            }
        }
        stretch
    }

    fn contains(self, now: UnixTime) -> bool {
        (self.from..self.until).contains(&now)
    }
}

/// The moments at which something begins and ceases to be valid.
pub(super) fn changes_of_validity(not_before: UnixTime, not_after: UnixTime) -> [UnixTime; 2] {
    [not_before, not_after.saturating_add(1)]
}

#[derive(Clone)]
struct Remembered {
    stretch: Stretch,
    identity: Arc<ClientIdentity>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Box<[u8]>, Remembered> for Weight {
    fn weight(&self, key: &Box<[u8]>, _: &Remembered) -> u64 {
        // The key, and the same bytes once more in the identity, parsed.
        3 * key.len() as u64 + IDENTITY
    }
}

/// Bounded; those that do not come again go first.
pub(super) struct Memory(Cache<Box<[u8]>, Remembered, Weight, RandomState>);

impl Memory {
    pub(super) fn new() -> Self {
        let items = (CAPACITY / (3 * 1024)) as usize;
        Self(Cache::with(items, CAPACITY, Weight, RandomState::new(), DefaultLifecycle::default()))
    }

    pub(super) fn recall(&self, key: &[u8], now: UnixTime) -> Option<Arc<ClientIdentity>> {
        self.0.get(key).filter(|known| known.stretch.contains(now)).map(|known| known.identity)
    }

    pub(super) fn remember(&self, key: Box<[u8]>, stretch: Stretch, identity: Arc<ClientIdentity>) {
        self.0.insert(key, Remembered { stretch, identity });
    }
}

/// Every byte that was presented; the lengths keep two chains apart whose bytes are the same in a row.
pub(super) fn key(presented: &[Shown<'_>]) -> Box<[u8]> {
    let mut key = Vec::with_capacity(presented.iter().map(|shown| shown.der().len() + 4).sum());
    for shown in presented {
        key.extend_from_slice(&(shown.der().len() as u32).to_be_bytes());
        key.extend_from_slice(shown.der());
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chains_with_the_same_bytes_in_a_row_are_told_apart() {
        let key_of = |chain: &[&[u8]]| key(&chain.iter().map(|der| Shown::encoded(der)).collect::<Vec<_>>());
        assert_ne!(key_of(&[b"ab", b"c"]), key_of(&[b"a", b"bc"]));
        assert_ne!(key_of(&[b"abc"]), key_of(&[b"ab", b"c"]));
        assert_ne!(key_of(&[b"a"]), key_of(&[b"a", b""]));
    }

    proptest! {
        /// A verdict that depends on which changes have come is the same in the whole stretch, and no stretch is longer
        /// than it may be.
        #[test]
        fn nothing_changes_within_a_stretch(changes in proptest::collection::vec(0_i64..50, 0..6), now in 0_i64..50) {
            let stretch = Stretch::around(now, changes.iter().copied());
            let come = |now: i64| changes.iter().map(|change| *change <= now).collect::<Vec<_>>();
            for moment in -1..52 {
                prop_assert_eq!(stretch.contains(moment), come(moment) == come(now));
            }
        }
    }
}
