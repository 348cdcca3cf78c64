//! The request as it is sent to an endpoint.

use http::Method;

use crate::config::HostHeader;
use crate::fields::Fields;
use crate::headers::{Forwarding, IdentityHeaders};
use crate::listener::connection::{Connection, Told};
use crate::runtime::Runtime;

/// What an endpoint is asked, in whichever version of HTTP the client asked it.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// Path and query.
    pub(super) target: &'a str,
    /// As the client wrote it.
    pub(super) host: &'a str,
    pub(super) fields: Fields<'a>,
}

/// The head for an HTTP/1.1 endpoint. What is said of the client goes in last, and nothing that a client could send
/// under such a name goes in at all.
pub(super) fn render(
    asked: &Asked<'_>,
    told: &Told,
    host_header: &HostHeader,
    runtime: &Runtime,
    connection: &Connection,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + told.block.len());
    out.extend_from_slice(asked.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(asked.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = match host_header {
        HostHeader::Set(host) => host.as_str(),
        HostHeader::Preserve => asked.host,
    };
    line(&mut out, "Host", host.as_bytes());
    let mut cookies = Cookies::default();
    for (name, value) in asked.fields.iter() {
        if cookies.takes(name, value) || is_left_out(name, &runtime.identity_headers) {
            continue;
        }
        line(&mut out, name, value);
    }
    cookies.write(&mut out);
    out.extend_from_slice(&told.block);
    if runtime.forwarding.trusts(connection.peer.ip()) {
        for (name, value) in runtime.forwarding.headers(connection.peer.ip(), &told.host, asked.fields) {
            line(&mut out, name.as_str(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What belongs to the client's connection (RFC 9110, section 7.6.1), and what only we may say.
fn is_left_out(name: &str, identity: &IdentityHeaders) -> bool {
    let of_connection = match name.len() {
        2 => name.eq_ignore_ascii_case("te"),
        4 => name.eq_ignore_ascii_case("host"),
        7 => name.eq_ignore_ascii_case("trailer") || name.eq_ignore_ascii_case("upgrade"),
        10 => name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("keep-alive"),
        // Of HTTP/2 requests: in HTTP/1.1 they make a request other than ordinary.
        14 => name.eq_ignore_ascii_case("http2-settings") || name.eq_ignore_ascii_case("content_length"),
        17 => name.eq_ignore_ascii_case("transfer_encoding"),
        16 => name.eq_ignore_ascii_case("proxy-connection"),
        18 => name.eq_ignore_ascii_case("proxy-authenticate"),
        19 => name.eq_ignore_ascii_case("proxy-authorization"),
        _ => false,
    };
    of_connection || identity.is_reserved(name) || Forwarding::drops(name)
}

/// HTTP/2 may cut a cookie field into several, which HTTP/1.1 wants as one (RFC 9113, section 8.2.3).
#[derive(Default)]
struct Cookies(Option<Vec<u8>>);

impl Cookies {
    fn takes(&mut self, name: &str, value: &[u8]) -> bool {
        if name.len() != "cookie".len() || !name.eq_ignore_ascii_case("cookie") {
            return false;
        }
        match &mut self.0 {
            Some(cookies) => {
                cookies.extend_from_slice(b"; ");
                cookies.extend_from_slice(value);
            }
            None => self.0 = Some(value.to_owned()),
        }
        true
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(cookies) = &self.0 {
            line(out, "Cookie", cookies);
        }
    }
}
