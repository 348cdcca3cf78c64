//! Who may ask the admin endpoints for what.
//!
//! A Unix socket belongs to the owner of the process: whoever reaches it may do everything. A port on loopback is reached
//! by everybody on the machine, and by every page that somebody on it looks at in a browser.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, ORIGIN};

use super::Token;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Tcp(SocketAddr),
    /// As the kernel knows the process at the other end.
    Unix {
        user: u32,
        process: Option<i32>,
    },
}

/// Why somebody may not.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// It was not meant for this address, or comes from a page.
    Foreign(String),
    /// There is no token that would permit it.
    NeverOverTcp,
    NoToken,
    WrongToken,
}

/// A page on the web can make a browser ask any port of this machine: under the page's own name (DNS rebinding), or with a
/// mark of where it comes from. Nobody who may ask has either.
pub(super) fn check_origin(caller: Caller, headers: &HeaderMap) -> Result<(), Denial> {
    if let Caller::Tcp(_) = caller {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        if !host.is_some_and(|host| is_local_name(without_port(host))) || hosts.next().is_some() {
            let host = host.unwrap_or_default();
            return Err(Denial::Foreign(format!(
                "this address answers to local names only, not to `{}` (expected: `Host: localhost`, or a loopback address)",
                host.escape_debug()
            )));
        }
    }
    if headers.contains_key(ORIGIN) {
        return Err(Denial::Foreign("a web page may not ask here (the request has an `Origin`)".into()));
    }
    if headers.get_all("sec-fetch-site").iter().any(|site| site != "none") {
        return Err(Denial::Foreign(
            "a web page may not ask here (`Sec-Fetch-Site` is other than `none`)".into(),
        ));
    }
    Ok(())
}

/// For what changes something or shows who the clients are.
pub(super) fn check_token(caller: Caller, headers: &HeaderMap, token: Option<&Token>) -> Result<(), Denial> {
    if let Caller::Unix { .. } = caller {
        return Ok(());
    }
    let token = token.ok_or(Denial::NeverOverTcp)?;
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let first = shown.next().ok_or(Denial::NoToken)?;
    let bearer = bearer(first.as_bytes()).ok_or(Denial::NoToken)?;
    // Of two, it would be a guess which one was meant.
    if shown.next().is_none() && token.is(bearer) { Ok(()) } else { Err(Denial::WrongToken) }
}

/// RFC 6750, section 2.1; the name of the scheme is in any case (RFC 9110, section 11.1).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// `[::1]:9900`, `[::1]`, `localhost:9900`, `127.0.0.1` → the name alone.
fn without_port(host: &str) -> &str {
    if let Some((address, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.split_once(':').map_or(host, |(name, _port)| name)
}

fn is_local_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Denial {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Foreign(_) | Self::NeverOverTcp => 403,
            Self::NoToken | Self::WrongToken => 401,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign(why) => why,
            Self::NeverOverTcp => {
                "over TCP this needs a token, and there is none (hint: `admin.token_file`, or a Unix socket: `admin: { \
                 address: \"unix:PATH\" }`)"
            }
            Self::NoToken => "this needs the token (expected: `Authorization: Bearer TOKEN`, as in `admin.token_file`)",
            Self::WrongToken => "this is not the token of `admin.token_file`",
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { user, process: Some(process) } => write!(f, "unix uid={user} pid={process}"),
            Self::Unix { user, process: None } => write!(f, "unix uid={user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const TCP: Caller = Caller::Tcp(SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000));
    const UNIX: Caller = Caller::Unix { user: 0, process: Some(1) };
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn local_names_are_local_however_they_are_written() {
        let ask = |host: &str| check_origin(TCP, &headers(&[("host", host)]));
        for host in ["localhost", "LocalHost:9900", "127.0.0.1", "127.0.0.53:9900", "[::1]", "[::1]:9900"] {
            assert_eq!(ask(host), Ok(()), "{host}");
        }
        for host in
            ["", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "[2001:db8::1]"]
        {
            assert_eq!(ask(host).unwrap_err().status(), 403, "{host}");
        }
        assert!(check_origin(TCP, &headers(&[])).is_err());
        assert!(check_origin(TCP, &headers(&[("host", "localhost"), ("host", "evil.example")])).is_err());
        assert_eq!(check_origin(UNIX, &headers(&[])), Ok(()), "a Unix socket needs no name");
    }

    #[test]
    fn no_page_in_a_browser_may_ask() {
        for caller in [TCP, UNIX] {
            let with = |name, value| check_origin(caller, &headers(&[("host", "localhost"), (name, value)]));
            assert_eq!(with("sec-fetch-site", "none"), Ok(()), "somebody typed the address");
            for (name, value) in [
                ("origin", "null"),
                ("origin", "http://localhost:9900"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
                ("sec-fetch-site", "same-origin"),
            ] {
                assert_eq!(with(name, value).unwrap_err().status(), 403, "{name}: {value}");
            }
        }
    }

    #[test]
    fn over_tcp_the_token_is_asked_for_and_nothing_stands_in_for_it() {
        let token = Token::parse(SECRET.as_bytes()).unwrap();
        let ask = |pairs: &[(&str, &str)]| check_token(TCP, &headers(pairs), Some(&token));
        assert_eq!(ask(&[("authorization", &format!("Bearer {SECRET}"))]), Ok(()));
        assert_eq!(ask(&[("authorization", &format!("bearer  {SECRET} "))]), Ok(()));
        assert_eq!(ask(&[]), Err(Denial::NoToken));
        assert_eq!(ask(&[("authorization", &format!("Basic {SECRET}"))]), Err(Denial::NoToken));
        assert_eq!(ask(&[("authorization", "Bearer")]), Err(Denial::NoToken));
        for wrong in
            ["Bearer ", "Bearer x", &format!("Bearer {SECRET}x"), &format!("Bearer {SECRET},{SECRET}")]
        {
            let wrong = ask(&[("authorization", wrong)]);
            assert_eq!(wrong.unwrap_err().status(), 401);
        }
        let twice = format!("Bearer {SECRET}");
        assert_eq!(ask(&[("authorization", &twice), ("authorization", &twice)]), Err(Denial::WrongToken));
    }

    #[test]
    fn without_a_token_only_a_unix_socket_will_do() {
        let shown = headers(&[("authorization", &format!("Bearer {SECRET}"))]);
        assert_eq!(check_token(TCP, &shown, None), Err(Denial::NeverOverTcp));
        assert_eq!(check_token(UNIX, &headers(&[]), None), Ok(()));
    }
}
