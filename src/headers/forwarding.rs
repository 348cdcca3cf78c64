//! Where a request came from: `X-Forwarded-*` and `Forwarded` (RFC 7239).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::{Fields, text};

use super::Prefix;
use super::family::same_name;

/// What a client says of itself is dropped, unless it is a proxy that is trusted to say it.
#[derive(Debug)]
pub struct Forwarding {
    trusted: Vec<Prefix>,
}

/// What a client cannot be allowed to say. [`Forwarding::dropped_in`] finds them under other spellings too.
pub const DROPPED: [&str; 9] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-real-ip",
    "forwarded",
];

/// Whether a name belongs to what is said here, after folding case and `_` to `-`.
pub(super) fn is_ours(name: &str) -> bool {
    DROPPED.iter().any(|dropped| same_name(dropped, name))
}

impl Forwarding {
    pub fn new(trusted: Vec<Prefix>) -> Self {
        Self { trusted }
    }

    /// Whether a peer may say where a request came from.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|prefix| prefix.contains(peer))
    }

    /// Whether a field of this name goes no further, under whatever spelling. Asked for each field of each request.
    pub fn drops(name: &str) -> bool {
        matches!(name.as_bytes().first(), Some(b'x' | b'X' | b'f' | b'F')) && is_ours(name)
    }

    /// Those of `headers` that must go before [`headers`](Self::headers) are added. Does not allocate where there are
    /// none.
    pub fn dropped_in(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| Self::drops(name.as_str())).cloned().collect()
    }

    /// One header each of `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`. `host` as the client asked for it, without
    /// port and brackets; `incoming` are the client's headers as they came.
    pub fn headers(&self, peer: IpAddr, host: &str, incoming: Fields<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let peer = peer.to_canonical();
        let trusted = self.trusts(peer);
        let said = |name: &str| if trusted { joined(incoming, name) } else { None };
        let proto = said("x-forwarded-proto").filter(|proto| matches!(proto.as_str(), "http" | "https"));
        let asked = said("x-forwarded-host").unwrap_or_else(|| bracketed(host));
        let path = said("forwarded").filter(|path| is_well_formed(path));
        let headers = [
            ("x-forwarded-for", append(said("x-forwarded-for"), peer.to_string())),
            ("x-forwarded-proto", proto.unwrap_or_else(|| "https".to_owned())),
            ("x-forwarded-host", asked),
            ("forwarded", append(path, element(peer, host))),
        ];
        let header = |(name, value): (&'static str, String)| {
            let value = HeaderValue::from_str(&value).ok().filter(|value| !value.is_empty())?;
            Some((HeaderName::from_static(name), value))
        };
        headers.into_iter().filter_map(header).collect()
    }
}

/// All values of a header as one list; nothing where one of them is not ASCII text.
fn joined(headers: Fields<'_>, name: &str) -> Option<String> {
    let values: Option<Vec<&str>> = headers.all(name).map(text).collect();
    let joined = values?.into_iter().map(str::trim).filter(|value| !value.is_empty()).collect::<Vec<_>>();
    (!joined.is_empty()).then(|| joined.join(", "))
}

fn append(before: Option<String>, ours: String) -> String {
    match before {
        Some(before) => format!("{before}, {ours}"),
        None => ours,
    }
}

/// Our own hop: `for=192.0.2.1;host=example.com;proto=https`.
fn element(peer: IpAddr, host: &str) -> String {
    let node = quoted(&bracketed(&peer.to_string()));
    if host.is_empty() {
        format!("for={node};proto=https")
    } else {
        format!("for={node};host={};proto=https", quoted(&bracketed(host)))
    }
}

/// An IPv6 address stands in brackets wherever a port could follow.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// A token, or a quoted string where it is none (RFC 9110, section 5.6).
fn quoted(value: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_token) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether every quoted string ends: one that does not would swallow what we append.
fn is_well_formed(value: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in value.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarding(trusted: &[&str]) -> Forwarding {
        Forwarding::new(trusted.iter().map(|prefix| prefix.parse().unwrap()).collect())
    }

    fn values(trusted: &[&str], peer: &str, host: &str, sent: &[(&'static str, &str)]) -> Vec<String> {
        let mut incoming = HeaderMap::new();
        for (name, value) in sent {
            incoming.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let headers = forwarding(trusted).headers(peer.parse().unwrap(), host, Fields::Map(&incoming));
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_clients_own_word_is_dropped() {
        let sent = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=x"),
        ];
        let expected = [
            "x-forwarded-for: 192.0.2.1",
            "x-forwarded-proto: https",
            "x-forwarded-host: example.com",
            "forwarded: for=192.0.2.1;host=example.com;proto=https",
        ];
        assert_eq!(values(&[], "192.0.2.1", "example.com", &sent), expected);
        assert_eq!(values(&["192.0.2.2", "10.0.0.0/8"], "192.0.2.1", "example.com", &sent), expected);
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let sent = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "front.example"),
            ("forwarded", "for=\"a;,\\\"\""),
        ];
        assert_eq!(
            values(&["192.0.2.0/24"], "::ffff:192.0.2.9", "example.com", &sent),
            [
                "x-forwarded-for: 10.0.0.1, 10.0.0.2, 192.0.2.9",
                "x-forwarded-proto: http",
                "x-forwarded-host: front.example",
                "forwarded: for=\"a;,\\\"\", for=192.0.2.9;host=example.com;proto=https",
            ]
        );
    }

    #[test]
    fn what_even_a_trusted_proxy_cannot_mean_is_dropped() {
        let sent =
            [("x-forwarded-for", "ü"), ("x-forwarded-proto", "http, https"), ("forwarded", "for=\"10.0.0.1")];
        let own = values(&[], "192.0.2.9", "example.com", &[]);
        assert_eq!(values(&["192.0.2.9"], "192.0.2.9", "example.com", &sent), own);
    }

    #[test]
    fn ipv6_nodes_are_bracketed_and_quoted() {
        assert_eq!(
            values(&[], "2001:db8::1", "::1", &[]),
            [
                "x-forwarded-for: 2001:db8::1",
                "x-forwarded-proto: https",
                "x-forwarded-host: [::1]",
                "forwarded: for=\"[2001:db8::1]\";host=\"[::1]\";proto=https",
            ]
        );
        assert_eq!(values(&[], "::1", "", &[])[2], "forwarded: for=\"[::1]\";proto=https");
    }

    #[test]
    fn other_spellings_are_dropped_too() {
        let mut headers = HeaderMap::new();
        for name in
            ["X-Forwarded-For", "x_forwarded_for", "X-Forwarded_Proto", "Forwarded", "X-Real-IP", "accept"]
        {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("x"));
        }
        let dropped = forwarding(&[]).dropped_in(&headers);
        assert_eq!(dropped.len(), 5);
        assert!(!dropped.contains(&http::header::ACCEPT));
    }

    proptest! {
        #[test]
        fn a_host_cannot_break_out(host in "[ -~]{0,20}", before in "[ -~]{0,20}") {
            let lines = values(&["::1"], "::1", &host, &[("forwarded", &before)]);
            let ours = lines.iter().find_map(|line| line.strip_prefix("forwarded: ")).unwrap();
            prop_assert!(is_well_formed(ours) && ours.ends_with(";proto=https"));
        }
    }
}
