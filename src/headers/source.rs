//! Whom a connection comes from, as far as its address tells: what is counted together.

use std::net::IpAddr;

use super::Prefix;

/// The two networks by which strangers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// One host: an IPv4 address, or of IPv6 the /64 that one host may choose its addresses from.
    pub address: Prefix,
    /// What one party may well have in its hands: an IPv4 /24, an IPv6 /48 (what a site is given, RFC 6177).
    pub network: Prefix,
}

impl Source {
    pub fn of(address: IpAddr) -> Self {
        let (host, site) = if address.to_canonical().is_ipv4() { (32, 24) } else { (64, 48) };
        Self { address: Prefix::of(address, host), network: Prefix::of(address, site) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_64_and_its_network_a_24_or_a_48() {
        let of = |address: &str| {
            let source = Source::of(address.parse().unwrap());
            format!("{} {}", source.address, source.network)
        };
        assert_eq!(of("192.0.2.77"), "192.0.2.77 192.0.2.0/24");
        assert_eq!(of("::ffff:192.0.2.77"), "192.0.2.77 192.0.2.0/24");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64 2001:db8:1::/48");
    }
}
