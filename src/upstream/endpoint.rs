//! One server of a pool: where it is, whether it works, how busy it is.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::config::{EjectionConfig, EndpointConfig};
use crate::shard::Level;
use crate::telemetry::EndpointMetrics;

/// Position in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointId(pub usize);

/// All state is atomic: it is read for every request.
pub struct Endpoint {
    id: EndpointId,
    address: Arc<str>,
    weight: u32,
    resolved: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
    /// What the active checks say; true where there are none.
    healthy: AtomicBool,
    /// Consecutive results of the active checks, towards the other verdict.
    streak: AtomicU32,
    ejection: Option<EjectionConfig>,
    failures: AtomicU32,
    /// Milliseconds of [`clock`] until which the endpoint gets nothing; 0: it is not ejected.
    ejected_until: AtomicU64,
    in_flight: Level,
    metrics: Arc<EndpointMetrics>,
}

/// Milliseconds since the first call: monotonic, and fits an atomic.
fn clock() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

impl Endpoint {
    pub(super) fn build(
        id: EndpointId,
        config: &EndpointConfig,
        ejection: Option<EjectionConfig>,
        known: Option<&Arc<Self>>,
        metrics: Arc<EndpointMetrics>,
    ) -> Self {
        // A reload waits for no resolver: names that were known are resolved again in their own time.
        let resolved = match known {
            Some(known) if known.is_resolved() => known.resolved.load().to_vec(),
            _ => resolve(&config.address),
        };
        let endpoint = Self {
            id,
            address: config.address.as_str().into(),
            weight: config.weight,
            resolved: ArcSwap::from_pointee(resolved),
            next: AtomicUsize::new(0),
            healthy: AtomicBool::new(known.is_none_or(|known| known.healthy.load(Ordering::Relaxed))),
            streak: AtomicU32::new(0),
            ejection,
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(
                known.map_or(0, |known| known.ejected_until.load(Ordering::Relaxed)),
            ),
            in_flight: Level::default(),
            metrics,
        };
        endpoint.metrics.set_healthy(endpoint.is_available());
        endpoint
    }

    pub fn id(&self) -> EndpointId {
        self.id
    }

    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub fn weight(&self) -> u32 {
        self.weight
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub fn is_resolved(&self) -> bool {
        !self.resolved.load().is_empty()
    }

    /// Addresses of a name take turns.
    pub fn next_address(&self) -> Option<SocketAddr> {
        let resolved = self.resolved.load();
        match resolved.len() {
            0 => None,
            1 => Some(resolved[0]),
            len => Some(resolved[self.next.fetch_add(1, Ordering::Relaxed) % len]),
        }
    }

    /// What a name resolves to now. An empty answer changes nothing: the last good one stays.
    pub fn replace_addresses(&self, addresses: Vec<SocketAddr>) {
        if !addresses.is_empty() && **self.resolved.load() != addresses {
            self.resolved.store(Arc::new(addresses));
        }
    }

    pub fn is_available(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) && self.is_resolved() && !self.is_ejected()
    }

    fn is_ejected(&self) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        until != 0 && clock() < until
    }

    /// A request was answered.
    pub fn report_success(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.ejected_until.load(Ordering::Relaxed) != 0 && !self.is_ejected() {
            self.ejected_until.store(0, Ordering::Relaxed);
            self.metrics.set_healthy(self.healthy.load(Ordering::Relaxed));
        }
    }

    /// A request could not be sent or was not answered.
    pub fn report_failure(&self) {
        let Some(ejection) = &self.ejection else { return };
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= ejection.consecutive_failures && !self.is_ejected() {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(clock() + ejection.duration.as_millis() as u64, Ordering::Relaxed);
            self.metrics.set_healthy(false);
            log::warn!(
                "endpoint {} is ejected for {:?}: {failures} failures in a row",
                self.address,
                ejection.duration
            );
        }
    }

    /// What an active check found; `needed` results in a row change the verdict.
    pub fn report_check(&self, works: bool, needed: u32, detail: &str) {
        if self.healthy.load(Ordering::Relaxed) == works {
            self.streak.store(0, Ordering::Relaxed);
            return;
        }
        if self.streak.fetch_add(1, Ordering::Relaxed) + 1 < needed {
            return;
        }
        self.streak.store(0, Ordering::Relaxed);
        self.healthy.store(works, Ordering::Relaxed);
        self.metrics.set_healthy(self.is_available());
        if works {
            log::info!("endpoint {} is healthy again", self.address);
        } else {
            log::warn!("endpoint {} is unhealthy: {detail}", self.address);
        }
    }

    /// `status`: `None` when no answer came.
    pub fn record(&self, status: Option<u16>, latency: Duration) {
        self.metrics.request(status.unwrap_or(0), latency);
    }

    /// It is at work for one more request, until [`leave`](Self::leave).
    pub fn enter(&self) {
        self.in_flight.up();
    }

    pub fn leave(&self) {
        self.in_flight.down();
    }
}

/// Blocks; used while a configuration is loaded.
fn resolve(address: &str) -> Vec<SocketAddr> {
    address.to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}
