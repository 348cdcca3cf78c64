//! Addresses from which a client was let in lately: certificate verified, so that nobody gets among them by knocking.
//!
//! Two Bloom filters: one is written, both are read, and when the one is full or old it takes the place of the other. A
//! million addresses fit into each; one that is not among them is taken for one that is in one of thirty cases, which
//! costs nobody anything but its place in a line.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bits of one filter: 1 MiB.
const BITS: u64 = 1 << 23;

/// So many bits stand for one address.
const MARKS: u32 = 3;

/// Then it is full.
const MOST: usize = 1 << 20;

/// Then it is old. An address is remembered for twice as long at most.
const AGE: Duration = Duration::from_secs(12 * 3600);

pub(super) struct Known {
    filters: [Box<[AtomicU64]>; 2],
    made: Instant,
    /// How often the filters have changed places.
    turns: AtomicUsize,
    /// When they last did, in seconds since they were made.
    turned: AtomicU64,
    /// Addresses in the one that is written.
    count: AtomicUsize,
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        let filter = || (0..BITS / 64).map(|_| AtomicU64::new(0)).collect();
        Self {
            filters: [filter(), filter()],
            made: now,
            turns: AtomicUsize::new(0),
            turned: AtomicU64::new(0),
            count: AtomicUsize::new(0),
        }
    }

    /// `address` is its hash.
    pub(super) fn insert(&self, address: u64, now: Instant) {
        let turn = self.turns.load(Ordering::Relaxed);
        let turned = self.made + Duration::from_secs(self.turned.load(Ordering::Relaxed));
        let is_over = now.duration_since(turned) > AGE || self.count.load(Ordering::Relaxed) >= MOST;
        let turn = if is_over { self.turn_over(turn, now) } else { turn };
        let mut is_new = false;
        for (word, bit) in marks(address) {
            let word = &self.filters[turn % 2][word];
            // Whoever comes again writes nothing.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
                is_new = true;
            }
        }
        if is_new {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        self.filters
            .iter()
            .any(|filter| marks(address).all(|(word, bit)| filter[word].load(Ordering::Relaxed) & bit != 0))
    }

    /// Unless another thread does it.
    fn turn_over(&self, turn: usize, now: Instant) -> usize {
        if self.turns.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.turned.store(now.duration_since(self.made).as_secs(), Ordering::Relaxed);
            self.count.store(0, Ordering::Relaxed);
            self.filters[(turn + 1) % 2].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        }
        turn + 1
    }
}

/// The places of an address in a filter.
fn marks(address: u64) -> impl Iterator<Item = (usize, u64)> {
    // Two halves of one hash make all of them (Kirsch and Mitzenmacher).
    let (first, second) = (address >> 32, address | 1);
    (0..u64::from(MARKS)).map(move |n| {
        let bit = first.wrapping_add(second.wrapping_mul(n)) % BITS;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a good hash spreads them.
    fn address(number: u64) -> u64 {
        number
            .wrapping_add(1)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23)
            .wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    #[test]
    fn whoever_was_let_in_is_known_and_hardly_anybody_else() {
        let now = Instant::now();
        let known = Known::new(now);
        (0..100_000).for_each(|number| known.insert(address(number), now));
        assert!((0..100_000).all(|number| known.contains(address(number))));
        let mistaken = (100_000..200_000).filter(|number| known.contains(address(*number))).count();
        assert!(mistaken < 1_000, "{mistaken}");
    }

    #[test]
    fn the_oldest_are_forgotten_when_it_is_full_and_when_time_has_passed() {
        let now = Instant::now();
        let known = Known::new(now);
        let many = 3 * MOST as u64;
        (0..many).for_each(|number| known.insert(address(number), now));
        assert!(known.contains(address(many - 1)));
        let remembered = (0..1000).filter(|number| known.contains(address(*number))).count();
        assert!(remembered < 200, "{remembered}");
        let known = Known::new(now);
        let [first, second, third] = [1, 2, 3].map(address);
        known.insert(first, now);
        known.insert(second, now + AGE + Duration::from_secs(1));
        assert!(known.contains(first) && known.contains(second));
        known.insert(third, now + AGE * 2 + Duration::from_secs(3));
        assert!(!known.contains(first) && known.contains(second) && known.contains(third));
    }
}
