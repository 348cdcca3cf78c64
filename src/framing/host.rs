//! The host of a request, in the form in which hosts are compared (RFC 9110, section 4.2.3).

use std::net::Ipv6Addr;

use super::Fault;

/// The host in a `Host` field or an authority: lower case, without port and final dot.
pub fn normal_host(text: &str) -> Result<String, Fault> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(Fault::BadHost)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    // An origin may see another host behind what is no port, as in `a:b@c`.
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_port || (text.starts_with('[') && host.parse::<Ipv6Addr>().is_err()) {
        return Err(Fault::BadHost);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(Fault::BadHost);
    }
    Ok(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_folded_to_one_form() {
        for text in ["Example.COM", "example.com:8443", "example.com.", "EXAMPLE.com.:1", "example.com:"] {
            assert_eq!(normal_host(text).unwrap(), "example.com", "{text}");
        }
        assert_eq!(normal_host("[::1]:8443").unwrap(), "::1");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "a b",
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
            ".",
        ] {
            assert_eq!(normal_host(text), Err(Fault::BadHost), "{text}");
        }
    }
}
