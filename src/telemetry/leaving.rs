//! How long it takes until the last connection is closed that a change ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Metrics;

/// Held by every connection that one change ended: when the last of them lets go, the time is counted.
pub struct Leaving {
    since: Instant,
    metrics: Arc<Metrics>,
    anybody: AtomicBool,
}

impl Leaving {
    /// `since`: when the change was in force.
    pub fn since(since: Instant, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { since, metrics, anybody: AtomicBool::new(false) })
    }

    /// For one connection more.
    pub fn join(self: &Arc<Self>) -> Arc<Self> {
        self.anybody.store(true, Ordering::Relaxed);
        self.clone()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if *self.anybody.get_mut() {
            self.metrics.revocation().connections_closed_after(self.since.elapsed());
        }
    }
}
