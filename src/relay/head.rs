//! The head of an ordinary HTTP/1.1 request (RFC 9112).
//!
//! This is no general parser. It takes only what can be read in one way, and leaves everything else to Pingora, which
//! refuses or serves it: folded lines, bare line feeds, transfer codings, two lengths, upgrades, expectations, other
//! versions, targets that are no plain path. So what is accepted here must be right; what is not costs nothing but time.

use std::mem::MaybeUninit;

use http::Method;
use httparse::{Header, Request, Status};

use crate::framing::{Limits, check_path, path};

/// Fields of a request that is ordinary.
pub(super) const MOST_FIELDS: usize = 64;

/// Bytes of a head that is ordinary.
pub(super) const LONGEST: usize = 16 * 1024;

/// Bytes of a body that is ordinary: it is taken in whole before anything is sent on, so that the request can be sent
/// again, and a slow client holds no connection to an endpoint.
pub(super) const LARGEST_BODY: usize = 64 * 1024;

/// A head in the connection's buffer.
pub(super) struct Head<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// As it came.
    pub(super) host: &'a str,
    pub(super) fields: &'a [Header<'a>],
    pub(super) body: usize,
    /// The client wants no further request on this connection.
    pub(super) is_last: bool,
    /// Bytes of the head itself.
    pub(super) len: usize,
}

impl Head<'_> {
    /// Whether the listener allows as much.
    pub(super) fn fits(&self, limits: &Limits) -> bool {
        self.len <= limits.head
            && self.fields.len() <= limits.fields
            && self.target.len() <= limits.target
            && self.body as u64 <= limits.body
    }
}

pub(super) enum Parsed<'a> {
    Ordinary(Head<'a>),
    /// More bytes are needed to tell.
    Partial,
    /// Not for us.
    Other,
}

/// Room for the fields of one head.
pub(super) fn room<'a>() -> Room<'a> {
    [const { MaybeUninit::uninit() }; MOST_FIELDS]
}

/// Not filled beforehand: that would take as long as parsing does.
pub(super) type Room<'a> = [MaybeUninit<Header<'a>>; MOST_FIELDS];

pub(super) fn parse<'a>(bytes: &'a [u8], room: &'a mut Room<'a>) -> Parsed<'a> {
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(len)) if len <= LONGEST && is_strict(&bytes[..len]) => {
            ordinary(request, len).map_or(Parsed::Other, Parsed::Ordinary)
        }
        Ok(Status::Partial) if bytes.len() < LONGEST => Parsed::Partial,
        _ => Parsed::Other,
    }
}

/// Whether each line ends in CR LF, and CR is nowhere else. The parser takes a bare LF for an end of line, too.
fn is_strict(head: &[u8]) -> bool {
    let feeds = memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r');
    // The parser passes over empty lines before a request.
    feeds
        && head.first().is_some_and(u8::is_ascii_uppercase)
        && memchr::memchr_iter(b'\r', head).all(|at| head.get(at + 1) == Some(&b'\n'))
}

fn ordinary<'a>(request: Request<'a, 'a>, len: usize) -> Option<Head<'a>> {
    let (method, target) = (method(request.method?)?, request.path?);
    if request.version != Some(1) || !is_plain_target(target) {
        return None;
    }
    let mut head = Head { method, target, host: "", fields: request.headers, body: 0, is_last: false, len };
    let (mut hosts, mut lengths) = (0, 0);
    for field in head.fields {
        match Special::of(field.name) {
            Special::No => {}
            Special::Host => {
                hosts += 1;
                head.host = crate::fields::text(field.value)?;
            }
            Special::Length => {
                lengths += 1;
                head.body = length(field.value)?;
            }
            Special::Connection if field.value.eq_ignore_ascii_case(b"close") => head.is_last = true,
            Special::Connection if field.value.eq_ignore_ascii_case(b"keep-alive") => {}
            // One that names fields, or wants an upgrade.
            Special::Connection | Special::Other => return None,
        }
    }
    (hosts == 1 && lengths <= 1 && head.body <= LARGEST_BODY).then_some(head)
}

/// The methods of RFC 9110 and RFC 5789 but CONNECT and TRACE.
fn method(name: &str) -> Option<Method> {
    Some(match name {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "HEAD" => Method::HEAD,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    })
}

/// A path and maybe a query, of the characters that RFC 3986 gives them (section 3.3 and 3.4), read by all in one way.
pub(super) fn is_plain_target(target: &str) -> bool {
    let is_plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'/' | b'-'
                    | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'?'
                    | b'='
                    | b'&'
                    | b'!'
                    | b'$'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b':'
                    | b'@'
            )
    };
    target.starts_with('/') && target.bytes().all(|byte| is_plain(&byte)) && check_path(path(target)).is_ok()
}

/// Digits and nothing else (RFC 9110, section 8.6); too long for us is as good as no number.
fn length(value: &[u8]) -> Option<usize> {
    let is_number = !value.is_empty() && value.len() <= 9 && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| value.iter().fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

/// Fields that say something about the message or the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    No,
    Host,
    Length,
    Connection,
    /// Any that makes a request other than ordinary.
    Other,
}

impl Special {
    fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // By length first: it tells most fields of most requests apart.
        match name.len() {
            4 if is("host") => Self::Host,
            14 if is("content-length") => Self::Length,
            10 if is("connection") => Self::Connection,
            6 if is("expect") => Self::Other,
            7 if is("upgrade") || is("trailer") => Self::Other,
            14 if is("http2-settings") => Self::Other,
            16 if is("proxy-connection") => Self::Other,
            17 if is("transfer-encoding") => Self::Other,
            // Some origins take one for the other.
            14 if is("content_length") => Self::Other,
            17 if is("transfer_encoding") => Self::Other,
            _ => Self::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_ordinary(text: &str) -> bool {
        matches!(parse(text.as_bytes(), &mut room()), Parsed::Ordinary(_))
    }

    #[test]
    fn an_ordinary_head_is_read() {
        let text = "POST /a/b?c=%20 HTTP/1.1\r\nHost: Example.com:8443\r\nX-A: ü \r\nContent-Length: 5\r\nConnection: Close\r\n\r\nhello";
        let mut room = room();
        let Parsed::Ordinary(head) = parse(text.as_bytes(), &mut room) else { panic!("not ordinary") };
        assert_eq!((head.method, head.target, head.host), (Method::POST, "/a/b?c=%20", "Example.com:8443"));
        assert_eq!((head.body, head.is_last, head.len), (5, true, text.len() - 5));
        assert_eq!(path(head.target), "/a/b");
        assert_eq!(head.fields[1].value, "ü".as_bytes());
    }

    #[test]
    fn a_head_that_is_cut_off_anywhere_is_partial() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..end], &mut room()), Parsed::Partial), "{end}");
        }
        assert!(is_ordinary(text));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_left_to_others() {
        let with = |line: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert!(is_ordinary(&with("Accept: b")));
        for line in [
            "Host: b",
            "Transfer-Encoding: chunked",
            "transfer_encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 99999",
            "Content_Length: 1",
            "Expect: 100-continue",
            "Upgrade: websocket",
            "Trailer: a",
            "Proxy-Connection: close",
            "Connection: X-A",
            "Connection: close, X-A",
            "Connection: Upgrade",
            "X-A: b\n",
            "X-A: b\nX-B: c",
            "X-A: b\rX-B: c",
            "X-A: b\r\n folded",
            "X-A : b",
            " X-A: b",
            "X A: b",
            "X-A: \0",
            ": b",
        ] {
            assert!(!is_ordinary(&with(line)), "{line:?}");
        }
    }

    #[test]
    fn request_lines_that_are_not_plain_are_left_to_others() {
        let of = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
        assert!(is_ordinary(&of("GET /a HTTP/1.1")));
        for line in [
            "GET /a HTTP/1.0",
            "GET /a HTTP/2.0",
            "GET /a",
            "GET  /a HTTP/1.1",
            "GET /a  HTTP/1.1",
            " GET /a HTTP/1.1",
            "\r\nGET /a HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "CONNECT a:1 HTTP/1.1",
            "TRACE /a HTTP/1.1",
            "get /a HTTP/1.1",
            "GET /a/../b HTTP/1.1",
            "GET /%61 HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /a\\b HTTP/1.1",
            "GET /a\tb HTTP/1.1",
            "GET /ü HTTP/1.1",
            "GET /a\" HTTP/1.1",
        ] {
            assert!(!is_ordinary(&of(line)), "{line:?}");
        }
    }

    #[test]
    fn no_host_is_left_to_others() {
        assert!(!is_ordinary("GET / HTTP/1.1\r\nAccept: a\r\n\r\n"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes, &mut room());
        }

        /// Whatever is changed in an ordinary head: if it is still ordinary, it has one host, one length and no coding.
        #[test]
        fn a_changed_byte_never_makes_an_ambiguous_head_ordinary(at in 0_usize..90, byte: u8) {
            let mut text = b"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nHost: b\r\n\r\n".to_vec();
            let at = at % text.len();
            text[at] = byte;
            let mut room = room();
            if let Parsed::Ordinary(head) = parse(&text, &mut room) {
                let count = |name: &str| head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
                prop_assert_eq!(count("host"), 1);
                prop_assert_eq!(count("transfer-encoding"), 0);
            }
        }
    }
}
