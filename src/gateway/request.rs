//! What a request asks for, in the one form that routing, refusing and forwarding all use.

use std::net::Ipv6Addr;

use http::{HeaderMap, Method, header};
use pingora_http::RequestHeader;

/// Why a request cannot be understood in exactly one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    #[error("the request names no host")]
    NoHost,
    #[error("the request names several hosts")]
    SeveralHosts,
    #[error("the host is not a valid name")]
    BadHost,
    #[error(
        "the path holds dot segments, backslashes, or encoded characters that stand for themselves or separate"
    )]
    BadPath,
    #[error("the request's length is given in two ways")]
    BadFraming,
}

/// The host of the request: lower case, without port and final dot (RFC 9110, sections 4.2.3 and 7.2).
pub fn host(request: &RequestHeader) -> Result<String, Ambiguous> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let header = match hosts.next() {
        Some(value) => Some(value.to_str().map_err(|_| Ambiguous::BadHost)?),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Ambiguous::SeveralHosts);
    }
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    match (target, header) {
        (Some(target), Some(header)) if normal_host(target)? != normal_host(header)? => {
            Err(Ambiguous::SeveralHosts)
        }
        (Some(host), _) | (None, Some(host)) => normal_host(host),
        (None, None) => Err(Ambiguous::NoHost),
    }
}

/// The host in a `Host` field or an authority, in the form in which hosts are compared.
pub fn normal_host(text: &str) -> Result<String, Ambiguous> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(Ambiguous::BadHost)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    // An origin may see another host behind what is no port, as in `a:b@c`.
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_port || (text.starts_with('[') && host.parse::<Ipv6Addr>().is_err()) {
        return Err(Ambiguous::BadHost);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(Ambiguous::BadHost);
    }
    Ok(host.to_ascii_lowercase())
}

/// Refuses paths that an origin may read in another way than our routes do: `/readings/../admin` is one request for
/// us and another for an origin that resolves it.
pub fn check_path(path: &str) -> Result<(), Ambiguous> {
    if path.starts_with('/') || path == "*" {
        let suspicious = path.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'.') || byte < b' ');
        if !suspicious || is_plain(path) { Ok(()) } else { Err(Ambiguous::BadPath) }
    } else {
        Err(Ambiguous::BadPath)
    }
}

fn is_plain(path: &str) -> bool {
    let ambiguous_octet = path
        .as_bytes()
        .windows(3)
        .any(|window| window[0] == b'%' && octet(window[1], window[2]).is_none_or(is_read_in_two_ways));
    // A `%` so close to the end that no two digits can follow.
    let cut_off = path.as_bytes().iter().rev().take(2).any(|byte| *byte == b'%');
    let bad_byte = path.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control());
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    !ambiguous_octet && !cut_off && !bad_byte && !dots
}

/// Separators and what ends a string, for which origins differ in whether they decode before they split; and characters
/// that need no encoding (RFC 3986, section 2.3), with which `/%61dmin` would miss the route of `/admin` and still
/// reach it at the origin.
fn is_read_in_two_ways(octet: u8) -> bool {
    matches!(octet, b'/' | b'\\' | b'%' | b'-' | b'.' | b'_' | b'~')
        || octet.is_ascii_control()
        || octet.is_ascii_alphanumeric()
}

fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

/// A message whose length is given twice is how requests are smuggled (RFC 9112, section 6.3).
pub fn check_framing(headers: &HeaderMap) -> Result<(), Ambiguous> {
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let is_number =
        |value: &http::HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    // `4, 4` is 4 for some and an error for others.
    let legible = headers.get(header::CONTENT_LENGTH).is_none_or(is_number);
    if lengths > 1 || codings > 1 || (lengths == 1 && codings == 1) || !legible {
        Err(Ambiguous::BadFraming)
    } else {
        Ok(())
    }
}

/// Requests that may be sent to a second server after the first one failed without harm (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        for host in hosts {
            request.append_header("Host", *host).unwrap();
        }
        request
    }

    #[test]
    fn host_is_folded_to_one_form() {
        for text in ["Example.COM", "example.com:8443", "example.com.", "EXAMPLE.com.:1", "example.com:"] {
            assert_eq!(host(&request("/", &[text])).unwrap(), "example.com", "{text}");
        }
        assert_eq!(host(&request("/", &["[::1]:8443"])).unwrap(), "::1");
    }

    #[test]
    fn a_request_with_no_two_or_invalid_hosts_is_ambiguous() {
        assert_eq!(host(&request("/", &[])), Err(Ambiguous::NoHost));
        assert_eq!(host(&request("/", &["a", "b"])), Err(Ambiguous::SeveralHosts));
        assert_eq!(host(&request("/", &["a", "a"])), Err(Ambiguous::SeveralHosts));
        assert_eq!(host(&request("/", &["a b"])), Err(Ambiguous::BadHost));
        for text in [
            "",
            "a:b@c",
            "a:80:90",
            "a:+80",
            "[a]",
            "[::1",
            "[::1]b",
            "[::1]:b",
            "[::1]80",
            "::1",
            "[::1%25a]",
        ] {
            assert_eq!(host(&request("/", &[text])), Err(Ambiguous::BadHost), "{text}");
        }
    }

    #[test]
    fn a_length_is_one_number_or_the_request_is_ambiguous() {
        let check = |values: &[&str]| {
            let mut request = request("/", &["a"]);
            for value in values {
                request.append_header("Content-Length", *value).unwrap();
            }
            check_framing(&request.headers)
        };
        for values in [&["4, 4"][..], &["+4"], &["0x4"], &["-1"], &[""], &["4", "4"]] {
            assert_eq!(check(values), Err(Ambiguous::BadFraming), "{values:?}");
        }
        for values in [&[][..], &["0"], &["18446744073709551615"]] {
            assert_eq!(check(values), Ok(()), "{values:?}");
        }
    }

    #[test]
    fn paths_that_an_origin_may_read_differently_are_refused() {
        for path in [
            "/a/../b",
            "/..",
            "/a/./b",
            "/%2e%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/%252e",
            "/%61dmin",
            "/a%7e",
            "/a%0d",
            "/a%",
            "/a%4",
            "/a%zz",
        ] {
            assert_eq!(check_path(path), Err(Ambiguous::BadPath), "{path}");
        }
        for path in ["/", "/a.b/c..d", "/.well-known/x", "/caf%C3%A9", "/a%20b", "/a%3Fb", "/a//b"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }
}
