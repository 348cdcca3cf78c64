//! What reaches an origin, and what never does.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::support::{H2Origin, Origin, Site};

#[test]
fn forged_identity_headers_never_reach_an_origin() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let forged = [
        "Client-Cert: :Zm9yZ2Vk:",
        "client_cert: forged",
        "Client-Cert-Chain: forged",
        "X-Forwarded-Client-Cert: Hash=forged",
        "x_forwarded_client_cert: forged",
        "X-SSL-Client-Verify: forged",
        "X-SSL-Client-Cert: forged",
        "x_ssl_client_s_dn: forged",
        "X-Client-CN: forged",
        "X_CLIENT_CN: forged",
        "SSL-Client-Cert: forged",
        "X-Forwarded-For: forged",
        "X-Forwarded-Host: forged",
        "Forwarded: for=forged",
        "X-Real-IP: forged",
    ];
    for version in ["--http1.1", "--http2"] {
        let mut arguments = vec![version];
        for header in &forged {
            arguments.extend(["-H", header]);
        }
        let reply = site.curl(Some("sensor-1"), &arguments, "/");
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(!reply.body.contains("forged") && !reply.body.contains("Zm9yZ2Vk"), "{}", reply.body);
        assert_eq!(reply.header("X-Client-CN"), Some("sensor-1"));
        assert_eq!(reply.header("X-SSL-Client-Verify"), Some("SUCCESS"));
        assert_eq!(reply.header("X-Forwarded-For"), Some("127.0.0.1"));
        assert!(reply.header("Client-Cert").is_some_and(|value| value.starts_with(":MII")));
        assert_eq!(reply.body.to_lowercase().matches("\nx-client-cn:").count(), 1);
    }
}

#[test]
fn a_client_cannot_have_its_identity_stripped_by_naming_it_in_connection() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    for name in ["Client-Cert", "X-Client-CN", "X-Forwarded-For", "X-SSL-Client-Verify"] {
        let before = origin.requests().len();
        let reply = site.curl(
            Some("sensor-1"),
            &["--http1.1", "-H", &format!("Connection: {name}, keep-alive")],
            "/",
        );
        // Either the request is refused, or the origin knows its client.
        if reply.status == 400 {
            assert_eq!(origin.requests().len(), before, "{name}");
        } else {
            assert_eq!(reply.header("X-Client-CN"), Some("sensor-1"), "{name}: {reply:?}");
            assert_eq!(reply.header("X-Forwarded-For"), Some("127.0.0.1"));
            assert!(reply.header("Client-Cert").is_some());
        }
    }
}

#[test]
fn two_clients_on_one_upstream_connection_keep_their_own_names() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    for _ in 0..5 {
        for client in ["sensor-1", "sensor-2"] {
            assert_eq!(site.curl(Some(client), &[], "/").header("X-Client-CN"), Some(client));
        }
    }
}

#[test]
fn a_client_that_no_route_names_gets_403_and_no_reason() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("mallory", "CN=mallory,OU=others");
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let reply = site.curl(Some("mallory"), &[], "/");
    assert_eq!(reply.status, 403);
    assert!(reply.body.starts_with("request ") && reply.body.lines().count() == 1, "{}", reply.body);
    let line = gateway.logged(&["\"request\"", "no_route"]);
    assert!(line.contains(reply.body.trim_start_matches("request ").trim()), "{line}");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_table_of_identities_picks_the_pool_and_who_is_not_in_it_is_refused() {
    let (site, a, b) = (Site::new(), Origin::start(), Origin::start());
    site.client("sensor-2", "CN=sensor-2");
    site.client("sensor-3", "CN=sensor-3");
    std::fs::write(site.path().join("table.csv"), "key,pool\nsensor-1,a\nsensor-2,b\n").unwrap();
    let pools =
        format!("{{ a: {{ endpoints: [\"{}\"] }}, b: {{ endpoints: [\"{}\"] }} }}", a.address, b.address);
    let routes = "[{ client: { trust: fleet }, pools_by: { key: subject.CN, table: table.csv } }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let _gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
    assert_eq!(site.curl(Some("sensor-3"), &[], "/").status, 403);
}

#[test]
fn requests_that_can_be_read_in_two_ways_get_400_and_nothing_reaches_an_origin() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let follow_up = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], &format!("{request}{follow_up}"));
        assert!(output.contains("HTTP/1.1 400"), "{request:?}\n{output}");
        assert!(!output.contains("200 OK"), "{request:?}\n{output}");
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
    for path in ["/a/../b", "/a/%2E%2e/b", "/%2f"] {
        assert_eq!(site.curl(Some("sensor-1"), &["--http2"], path).status, 400, "{path}");
    }
}

#[test]
fn a_web_socket_passes_through() {
    let site = Site::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )
            .unwrap();
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).unwrap();
        stream.write_all(b"pong").unwrap();
        (head, ping)
    });
    let pools = format!(
        "{{ main: {{ endpoints: [\"{address}\"], timeouts: {{ first_byte: 300ms, total: 300ms }} }} }}"
    );
    site.configure("", &[("pools", &pools)]);
    let _gateway = site.start();
    let mut client = Command::new("openssl")
        .current_dir(site.path())
        .args(["s_client", "-quiet", "-alpn", "http/1.1", "-connect", &format!("127.0.0.1:{}", site.port)])
        .args(["-cert", "sensor-1.crt", "-key", "sensor-1.key"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let mut output = client.stdout.take().unwrap();
    input
        .write_all(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGVzdA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    // Neither end says anything for longer than a request may take.
    std::thread::sleep(std::time::Duration::from_millis(800));
    input.write_all(b"ping").unwrap();
    let mut pong = [0; 4];
    output.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"pong");
    let (head, sent) = origin.join().unwrap();
    assert_eq!(&sent, b"ping");
    assert!(head.to_lowercase().contains("x-client-cn: sensor-1"), "{head}");
    let _ = client.kill();
    let _ = client.wait();
}

#[test]
fn identity_in_trailers_never_reaches_an_origin() {
    let (site, origin) = (Site::new(), H2Origin::start());
    let raw = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pools = format!(
        "{{ h2: {{ endpoints: [\"{}\"], protocol: h2 }}, h1: {{ endpoints: [\"{}\"] }} }}",
        origin.address,
        raw.local_addr().unwrap()
    );
    let routes = "[{ request: { path: /h2 }, pool: h2 }, { request: { path: /h1 }, pool: h1 }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let _gateway = site.start();
    let seen = std::thread::spawn(move || {
        let mut all = String::new();
        // One request that came in HTTP/2, one in HTTP/1.1.
        for _ in 0..2 {
            let (mut stream, _) = raw.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"0\r\n\r\n") && !request.ends_with(b"forged\r\n\r\n") {
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes).unwrap() {
                    0 => break,
                    read => request.extend_from_slice(&bytes[..read]),
                }
            }
            all += &String::from_utf8_lossy(&request);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
        all
    });
    let trailers = [("x-client-cn", "forged"), ("client-cert", "forged")];
    assert_eq!(site.post_with_trailers("sensor-1", "/h2", &trailers), 200);
    assert_eq!(site.post_with_trailers("sensor-1", "/h1", &trailers), 200);
    for path in ["/h2", "/h1"] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
             Trailer: X-Client-CN\r\n\r\n7\r\nmessage\r\n0\r\nX-Client-CN: forged\r\nClient-Cert: forged\r\n\r\n"
        );
        let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], &request);
        assert!(output.contains("200 OK"), "{path} {output}");
    }
    let seen = format!("{}{}", seen.join().unwrap(), origin.requests().concat());
    assert_eq!(seen.to_lowercase().matches("x-client-cn: sensor-1").count(), 4, "{seen}");
    assert!(!seen.contains("forged"), "{seen}");
}

#[test]
fn an_absolute_target_reaches_the_origin_as_the_path_that_was_routed() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("routes", "[{ request: { path: /a/* }, pool: main }]")]);
    let _gateway = site.start();
    for (target, seen) in
        [("http://localhost/a/b?c=d", "GET /a/b?c=d HTTP/1.1"), ("/a/b?c=d", "GET /a/b?c=d HTTP/1.1")]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], &request);
        assert!(output.contains("200 OK") && output.contains(seen), "{target} {output}");
    }
    let request = "GET http://localhost/b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], request);
    assert!(output.contains("403 Forbidden"), "{output}");
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn forged_identity_headers_never_reach_an_origin_through_a_listener_that_demands_no_certificate() {
    let (site, origin) = (Site::new(), Origin::start());
    let off = crate::support::free_port();
    let certificates = "tls: { certificates: [{ chain: server.crt, key: server.key }] }";
    let listeners = format!(
        "[{{ address: \"127.0.0.1:PORT\", {certificates}, client_auth: {{ mode: optional, trust: [fleet] }} }}, \
          {{ address: \"127.0.0.1:{off}\", {certificates}, client_auth: {{ mode: off }} }}]"
    );
    site.configure(
        &origin.address,
        &[("listeners", &listeners), ("routes", "[{ client: anyone, pool: main }]")],
    );
    let _gateway = site.start();
    for port in [site.port, off] {
        for version in ["--http1.1", "--http2"] {
            let forged = [
                "-H",
                "Client-Cert: forged",
                "-H",
                "x_client_cn: forged",
                "-H",
                "X-SSL-Client-Verify: forged",
            ];
            let arguments = [&forged[..], &[version]].concat();
            let reply = site.curl_at(None, &arguments, &format!("https://localhost:{port}/"));
            assert_eq!((reply.status, reply.header("X-SSL-Client-Verify")), (200, Some("NONE")), "{reply:?}");
            assert!(
                !reply.body.contains("forged") && reply.header("Client-Cert").is_none(),
                "{}",
                reply.body
            );
        }
    }
}

#[test]
fn a_flood_of_requests_taken_back_at_once_leaves_the_memory_flat_and_others_served() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("logging", "{ access: { requests: false } }")]);
    let gateway = site.start();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    // Memory that the first ones take is kept for those that follow.
    let warm = site.reset_rapidly("sensor-1", 2000);
    let before = memory();
    let flood: usize = (0..4).map(|_| site.reset_rapidly("sensor-1", 2000)).sum();
    assert!(warm > 0 && flood > 0);
    assert_eq!(site.curl(Some("sensor-1"), &["--http2"], "/").status, 200);
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB after {flood} resets");
}
