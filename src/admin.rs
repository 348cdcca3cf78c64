//! The admin endpoints as pure routing: a request in, an answer out. Never reachable through a public listener.

use http::Method;
use serde_json::Value;

/// What was asked.
pub struct AdminRequest<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub host: Option<&'a str>,
    /// A browser says where its request comes from; none of ours has an origin.
    pub has_origin: bool,
    pub is_cross_site: bool,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// What the endpoints show and do.
pub trait AdminView {
    fn is_ready(&self) -> bool;
    fn metrics(&self) -> String;
    fn status(&self) -> Value;
    fn certificates(&self) -> Value;
    /// Client certificates that were seen, by anchor.
    fn census(&self) -> Value;
    /// The generation now in force, or why nothing changed.
    fn reload(&self) -> Result<u64, String>;
}

#[derive(Debug, PartialEq, Eq)]
pub struct AdminResponse {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus text exposition format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub fn respond(request: &AdminRequest<'_>, view: &impl AdminView) -> AdminResponse {
    if !is_local(request) {
        return text(403, "this address answers to local names only\n");
    }
    match (request.method.as_str(), request.path) {
        ("GET", "/healthz") => text(200, "ok\n"),
        ("GET", "/readyz") if view.is_ready() => text(200, "ready\n"),
        ("GET", "/readyz") => text(503, "not ready\n"),
        ("GET", "/metrics") => AdminResponse { status: 200, content_type: METRICS, body: view.metrics() },
        ("GET", "/status") => json(&view.status()),
        ("GET", "/certs") => json(&view.certificates()),
        ("GET", "/census") => json(&view.census()),
        ("POST", "/reload") if request.has_origin || request.is_cross_site => {
            text(403, "a browser's page may not do this\n")
        }
        ("POST", "/reload") => match view.reload() {
            Ok(generation) => text(200, &format!("generation {generation} is in force\n")),
            Err(problems) => text(422, &format!("{problems}\n")),
        },
        (_, "/healthz" | "/readyz" | "/metrics" | "/status" | "/certs" | "/census" | "/reload") => {
            text(405, "GET, or POST for /reload\n")
        }
        _ => text(404, "there are /healthz /readyz /metrics /status /certs /census and POST /reload\n"),
    }
}

/// A page on the web can make a browser ask any port of this machine, but under the page's own name (DNS rebinding).
fn is_local(request: &AdminRequest<'_>) -> bool {
    if request.transport == Transport::Unix {
        return true;
    }
    request.host.is_some_and(|host| is_local_name(without_port(host)))
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
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn text(status: u16, body: &str) -> AdminResponse {
    AdminResponse { status, content_type: TEXT, body: body.to_owned() }
}

fn json(value: &Value) -> AdminResponse {
    AdminResponse { status: 200, content_type: JSON, body: format!("{value:#}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct View;

    impl AdminView for View {
        fn is_ready(&self) -> bool {
            false
        }
        fn metrics(&self) -> String {
            "m".into()
        }
        fn status(&self) -> Value {
            Value::Null
        }
        fn certificates(&self) -> Value {
            Value::Null
        }
        fn census(&self) -> Value {
            Value::Null
        }
        fn reload(&self) -> Result<u64, String> {
            Ok(2)
        }
    }

    fn status(method: Method, path: &str, host: &str, has_origin: bool) -> u16 {
        let request = AdminRequest {
            method: &method,
            path,
            host: Some(host),
            has_origin,
            is_cross_site: false,
            transport: Transport::Tcp,
        };
        respond(&request, &View).status
    }

    #[test]
    fn each_endpoint_answers_to_its_method_only() {
        assert_eq!(status(Method::GET, "/healthz", "127.0.0.1:9900", false), 200);
        assert_eq!(status(Method::GET, "/readyz", "localhost", false), 503);
        assert_eq!(status(Method::POST, "/reload", "[::1]:9900", false), 200);
        assert_eq!(status(Method::GET, "/reload", "localhost", false), 405);
        assert_eq!(status(Method::GET, "/other", "localhost", false), 404);
    }

    #[test]
    fn local_names_are_local_however_they_are_written() {
        for host in ["localhost", "LocalHost:9900", "127.0.0.1", "127.0.0.53:9900", "[::1]", "[::1]:9900"] {
            assert_eq!(status(Method::GET, "/healthz", host, false), 200, "{host}");
        }
        for host in
            ["", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "[2001:db8::1]"]
        {
            assert_eq!(status(Method::GET, "/healthz", host, false), 403, "{host}");
        }
    }

    #[test]
    fn a_unix_socket_needs_no_name() {
        let request = AdminRequest {
            method: &Method::GET,
            path: "/healthz",
            host: None,
            has_origin: false,
            is_cross_site: false,
            transport: Transport::Unix,
        };
        assert_eq!(respond(&request, &View).status, 200);
        assert_eq!(respond(&AdminRequest { transport: Transport::Tcp, ..request }, &View).status, 403);
    }

    #[test]
    fn a_page_in_a_browser_can_neither_read_nor_reload() {
        assert_eq!(status(Method::GET, "/metrics", "evil.example:9900", false), 403);
        assert_eq!(status(Method::POST, "/reload", "localhost", true), 403);
    }
}
