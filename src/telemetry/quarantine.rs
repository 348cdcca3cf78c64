//! What clients do with which something is wrong, and which may enter all the same.

use prometheus::{IntCounter, Registry};

use super::metrics::counters;
use crate::trust::FaultKind;

/// Their requests, by fault, then whether they reached an origin.
pub struct QuarantineMetrics([[IntCounter; 2]; FaultKind::ALL.len()]);

/// Where a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    Forwarded,
    Refused,
}

impl QuarantineMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let requests = counters(
            r,
            "portcullis_requests_quarantined_total",
            "Requests of clients that may only reach the routes that accept their fault, by fault and result.",
            &["fault", "result"],
        );
        Self(FaultKind::ALL.map(|fault| {
            ["forwarded", "refused"].map(|result| requests.with_label_values(&[fault.as_str(), result]))
        }))
    }

    pub fn request(&self, fault: FaultKind, went: Went) {
        self.0[fault as usize][went as usize].inc();
    }
}
