//! The same requests once to a pool that the gateway serves itself, and once to an identical one that it leaves to
//! Pingora, because its endpoint wants TLS: clients and origins see no difference.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

use crate::support::{Gateway, Site};

/// The next request as it came; a body in chunks is joined.
fn request<S: Read>(stream: &mut BufReader<S>) -> Option<String> {
    let line = |text: &mut String, stream: &mut BufReader<S>| {
        let mut bytes = Vec::new();
        stream.read_until(b'\n', &mut bytes).ok().filter(|read| *read > 0)?;
        text.push_str(&String::from_utf8_lossy(&bytes));
        Some(bytes.len() == 2)
    };
    let mut text = String::new();
    while !line(&mut text, stream)? {}
    let lower = text.to_lowercase();
    let mut body = Vec::new();
    if lower.contains("\ntransfer-encoding:") {
        loop {
            let mut size = String::new();
            line(&mut size, stream)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(rest) = lower.split("\ncontent-length:").nth(1) {
        body = vec![0; rest.lines().next().unwrap().trim().parse().unwrap()];
        stream.read_exact(&mut body).ok()?;
    }
    Some(text + &String::from_utf8_lossy(&body))
}

/// Answers with what it was sent.
fn echo<S: Read + Write>(stream: S) {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = request(&mut stream) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Origin: a\r\n\r\n", seen.len());
        let body = if seen.starts_with("HEAD ") { "" } else { &seen };
        if stream.get_mut().write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// A gateway with one pool for `sensor-1`, which it serves itself, and one for `sensor-2`.
fn both_ways(extra: &[(&str, &str)]) -> (Site, Gateway) {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let (plain, tls) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate_chain_file(site.path().join("server.crt")).unwrap();
    acceptor.set_private_key_file(site.path().join("server.key"), SslFiletype::PEM).unwrap();
    let acceptor = Arc::new(acceptor.build());
    let pools = format!(
        "{{ plain: {{ endpoints: [\"{}\"] }}, tls: {{ endpoints: [\"{}\"], tls: {{ verify: ca.crt, server_name: localhost }} }} }}",
        plain.local_addr().unwrap(),
        tls.local_addr().unwrap()
    );
    thread::spawn(move || {
        for tcp in plain.incoming().flatten() {
            thread::spawn(move || echo(tcp));
        }
    });
    thread::spawn(move || {
        for tcp in tls.incoming().flatten() {
            let acceptor = acceptor.clone();
            thread::spawn(move || acceptor.accept(tcp).map(echo));
        }
    });
    let routes = "[{ client: { trust: fleet, subject: { CN: sensor-1 } }, request: { path: \"/allowed*\" }, pool: plain }, \
                   { client: { trust: fleet, subject: { CN: sensor-2 } }, request: { path: \"/allowed*\" }, pool: tls }]";
    let mut sections = vec![("pools", &*pools), ("routes", routes)];
    sections.extend_from_slice(extra);
    site.configure("", &sections);
    let gateway = site.start();
    (site, gateway)
}

/// What an origin saw, in a form that can be compared: names in lower case, in their order in the alphabet, and of the
/// identity only whose it is.
fn normal(seen: &str, client: &str) -> String {
    let Some((head, body)) = seen.split_once("\r\n\r\n") else { return seen.to_owned() };
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let mut fields = Vec::new();
    let mut cookies = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let (name, value) = (name.to_lowercase(), value.trim());
        let of_identity = ["client-cert", "x-client-", "x-ssl-client-", "x-forwarded-client-cert"];
        if name == "cookie" {
            cookies.push(value.to_owned());
        } else if of_identity.iter().any(|prefix| name.starts_with(prefix)) {
            assert!(name != "x-client-cn" || value == client, "{seen}");
            fields.push(name);
        } else {
            fields.push(format!("{name}: {value}"));
        }
    }
    if !cookies.is_empty() {
        fields.push(format!("cookie: {}", cookies.join("; ")));
    }
    fields.sort();
    format!("{first}\n{}\n\n{body}", fields.join("\n"))
}

/// Status, what the origin saw, and whether another request on the connection is answered.
fn ask(site: &Site, client: &str, text: &[u8]) -> (u16, String, u16) {
    let mut wire = site.wire(client);
    wire.send(text);
    let method = if text.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let Some(answer) = wire.answer_to(method) else { return (0, String::new(), 0) };
    let seen = if answer.status == 200 { normal(&answer.text(), client) } else { String::new() };
    let next = b"GET /allowed/next HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let _ = wire.tls.write_all(next);
    (answer.status, seen, wire.answer().map_or(0, |answer| answer.status))
}

fn corpus() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |line: &str, fields: &str| all.push(format!("{line}\r\n{fields}\r\n").into());
    let host = "Host: localhost\r\n";
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get",
        "G-T", "",
    ] {
        add(&format!("{method} /allowed HTTP/1.1"), host);
        add(&format!("{method} /forbidden HTTP/1.1"), host);
    }
    for target in [
        "/allowed/a?b=c&d=%20",
        "/allowed?",
        "/allowed??a",
        "/allowed?a#b",
        "/allowed#b",
        "/allowed//a",
        "//allowed",
        "/allowed/.",
        "/allowed/./a",
        "/allowed/../a",
        "/allowed/..",
        "/allowed/...",
        "/allowed/a.b",
        "/.allowed",
        "/allowed/%2e",
        "/allowed/%2F",
        "/allowed/%61",
        "/allowed/%20",
        "/allowed/%C3%A9",
        "/allowed/%zz",
        "/allowed/%",
        "/allowed/%0",
        "/allowed/%00",
        "/allowed/a;b=c",
        "/allowed/a,b",
        "/allowed/a:b@c",
        "/allowed/(a)!$&'*+=",
        "/allowed/a|b",
        "/allowed/a\\b",
        "/allowed/\"a\"",
        "/allowed/<a>",
        "/allowed/{a}",
        "/allowed/[a]",
        "/allowed/a^b`c",
        "/allowed/\u{e9}",
        "/allowed?\u{e9}",
        "/allowed?<a>",
        "/allowed?a=\"b\"",
        "/allowed?../../b",
        "/allowed?%2e%00",
        "*",
        "allowed",
        "http://localhost/allowed",
        "http://localhost/allowed?a",
        "http://other/allowed",
        "https://localhost/allowed",
        "http://localhost",
        "http://localhost?a",
        "HTTP://LOCALHOST/allowed",
        "http://a@localhost/allowed",
        "localhost:80",
        "?a",
        "/allowed a",
        "/allowed\ta",
        "",
    ] {
        add(&format!("GET {target} HTTP/1.1"), host);
    }
    for version in ["HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1.1 ", "http/1.1", "HTTP/11", ""] {
        add(&format!("GET /allowed {version}"), host);
    }
    for line in [
        " GET /allowed HTTP/1.1",
        "\r\nGET /allowed HTTP/1.1",
        "\nGET /allowed HTTP/1.1",
        "GET  /allowed HTTP/1.1",
    ] {
        add(line, host);
    }
    for host in [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost..",
        "localhost:8443",
        "localhost:",
        "localhost:a",
        "localhost:1@b",
        "localhost:1:2",
        "a@localhost",
        "other",
        "other.example:80",
        "",
        " ",
        "a b",
        "a/b",
        "a,b",
        "localhost, b",
        "[::1]",
        "[localhost]",
        "[::1]:8443",
        "[::1]b",
        "[::1",
        "::1",
        "127.0.0.1",
        "local_host",
        "xn--e1a",
        "\u{e9}",
        "a%41",
        "localhost\t",
    ] {
        add("GET /allowed HTTP/1.1", &format!("Host: {host}\r\n"));
    }
    add("GET /allowed HTTP/1.1", "");
    add("GET /allowed HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n");
    add("GET /allowed HTTP/1.1", "Host: localhost\r\nhost: other\r\n");
    add("GET /allowed HTTP/1.1", "HOST:localhost\r\n");
    for field in [
        "Accept: a",
        "X-A: b\r\nX-A: c",
        "X-A:",
        "X-A: ",
        "X-A:b",
        "X-A:\tb\t",
        "X-A: b  ",
        "X-A: \u{fc}",
        "X-A: a\u{7f}b",
        "X_A: b",
        "X.A: b",
        "X-A : b",
        " X-A: b",
        "X-A: b\n",
        "X-A: b\nX-B: c",
        "X-A: b\rc",
        "X-A: b\r\n c",
        "X-A: \0",
        ": b",
        "X A: b",
        "no colon",
        "Cookie: a=b",
        "Cookie: a=b\r\nCookie: c=d",
        "Cookie:",
        "Cookie: a=b;",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: Keep-Alive, X-A\r\nX-A: b",
        "Connection: X-Client-CN",
        "Connection: ",
        "Connection: close, close",
        "Connection: close\r\nConnection: keep-alive",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "TE: gzip",
        "Trailer: X-A",
        "Upgrade: h2c",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: a",
        "HTTP2-Settings: a",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic a",
        "Proxy-Authenticate: Basic",
        "Authorization: Basic a",
        "Via: 1.1 a",
        "Max-Forwards: 0",
        "Expect: 100-continue",
        "Expect: other",
        "Range: bytes=0-1",
        "If-None-Match: \"a\"",
        "Accept-Encoding: gzip",
        "X-Forwarded-For: 1.2.3.4",
        "X_Forwarded_For: 1.2.3.4",
        "x-forwarded-for: 1.2.3.4\r\nX-FORWARDED-FOR: 5.6.7.8",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: a",
        "Forwarded: for=a",
        "X-Real-IP: a",
        "X-Forwarded-Port: 1",
        "Client-Cert: :a:",
        "client_cert: a",
        "X-SSL-Client-Verify: a",
        "x.client.cn: forged",
        "X_Client-CN: forged",
        "X-Client-CN: forged",
        "X-Forwarded-Client-Cert: a",
        "X-Amzn-Mtls-Clientcert: a",
        "Content-Type: a",
        "Date: a",
        "Server: a",
        "Content-Encoding: gzip",
    ] {
        add("GET /allowed HTTP/1.1", &format!("{host}{field}\r\n"));
        add("GET /allowed HTTP/1.1", &format!("{field}\r\n{host}"));
    }
    for (fields, body) in [
        ("Content-Length: 0", ""),
        ("Content-Length: 4", "abcd"),
        ("content-length: 4", "abcd"),
        ("Content-Length: 04", "abcd"),
        ("Content-Length: +4", "abcd"),
        ("Content-Length: -4", "abcd"),
        ("Content-Length: 4 ", "abcd"),
        ("Content-Length: 4a", "abcd"),
        ("Content-Length: 0x4", "abcd"),
        ("Content-Length: 4, 4", "abcd"),
        ("Content-Length: 4\r\nContent-Length: 4", "abcd"),
        ("Content-Length: 4\r\nContent-Length: 5", "abcde"),
        ("Content-Length:", ""),
        ("Content-Length: 18446744073709551616", ""),
        ("Content_Length: 4", ""),
        ("Content-Length : 4", "abcd"),
        ("Transfer-Encoding: chunked", "4\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: Chunked", "4\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "4;a=b\r\nabcd\r\n0\r\nX-Client-CN: b\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4", "4\r\nabcd\r\n0\r\n\r\n"),
        ("Transfer-Encoding: identity", ""),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        ("Transfer-Encoding:\tchunked", "0\r\n\r\n"),
        ("Transfer_Encoding: chunked", ""),
        ("Transfer-Encoding : chunked", "0\r\n\r\n"),
        ("Expect: 100-Continue\r\nContent-Length: 0", ""),
    ] {
        for method in ["POST", "GET", "DELETE", "HEAD"] {
            add(&format!("{method} /allowed HTTP/1.1"), &format!("{host}{fields}\r\n\r\n{body}"));
            // One end of line too many was added.
        }
    }
    let long = |length: usize| format!("{host}X-A: {}\r\n", "x".repeat(length));
    for length in [1000, 8000, 16_000, 16_384, 17_000, 40_000] {
        add("GET /allowed HTTP/1.1", &long(length));
    }
    for number in [1, 60, 63, 64, 65, 200, 255, 256, 300] {
        add(
            "GET /allowed HTTP/1.1",
            &(0..number).fold(host.to_owned(), |all, number| format!("{all}X-{number}: a\r\n")),
        );
    }
    add("POST /allowed HTTP/1.1", &format!("{host}Content-Length: 65536\r\n\r\n{}", "x".repeat(65536)));
    add("POST /allowed HTTP/1.1", &format!("{host}Content-Length: 65537\r\n\r\n{}", "x".repeat(65537)));
    for request in &mut all {
        // `add` ends each request with an empty line; one with a body has had its own.
        let end =
            request.windows(4).position(|window| window == b"\r\n\r\n").map_or(request.len(), |at| at + 4);
        if end < request.len() {
            request.truncate(request.len() - 2);
        }
    }
    all
}

/// Status, what the origin saw, whether the connection goes on.
fn compare(site: &Site, corpus: &[Vec<u8>]) {
    let mut faults = Vec::new();
    for text in corpus {
        let ways = ["sensor-1", "sensor-2"].map(|client| ask(site, client, text));
        if ways[0] != ways[1] {
            let shown = String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
            faults.push(format!("{shown:?}\n  {:?}\n  {:?}", ways[0], ways[1]));
        }
    }
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn http1_requests_have_the_same_outcome_both_ways() {
    let (site, _gateway) = both_ways(&[("logging", "{ access: { requests: false } }")]);
    let corpus = corpus();
    assert!(corpus.len() > 300);
    compare(&site, &corpus);
}

#[test]
fn what_a_trusted_proxy_says_has_the_same_outcome_both_ways() {
    let (site, _gateway) = both_ways(&[("trusted_proxies", "[127.0.0.0/8]")]);
    let mut corpus = corpus();
    corpus.retain(|text| String::from_utf8_lossy(text).to_lowercase().contains("orwarded"));
    assert!(corpus.len() > 10);
    compare(&site, &corpus);
}

/// The same over HTTP/2: all requests of one client on one connection.
fn over_h2(site: &Site, client: &str) -> Vec<(String, u16, String)> {
    type Fields = &'static [(&'static str, &'static str)];
    let corpus: &[(&str, &str, Fields, Option<&str>)] = &[
        ("GET", "/allowed/a?b=c", &[], None),
        ("HEAD", "/allowed", &[], None),
        ("OPTIONS", "/allowed", &[], None),
        ("TRACE", "/allowed", &[], None),
        ("PROPFIND", "/allowed", &[], None),
        ("GET", "/forbidden", &[], None),
        ("GET", "/allowed/../a", &[], None),
        ("GET", "/allowed/%61", &[], None),
        ("GET", "/allowed/a|b", &[], None),
        ("GET", "/allowed", &[("host", "localhost")], None),
        ("GET", "/allowed", &[("host", "other")], None),
        ("GET", "/allowed", &[("host", "a"), ("host", "b")], None),
        ("GET", "/allowed", &[("cookie", "a=b"), ("x-a", "b"), ("cookie", "c=d"), ("cookie", "e=f")], None),
        ("GET", "/allowed", &[("te", "trailers")], None),
        ("GET", "/allowed", &[("trailer", "x-a")], None),
        ("GET", "/allowed", &[("http2-settings", "a")], None),
        ("GET", "/allowed", &[("proxy-authorization", "a"), ("proxy-authenticate", "b")], None),
        ("GET", "/allowed", &[("expect", "100-continue")], None),
        (
            "GET",
            "/allowed",
            &[("x-client-cn", "forged"), ("x_client_cn", "forged"), ("client-cert", "forged")],
            None,
        ),
        (
            "GET",
            "/allowed",
            &[("x-forwarded-for", "1.2.3.4"), ("x_forwarded_for", "1.2.3.4"), ("forwarded", "for=a")],
            None,
        ),
        ("GET", "/allowed", &[("x-a", "b"), ("x-a", "c"), ("x-b", "")], None),
        ("GET", "/allowed", &[("content-length", "0")], None),
        ("POST", "/allowed", &[], Some("a body")),
        ("POST", "/allowed", &[("content-length", "6")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "7")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "5")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "6"), ("content-length", "6")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "6, 6")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "+6")], Some("a body")),
        ("POST", "/allowed", &[("content-length", "0")], Some("a body")),
        ("POST", "/allowed", &[], Some("")),
        ("GET", "/allowed", &[("content-length", "6")], Some("a body")),
    ];
    let port = site.port;
    site.over_h2(client, async move |mut send| {
        let mut outcomes = Vec::new();
        for (method, path, fields, body) in corpus {
            let mut request =
                http::Request::builder().method(*method).uri(format!("https://localhost:{port}{path}"));
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            send = send.ready().await.unwrap();
            let (response, mut stream) =
                send.send_request(request.body(()).unwrap(), body.is_none()).unwrap();
            if let Some(body) = body {
                let _ = stream.send_data(bytes::Bytes::from_static(body.as_bytes()), true);
            }
            let asked = format!("{method} {path} {fields:?} {body:?}");
            let Ok(response) = response.await else {
                outcomes.push((asked, 0, String::new()));
                continue;
            };
            let status = response.status().as_u16();
            let (mut body, mut seen) = (response.into_body(), Vec::new());
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                seen.extend_from_slice(&piece);
            }
            let seen = String::from_utf8_lossy(&seen).into_owned();
            outcomes.push((asked, status, if status == 200 { normal(&seen, client) } else { String::new() }));
        }
        outcomes
    })
}

#[test]
fn http2_requests_have_the_same_outcome_both_ways() {
    let (site, _gateway) = both_ways(&[]);
    let faults: Vec<_> = over_h2(&site, "sensor-1")
        .into_iter()
        .zip(over_h2(&site, "sensor-2"))
        .filter(|(one, other)| one != other)
        .map(|(one, other)| format!("{one:?}\n{other:?}\n"))
        .collect();
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.concat());
}
