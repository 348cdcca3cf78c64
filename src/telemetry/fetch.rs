//! How it goes with what is fetched from elsewhere.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::lease::{Lease, Users};
use super::metrics::{counters, gauges};
use crate::UnixTime;

/// What an attempt to fetch something came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchResult {
    New,
    Unchanged,
    Unreachable,
    Timeout,
    Status,
    TooLarge,
    Refused,
    NotKept,
    Internal,
}

impl FetchResult {
    const ALL: [(Self, &'static str); 9] = [
        (Self::New, "new"),
        (Self::Unchanged, "unchanged"),
        (Self::Unreachable, "unreachable"),
        (Self::Timeout, "timeout"),
        (Self::Status, "status"),
        (Self::TooLarge, "too_large"),
        (Self::Refused, "refused"),
        (Self::NotKept, "not_kept"),
        (Self::Internal, "internal"),
    ];
}

pub(super) struct FetchFamilies {
    total: IntCounterVec,
    last_success: IntGaugeVec,
}

impl FetchFamilies {
    pub(super) fn of_lists(registry: &Registry) -> Self {
        let labels = ["trust_domain", "url"];
        Self {
            total: counters(
                registry,
                "portcullis_revocation_fetches_total",
                "Attempts to fetch a revocation list, by result.",
                &[&labels[..], &["result"]].concat(),
            ),
            last_success: gauges(
                registry,
                "portcullis_revocation_fetch_last_success_timestamp_seconds",
                "When a revocation list was last fetched, or found to be unchanged; 0: not since the start.",
                &labels,
            ),
        }
    }

    pub(super) fn of_staples(registry: &Registry) -> Self {
        let labels = ["listener", "subject"];
        Self {
            total: counters(
                registry,
                "portcullis_ocsp_fetches_total",
                "Attempts to fetch the OCSP response about a certificate of ours, by result.",
                &[&labels[..], &["result"]].concat(),
            ),
            last_success: gauges(
                registry,
                "portcullis_ocsp_fetch_last_success_timestamp_seconds",
                "When the OCSP response about a certificate of ours was last fetched; 0: not since the start.",
                &labels,
            ),
        }
    }

    pub(super) fn series(&self, users: &Users, kind: &str, what: [&str; 2]) -> Arc<FetchMetrics> {
        let mut lease = Lease::new(users, format!("fetch {kind} {}", what.join(" ")));
        Arc::new(FetchMetrics {
            results: FetchResult::ALL
                .map(|(_, result)| lease.series(&self.total, &[&what[..], &[result]].concat())),
            last_success: lease.series(&self.last_success, &what),
            _lease: lease,
        })
    }
}

/// Of one thing that is fetched.
pub struct FetchMetrics {
    results: [IntCounter; FetchResult::ALL.len()],
    last_success: IntGauge,
    _lease: Lease,
}

impl FetchMetrics {
    pub fn succeeded(&self, result: FetchResult, now: UnixTime) {
        self.failed(result);
        self.last_success.set(now);
    }

    pub fn failed(&self, result: FetchResult) {
        self.results[result as usize].inc();
    }
}
