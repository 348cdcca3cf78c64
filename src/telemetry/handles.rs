//! What the serving threads count with: handles looked up when a configuration is loaded, so that counting is a few
//! additions to what no other thread writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Metric, MetricType};
use prometheus::{IntCounter, IntGauge};

use super::admission::Admission;
use super::lease::Lease;
use super::shown::{Counted, Family, labels};
use super::tally::{self, Sum, Tally, counter};
use super::{Declined, EndCause, HandshakeFailure};
use crate::UnixTime;
use crate::shard::Sharded;
use crate::trust::FaultKind;

/// The status classes of `portcullis_requests_total`; `none`: the client was gone before an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Whether a TLS session was resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    Full,
    Resumed,
}

/// The versions we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl TlsVersion {
    /// From the name that the TLS library gives it.
    pub fn from_name(name: &str) -> Self {
        if name == "TLSv1.2" { Self::Tls12 } else { Self::Tls13 }
    }
}

/// Of one listener.
pub struct ListenerMetrics {
    pub(super) started: IntCounter,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) admission: Arc<Admission>,
    pub(super) failures: Vec<IntCounter>,
    pub(super) declined: [IntCounter; Declined::ALL.len()],
    pub(super) ticket_keys: IntGauge,
    pub(super) ticket_key_made_at: IntGauge,
    pub(super) in_flight: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) connections_total: IntCounter,
    pub(super) ended: [IntCounter; EndCause::ALL.len()],
    pub(super) quarantined: [IntCounter; FaultKind::ALL.len()],
    pub(super) _lease: Lease,
}

impl ListenerMetrics {
    /// Under way until the guard is dropped.
    pub fn handshake_started(&self) -> HandshakeInFlight {
        self.started.inc();
        self.in_flight.inc();
        HandshakeInFlight(self.in_flight.clone())
    }

    pub fn handshake_succeeded(&self, resumption: Resumption, version: TlsVersion, duration: Duration) {
        let tally = &self.handshakes.0.mine().succeeded[resumption as usize];
        tally.count(version as usize, &tally::HANDSHAKE, duration);
    }

    /// One that succeeded, of a client with which something is wrong.
    pub fn handshake_quarantined(&self, fault: FaultKind) {
        self.quarantined[fault as usize].inc();
    }

    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.handshakes.0.mine().failed.fetch_add(1, Ordering::Relaxed);
        self.failures[failure.index()].inc();
    }

    /// The client made a full handshake, or none, although it came with a ticket.
    pub fn resumption_declined(&self, cause: Declined) {
        self.declined[cause as usize].inc();
    }

    /// `made_at`: of the key that seals.
    pub fn set_ticket_keys(&self, count: usize, made_at: UnixTime) {
        self.ticket_keys.set(count as i64);
        self.ticket_key_made_at.set(made_at);
    }

    pub fn handshakes_in_flight(&self) -> usize {
        self.in_flight.get().max(0) as usize
    }

    /// Open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.connections.inc();
        self.connections_total.inc();
        OpenConnection(self.clone())
    }

    pub fn connection_ended(&self, cause: EndCause) {
        self.ended[cause as usize].inc();
    }

    pub fn open_connections(&self) -> usize {
        self.connections.get().max(0) as usize
    }

    /// Full and resumed handshakes that succeeded, and those that failed.
    pub fn handshakes(&self) -> (u64, u64, u64) {
        let sum = |resumption| self.handshakes.succeeded(resumption).ways.iter().sum();
        (sum(Resumption::Full), sum(Resumption::Resumed), self.handshakes.failed())
    }
}

/// The handshakes of one listener that are over.
#[derive(Default)]
pub(super) struct Handshakes(Sharded<Finished>);

/// Those that one thread saw.
#[derive(Default)]
struct Finished {
    /// By resumption, then by version.
    succeeded: [Tally<2>; 2],
    failed: AtomicU64,
}

impl Handshakes {
    fn succeeded(&self, resumption: Resumption) -> Sum<2> {
        Sum::of(self.0.all().map(|finished| &finished.succeeded[resumption as usize]))
    }

    fn failed(&self) -> u64 {
        self.0.all().map(|finished| finished.failed.load(Ordering::Relaxed)).sum()
    }
}

impl Counted for Handshakes {
    const FAMILIES: &'static [Family] = &[
        Family {
            name: "portcullis_tls_handshakes_total",
            help: "Handshakes ended, by result, resumption and TLS version.",
            kind: MetricType::COUNTER,
            labels: &["listener", "result", "resumed", "version"],
        },
        Family {
            name: "portcullis_tls_handshake_duration_seconds",
            help: "Time from the accepted connection to the finished handshake.",
            kind: MetricType::HISTOGRAM,
            labels: &["listener", "resumed"],
        },
    ];

    fn series(&self, names: &[String]) -> Vec<Vec<Metric>> {
        let [listener] = names else { return Vec::new() };
        let (mut counters, mut histograms) = (Vec::new(), Vec::new());
        let counted = |result, resumed, version, value| {
            let names =
                [("listener", &**listener), ("result", result), ("resumed", resumed), ("version", version)];
            counter(value, labels(&names))
        };
        for (resumption, resumed) in [(Resumption::Full, "no"), (Resumption::Resumed, "yes")] {
            let sum = self.succeeded(resumption);
            for (count, version) in sum.ways.iter().zip(["1.2", "1.3"]) {
                counters.push(counted("ok", resumed, version, *count));
            }
            let names = labels(&[("listener", listener), ("resumed", resumed)]);
            histograms.push(sum.histogram(&tally::HANDSHAKE, names));
        }
        counters.push(counted("failed", "no", "none", self.failed()));
        vec![counters, histograms]
    }
}

/// A handshake under way.
pub struct HandshakeInFlight(IntGauge);

impl Drop for HandshakeInFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A connection that is open.
pub struct OpenConnection(Arc<ListenerMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Of one route.
#[derive(Default)]
pub struct RouteMetrics(Sharded<Tally<6>>);

impl RouteMetrics {
    pub fn request(&self, status: u16, duration: Duration) {
        self.0.mine().count(class(status), &tally::REQUEST, duration);
    }
}

impl Counted for RouteMetrics {
    const FAMILIES: &'static [Family] = &[
        Family {
            name: "portcullis_requests_total",
            help: "Requests, by route and class of the answer's status.",
            kind: MetricType::COUNTER,
            labels: &["route", "status"],
        },
        Family {
            name: "portcullis_request_duration_seconds",
            help: "Time from the request's header to the end of its answer.",
            kind: MetricType::HISTOGRAM,
            labels: &["route"],
        },
    ];

    fn series(&self, names: &[String]) -> Vec<Vec<Metric>> {
        let [route] = names else { return Vec::new() };
        requests(&self.0, &[("route", route)])
    }
}

/// Of one endpoint.
pub struct EndpointMetrics {
    healthy: IntGauge,
    requests: Sharded<Tally<6>>,
    _lease: Lease,
}

impl EndpointMetrics {
    pub(super) fn new(healthy: IntGauge, lease: Lease) -> Self {
        Self { healthy, requests: Sharded::default(), _lease: lease }
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy.into());
    }

    /// `status`: 0 when no answer came.
    pub fn request(&self, status: u16, duration: Duration) {
        self.requests.mine().count(class(status), &tally::REQUEST, duration);
    }
}

impl Counted for EndpointMetrics {
    const FAMILIES: &'static [Family] = &[
        Family {
            name: "portcullis_endpoint_requests_total",
            help: "Requests sent to an endpoint, by class of its answer's status; `none`: no answer.",
            kind: MetricType::COUNTER,
            labels: &["pool", "endpoint", "status"],
        },
        Family {
            name: "portcullis_endpoint_duration_seconds",
            help: "Time to the endpoint's response header.",
            kind: MetricType::HISTOGRAM,
            labels: &["pool", "endpoint"],
        },
    ];

    fn series(&self, names: &[String]) -> Vec<Vec<Metric>> {
        let [pool, endpoint] = names else { return Vec::new() };
        requests(&self.requests, &[("pool", pool), ("endpoint", endpoint)])
    }
}

/// Requests of connections that are over.
#[derive(Default)]
pub(super) struct PerConnection(Sharded<Tally<0>>);

impl PerConnection {
    pub(super) fn observe(&self, requests: u32) {
        self.0.mine().observe(&tally::REQUESTS_PER_CONNECTION, requests.into());
    }
}

impl Counted for PerConnection {
    const FAMILIES: &'static [Family] = &[Family {
        name: "portcullis_requests_per_connection",
        help: "Requests that a connection had carried when it ended.",
        kind: MetricType::HISTOGRAM,
        labels: &[],
    }];

    fn series(&self, _: &[String]) -> Vec<Vec<Metric>> {
        vec![vec![Sum::of_all(&self.0).histogram(&tally::REQUESTS_PER_CONNECTION, Vec::new())]]
    }
}

/// Counters by class of status, and the histogram.
fn requests(tallies: &Sharded<Tally<6>>, names: &[(&str, &str)]) -> Vec<Vec<Metric>> {
    let sum = Sum::of_all(tallies);
    let counted = |(class, count): (&str, &u64)| {
        let names = [names, &[("status", class)]].concat();
        counter(*count, labels(&names))
    };
    let counters = CLASSES.into_iter().zip(&sum.ways).map(counted).collect();
    vec![counters, vec![sum.histogram(&tally::REQUEST, labels(names))]]
}

fn class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize,
        _ => 0,
    }
}
