//! Upstream pools: the servers behind the gateway, and which of them gets the next request.

mod announcement;
mod balance;
mod endpoint;
mod origin;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use pingora_core::upstreams::peer::HttpPeer;

use crate::certificate::Fingerprint;
use crate::config::{HealthConfig, HostHeader, PoolConfig, PoolTimeouts, UpstreamProtocol};
use crate::fields::Fields;
use crate::proxy_protocol::Header;
use crate::telemetry::Metrics;
use balance::Balancer;
use peer::PeerTemplate;

pub use announcement::OnBehalf;
pub use balance::HashValue;
pub use endpoint::{Endpoint, EndpointId};
pub use origin::Origin;

/// Certificates and keys that a pool's TLS needs, read from their files.
#[derive(Default)]
pub struct LoadedUpstreamTls {
    /// `None`: the server's certificate is not verified.
    pub ca: Option<Vec<X509>>,
    /// Ours, where the server demands one: chain, leaf first, and key.
    pub client: Option<(Vec<X509>, PKey<Private>)>,
}

/// What a consistent hash may be taken of.
pub struct HashInput<'a> {
    pub client: Option<&'a Fingerprint>,
    pub path: &'a str,
    pub headers: Fields<'a>,
}

/// A set of servers of which each can answer the same requests.
pub struct UpstreamPool {
    name: Arc<str>,
    endpoints: Vec<Arc<Endpoint>>,
    balancer: Balancer,
    template: PeerTemplate,
    health: Option<HealthConfig>,
    host_header: HostHeader,
    retries: u32,
    timeouts: PoolTimeouts,
    plain: bool,
    dns_refresh: Duration,
}

impl UpstreamPool {
    /// Health verdicts of endpoints that `previous` had too are carried over.
    pub fn build(
        config: &PoolConfig,
        tls: LoadedUpstreamTls,
        previous: Option<&Self>,
        metrics: &Metrics,
    ) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut endpoints = Vec::new();
        for (index, endpoint) in config.endpoints.iter().enumerate() {
            let known =
                previous.and_then(|pool| pool.endpoints.iter().find(|e| **e.address() == *endpoint.address));
            let metrics = metrics.endpoint(&config.name, &endpoint.address);
            let built = Endpoint::build(EndpointId(index), endpoint, config.ejection.clone(), known, metrics);
            if !built.is_resolved() {
                warnings.push(format!(
                    "pools.{}: the name of `{}` has no address yet; it is asked for again every {:?}",
                    config.name, endpoint.address, config.dns_refresh
                ));
            }
            endpoints.push(Arc::new(built));
        }
        let pool = Self {
            name: config.name.clone(),
            balancer: Balancer::new(&config.balance, &endpoints),
            endpoints,
            template: PeerTemplate::new(config, tls),
            health: config.health.clone(),
            host_header: config.host_header.clone(),
            retries: config.retries,
            timeouts: config.timeouts.clone(),
            plain: config.tls.is_none()
                && config.protocol == UpstreamProtocol::Http1
                && config.proxy_protocol.is_none(),
            dns_refresh: config.dns_refresh,
        };
        (pool, warnings)
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub fn health(&self) -> Option<&HealthConfig> {
        self.health.as_ref()
    }

    pub fn host_header(&self) -> &HostHeader {
        &self.host_header
    }

    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// How long a request and its answer may take in all.
    pub fn total_timeout(&self) -> Option<Duration> {
        self.timeouts.total
    }

    pub fn dns_refresh(&self) -> Duration {
        self.dns_refresh
    }

    pub fn timeouts(&self) -> &PoolTimeouts {
        &self.timeouts
    }

    /// Whether its endpoints speak plain HTTP/1.1 and nothing else, for which we need no library.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    pub fn is_tls(&self) -> bool {
        self.template.is_tls()
    }

    /// What a request is balanced by, where the pool balances by a hash.
    pub fn hash(&self, input: &HashInput<'_>) -> HashValue {
        self.balancer.hash(input)
    }

    /// An endpoint that works, as far as is known, and is not in `tried`. `None`: there is none, which is a 503:
    /// sending requests to servers that are known to be down would only make their recovery harder.
    pub fn choose(&self, hash: HashValue, tried: &[EndpointId]) -> Option<&Endpoint> {
        let index = self.balancer.choose(&self.endpoints, hash, tried)?;
        Some(&self.endpoints[index])
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(id.0).map(Arc::as_ref)
    }

    /// Whether its endpoints are told who the client is before anything else, so that each connection is of one client.
    pub fn announces(&self) -> bool {
        self.template.announces()
    }

    /// With which a connection to one of them begins.
    pub fn announcement(&self, header: &Header) -> Vec<u8> {
        self.template.announcement(header)
    }

    /// How Pingora reaches `endpoint`; `None` while its name has no address. `client` is asked for if it is to be told.
    pub fn peer(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        client: impl FnOnce() -> OnBehalf,
    ) -> Option<Box<HttpPeer>> {
        Some(self.template.peer(endpoint.next_address()?, patience, client))
    }
}

/// How long to wait for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As the pool's timeouts say.
    Usual,
    /// An upgraded connection is silent for as long as its two ends like.
    Endless,
    /// No step takes longer than what is left of the request's time.
    AtMost(Duration),
}

/// Position among the pools of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolId(usize);

/// All pools of one configuration. A request keeps the number of its own, not a count on it that all threads would write.
#[derive(Clone, Default)]
pub struct Pools {
    by_name: AHashMap<Arc<str>, PoolId>,
    all: Vec<Arc<UpstreamPool>>,
}

impl Pools {
    pub fn add(&mut self, pool: UpstreamPool) {
        self.by_name.insert(pool.name.clone(), PoolId(self.all.len()));
        self.all.push(Arc::new(pool));
    }

    pub fn find(&self, name: &str) -> Option<PoolId> {
        self.by_name.get(name).copied()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<UpstreamPool>> {
        self.get(self.find(name)?)
    }

    pub fn get(&self, id: PoolId) -> Option<&Arc<UpstreamPool>> {
        self.all.get(id.0)
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<UpstreamPool>> {
        self.all.iter()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
