//! What the serving threads count with: handles looked up when a configuration is loaded, so that counting is one
//! atomic addition.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::lease::Lease;
use super::{EndCause, HandshakeFailure};

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
    /// By resumption, then by version.
    pub(super) succeeded: [[IntCounter; 2]; 2],
    pub(super) failed: IntCounter,
    pub(super) failures: Vec<IntCounter>,
    pub(super) durations: [Histogram; 2],
    pub(super) in_flight: IntGauge,
    pub(super) connections: IntGauge,
    pub(super) connections_total: IntCounter,
    pub(super) ended: [IntCounter; EndCause::ALL.len()],
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
    pub(super) classes: [IntCounter; 6],
    pub(super) duration: Histogram,
    pub(super) _lease: Lease,
}

impl RouteMetrics {
    pub fn request(&self, status: u16, duration: Duration) {
        self.classes[class(status)].inc();
        self.duration.observe(duration.as_secs_f64());
    }
}

/// Of one endpoint.
pub struct EndpointMetrics {
    pub(super) healthy: IntGauge,
    pub(super) classes: [IntCounter; 6],
    pub(super) duration: Histogram,
    pub(super) _lease: Lease,
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
