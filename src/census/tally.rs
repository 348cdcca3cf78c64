//! The counts: how many certificates are in use, and how many of them expire when, by anchor.

use std::collections::BinaryHeap;

use super::entry::{Entry, Moment, Use};
use crate::UnixTime;

/// Days that are looked ahead, each counted with those before it.
pub(super) const WITHIN: [(&str, i64); 3] = [("7d", 7), ("30d", 30), ("90d", 90)];

const DAY: i64 = 86_400;

/// Certificates that are named, of those that expire next.
const NAMED: usize = 100;

/// Who counts: seen since `since`, looked at at `now`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub since: UnixTime,
    pub now: UnixTime,
}

/// Of one anchor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Seen, and not superseded by a later certificate of the same name.
    pub in_use: u64,
    /// Of those: expired already.
    pub expired: u64,
    /// Of those: not expired, but soon.
    pub expiring: [u64; WITHIN.len()],
    pub superseded: u64,
    /// 0: nobody was.
    pub last_seen: UnixTime,
}

impl Counts {
    pub(super) fn plus(mut self, other: &Self) -> Self {
        self.in_use += other.in_use;
        self.expired += other.expired;
        for (ours, theirs) in self.expiring.iter_mut().zip(other.expiring) {
            *ours += theirs;
        }
        self.superseded += other.superseded;
        self.last_seen = self.last_seen.max(other.last_seen);
        self
    }
}

pub(super) struct Tally {
    since: Moment,
    now: Moment,
    /// The end of each span of [`WITHIN`].
    ends: [Moment; WITHIN.len()],
    by_anchor: Vec<Counts>,
    earliest: Option<Moment>,
    next: BinaryHeap<Expiring>,
}

/// Ordered by when it expires.
struct Expiring(Entry);

impl Expiring {
    fn key(&self) -> (Moment, &[u8]) {
        (self.0.not_after, &self.0.fingerprint)
    }
}

impl PartialEq for Expiring {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Expiring {}

impl PartialOrd for Expiring {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Expiring {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Tally {
    pub(super) fn new(window: Window, anchors: usize) -> Self {
        Self {
            since: Moment::new(window.since),
            now: Moment::new(window.now),
            ends: WITHIN.map(|(_, days)| Moment::new(window.now.saturating_add(days * DAY))),
            by_anchor: vec![Counts::default(); anchors],
            earliest: None,
            next: BinaryHeap::with_capacity(NAMED + 1),
        }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        if entry.last_seen < self.since {
            return;
        }
        let Some(counts) = self.by_anchor.get_mut(usize::from(entry.anchor)) else { return };
        let first_seen = entry.first_seen.max(self.since);
        self.earliest = Some(self.earliest.map_or(first_seen, |earliest| earliest.min(first_seen)));
        if entry.standing == Use::Superseded {
            counts.superseded += 1;
            return;
        }
        counts.in_use += 1;
        counts.last_seen = counts.last_seen.max(entry.last_seen.0.into());
        if entry.not_after < self.now {
            counts.expired += 1;
            return;
        }
        for (count, end) in counts.expiring.iter_mut().zip(self.ends) {
            *count += u64::from(entry.not_after <= end);
        }
        if self.next.len() < NAMED || self.next.peek().is_some_and(|last| entry.not_after < last.0.not_after)
        {
            self.next.push(Expiring(*entry));
            if self.next.len() > NAMED {
                self.next.pop();
            }
        }
    }

    /// In the order of the ledger's anchors.
    pub(super) fn by_anchor(&self) -> &[Counts] {
        &self.by_anchor
    }

    /// Since when somebody is known to have been seen, within the window.
    pub(super) fn earliest(&self) -> Option<UnixTime> {
        self.earliest?.time()
    }

    /// Those that expire next, the first one first.
    pub(super) fn next(self) -> Vec<Entry> {
        self.next.into_sorted_vec().into_iter().map(|expiring| expiring.0).collect()
    }
}
