//! State of which each thread has a piece of its own, so that no request waits for a cache line that another core writes.
//!
//! What is counted for every request is written here by many threads and read seldom: by whoever shows it, who adds the
//! pieces up. A piece is made when its thread first needs it, so that ten thousand routes cost what is used of them.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

/// Threads with a piece of their own; more threads share.
const MOST: usize = 256;

/// Beside one worker for each core there are a few threads that hardly count anything.
const OTHERS: usize = 8;

/// Alone on its cache lines: two at a time are fetched.
#[repr(align(128))]
struct Lines<T>(T);

/// One `T` for each thread.
pub struct Sharded<T> {
    pieces: Box<[OnceLock<Box<Lines<T>>>]>,
    make: fn(usize) -> T,
}

impl<T> Sharded<T> {
    /// `make` is told which piece it makes.
    pub fn new(make: fn(usize) -> T) -> Self {
        Self { pieces: (0..count()).map(|_| OnceLock::new()).collect(), make }
    }

    /// This thread's piece.
    pub fn mine(&self) -> &T {
        let number = number() % self.pieces.len();
        &self.pieces[number].get_or_init(|| Box::new(Lines((self.make)(number)))).0
    }

    /// The pieces that have been used.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().filter_map(|piece| piece.get()).map(|lines| &lines.0)
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

/// How many there are of something that comes and goes.
#[derive(Default)]
pub struct Level(Sharded<AtomicIsize>);

impl Level {
    pub fn up(&self) {
        self.0.mine().fetch_add(1, Ordering::Relaxed);
    }

    /// Maybe on another thread than the one where it came.
    pub fn down(&self) {
        self.0.mine().fetch_sub(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> usize {
        let sum: isize = self.0.all().map(|piece| piece.load(Ordering::Relaxed)).sum();
        sum.max(0) as usize
    }
}

/// How many pieces there are.
pub fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    let count = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + OTHERS;
    *COUNT.get_or_init(|| count().min(MOST))
}

/// This thread's number, from 0 on in the order in which threads ask.
pub fn number() -> usize {
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn nothing_that_any_thread_counted_is_lost() {
        let counted = Arc::new(Sharded::<AtomicU64>::default());
        let threads: Vec<_> = (0..2 * count() as u64)
            .map(|thread| {
                let counted = counted.clone();
                std::thread::spawn(move || {
                    for _ in 0..=thread {
                        counted.mine().fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let sum: u64 = counted.all().map(|piece| piece.load(Ordering::Relaxed)).sum();
        let n = 2 * count() as u64;
        assert_eq!(sum, n * (n + 1) / 2);
    }

    #[test]
    fn what_came_on_one_thread_may_go_on_another() {
        let level = Arc::new(Level::default());
        level.up();
        level.up();
        let other = level.clone();
        std::thread::spawn(move || other.down()).join().unwrap();
        assert_eq!(level.get(), 1);
        level.down();
        assert_eq!(level.get(), 0);
    }

    #[test]
    fn pieces_lie_on_cache_lines_of_their_own() {
        assert_eq!(std::mem::align_of::<Lines<AtomicU64>>(), 128);
    }
}
