//! What the census shows as metrics: counts by anchor, never a client.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::metrics::{counter, counters, gauges};

/// Of one anchor, in one trust domain.
pub struct AnchorGauges<'a> {
    pub trust_domain: &'a str,
    /// Its subject.
    pub anchor: &'a str,
    /// Its beginning tells apart two anchors of one name.
    pub fingerprint: String,
    pub connections: u64,
    pub in_use: u64,
    pub expired: u64,
    /// By the label `within`.
    pub expiring: [(&'static str, u64); 3],
}

/// What became of the census's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Ok,
    Failed,
}

/// The families of the census.
pub struct CensusMetrics {
    connections: IntGaugeVec,
    in_use: IntGaugeVec,
    expired: IntGaugeVec,
    expiring: IntGaugeVec,
    missed: IntCounter,
    evicted: IntCounter,
    writes: IntCounterVec,
}

/// Digits of an anchor's fingerprint in a label.
const DIGITS: usize = 16;

const ANCHOR: [&str; 3] = ["trust_domain", "anchor", "fingerprint"];

impl CensusMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let metrics = Self {
            connections: gauges(r, "portcullis_anchor_connections", "Connections open, by anchor.", &ANCHOR),
            in_use: gauges(
                r,
                "portcullis_client_certificates",
                "Client certificates seen within `census.window` and not superseded by one of the same name that came later.",
                &ANCHOR,
            ),
            expired: gauges(
                r,
                "portcullis_client_certificates_expired",
                "Of portcullis_client_certificates, those that have expired.",
                &ANCHOR,
            ),
            expiring: gauges(
                r,
                "portcullis_client_certificates_expiring",
                "Of portcullis_client_certificates, those that expire within the span; each counts those before it.",
                &[&ANCHOR[..], &["within"]].concat(),
            ),
            missed: counter(
                r,
                "portcullis_census_missed_total",
                "Clients that the census did not count: more came at once than it could take up.",
            ),
            evicted: counter(
                r,
                "portcullis_census_evicted_total",
                "Certificates that the census forgot because there were more than `census.maximum`.",
            ),
            writes: counters(
                r,
                "portcullis_census_writes_total",
                "Times the census was written, by result.",
                &["result"],
            ),
        };
        for result in ["ok", "failed"] {
            metrics.writes.with_label_values(&[result]);
        }
        metrics
    }

    /// Replaces all gauges. An anchor that is not among them is shown no more.
    pub fn set<'a>(&self, anchors: impl Iterator<Item = AnchorGauges<'a>>) {
        for family in [&self.connections, &self.in_use, &self.expired, &self.expiring] {
            family.reset();
        }
        for of in anchors {
            let labels = [of.trust_domain, of.anchor, &of.fingerprint[..DIGITS.min(of.fingerprint.len())]];
            self.connections.with_label_values(&labels).set(of.connections as i64);
            self.in_use.with_label_values(&labels).set(of.in_use as i64);
            self.expired.with_label_values(&labels).set(of.expired as i64);
            for (within, count) in of.expiring {
                let [domain, anchor, fingerprint] = labels;
                self.expiring.with_label_values(&[domain, anchor, fingerprint, within]).set(count as i64);
            }
        }
    }

    pub fn missed(&self, clients: u64) {
        self.missed.inc_by(clients);
    }

    /// Since the start.
    pub fn all_missed(&self) -> u64 {
        self.missed.get()
    }

    pub fn evicted(&self, certificates: u64) {
        self.evicted.inc_by(certificates);
    }

    pub fn written(&self, result: Written) {
        let result = match result {
            Written::Ok => "ok",
            Written::Failed => "failed",
        };
        self.writes.with_label_values(&[result]).inc();
    }
}
