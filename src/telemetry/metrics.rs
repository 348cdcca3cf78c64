//! Every metric, named once. Prometheus text format; names and labels follow its conventions.
//!
//! Labels are bounded by the configuration, never by clients. The serving threads hold handles that were looked up
//! when the configuration was loaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::HandshakeFailure;
use crate::UnixTime;

/// Seconds. A handshake takes from a tenth of a millisecond to the deadline.
const HANDSHAKE_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const REQUEST_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const REQUESTS_PER_CONNECTION: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 1000.0, 10000.0];

/// The status classes of `portcullis_requests_total`; `none`: the client was gone before an answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The registry and the families that are labelled at run time of a load, not of a request.
pub struct Metrics {
    registry: Registry,
    started: IntCounterVec,
    finished: IntCounterVec,
    failures: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    requests: IntCounterVec,
    request_durations: HistogramVec,
    refusals: IntCounterVec,
    endpoint_healthy: IntGaugeVec,
    endpoint_requests: IntCounterVec,
    endpoint_durations: HistogramVec,
    certificate_expiry: IntGaugeVec,
    per_connection: Histogram,
    reloads: IntCounterVec,
    stale: IntGauge,
    loaded_at: IntGauge,
    dropped: IntCounter,
}

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

impl Metrics {
    /// # Panics
    /// Only if two families below had the same name, which the first test would find.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            started: counters(
                r,
                "portcullis_tls_handshakes_started_total",
                "Handshakes begun.",
                &["listener"],
            ),
            finished: counters(
                r,
                "portcullis_tls_handshakes_total",
                "Handshakes ended, by result, resumption and TLS version.",
                &["listener", "result", "resumed", "version"],
            ),
            failures: counters(
                r,
                "portcullis_tls_handshake_failures_total",
                "Handshakes that failed, by reason.",
                &["listener", "reason"],
            ),
            durations: histograms(
                r,
                "portcullis_tls_handshake_duration_seconds",
                "Time from the accepted connection to the finished handshake.",
                &["listener", "resumed"],
                HANDSHAKE_BUCKETS,
            ),
            in_flight: gauges(
                r,
                "portcullis_tls_handshakes_in_flight",
                "Handshakes under way.",
                &["listener"],
            ),
            connections: gauges(r, "portcullis_connections", "Connections open.", &["listener"]),
            connections_total: counters(
                r,
                "portcullis_connections_total",
                "Connections accepted.",
                &["listener"],
            ),
            requests: counters(
                r,
                "portcullis_requests_total",
                "Requests, by route and class of the answer's status.",
                &["route", "status"],
            ),
            request_durations: histograms(
                r,
                "portcullis_request_duration_seconds",
                "Time from the request's header to the end of its answer.",
                &["route"],
                REQUEST_BUCKETS,
            ),
            refusals: counters(
                r,
                "portcullis_refusals_total",
                "Requests that were answered by us and not by an origin, by reason.",
                &["reason"],
            ),
            endpoint_healthy: gauges(
                r,
                "portcullis_endpoint_healthy",
                "1 while the endpoint is believed to work.",
                &["pool", "endpoint"],
            ),
            endpoint_requests: counters(
                r,
                "portcullis_endpoint_requests_total",
                "Requests sent to an endpoint, by class of its answer's status; `none`: no answer.",
                &["pool", "endpoint", "status"],
            ),
            endpoint_durations: histograms(
                r,
                "portcullis_endpoint_duration_seconds",
                "Time to the endpoint's response header.",
                &["pool", "endpoint"],
                REQUEST_BUCKETS,
            ),
            certificate_expiry: gauges(
                r,
                "portcullis_certificate_not_after_timestamp_seconds",
                "When a certificate of ours or a trust anchor expires.",
                &["kind", "name", "subject"],
            ),
            per_connection: histograms(
                r,
                "portcullis_requests_per_connection",
                "Requests that a connection had carried when it ended.",
                &[],
                REQUESTS_PER_CONNECTION,
            )
            .with_label_values::<&str>(&[]),
            reloads: counters(r, "portcullis_reloads_total", "Reloads, by result.", &["result"]),
            stale: gauge(
                r,
                "portcullis_config_stale",
                "1 while what is in force is older than a reload that failed.",
            ),
            loaded_at: gauge(
                r,
                "portcullis_config_loaded_timestamp_seconds",
                "When the configuration in force was loaded.",
            ),
            dropped: counter(
                r,
                "portcullis_log_records_dropped_total",
                "Log records dropped: nobody read fast enough.",
            ),
            registry: registry.clone(),
        };
        gauges(&registry, "portcullis_build_info", "Always 1.", &["version", "tls_library"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), openssl::version::version()])
            .set(1);
        for result in ["ok", "failed"] {
            metrics.reloads.with_label_values(&[result]);
        }
        metrics.loaded_at.set(unix_now());
        #[cfg(target_os = "linux")]
        register(&registry, prometheus::process_collector::ProcessCollector::for_self());
        metrics
    }

    /// The text exposition format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("# {error}\n"),
        }
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let finished = |result: &str, resumed: &str, version: &str| {
            self.finished.with_label_values(&[name, result, resumed, version])
        };
        let by_version = |resumed| [finished("ok", resumed, "1.2"), finished("ok", resumed, "1.3")];
        Arc::new(ListenerMetrics {
            started: self.started.with_label_values(&[name]),
            succeeded: [by_version("no"), by_version("yes")],
            failed: finished("failed", "no", "none"),
            failures: HandshakeFailure::ALL
                .iter()
                .map(|failure| self.failures.with_label_values(&[name, failure.as_str()]))
                .collect(),
            durations: ["no", "yes"].map(|resumed| self.durations.with_label_values(&[name, resumed])),
            in_flight: self.in_flight.with_label_values(&[name]),
            connections: self.connections.with_label_values(&[name]),
            connections_total: self.connections_total.with_label_values(&[name]),
            open: AtomicUsize::new(0),
        })
    }

    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        Arc::new(RouteMetrics {
            classes: CLASSES.map(|class| self.requests.with_label_values(&[name, class])),
            duration: self.request_durations.with_label_values(&[name]),
        })
    }

    /// Requests that matched no route.
    pub fn unrouted(&self) -> Arc<RouteMetrics> {
        self.route("none")
    }

    pub fn endpoint(&self, pool: &str, endpoint: &str) -> Arc<EndpointMetrics> {
        Arc::new(EndpointMetrics {
            healthy: self.endpoint_healthy.with_label_values(&[pool, endpoint]),
            classes: CLASSES.map(|class| self.endpoint_requests.with_label_values(&[pool, endpoint, class])),
            duration: self.endpoint_durations.with_label_values(&[pool, endpoint]),
        })
    }

    pub fn refused(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    pub fn set_certificate_expiry(&self, kind: &str, name: &str, subject: &str, not_after: UnixTime) {
        self.certificate_expiry.with_label_values(&[kind, name, subject]).set(not_after);
    }

    /// Those of certificates that are gone must not warn for ever.
    pub fn forget_certificates(&self) {
        self.certificate_expiry.reset();
    }

    pub fn requests_per_connection(&self, requests: u32) {
        self.per_connection.observe(f64::from(requests));
    }

    pub fn reload_succeeded(&self) {
        self.reloads.with_label_values(&["ok"]).inc();
        self.stale.set(0);
        self.loaded_at.set(unix_now());
    }

    pub fn reload_failed(&self) {
        self.reloads.with_label_values(&["failed"]).inc();
        self.stale.set(1);
    }

    pub fn log_record_dropped(&self) {
        self.dropped.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Of one listener.
pub struct ListenerMetrics {
    started: IntCounter,
    /// By resumption, then by version.
    succeeded: [[IntCounter; 2]; 2],
    failed: IntCounter,
    failures: Vec<IntCounter>,
    durations: [Histogram; 2],
    in_flight: IntGauge,
    connections: IntGauge,
    connections_total: IntCounter,
    open: AtomicUsize,
}

impl ListenerMetrics {
    /// Under way until the guard is dropped.
    pub fn handshake_started(&self) -> HandshakeInFlight {
        self.started.inc();
        self.in_flight.inc();
        HandshakeInFlight(self.in_flight.clone())
    }

    pub fn handshake_succeeded(&self, resumption: Resumption, version: TlsVersion, duration: Duration) {
        self.succeeded[resumption as usize][version as usize].inc();
        self.durations[resumption as usize].observe(duration.as_secs_f64());
    }

    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.failed.inc();
        self.failures[failure.index()].inc();
    }

    pub fn handshakes_in_flight(&self) -> usize {
        self.in_flight.get().max(0) as usize
    }

    /// Open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        self.connections.inc();
        self.connections_total.inc();
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }

    pub fn open_connections(&self) -> usize {
        self.connections.get().max(0) as usize
    }

    /// Full and resumed handshakes that succeeded, and those that failed.
    pub fn handshakes(&self) -> (u64, u64, u64) {
        let sum = |counters: &[IntCounter; 2]| counters.iter().map(IntCounter::get).sum();
        (sum(&self.succeeded[0]), sum(&self.succeeded[1]), self.failed.get())
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
pub struct RouteMetrics {
    classes: [IntCounter; 6],
    duration: Histogram,
}

impl RouteMetrics {
    pub fn request(&self, status: u16, duration: Duration) {
        self.classes[class(status)].inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

/// Of one endpoint.
pub struct EndpointMetrics {
    healthy: IntGauge,
    classes: [IntCounter; 6],
    duration: Histogram,
}

impl EndpointMetrics {
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy.into());
    }

    /// `status`: 0 when no answer came.
    pub fn request(&self, status: u16, duration: Duration) {
        self.classes[class(status)].inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

fn class(status: u16) -> usize {
    match status / 100 {
        class @ 1..=5 => class as usize,
        _ => 0,
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    let registered = registry.register(Box::new(collector));
    debug_assert!(registered.is_ok(), "{registered:?}");
}

/// The names and labels are literals above, so the constructors cannot fail; each family registers itself.
macro_rules! family {
    ($function:ident, $kind:ty, $make:expr) => {
        fn $function(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> $kind {
            let family: $kind = $make(Opts::new(name, help), labels).expect("a valid literal name");
            register(registry, family.clone());
            family
        }
    };
}

family!(counters, IntCounterVec, IntCounterVec::new);
family!(gauges, IntGaugeVec, IntGaugeVec::new);

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    gauges(registry, name, help, &[]).with_label_values::<&str>(&[])
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    counters(registry, name, help, &[]).with_label_values::<&str>(&[])
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let family = HistogramVec::new(options, labels).expect("a valid literal name");
    register(registry, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.listener("edge");
        let text = metrics.render();
        for failure in HandshakeFailure::ALL {
            let line = format!(
                "portcullis_tls_handshake_failures_total{{listener=\"edge\",reason=\"{}\"}} 0",
                failure.as_str()
            );
            assert!(text.contains(&line), "{line}");
        }
        for (index, failure) in HandshakeFailure::ALL.iter().enumerate() {
            assert_eq!(failure.index(), index);
        }
    }

    #[test]
    fn full_and_resumed_handshakes_are_told_apart() {
        let metrics = Metrics::new();
        let listener = metrics.listener("edge");
        listener.handshake_succeeded(Resumption::Resumed, TlsVersion::Tls12, Duration::from_millis(1));
        let text = metrics.render();
        let line = |resumed, version, count| {
            format!(
                "portcullis_tls_handshakes_total{{listener=\"edge\",result=\"ok\",resumed=\"{resumed}\",\
                 version=\"{version}\"}} {count}"
            )
        };
        assert!(text.contains(&line("yes", "1.2", 1)), "{text}");
        assert!(text.contains(&line("no", "1.2", 0)), "{text}");
    }

    #[test]
    fn guards_give_back_what_they_took() {
        let metrics = Metrics::new();
        let listener = metrics.listener("edge");
        let guards = (listener.handshake_started(), listener.connection_opened());
        assert_eq!((listener.handshakes_in_flight(), listener.open_connections()), (1, 1));
        drop(guards);
        assert_eq!((listener.handshakes_in_flight(), listener.open_connections()), (0, 0));
    }
}
