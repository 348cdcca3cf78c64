//! Handshakes that have to wait for their turn, and what handshakes cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Counter, Gauge, Metric, MetricType};

use super::ListenerMetrics;
use super::shown::{Counted, Family, labels};
use super::tally::{self, Sum, Tally};
use crate::shard::{Level, Sharded};

/// Of one listener.
#[derive(Default)]
pub(super) struct Admission {
    waiting: Level,
    waited: Sharded<Tally<0>>,
    /// Nanoseconds.
    computed: Sharded<AtomicU64>,
}

impl Admission {
    fn computed(&self) -> Duration {
        Duration::from_nanos(self.computed.all().map(|piece| piece.load(Ordering::Relaxed)).sum())
    }
}

/// A handshake that waits for its turn, until dropped.
pub struct HandshakeWaiting(Arc<Admission>);

impl Drop for HandshakeWaiting {
    fn drop(&mut self) {
        self.0.waiting.down();
    }
}

impl ListenerMetrics {
    pub fn handshake_waits(&self) -> HandshakeWaiting {
        self.admission.waiting.up();
        HandshakeWaiting(self.admission.clone())
    }

    pub fn handshakes_waiting(&self) -> usize {
        self.admission.waiting.get()
    }

    /// For its first turn, whether it got it or not.
    pub fn handshake_waited(&self, waited: Duration) {
        self.admission.waited.mine().observe(&tally::HANDSHAKE, waited.as_nanos() as u64);
    }

    /// One step of it took so long.
    pub fn handshake_computed(&self, took: Duration) {
        self.admission.computed.mine().fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// For all handshakes since the start.
    pub fn handshakes_computed(&self) -> Duration {
        self.admission.computed()
    }
}

impl Counted for Admission {
    const FAMILIES: &'static [Family] = &[
        Family {
            name: "portcullis_tls_handshakes_waiting",
            help: "Handshakes that wait for their turn to be computed.",
            kind: MetricType::GAUGE,
            labels: &["listener"],
        },
        Family {
            name: "portcullis_tls_handshake_wait_seconds",
            help: "Time that clients waited for their turn, of those that had to, also in vain.",
            kind: MetricType::HISTOGRAM,
            labels: &["listener"],
        },
        Family {
            name: "portcullis_tls_handshake_computing_seconds_total",
            help: "Time that threads computed handshakes.",
            kind: MetricType::COUNTER,
            labels: &["listener"],
        },
    ];

    fn series(&self, names: &[String]) -> Vec<Vec<Metric>> {
        let [listener] = names else { return Vec::new() };
        let metric = || Metric::from_label(labels(&[("listener", listener)]));
        let (mut waiting, mut computed) = (metric(), metric());
        let mut gauge = Gauge::default();
        gauge.set_value(self.waiting.get() as f64);
        waiting.set_gauge(gauge);
        let mut counter = Counter::default();
        counter.set_value(self.computed().as_secs_f64());
        computed.set_counter(counter);
        let waited =
            Sum::of_all(&self.waited).histogram(&tally::HANDSHAKE, labels(&[("listener", listener)]));
        vec![vec![waiting], vec![waited], vec![computed]]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn who_waits_and_what_was_computed_is_shown_for_each_listener() {
        let metrics = Metrics::new();
        let listener = metrics.listener("edge");
        let waits = listener.handshake_waits();
        listener.handshake_waited(Duration::from_millis(3));
        listener.handshake_computed(Duration::from_millis(250));
        let shows = |line: &str| assert!(metrics.render().contains(line), "{line}\n{}", metrics.render());
        shows("portcullis_tls_handshakes_waiting{listener=\"edge\"} 1");
        shows("portcullis_tls_handshake_wait_seconds_bucket{listener=\"edge\",le=\"0.005\"} 1");
        shows("portcullis_tls_handshake_computing_seconds_total{listener=\"edge\"} 0.25");
        drop(waits);
        shows("portcullis_tls_handshakes_waiting{listener=\"edge\"} 0");
    }
}
