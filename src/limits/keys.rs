//! Keys: whom a count is for, as one random number.
//!
//! SipHash with a key of this process's own: nobody outside can find two clients whose counts are one. Of a million keys two
//! are the same once in forty million runs. What is hashed is what an authority signed, the address, or a name from the
//! configuration; nothing that a request says.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use super::spec::{LimitSpec, Per};
use crate::trust::ClientIdentity;

/// The same for all configurations of this process: counts go on after a reload.
static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Of one client, for each measure of each limit in their order; `None`: it does not concern this client.
#[derive(Debug)]
pub struct Keys {
    /// Of the configuration that they are for.
    pub generation: u64,
    pub(super) of: Box<[Option<u64>]>,
}

/// For the requests of one client, whatever the route.
pub(super) fn key(spec: &LimitSpec, identity: Option<&ClientIdentity>, peer: SocketAddr) -> Option<u64> {
    if !spec.client.matches(identity) {
        return None;
    }
    let mut hasher = STATE.build_hasher();
    for per in &spec.per {
        match (per, identity) {
            (Per::Route, _) => {}
            (Per::TrustDomain, _) => identity.map(|identity| &**identity.trust_domain()).hash(&mut hasher),
            (Per::Client, Some(identity)) => identity.certificate().fingerprint().hash(&mut hasher),
            (Per::Part(part), Some(identity)) => {
                identity.trust_domain().hash(&mut hasher);
                part.each_value(identity.certificate(), &mut |value| value.hash(&mut hasher));
            }
            (Per::Address, _) | (Per::Client | Per::Part(_), None) => {
                address(peer.ip()).hash(&mut hasher);
            }
        }
        hasher.write_u8(0xff);
    }
    Some(hasher.finish())
}

pub(super) fn of_route(name: &str) -> u64 {
    STATE.hash_one(name)
}

/// For the requests of one client on one route.
pub(super) fn on_route(key: u64, route: u64) -> u64 {
    STATE.hash_one((key, route))
}

/// Whoever has an address of IPv6 has the 64 bits behind it as well.
fn address(address: IpAddr) -> (u8, u64) {
    match address {
        IpAddr::V4(address) => (4, address.to_bits().into()),
        IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
    }
}
