//! What is counted for one measure of a limit: it outlives the configuration that began it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Moment;
use super::bucket::Bucket;
use super::networks::{Network, Networks, Spread};
use super::spec::{Measure, Mode};
use super::table::{Held, Table, Worth};

/// The counts of all keys, and how often somebody was over the limit.
pub struct Meter {
    table: Table,
    networks: Option<Networks>,
    refused: AtomicU64,
    shadowed: AtomicU64,
}

/// Somebody else may be done sooner than that, but nobody knows.
const SOON: Duration = Duration::from_secs(1);

impl Meter {
    pub(super) fn new(measure: Measure, keys: usize) -> Self {
        Self {
            table: Table::new(keys),
            networks: matches!(measure, Measure::Networks(_)).then(Networks::new),
            refused: AtomicU64::new(0),
            shadowed: AtomicU64::new(0),
        }
    }

    /// Takes what one request or connection takes. `Err`: it is over the limit, nothing was taken, and there is room after so long.
    pub(super) fn take(&self, measure: Measure, key: u64, now: Moment) -> Result<(), Duration> {
        match measure {
            // Only looked at: how many there are is known at the end.
            Measure::Bytes(bucket) => bucket.look(self.table.get(key), now),
            Measure::Requests(bucket) | Measure::Handshakes(bucket) => {
                self.table.update(key, measure, now, |state| bucket.take(state, now))
            }
            Measure::Quota(quota) => self.table.update(key, measure, now, |state| quota.take(state, now)),
            // It is asked otherwise.
            Measure::Networks(_) => Ok(()),
            Measure::Concurrent(most) | Measure::Connections(most) => {
                self.table.update(key, measure, now, |count| {
                    let is_free = *count < u64::from(most);
                    *count += u64::from(is_free);
                    if is_free { Ok(()) } else { Err(SOON) }
                })
            }
        }
    }

    /// A connection from there. A shadow counts it although it is one too many.
    pub(super) fn enter(&self, most: u32, key: u64, from: Network, mode: Mode) -> Result<(), Spread> {
        self.networks.as_ref().map_or(Ok(()), |networks| networks.enter(key, from, most, mode))
    }

    pub(super) fn leave(&self, most: u32, key: u64, from: Network, mode: Mode) {
        if let Some(networks) = &self.networks {
            networks.leave(key, from, most, mode);
        }
    }

    /// Another limit refused the request.
    pub(super) fn give_back(&self, measure: Measure, key: u64, now: Moment) {
        self.table.update(key, measure, now, |state| match measure {
            // A handshake was made, whatever becomes of its connection.
            Measure::Bytes(_) | Measure::Networks(_) | Measure::Handshakes(_) => {}
            Measure::Requests(bucket) => bucket.give_back(state),
            Measure::Quota(_) => super::quota::Quota::give_back(state),
            Measure::Concurrent(_) | Measure::Connections(_) => *state = state.saturating_sub(1),
        });
    }

    /// The request is over.
    pub(super) fn settle(&self, measure: Measure, key: u64, bytes: u64, now: Moment) {
        match measure {
            Measure::Requests(_) | Measure::Quota(_) | Measure::Handshakes(_) | Measure::Networks(_) => {}
            Measure::Bytes(_) if bytes == 0 => {}
            Measure::Bytes(bucket) => {
                self.table.update(key, measure, now, |state| bucket.charge(state, bytes, now));
            }
            Measure::Concurrent(_) | Measure::Connections(_) => self.give_back(measure, key, now),
        }
    }

    /// How much is left, and the seconds in which no more than that may be used.
    pub(super) fn left(&self, measure: Measure, key: u64, now: Moment) -> (u64, Option<Duration>) {
        let state = self.table.get(key);
        match measure {
            Measure::Requests(bucket) | Measure::Bytes(bucket) | Measure::Handshakes(bucket) => {
                let until_full = Duration::from_nanos(state.saturating_sub(now.0));
                (bucket.left(state, now), Some(until_full))
            }
            Measure::Quota(quota) => (quota.left(state, now), Some(quota.remaining(state, now))),
            Measure::Concurrent(most) | Measure::Connections(most) | Measure::Networks(most) => {
                (u64::from(most).saturating_sub(state), None)
            }
        }
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_shadowed(&self) {
        self.shadowed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn held(&self) -> Held {
        let held = self.table.held();
        Held { keys: held.keys + self.networks.as_ref().map_or(0, Networks::keys), ..held }
    }

    /// How often somebody was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often somebody would have been refused.
    pub fn shadowed(&self) -> u64 {
        self.shadowed.load(Ordering::Relaxed)
    }
}

impl Worth for Measure {
    fn is_idle(self, state: u64, now: Moment) -> bool {
        match self {
            Self::Requests(_) | Self::Bytes(_) | Self::Handshakes(_) => Bucket::is_full(state, now),
            Self::Quota(quota) => quota.is_over(state, now),
            Self::Concurrent(_) | Self::Connections(_) | Self::Networks(_) => state == 0,
        }
    }

    fn worth(self, state: u64) -> Option<u64> {
        match self {
            Self::Requests(_) | Self::Bytes(_) | Self::Handshakes(_) => Some(state),
            // The number that was used, whenever that began.
            Self::Quota(_) => Some(state & u64::from(u32::MAX)),
            Self::Concurrent(_) | Self::Connections(_) | Self::Networks(_) => None,
        }
    }
}
