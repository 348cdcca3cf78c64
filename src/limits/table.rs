//! One number for each key, in bounded memory.
//!
//! 16 bytes a slot, three quarters of them in use at most; many pieces, each under a lock of its own, so that two
//! threads hardly ever wait for each other. Keys are random numbers (see [`keys`](super::keys)): they are their own hash.
//! What is idle is as good as forgotten, and is forgotten: whoever adds a key looks at a few others on the way. Is a piece
//! full of keys that are not idle, the one is given up of which the least is known.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Moment;

/// So many pieces.
const PIECES: usize = 64;

/// Slots of a piece that nobody used yet.
const FEWEST: usize = 16;

/// Slots that are looked at when a key is added.
const SWEPT: usize = 4;

/// Keys among which one is chosen that must go.
const CANDIDATES: usize = 16;

/// What a table must know about its numbers.
pub trait Worth: Copy {
    /// Whether a number says no more than none would.
    fn is_idle(self, state: u64, now: Moment) -> bool;

    /// The less, the less is lost with a number; `None`: it must not be lost.
    fn worth(self, state: u64) -> Option<u64>;
}

pub struct Table {
    pieces: Box<[Piece]>,
    /// Keys in one piece.
    most: usize,
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Piece(Mutex<Slots>);

/// Linear probing, without gaps between where a key belongs and where it is.
#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    len: usize,
    /// Where the sweep goes on.
    hand: usize,
    evicted: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0: it is free.
    key: u64,
    state: u64,
}

/// How much a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub keys: usize,
    pub bytes: usize,
    /// Keys that were given up although they were not idle.
    pub evicted: u64,
}

impl Table {
    pub fn new(most_keys: usize) -> Self {
        Self {
            pieces: (0..PIECES).map(|_| Piece::default()).collect(),
            most: most_keys.div_ceil(PIECES).max(1),
        }
    }

    /// Shows the number of `key` to `change`, 0 if there was none, and keeps it unless it is idle then.
    pub fn update<R>(
        &self,
        key: u64,
        worth: impl Worth,
        now: Moment,
        change: impl FnOnce(&mut u64) -> R,
    ) -> R {
        let key = key.max(1);
        let mut piece = self.piece(key);
        if let Some(at) = piece.find(key) {
            let result = change(&mut piece.all[at].state);
            if worth.is_idle(piece.all[at].state, now) {
                piece.remove(at);
            }
            return result;
        }
        let mut state = 0;
        let result = change(&mut state);
        if !worth.is_idle(state, now) {
            piece.insert(Slot { key, state }, self.most, worth, now);
        }
        result
    }

    /// The number of `key`, 0 if there is none.
    pub fn get(&self, key: u64) -> u64 {
        let key = key.max(1);
        let piece = self.piece(key);
        piece.find(key).map_or(0, |at| piece.all[at].state)
    }

    pub fn held(&self) -> Held {
        self.pieces.iter().map(Piece::lock).fold(Held::default(), |sum, piece| Held {
            keys: sum.keys + piece.len,
            bytes: sum.bytes + piece.all.capacity() * size_of::<Slot>(),
            evicted: sum.evicted + piece.evicted,
        })
    }

    fn piece(&self, key: u64) -> MutexGuard<'_, Slots> {
        // Other bits than those that choose the slot.
        self.pieces[(key >> 58) as usize % PIECES].lock()
    }
}

impl Piece {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Where a key belongs: the low half of it, spread over the slots there are.
    fn home(&self, key: u64) -> usize {
        (((key & u64::from(u32::MAX)) * self.all.len() as u64) >> 32) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.all.len() { 0 } else { at + 1 }
    }

    fn find(&self, key: u64) -> Option<usize> {
        if self.all.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        while self.all[at].key != 0 {
            if self.all[at].key == key {
                return Some(at);
            }
            at = self.next(at);
        }
        None
    }

    fn insert(&mut self, slot: Slot, most: usize, worth: impl Worth, now: Moment) {
        for _ in 0..SWEPT.min(self.all.len()) {
            self.sweep_one(worth, now);
        }
        if self.len >= most {
            self.make_room(worth, now);
        }
        if (self.len + 1) * 4 > self.all.len() * 3 {
            self.grow(most);
        }
        self.put(slot);
    }

    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.key);
        while self.all[at].key != 0 {
            at = self.next(at);
        }
        self.all[at] = slot;
        self.len += 1;
    }

    /// Twice as many, but no more than the last one needs.
    fn grow(&mut self, most: usize) {
        let wanted = (self.all.len() * 2).max(FEWEST);
        let needed = most.saturating_mul(4).div_ceil(3).saturating_add(1);
        let size = if self.len < most { wanted.min(needed.max(FEWEST)) } else { wanted };
        let old = std::mem::replace(&mut self.all, vec![Slot::default(); size]);
        (self.len, self.hand) = (0, 0);
        old.into_iter().filter(|slot| slot.key != 0).for_each(|slot| self.put(slot));
    }

    /// Looks at the next slot, and forgets what is idle.
    fn sweep_one(&mut self, worth: impl Worth, now: Moment) -> Option<Slot> {
        let at = self.hand;
        let slot = self.all[at];
        if slot.key != 0 && worth.is_idle(slot.state, now) {
            // The hand stays: something else may lie there now.
            self.remove(at);
            return None;
        }
        self.hand = self.next(at);
        (slot.key != 0).then_some(slot)
    }

    /// Gives up the one of the next few keys of which the least is lost, unless one of them is idle.
    fn make_room(&mut self, worth: impl Worth, now: Moment) {
        let (before, mut victim) = (self.len, None);
        let mut seen = 0;
        for _ in 0..CANDIDATES * 4 {
            let slot = self.sweep_one(worth, now);
            if self.len < before {
                return;
            }
            let Some(slot) = slot else { continue };
            if let Some(worth) = worth.worth(slot.state) {
                let candidate = (worth, slot.key);
                victim = Some(victim.map_or(candidate, |known: (u64, u64)| known.min(candidate)));
            }
            seen += 1;
            if seen == CANDIDATES {
                break;
            }
        }
        if let Some(at) = victim.and_then(|(_, key)| self.find(key)) {
            self.remove(at);
            self.evicted += 1;
        }
    }

    /// What was pushed on by it moves back.
    fn remove(&mut self, at: usize) {
        let (mut gap, mut at) = (at, self.next(at));
        while self.all[at].key != 0 {
            let home = self.home(self.all[at].key);
            let stays = if gap <= at { gap < home && home <= at } else { gap < home || home <= at };
            if !stays {
                self.all[gap] = self.all[at];
                gap = at;
            }
            at = self.next(at);
        }
        self.all[gap] = Slot::default();
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Numbers are moments, and idle once they lie in the past.
    #[derive(Clone, Copy)]
    struct Until;

    impl Worth for Until {
        fn is_idle(self, state: u64, now: Moment) -> bool {
            state <= now.0
        }

        fn worth(self, state: u64) -> Option<u64> {
            Some(state)
        }
    }

    /// Numbers are counts, which must not be lost.
    #[derive(Clone, Copy)]
    struct Count;

    impl Worth for Count {
        fn is_idle(self, state: u64, _: Moment) -> bool {
            state == 0
        }

        fn worth(self, _: u64) -> Option<u64> {
            None
        }
    }

    fn set(table: &Table, key: u64, state: u64, now: u64) {
        table.update(key, Until, Moment(now), |found| *found = state);
    }

    #[test]
    fn a_million_keys_take_little_and_more_of_them_take_no_more() {
        let table = Table::new(1_000_000);
        for _ in 0..1_000_000 {
            set(&table, rand::random(), 10, 1);
        }
        let held = table.held();
        let per_key = held.bytes as f64 / held.keys as f64;
        assert!(held.keys > 990_000 && held.evicted < 10_000, "{held:?}");
        assert!(per_key < 22.0, "{per_key} bytes a key");
        for _ in 0..1_000_000 {
            set(&table, rand::random(), 10, 1);
        }
        let after = table.held();
        assert!(after.keys <= 1_000_000 + PIECES && after.evicted > 900_000, "{after:?}");
        assert!(after.bytes < 1_000_000 * 22, "{after:?}");
        println!("{per_key:.1} bytes a key, {after:?}");
    }

    #[test]
    fn what_is_idle_goes_first_and_its_memory_is_used_again() {
        let table = Table::new(10_000);
        for key in 0..10_000 {
            set(&table, u64::wrapping_mul(key, 0x9E37_79B9_7F4A_7C15), 10, 1);
        }
        for _ in 0..10_000 {
            set(&table, rand::random(), 30, 20);
        }
        let held = table.held();
        assert!(held.evicted < 500, "{held:?}");
        assert!(held.keys <= 10_000 + PIECES, "{held:?}");
    }

    #[test]
    fn few_keys_take_little_memory_whatever_may_come() {
        let table = Table::new(1_000_000);
        for key in 0..1_000 {
            set(&table, rand::random::<u64>() | key, 10, 1);
        }
        assert!(table.held().bytes < 64 * 1024, "{:?}", table.held());
    }

    #[test]
    fn counts_are_never_lost_however_many_there_are() {
        let table = Table::new(64);
        let keys: Vec<u64> = (0..10_000).map(|_| rand::random()).collect();
        for key in &keys {
            table.update(*key, Count, Moment(0), |count| *count += 1);
        }
        assert_eq!(table.held().keys, 10_000);
        for key in &keys {
            table.update(*key, Count, Moment(0), |count| *count -= 1);
        }
        let held = table.held();
        assert_eq!((held.keys, held.evicted), (0, 0));
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let table = Table::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for key in 0..20_000_u64 {
                        table.update(key % 7 + 1, Count, Moment(0), |count| *count += 1);
                    }
                });
            }
        });
        let sum: u64 = (1..=7).map(|key| table.get(key)).sum();
        assert_eq!(sum, 80_000);
    }

    proptest! {
        #[test]
        fn the_table_says_what_a_map_says(
            steps in proptest::collection::vec((0_u64..40, 0_u64..20), 1..400),
            stride in any::<u64>(),
        ) {
            let (table, mut map) = (Table::new(1_000_000), BTreeMap::new());
            for (now, (key, ahead)) in steps.into_iter().enumerate() {
                let (key, now) = (key.wrapping_mul(stride | 1).max(1), now as u64);
                let state = now + ahead;
                set(&table, key, state, now);
                map.insert(key, state);
                for (key, state) in &map {
                    // What is idle may be gone, and what is not may not.
                    let found = table.get(*key);
                    prop_assert!(found == *state || found == 0 && *state <= now);
                }
            }
        }
    }
}
