//! Where a request came from: `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network (expected: `192.0.2.0/24`, `2001:db8::/32`, or an address)")]
pub struct PrefixError(String);

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        if bits > all { Err(error()) } else { Ok(Self { address, bits }) }
    }
}

impl Prefix {
    /// An IPv4 address counts also where a dual-stack socket shows it as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32 - u32::from(self.bits);
                ours.to_bits().checked_shr(shift).unwrap_or(0)
                    == theirs.to_bits().checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128 - u32::from(self.bits);
                ours.to_bits().checked_shr(shift).unwrap_or(0)
                    == theirs.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

/// What a client says of itself is dropped, unless it is a proxy that is trusted to say it.
#[derive(Debug)]
pub struct Forwarding {
    trusted: Vec<Prefix>,
}

/// What a client cannot be allowed to say.
pub const DROPPED: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
];

impl Forwarding {
    pub fn new(trusted: Vec<Prefix>) -> Self {
        Self { trusted }
    }

    /// `host` as the client asked for it; `incoming` are the client's headers.
    pub fn headers(&self, peer: IpAddr, host: &str, incoming: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let peer = peer.to_canonical();
        let trusted = self.trusted.iter().any(|prefix| prefix.contains(peer));
        let before = |name: &str| {
            let values = incoming.get_all(name).iter().filter_map(|value| value.to_str().ok());
            let joined = values.collect::<Vec<_>>().join(", ");
            (trusted && !joined.is_empty()).then_some(joined)
        };
        let append = |before: Option<String>, ours: String| match before {
            Some(before) => format!("{before}, {ours}"),
            None => ours,
        };
        let node = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
        let host_text = if host.contains(':') { format!("\"[{host}]\"") } else { format!("\"{host}\"") };
        [
            ("x-forwarded-for", append(before("x-forwarded-for"), peer.to_string())),
            ("x-forwarded-proto", before("x-forwarded-proto").unwrap_or_else(|| "https".to_owned())),
            ("x-forwarded-host", before("x-forwarded-host").unwrap_or_else(|| host.to_owned())),
            ("forwarded", append(before("forwarded"), format!("for={node};host={host_text};proto=https"))),
        ]
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(trusted: &[&str], peer: &str, sent: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let mut incoming = HeaderMap::new();
        for (name, value) in sent {
            incoming.append(*name, HeaderValue::from_static(value));
        }
        let forwarding = Forwarding::new(trusted.iter().map(|prefix| prefix.parse().unwrap()).collect());
        let headers = forwarding.headers(peer.parse().unwrap(), "example.com", &incoming);
        headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_clients_own_word_is_dropped() {
        let values = values(&[], "192.0.2.1", &[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=x")]);
        assert_eq!(values[0].1, "192.0.2.1");
        assert_eq!(values[3].1, "for=192.0.2.1;host=\"example.com\";proto=https");
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let sent = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-host", "front.example")];
        let values = values(&["192.0.2.0/24"], "::ffff:192.0.2.9", &sent);
        assert_eq!(values[0].1, "10.0.0.1, 192.0.2.9");
        assert_eq!(values[2].1, "front.example");
    }

    #[test]
    fn ipv6_nodes_are_bracketed_and_quoted() {
        assert_eq!(
            values(&[], "2001:db8::1", &[])[3].1,
            "for=\"[2001:db8::1]\";host=\"example.com\";proto=https"
        );
    }

    #[test]
    fn prefixes_contain_what_they_say() {
        let contains =
            |prefix: &str, ip: &str| prefix.parse::<Prefix>().unwrap().contains(ip.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(
            contains("2001:db8::/32", "2001:db8:1::") && contains("::1", "::1") && !contains("::1", "::2")
        );
        assert!("10.0.0.0/33".parse::<Prefix>().is_err() && "x".parse::<Prefix>().is_err());
    }
}
