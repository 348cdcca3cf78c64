//! The door of a listener: lists of networks, and what each source may have.

use std::time::Duration;

use super::super::file::{OthersFile, ProxyProtocolFile, SourceLimitsFile};
use super::super::types::{
    ConnectionRate, DoorConfig, ListenerLimits, OthersThanProxies, ProxyProtocolConfig, SourceLimits,
};
use super::Builder;
use crate::headers::{Networks, Prefix, PrefixError};

/// How much of what a listener takes one source may have unless somebody says otherwise.
struct Share {
    of: usize,
    parts: usize,
}

/// Whatever one address does, there is as much left for all others.
const ADDRESS: Share = Share { of: 2, parts: 1 };

const NETWORK: Share = Share { of: 4, parts: 3 };

/// A listener for a few clients only may have them all at one address.
const LEAST: usize = 16;

/// A source that pauses for so long may make that time good at once.
const BURST_SECONDS: u32 = 10;

/// A segment that was lost is sent again after one second, and then after two more (RFC 6298).
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// More than one thread can accept.
const MOST_PER_SECOND: u32 = 1_000_000;

impl Share {
    fn of(&self, all: usize) -> u32 {
        let share = (all / self.of * self.parts).max(LEAST).min(all);
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// The keys of a listener that concern its door.
pub(super) struct DoorFile<'a> {
    pub(super) allow_from: Option<&'a [String]>,
    pub(super) deny_from: &'a [String],
    pub(super) exempt: &'a [String],
    pub(super) per_address: &'a SourceLimitsFile,
    pub(super) per_network: &'a SourceLimitsFile,
    pub(super) proxy_protocol: Option<&'a ProxyProtocolFile>,
}

impl Builder {
    pub(super) fn door(&mut self, at: &str, limits: &ListenerLimits, file: &DoorFile<'_>) -> DoorConfig {
        if file.allow_from.is_some_and(<[String]>::is_empty) {
            let expected = Some("at least one network, or no such key");
            self.problem(format!("{at}.allow_from"), "it is empty: nobody could enter", expected, None);
        }
        DoorConfig {
            allow_from: file.allow_from.map(|texts| self.networks(&format!("{at}.allow_from"), texts)),
            deny_from: self.networks(&format!("{at}.deny_from"), file.deny_from),
            exempt: self.networks(&format!("{at}.limits.exempt"), file.exempt),
            per_address: self.source(&format!("{at}.limits.per_address"), limits, &ADDRESS, file.per_address),
            per_network: self.source(&format!("{at}.limits.per_network"), limits, &NETWORK, file.per_network),
            proxy_protocol: file
                .proxy_protocol
                .map(|file| self.proxies(&format!("{at}.proxy_protocol"), limits, file)),
        }
    }

    fn proxies(
        &mut self,
        at: &str,
        limits: &ListenerLimits,
        file: &ProxyProtocolFile,
    ) -> ProxyProtocolConfig {
        if file.from.is_empty() {
            let expected = Some("the networks of the balancers");
            self.problem(
                format!("{at}.from"),
                "it is empty: nobody may say who the client is",
                expected,
                None,
            );
        }
        let timeout = file.timeout.map_or(HEADER_TIMEOUT.min(limits.handshake_timeout), |span| span.0);
        if timeout > limits.handshake_timeout {
            let expected = format!("at most `handshake_timeout`, which is {:?}", limits.handshake_timeout);
            self.problem(format!("{at}.timeout"), "it is too long", Some(&expected), None);
        }
        ProxyProtocolConfig {
            from: self.networks(&format!("{at}.from"), &file.from),
            others: match file.others {
                None | Some(OthersFile::Direct) => OthersThanProxies::Direct,
                Some(OthersFile::Refuse) => OthersThanProxies::Refused,
            },
            timeout,
        }
    }

    fn networks(&mut self, at: &str, texts: &[String]) -> Networks {
        let mut networks = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let at = format!("{at}[{number}]");
            match text.parse::<Prefix>() {
                Ok(network) => networks.push(network),
                Err(PrefixError::NotANetwork(_)) => {
                    let expected = Some("`192.0.2.0/24`, `2001:db8::/32`, or an address");
                    self.problem(at, format!("`{text}` is not a network"), expected, None);
                }
                Err(PrefixError::HostBits { expected, .. }) => {
                    let hint = format!("did you mean `{expected}`?");
                    self.problem(at, format!("`{text}` has bits set beyond its length"), None, Some(hint));
                }
            }
        }
        networks.into_iter().collect()
    }

    fn source(
        &mut self,
        at: &str,
        limits: &ListenerLimits,
        share: &Share,
        file: &SourceLimitsFile,
    ) -> SourceLimits {
        let mut positive = |name: &str, value: Option<u32>| {
            if value == Some(0) {
                self.problem(
                    format!("{at}.{name}"),
                    "0 would refuse everybody",
                    Some("1 or more, or no such key"),
                    None,
                );
            }
            value
        };
        let connections = positive("connections", file.connections);
        let handshakes = positive("handshakes_in_flight", file.handshakes_in_flight);
        let per_second = positive("connections_per_second", file.connections_per_second);
        let burst = positive("burst", file.burst);
        if burst.is_some() && per_second.is_none() {
            let expected = Some("`connections_per_second` as well");
            self.problem(format!("{at}.burst"), "a burst of no rate", expected, None);
        }
        let rate = per_second.map(|per_second| {
            let per_second =
                self.at_most(&format!("{at}.connections_per_second"), per_second, MOST_PER_SECOND);
            let burst = burst.unwrap_or(per_second.saturating_mul(BURST_SECONDS));
            let burst = self.at_most(&format!("{at}.burst"), burst, MOST_PER_SECOND * BURST_SECONDS);
            ConnectionRate { per_second, burst }
        });
        SourceLimits {
            connections: connections.unwrap_or_else(|| share.of(limits.connections)),
            handshakes_in_flight: handshakes.unwrap_or_else(|| share.of(limits.handshakes_in_flight)),
            rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(keys: &str, limits: &str) -> Result<DoorConfig, String> {
        let text = format!(
            r#"
version: 1
listeners:
  - address: "127.0.0.1:8443"
    tls: {{ certificates: [{{ chain: a.crt, key: a.key }}] }}
    client_auth: {{ trust: [fleet] }}
    limits: {{ {limits} }}
    {keys}
trust: {{ fleet: {{ anchors: ca.crt }} }}
pools: {{ main: {{ endpoints: ["127.0.0.1:9000"] }} }}
routes: [{{ client: {{ trust: fleet }}, pool: main }}]
"#
        );
        let config = Config::parse(Path::new("x.yaml"), &text).map_err(|errors| errors.to_string())?;
        Ok(config.listeners[0].door.clone())
    }

    #[test]
    fn unless_told_otherwise_an_address_has_a_half_and_a_network_three_quarters() {
        let shares = |limits: &str| {
            let door = parse("", limits).unwrap();
            let of = |of: SourceLimits| (of.connections, of.handshakes_in_flight, of.rate);
            (of(door.per_address), of(door.per_network))
        };
        assert_eq!(shares(""), ((50_000, 2048, None), (75_000, 3072, None)));
        assert_eq!(shares("connections: 20, handshakes_in_flight: 1"), ((16, 1, None), (16, 1, None)));
        let own = "per_address: { connections: 7, handshakes_in_flight: 5, connections_per_second: 3 }, \
                   per_network: { connections_per_second: 9, burst: 1 }";
        let rate = |per_second, burst| Some(ConnectionRate { per_second, burst });
        assert_eq!(shares(own), ((7, 5, rate(3, 30)), (75_000, 3072, rate(9, 1))));
    }

    #[test]
    fn denied_beats_allowed_and_no_list_lets_everybody_in() {
        let admits = |keys: &str, address: &str| parse(keys, "").unwrap().admits(address.parse().unwrap());
        assert!(admits("", "192.0.2.1") && admits("deny_from: []", "::1"));
        let both = "allow_from: [10.0.0.0/8, \"2001:db8::/32\"]\n    deny_from: [10.1.0.0/16]";
        assert!(admits(both, "10.0.0.1") && admits(both, "2001:db8::1"));
        assert!(!admits(both, "10.1.0.1") && !admits(both, "11.0.0.1") && !admits(both, "::1"));
    }

    #[test]
    fn what_would_let_nobody_in_or_is_no_network_is_told() {
        for (keys, limits, told) in [
            ("allow_from: []", "", "listeners[0].allow_from: it is empty: nobody could enter"),
            ("deny_from: [10.0.0.1/8]", "", "listeners[0].deny_from[0]: `10.0.0.1/8` has bits set beyond"),
            ("deny_from: [\"::1\", x]", "", "listeners[0].deny_from[1]: `x` is not a network"),
            ("", "exempt: [1.2.3]", "listeners[0].limits.exempt[0]: `1.2.3` is not a network"),
            (
                "",
                "per_address: { connections: 0 }",
                "limits.per_address.connections: 0 would refuse everybody",
            ),
            ("proxy_protocol: { from: [] }", "", "listeners[0].proxy_protocol.from: it is empty"),
            ("proxy_protocol: { form: [10.0.0.1] }", "", "did you mean `from`?"),
            (
                "proxy_protocol: { from: [10.0.0.1], timeout: 6s }",
                "",
                "listeners[0].proxy_protocol.timeout: it is too long",
            ),
            ("proxy_protocol: { from: [10.0.0.8/29], others: deny }", "", "expected `direct` or `refuse`"),
            ("", "per_network: { burst: 5 }", "limits.per_network.burst: a burst of no rate"),
            ("", "per_network: { connection: 5 }", "did you mean `connections`?"),
            ("", "per_address: { connections_per_second: 4000000 }", "is too much"),
        ] {
            let error = parse(keys, limits).unwrap_err();
            assert!(error.contains(told), "{keys} {limits}: {error}");
        }
    }
}
