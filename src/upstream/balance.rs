//! Which endpoint gets the next request.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use http::HeaderName;

use super::HashInput;
use super::endpoint::{Endpoint, EndpointId};
use crate::config::{Balance, HashKey};
use crate::shard::Sharded;

/// Of whatever a pool balances by.
#[derive(Debug, Clone, Copy, Default)]
pub struct HashValue(u64);

/// The way a pool chooses. Only atomics: every request passes here.
pub(super) enum Balancer {
    /// A cycle in which each endpoint appears as often as its weight, spread evenly.
    RoundRobin {
        cycle: Vec<usize>,
        turn: Turn,
    },
    LeastConnections {
        turn: Turn,
    },
    /// The less busy of two chosen at random.
    Random {
        cycle: Vec<usize>,
    },
    Hash(HashKey),
}

/// Whose turn it is. Each thread goes round on its own, beginning somewhere else than the others.
pub(super) struct Turn(Sharded<AtomicUsize>);

impl Turn {
    fn new() -> Self {
        Self(Sharded::new(AtomicUsize::new))
    }

    fn next(&self) -> usize {
        self.0.mine().fetch_add(1, Ordering::Relaxed)
    }
}

impl Balancer {
    pub(super) fn new(balance: &Balance, endpoints: &[Arc<Endpoint>]) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight()).collect();
        match balance {
            Balance::RoundRobin => Self::RoundRobin { cycle: smooth_cycle(&weights), turn: Turn::new() },
            Balance::LeastConnections => Self::LeastConnections { turn: Turn::new() },
            Balance::Random => Self::Random { cycle: smooth_cycle(&weights) },
            Balance::Hash(key) => Self::Hash(key.clone()),
        }
    }

    pub(super) fn hash(&self, input: &HashInput<'_>) -> HashValue {
        match self {
            Self::Hash(key) => HashValue(hash_key(key, input)),
            _ => HashValue::default(),
        }
    }

    pub(super) fn choose(
        &self,
        endpoints: &[Arc<Endpoint>],
        hash: HashValue,
        tried: &[EndpointId],
    ) -> Option<usize> {
        let usable = |index: &usize| !tried.contains(&EndpointId(*index)) && endpoints[*index].is_available();
        match self {
            Self::RoundRobin { cycle, turn } => from(cycle, turn.next()).find(usable),
            Self::LeastConnections { turn } => {
                let start = turn.next();
                // Equally busy ones take turns: the first minimum after a moving start.
                let all = (0..endpoints.len()).map(|offset| (start + offset) % endpoints.len());
                all.filter(usable).min_by(|&a, &b| load(&endpoints[a]).total_cmp(&load(&endpoints[b])))
            }
            Self::Random { cycle } => {
                let first = from(cycle, rand::random::<u32>() as usize).find(usable)?;
                let second = from(cycle, rand::random::<u32>() as usize).find(usable)?;
                Some(if load(&endpoints[second]) < load(&endpoints[first]) { second } else { first })
            }
            Self::Hash(_) => (0..endpoints.len())
                .filter(usable)
                .max_by(|&a, &b| score(&endpoints[a], hash).total_cmp(&score(&endpoints[b], hash))),
        }
    }
}

fn from(cycle: &[usize], start: usize) -> impl Iterator<Item = usize> {
    let len = cycle.len();
    (0..len).map(move |offset| cycle[start.wrapping_add(offset) % len])
}

fn load(endpoint: &Endpoint) -> f64 {
    endpoint.in_flight() as f64 / f64::from(endpoint.weight().max(1))
}

/// Fixed keys: the same client must reach the same endpoint through every gateway of a fleet, and after a restart.
fn hasher() -> impl Hasher {
    RandomState::with_seeds(0x5043, 0x524f, 0x5254, 0x4355).build_hasher()
}

fn hash_key(key: &HashKey, input: &HashInput<'_>) -> u64 {
    let mut hasher = hasher();
    match key {
        HashKey::Client => hasher.write(input.client.map_or(&[], |fingerprint| &fingerprint.0)),
        HashKey::Path => hasher.write(input.path.as_bytes()),
        HashKey::Header(name) => hasher.write(header(input, name)),
    }
    hasher.finish()
}

fn header<'a>(input: &HashInput<'a>, name: &'a HeaderName) -> &'a [u8] {
    input.headers.all(name.as_str()).next().unwrap_or_default()
}

/// Weighted rendezvous hashing: the highest score wins, so that an endpoint that leaves moves only its own clients.
fn score(endpoint: &Endpoint, key: HashValue) -> f64 {
    let mut hasher = hasher();
    hasher.write_u64(key.0);
    hasher.write(endpoint.address().as_bytes());
    // Strictly between 0 and 1, with 53 random bits.
    let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(endpoint.weight()) / -uniform.ln()
}

/// Smooth weighted round robin, computed once: each turn the endpoint furthest behind its share.
fn smooth_cycle(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; weights.len()];
    let mut cycle = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        // The first of equals, so that a cycle begins with the first endpoint.
        let Some(best) = (0..credit.len()).rev().max_by_key(|&index| credit[index]) else { break };
        credit[best] -= total;
        cycle.push(best);
    }
    cycle
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::EndpointConfig;
    use crate::fields::Fields;
    use crate::telemetry::Metrics;

    fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
        let metrics = Metrics::new();
        let endpoint = |(index, &weight): (usize, &u32)| {
            let address = format!("127.0.0.1:{}", 1000 + index);
            let config = EndpointConfig { address: address.clone(), weight };
            Arc::new(Endpoint::build(EndpointId(index), &config, None, None, metrics.endpoint("p", &address)))
        };
        weights.iter().enumerate().map(endpoint).collect()
    }

    fn choose(
        balancer: &Balancer,
        endpoints: &[Arc<Endpoint>],
        path: &str,
        tried: &[EndpointId],
    ) -> Option<usize> {
        let headers = http::HeaderMap::new();
        let hash = balancer.hash(&HashInput { client: None, path, headers: Fields::Map(&headers) });
        balancer.choose(endpoints, hash, tried)
    }

    #[test]
    fn round_robin_follows_the_weights_and_spreads_them() {
        let endpoints = endpoints(&[3, 1]);
        let balancer = Balancer::new(&Balance::RoundRobin, &endpoints);
        let chosen: Vec<_> = (0..12).filter_map(|_| choose(&balancer, &endpoints, "/", &[])).collect();
        // Where a thread begins depends on which one it is.
        let second = chosen.iter().position(|&endpoint| endpoint == 1).unwrap();
        assert_eq!(chosen[second..second + 8], [1, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn least_connections_prefers_the_idle_one() {
        let endpoints = endpoints(&[1, 1, 1]);
        let balancer = Balancer::new(&Balance::LeastConnections, &endpoints);
        endpoints[0].enter();
        endpoints[2].enter();
        assert!((0..5).all(|_| choose(&balancer, &endpoints, "/", &[]) == Some(1)));
    }

    #[test]
    fn an_unhealthy_endpoint_is_never_chosen_and_none_is_none() {
        let endpoints = endpoints(&[1, 1]);
        for balance in
            [Balance::RoundRobin, Balance::LeastConnections, Balance::Random, Balance::Hash(HashKey::Path)]
        {
            let balancer = Balancer::new(&balance, &endpoints);
            endpoints[0].report_check(false, 1, "test");
            assert!((0..20).all(|i| choose(&balancer, &endpoints, &format!("/{i}"), &[]) == Some(1)));
            assert_eq!(choose(&balancer, &endpoints, "/", &[EndpointId(1)]), None);
            endpoints[0].report_check(true, 1, "test");
        }
    }

    proptest! {
        #[test]
        fn an_endpoint_that_leaves_moves_only_its_own(path in "/[a-z]{1,12}", gone in 0_usize..4) {
            let endpoints = endpoints(&[1, 2, 1, 3]);
            let balancer = Balancer::new(&Balance::Hash(HashKey::Path), &endpoints);
            let before = choose(&balancer, &endpoints, &path, &[]);
            let after = choose(&balancer, &endpoints, &path, &[EndpointId(gone)]);
            if before == Some(gone) {
                prop_assert_ne!(after, before);
            } else {
                prop_assert_eq!(after, before);
            }
        }
    }
}
