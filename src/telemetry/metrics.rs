//! Every metric, named once. Prometheus text format; names and labels follow its conventions.
//!
//! Labels are bounded by the configuration, never by clients. The serving threads hold handles that were looked up
//! when the configuration was loaded.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::admission::Admission;
use super::census::CensusMetrics;
use super::fetch::{FetchFamilies, FetchMetrics};
use super::handles::{EndpointMetrics, Handshakes, ListenerMetrics, PerConnection, RouteMetrics};
use super::lease::{Lease, Users};
use super::limits::LimitMetrics;
use super::quarantine::QuarantineMetrics;
use super::shown::{Counted, Shown};
use super::{Declined, EndCause, HandshakeFailure, RevocationMetrics};
use crate::UnixTime;
use crate::limits::Limits;
use crate::trust::FaultKind;

/// The label `reason` of `portcullis_refusals_total`: `gateway::refusal` has a word for each.
const REFUSALS: [&str; 12] = [
    "bad_request",
    "no_route",
    "quarantined",
    "not_in_table",
    "misdirected",
    "limited",
    "no_endpoint",
    "upstream_connect_failed",
    "upstream_connect_timeout",
    "upstream_timeout",
    "upstream_failed",
    "internal",
];

/// The registry and the families that are labelled at run time of a load, not of a request.
pub struct Metrics {
    registry: Registry,
    started: IntCounterVec,
    handshakes: Shown<Handshakes>,
    admission: Shown<Admission>,
    failures: IntCounterVec,
    declined: IntCounterVec,
    ticket_keys: IntGaugeVec,
    ticket_key_made_at: IntGaugeVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    ended: IntCounterVec,
    quarantined: IntCounterVec,
    routes: Shown<RouteMetrics>,
    refusals: IntCounterVec,
    refused: [IntCounter; REFUSALS.len()],
    endpoint_healthy: IntGaugeVec,
    endpoints: Shown<EndpointMetrics>,
    certificate_expiry: IntGaugeVec,
    staples: IntGaugeVec,
    per_connection: Arc<PerConnection>,
    list_fetches: FetchFamilies,
    staple_fetches: FetchFamilies,
    revocation: RevocationMetrics,
    reloads: IntCounterVec,
    stale: IntGauge,
    loaded_at: IntGauge,
    dropped: IntCounter,
    panics: IntCounter,
    /// Made once: a request that matches no route must not cost more than another.
    unrouted: Arc<RouteMetrics>,
    limits: LimitMetrics,
    pub census: CensusMetrics,
    pub quarantine: QuarantineMetrics,
    users: Users,
}

impl Metrics {
    /// # Panics
    /// Only if two families below had the same name, which the first test would find.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let users = Users::default();
        let routes: Shown<RouteMetrics> = shown(r);
        let refusals = counters(
            r,
            "portcullis_refusals_total",
            "Requests that were answered by us and not by an origin, by reason.",
            &["reason"],
        );
        let metrics = Self {
            started: counters(
                r,
                "portcullis_tls_handshakes_started_total",
                "Handshakes begun.",
                &["listener"],
            ),
            handshakes: shown(r),
            admission: shown(r),
            failures: counters(
                r,
                "portcullis_tls_handshake_failures_total",
                "Handshakes that failed, by reason.",
                &["listener", "reason"],
            ),
            declined: counters(
                r,
                "portcullis_tls_resumptions_declined_total",
                "Sessions offered and not resumed, by cause; a full handshake decided instead.",
                &["listener", "cause"],
            ),
            ticket_keys: gauges(
                r,
                "portcullis_tls_ticket_keys",
                "Keys that open session tickets; the first of them seals.",
                &["listener"],
            ),
            ticket_key_made_at: gauges(
                r,
                "portcullis_tls_ticket_key_made_timestamp_seconds",
                "When the key that seals session tickets was made, or its file written.",
                &["listener"],
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
            ended: counters(
                r,
                "portcullis_connections_ended_total",
                "Open connections ended because their client may no longer be there, by cause.",
                &["listener", "cause"],
            ),
            quarantined: counters(
                r,
                "portcullis_tls_handshakes_quarantined_total",
                "Handshakes of clients that may only reach the routes that accept their fault, by fault.",
                &["listener", "fault"],
            ),
            unrouted: routes.get(&["none"], RouteMetrics::default),
            routes,
            refused: REFUSALS.map(|reason| refusals.with_label_values(&[reason])),
            refusals,
            endpoint_healthy: gauges(
                r,
                "portcullis_endpoint_healthy",
                "1 while the endpoint is believed to work.",
                &["pool", "endpoint"],
            ),
            endpoints: shown(r),
            certificate_expiry: gauges(
                r,
                "portcullis_certificate_not_after_timestamp_seconds",
                "When a certificate of ours or a trust anchor expires.",
                &["kind", "name", "subject"],
            ),
            staples: gauges(
                r,
                "portcullis_ocsp_staple_next_update_timestamp_seconds",
                "Until when the OCSP response of a certificate of ours is stapled; 0: there is none.",
                &["listener", "subject"],
            ),
            per_connection: shown(r).get(&[], PerConnection::default),
            list_fetches: FetchFamilies::of_lists(r),
            staple_fetches: FetchFamilies::of_staples(r),
            revocation: RevocationMetrics::new(r),
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
            panics: counter(r, "portcullis_panics_total", "Panics caught: each is a fault of the program."),
            limits: limits(r),
            census: CensusMetrics::new(r),
            quarantine: QuarantineMetrics::new(r),
            users,
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
        register(&registry, super::process::Process::new());
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

    /// The handles of one listener. Its series are shown until the last of its handles is gone; so it is with
    /// routes and endpoints.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut lease = Lease::new(&self.users, format!("listener {name}"));
        let failures = HandshakeFailure::ALL.iter();
        Arc::new(ListenerMetrics {
            started: lease.series(&self.started, &[name]),
            handshakes: self.handshakes.get(&[name], Handshakes::default),
            admission: self.admission.get(&[name], Admission::default),
            failures: failures
                .map(|failure| lease.series(&self.failures, &[name, failure.as_str()]))
                .collect(),
            declined: Declined::ALL.map(|cause| lease.series(&self.declined, &[name, cause.as_str()])),
            ticket_keys: lease.series(&self.ticket_keys, &[name]),
            ticket_key_made_at: lease.series(&self.ticket_key_made_at, &[name]),
            in_flight: lease.series(&self.in_flight, &[name]),
            connections: lease.series(&self.connections, &[name]),
            connections_total: lease.series(&self.connections_total, &[name]),
            quarantined: FaultKind::ALL.map(|fault| lease.series(&self.quarantined, &[name, fault.as_str()])),
            ended: EndCause::ALL.map(|cause| lease.series(&self.ended, &[name, cause.as_str()])),
            _lease: lease,
        })
    }

    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.get(&[name], RouteMetrics::default)
    }

    /// Requests that matched no route.
    pub fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    pub fn endpoint(&self, pool: &str, endpoint: &str) -> Arc<EndpointMetrics> {
        self.endpoints.get(&[pool, endpoint], || {
            let mut lease = Lease::new(&self.users, format!("endpoint {pool} {endpoint}"));
            let healthy = lease.series(&self.endpoint_healthy, &[pool, endpoint]);
            EndpointMetrics::new(healthy, lease)
        })
    }

    /// The list of a trust domain that is fetched from `url`.
    pub fn revocation_fetch(&self, domain: &str, url: &str) -> Arc<FetchMetrics> {
        self.list_fetches.series(&self.users, "list", [domain, url])
    }

    /// The OCSP response about the certificate of `subject`.
    pub fn ocsp_fetch(&self, listener: &str, subject: &str) -> Arc<FetchMetrics> {
        self.staple_fetches.series(&self.users, "ocsp", [listener, subject])
    }

    pub fn refused(&self, reason: &'static str) {
        match REFUSALS.iter().position(|known| *known == reason) {
            Some(index) => self.refused[index].inc(),
            // A word that was added elsewhere is counted too, only slower.
            None => self.refusals.with_label_values(&[reason]).inc(),
        }
    }

    /// Those that are in force.
    pub fn show_limits(&self, limits: &Limits) {
        self.limits.show(limits);
    }

    pub fn set_certificate_expiry(&self, kind: &str, name: &str, subject: &str, not_after: UnixTime) {
        self.certificate_expiry.with_label_values(&[kind, name, subject]).set(not_after);
    }

    /// Those of certificates that are gone must not warn for ever.
    pub fn forget_certificates(&self) {
        self.certificate_expiry.reset();
    }

    pub fn set_staple(&self, listener: &str, subject: &str, next_update: Option<UnixTime>) {
        self.staples.with_label_values(&[listener, subject]).set(next_update.unwrap_or(0));
    }

    pub fn forget_staples(&self) {
        self.staples.reset();
    }

    pub fn revocation(&self) -> &RevocationMetrics {
        &self.revocation
    }

    pub fn requests_per_connection(&self, requests: u32) {
        self.per_connection.observe(requests);
    }

    /// `is_stale`: an earlier one that failed is not mended by it.
    pub fn reload_succeeded(&self, is_stale: bool) {
        self.reloads.with_label_values(&["ok"]).inc();
        self.stale.set(is_stale.into());
        self.loaded_at.set(unix_now());
    }

    pub fn reload_failed(&self) {
        self.reloads.with_label_values(&["failed"]).inc();
        self.stale.set(1);
    }

    pub fn log_records_dropped(&self, count: u64) {
        self.dropped.inc_by(count);
    }

    /// How many log records were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn limits(registry: &Registry) -> LimitMetrics {
    let limits = LimitMetrics::new();
    register(registry, limits.clone());
    limits
}

fn shown<T: Counted>(registry: &Registry) -> Shown<T> {
    let shown = Shown::new();
    register(registry, shown.clone());
    shown
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}

pub(super) fn register(registry: &Registry, collector: impl prometheus::core::Collector + 'static) {
    let registered = registry.register(Box::new(collector));
    debug_assert!(registered.is_ok(), "{registered:?}");
}

/// The names and labels are literals above, so the constructors cannot fail; each family registers itself.
macro_rules! family {
    ($function:ident, $kind:ty, $make:expr) => {
        pub(super) fn $function(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> $kind {
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

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    counters(registry, name, help, &[]).with_label_values::<&str>(&[])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gateway::refusal::Refusal;
    use crate::telemetry::{AnchorGauges, Resumption, TlsVersion};

    const DOCUMENTATION: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn every_reason_is_there_from_the_start() {
        let metrics = Metrics::new();
        let _held = metrics.listener("edge");
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
        for (index, cause) in Declined::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
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

    #[test]
    fn every_refusal_is_there_from_the_start() {
        let metrics = Metrics::new();
        for refusal in [
            Refusal::BadRequest,
            Refusal::NoRoute,
            Refusal::Quarantined,
            Refusal::NotInTable,
            Refusal::Misdirected,
            Refusal::Limited,
            Refusal::NoEndpoint,
            Refusal::ConnectFailed,
            Refusal::ConnectTimeout,
            Refusal::UpstreamTimeout,
            Refusal::UpstreamFailed,
            Refusal::Internal,
        ] {
            let line =
                |count| format!("portcullis_refusals_total{{reason=\"{}\"}} {count}", refusal.as_str());
            assert!(metrics.render().contains(&line(0)), "{}", line(0));
            metrics.refused(refusal.as_str());
            assert!(metrics.render().contains(&line(1)), "{}", line(1));
        }
    }

    #[test]
    fn the_reference_names_every_family_and_every_reason() {
        let metrics = Metrics::new();
        let held = (metrics.listener("edge"), metrics.route("r"), metrics.endpoint("p", "e"));
        let fetched =
            (metrics.revocation_fetch("fleet", "http://crl.test/"), metrics.ocsp_fetch("edge", "CN=a"));
        metrics.set_certificate_expiry("server", "edge", "CN=a", 1);
        metrics.set_staple("edge", "CN=a", None);
        metrics.revocation().show_lists(vec![crate::telemetry::ListStatus {
            trust_domain: "fleet".into(),
            issuer: "CN=a".into(),
            scope: String::new(),
            entries: 1,
            this_update: 1,
            next_update: Some(2),
        }]);
        metrics.show_limits(&crate::limits::Limits::for_tests());
        let fingerprint = "0".repeat(64);
        let expiring = [("7d", 1), ("30d", 1), ("90d", 1)];
        let anchor = AnchorGauges {
            trust_domain: "fleet",
            anchor: "CN=a",
            fingerprint,
            connections: 1,
            in_use: 1,
            expired: 0,
            expiring,
        };
        metrics.census.set(std::iter::once(anchor));
        let families: Vec<String> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .filter(|name| name.starts_with("portcullis_"))
            .collect();
        let reasons = HandshakeFailure::ALL.iter().map(|failure| failure.as_str());
        let causes = Declined::ALL.iter().map(|cause| cause.as_str());
        let words = families.iter().map(String::as_str).chain(reasons).chain(REFUSALS).chain(causes);
        for word in words {
            assert!(DOCUMENTATION.contains(&format!("`{word}`")), "docs/metrics.md does not name `{word}`");
        }
        let rows = DOCUMENTATION.lines().filter(|line| line.starts_with("| `portcullis_"));
        let named: Vec<&str> =
            rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`')).collect();
        for name in named.into_iter().filter(|name| name.starts_with("portcullis_")) {
            assert!(
                families.iter().any(|family| family == name),
                "docs/metrics.md names `{name}`, which is gone"
            );
        }
        drop((held, fetched));
    }

    #[test]
    fn what_no_configuration_names_is_not_shown() {
        let metrics = Metrics::new();
        let before = metrics.render();
        let in_force = metrics.endpoint("fleet", "10.0.0.1:80");
        in_force.set_healthy(true);
        let reloaded = metrics.endpoint("fleet", "10.0.0.1:80");
        drop(in_force);
        assert!(
            metrics
                .render()
                .contains(r#"portcullis_endpoint_healthy{endpoint="10.0.0.1:80",pool="fleet"} 1"#)
        );
        drop(reloaded);
        drop((metrics.listener("edge"), metrics.route("users")));
        let own = |text: &str| -> Vec<String> {
            text.lines().filter(|line| line.starts_with("portcullis_")).map(str::to_owned).collect()
        };
        assert_eq!(own(&before), own(&metrics.render()));
    }

    #[test]
    fn a_listener_is_shown_while_a_connection_of_it_is_open() {
        let metrics = Metrics::new();
        let open = metrics.listener("old").connection_opened();
        assert!(metrics.render().contains(r#"portcullis_connections{listener="old"} 1"#));
        drop(open);
        assert!(!metrics.render().contains(r#"listener="old""#));
    }
}
