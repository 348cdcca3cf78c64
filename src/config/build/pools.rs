//! Pools: endpoints, and how they are reached.

use std::time::Duration;

use super::super::file::{
    BalanceFile, BalanceWord, EndpointFile, HashKeyFile, PoolFile, ProtocolFile, ProxyVersionFile,
    UpstreamTlsFile, VerifyFile,
};
use super::super::scalar::Span;
use super::super::types::{
    Balance, EjectionConfig, EndpointConfig, HashKey, HealthConfig, HealthKind, HostHeader, PoolConfig,
    PoolTimeouts, UpstreamProtocol, UpstreamTls, UpstreamVerify,
};
use super::{Builder, is_name};
use crate::proxy_protocol::Version;

impl Builder {
    pub(super) fn pool(&mut self, name: &str, at: &str, file: PoolFile) -> Option<PoolConfig> {
        let span = |span: Option<Span>, default| span.map_or(Duration::from_secs(default), |span| span.0);
        let endpoints = self.endpoints(at, file.endpoints);
        let balance = self.balance(at, file.balance);
        let tls = file.tls.map(|tls| self.upstream_tls(at, tls));
        if let Some(tls) = &tls {
            self.check_server_name(at, tls, &endpoints);
        }
        let health = file.health.map(|health| HealthConfig {
            kind: health.path.map_or(HealthKind::Tcp, |path| HealthKind::Http { path }),
            interval: span(health.interval, 5).max(Duration::from_millis(100)),
            timeout: span(health.timeout, 2),
            healthy_after: health.healthy_after.unwrap_or(1).max(1),
            unhealthy_after: health.unhealthy_after.unwrap_or(3).max(1),
        });
        if let Some(HealthConfig { kind: HealthKind::Http { path }, .. }) = &health
            && !(path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok())
        {
            self.problem(format!("{at}.health.path"), format!("`{path}` is not a path"), Some("`/…`"), None);
        }
        if let Some(host) = file.host_header.as_ref().filter(|host| !is_authority(host)) {
            let found = format!("`{host}` is not a host");
            self.problem(format!("{at}.host_header"), found, Some("`host` or `host:port`"), None);
        }
        let proxy_protocol = file.proxy_protocol.map(|version| match version {
            ProxyVersionFile::V1 => Version::V1,
            ProxyVersionFile::V2 => Version::V2,
        });
        if proxy_protocol.is_some() && matches!(file.protocol, Some(ProtocolFile::H2)) {
            let hint =
                "origins are told who the client is by `identity_headers` and `X-Forwarded-For` as well";
            self.problem(
                format!("{at}.proxy_protocol"),
                "a connection of HTTP/2 carries the requests of many clients, and its header would name one",
                Some("`protocol: http/1.1`, or no such key"),
                Some(hint.to_owned()),
            );
        }
        Some(PoolConfig {
            name: name.into(),
            endpoints,
            balance: balance?,
            protocol: match file.protocol {
                Some(ProtocolFile::H2) => UpstreamProtocol::H2,
                Some(ProtocolFile::Http1) | None => UpstreamProtocol::Http1,
            },
            tls,
            health,
            ejection: file.ejection.map(|ejection| EjectionConfig {
                consecutive_failures: ejection.consecutive_failures.unwrap_or(5).max(1),
                duration: span(ejection.duration, 30),
            }),
            timeouts: PoolTimeouts {
                connect: span(file.timeouts.connect, 2),
                first_byte: span(file.timeouts.first_byte, 30),
                idle: span(file.timeouts.idle, 60),
                total: file.timeouts.total.map(|total| total.0),
            },
            retries: self.at_most(&format!("{at}.retries"), file.retries.unwrap_or(1), 10),
            host_header: file.host_header.map_or(HostHeader::Preserve, HostHeader::Set),
            dns_refresh: span(file.dns_refresh, 30).max(Duration::from_secs(1)),
            proxy_protocol,
        })
    }

    fn endpoints(&mut self, at: &str, files: Vec<EndpointFile>) -> Vec<EndpointConfig> {
        if files.is_empty() {
            self.problem(format!("{at}.endpoints"), "there are none", Some("at least one `host:port`"), None);
        }
        let mut endpoints: Vec<EndpointConfig> = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            let at = format!("{at}.endpoints[{index}]");
            let (address, weight) = match file {
                EndpointFile::Address(address) => (address, 1),
                EndpointFile::Weighted(weighted) => (weighted.address, weighted.weight.unwrap_or(1)),
            };
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                let port: u16 = port.parse().ok()?;
                (port > 0 && is_host(host)).then_some(port)
            });
            if port.is_none() {
                self.problem(&at, format!("`{address}` is not an endpoint"), Some("`host:port`"), None);
            }
            if weight == 0 || weight > 1000 {
                self.problem(
                    format!("{at}.weight"),
                    format!("{weight} is out of range"),
                    Some("1 to 1000"),
                    None,
                );
            }
            if endpoints.iter().any(|known| known.address == address) {
                self.problem(
                    &at,
                    format!("`{address}` is in the pool twice"),
                    None,
                    Some("give it a weight".into()),
                );
            }
            endpoints.push(EndpointConfig { address, weight });
        }
        endpoints
    }

    fn balance(&mut self, at: &str, file: Option<BalanceFile>) -> Option<Balance> {
        Some(match file {
            None | Some(BalanceFile::Word(BalanceWord::RoundRobin)) => Balance::RoundRobin,
            Some(BalanceFile::Word(BalanceWord::LeastConnections)) => Balance::LeastConnections,
            Some(BalanceFile::Word(BalanceWord::Random)) => Balance::Random,
            Some(BalanceFile::Hash(file)) => Balance::Hash(match file.hash {
                HashKeyFile::Client => HashKey::Client,
                HashKeyFile::Path => HashKey::Path,
                HashKeyFile::Header(key) => {
                    HashKey::Header(self.header_name(&format!("{at}.balance.hash.header"), &key.header)?)
                }
            }),
        })
    }

    fn upstream_tls(&mut self, at: &str, file: UpstreamTlsFile) -> UpstreamTls {
        let verify = match file.verify {
            VerifyFile::Off(false) => UpstreamVerify::Off,
            VerifyFile::Ca(text) if text == "off" => UpstreamVerify::Off,
            VerifyFile::Ca(path) if path.is_empty() => {
                let expected = Some("a PEM bundle of trust anchors, or `off`");
                self.problem(format!("{at}.tls.verify"), "it is empty", expected, None);
                UpstreamVerify::Off
            }
            VerifyFile::Ca(path) => UpstreamVerify::Ca(self.path(&path)),
            VerifyFile::Off(true) => {
                let expected = Some("a PEM bundle of trust anchors, or `off`");
                self.problem(format!("{at}.tls.verify"), "against what?", expected, None);
                UpstreamVerify::Off
            }
        };
        if let Some(name) = file.server_name.as_ref().filter(|name| !is_dns_name(name)) {
            // Without a name the server's certificate would be that of anybody whom the anchors vouch for.
            let found = format!("`{name}` is not a DNS name");
            let expected = Some("the DNS name that the servers' certificates carry");
            self.problem(format!("{at}.tls.server_name"), found, expected, None);
        }
        let client = file.client.map(|files| self.certificate(format!("{at}.tls.client"), &files));
        UpstreamTls { verify, server_name: file.server_name, client }
    }

    /// Without `server_name` the certificate is checked against the endpoints' own host, which must then be one name:
    /// such a check against an address always fails, and every request with it.
    fn check_server_name(&mut self, at: &str, tls: &UpstreamTls, endpoints: &[EndpointConfig]) {
        if tls.server_name.is_some() || tls.verify == UpstreamVerify::Off {
            return;
        }
        let mut hosts = endpoints.iter().filter_map(|e| e.address.rsplit_once(':')).map(|(host, _)| host);
        let first = hosts.next().unwrap_or_default();
        let is_address = first.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        if is_address || hosts.any(|host| host != first) {
            let expected = Some("the DNS name that the servers' certificates carry");
            let found = "missing, and the endpoints are not all of one DNS name";
            self.problem(format!("{at}.tls.server_name"), found, expected, None);
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, and no address: that would be compared with the names of a certificate in vain.
fn is_dns_name(text: &str) -> bool {
    is_name(text) && text.parse::<std::net::IpAddr>().is_err()
}

/// A DNS name, an IPv4 address, or an IPv6 address with or without brackets.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    is_name(text) || bare.parse::<std::net::Ipv6Addr>().is_ok()
}

/// What may stand in `Host` (RFC 9110, section 7.2).
fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => host,
        _ => text,
    };
    is_name(host) || (host.starts_with('[') && is_host(host))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::proxy_protocol::Version;

    #[test]
    fn one_connection_for_many_clients_cannot_say_who_the_client_is() {
        let parse = |keys: &str| {
            let text = format!(
                r#"
version: 1
listeners:
  - {{ address: "127.0.0.1:8443", tls: {{ certificates: [{{ chain: a, key: b }}] }}, client_auth: {{ trust: [fleet] }} }}
trust: {{ fleet: {{ anchors: ca.crt }} }}
pools: {{ main: {{ endpoints: ["127.0.0.1:9000"]{keys} }} }}
routes: [{{ client: {{ trust: fleet }}, pool: main }}]
"#
            );
            let config = Config::parse(Path::new("x.yaml"), &text).map_err(|errors| errors.to_string())?;
            Ok::<_, String>(config.pools[0].proxy_protocol)
        };
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse(", proxy_protocol: v1"), Ok(Some(Version::V1)));
        assert_eq!(parse(", proxy_protocol: v2, protocol: http/1.1"), Ok(Some(Version::V2)));
        for (keys, told) in [
            (
                ", proxy_protocol: v2, protocol: h2",
                "pools.main.proxy_protocol: a connection of HTTP/2 carries",
            ),
            (", proxy_protocol: v3", "expected `v1` or `v2`"),
            (", proxy_protocol: true", "pools.main.proxy_protocol"),
        ] {
            let error = parse(keys).unwrap_err();
            assert!(error.contains(told), "{keys}: {error}");
        }
    }
}
