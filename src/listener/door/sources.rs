//! How much each source has, in memory that does not grow whoever comes.
//!
//! A count-min sketch: each source adds to one cell of each row, at places that nobody outside can foretell, and has as
//! much as the least of its cells says. Cells are shared by chance: what is read may be too much and is never too little,
//! so that no source gets past its limit, and one that is innocent is held up only if in every row it meets somebody
//! large. Nothing is evicted, so that it cannot be filled by strangers with many addresses; and what goes is taken away
//! again exactly, so that nothing is left of them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::config::{ConnectionRate, DoorConfig, SourceLimits};
use crate::headers::{Prefix, Source};

/// With 65,536 cells in a row, and a thousand sources at their limits, four meetings by chance are one in a million.
const ROWS: usize = 4;

/// Of the hash, for each row.
const BITS: u32 = 16;

/// Cells of a row.
const WIDTH: std::ops::RangeInclusive<usize> = 1 << 12..=1 << BITS;

/// A connection in a cell; a handshake is 1.
const CONNECTION: u64 = 1 << 32;

/// All sources of one listener.
pub struct Sources {
    /// SipHash under a key of this process: places can be neither foretold nor found out.
    hasher: RandomState,
    /// In the upper half connections, in the lower one handshakes.
    cells: Box<[AtomicU64]>,
    /// Nanoseconds since `began` until which what came is paid off; made when a rate is first asked for.
    paid: OnceLock<Box<[AtomicU64]>>,
    began: Instant,
}

/// Which limit somebody has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    Connections,
    Handshakes,
    Rate,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Address,
    Network,
}

/// Where a source is counted: one cell of each row.
#[derive(Debug, Clone, Copy)]
struct Place([u32; ROWS]);

impl Sources {
    /// For so many connections at a time as `most` says; more only make it less exact.
    pub fn for_connections(most: usize) -> Self {
        let width = most.clamp(*WIDTH.start(), *WIDTH.end()).next_power_of_two();
        Self {
            hasher: RandomState::new(),
            cells: zeros(ROWS * width),
            paid: OnceLock::new(),
            began: Instant::now(),
        }
    }

    /// Counts a connection that has come from `address` and shakes hands, unless its source has reached a limit. `rules`
    /// may be other ones for each.
    pub fn enter(self: &Arc<Self>, address: IpAddr, rules: &DoorConfig) -> Result<Visit, (Of, Reached)> {
        self.enter_at(address, rules, || self.began.elapsed().as_nanos() as u64)
    }

    fn enter_at(
        self: &Arc<Self>,
        address: IpAddr,
        rules: &DoorConfig,
        now: impl FnOnce() -> u64,
    ) -> Result<Visit, (Of, Reached)> {
        let source = Source::of(address);
        let visit = Visit {
            places: [self.place(source.address), self.place(source.network)],
            sources: self.clone(),
            shakes_hands: true,
        };
        // Counted before it is looked: of two that come at once, one sees the other.
        let counted = visit.places.map(|place| self.add(place));
        if rules.exempt.contains(address) {
            return Ok(visit);
        }
        let limits = [(Of::Address, rules.per_address), (Of::Network, rules.per_network)];
        for (counted, (of, limits)) in counted.into_iter().zip(limits) {
            if counted.handshakes > limits.handshakes_in_flight {
                return Err((of, Reached::Handshakes));
            }
            if counted.connections > limits.connections {
                return Err((of, Reached::Connections));
            }
        }
        self.pay(&visit.places, limits, now)?;
        Ok(visit)
    }

    fn place(&self, network: Prefix) -> Place {
        let hash = self.hasher.hash_one(network);
        let width = self.cells.len() / ROWS;
        let cell = |row: usize| {
            let bits = hash >> (row as u32 * BITS) & ((1 << BITS) - 1);
            (row * width + (bits as usize & (width - 1))) as u32
        };
        Place(std::array::from_fn(cell))
    }

    fn add(&self, place: Place) -> Counted {
        let counts = place.0.map(|cell| {
            let before = self.cells[cell as usize].fetch_add(CONNECTION + 1, Ordering::Relaxed);
            Counted::of(before + CONNECTION + 1)
        });
        counts.into_iter().reduce(Counted::least).unwrap_or_default()
    }

    fn take(&self, place: Place, what: u64) {
        for cell in place.0 {
            self.cells[cell as usize].fetch_sub(what, Ordering::Relaxed);
        }
    }

    /// The token buckets, by the time at which they are full again (GCRA, ITU-T I.371).
    fn pay(
        &self,
        places: &[Place; 2],
        limits: [(Of, SourceLimits); 2],
        now: impl FnOnce() -> u64,
    ) -> Result<(), (Of, Reached)> {
        if limits.iter().all(|(_, limits)| limits.rate.is_none()) {
            return Ok(());
        }
        let now = now();
        let paid = self.paid.get_or_init(|| zeros(self.cells.len()));
        let limited =
            || places.iter().zip(limits).filter_map(|(p, (of, l))| Some((p, of, Bucket::of(l.rate?))));
        // Who is over one limit has nothing taken off the other.
        for (place, of, bucket) in limited() {
            let until = place.0.iter().map(|cell| paid[*cell as usize].load(Ordering::Relaxed)).min();
            if !bucket.has_room(until.unwrap_or(0), now) {
                return Err((of, Reached::Rate));
            }
        }
        for (place, _, bucket) in limited() {
            for cell in place.0 {
                let put = |until| Some(bucket.put(until, now));
                let _ = paid[cell as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, put);
            }
        }
        Ok(())
    }
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    connections: u32,
    handshakes: u32,
}

impl Counted {
    fn of(cell: u64) -> Self {
        Self { connections: (cell / CONNECTION) as u32, handshakes: (cell % CONNECTION) as u32 }
    }

    fn least(self, other: Self) -> Self {
        Self {
            connections: self.connections.min(other.connections),
            handshakes: self.handshakes.min(other.handshakes),
        }
    }
}

/// In nanoseconds.
#[derive(Clone, Copy)]
struct Bucket {
    /// That one connection costs.
    each: u64,
    /// For which one may be ahead.
    ahead: u64,
}

impl Bucket {
    fn of(rate: ConnectionRate) -> Self {
        let each = 1_000_000_000 / u64::from(rate.per_second.max(1));
        Self { each, ahead: each * u64::from(rate.burst.max(1)) }
    }

    fn has_room(self, until: u64, now: u64) -> bool {
        until.max(now) + self.each <= now + self.ahead
    }

    /// A cell that others have filled is not filled beyond what time will mend.
    fn put(self, until: u64, now: u64) -> u64 {
        (until.max(now) + self.each).min(now + self.ahead)
    }
}

/// One connection of a source, until dropped.
pub struct Visit {
    sources: Arc<Sources>,
    places: [Place; 2],
    shakes_hands: bool,
}

impl Visit {
    /// Its handshake is over; it stays.
    pub fn is_known(&mut self) {
        if std::mem::replace(&mut self.shakes_hands, false) {
            self.places.iter().for_each(|place| self.sources.take(*place, 1));
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let what = CONNECTION + u64::from(self.shakes_hands);
        self.places.iter().for_each(|place| self.sources.take(*place, what));
    }
}

#[cfg(test)]
#[path = "sources/tests.rs"]
mod tests;
