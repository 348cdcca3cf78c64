//! The gateway behind balancers that only pass bytes on: PROXY protocol, versions 1 and 2.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use openssl::pkey::PKey;
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::X509;

use portcullis::proxy_protocol::{Header, Version};

use crate::support::{BINARY, Gateway, Origin, Scripted, Site, eventually, run};

/// Where the balancer of these tests is.
const BALANCER: &str = "127.0.0.9";

/// `keys` of the listener beside the usual ones.
fn listener(keys: &str) -> String {
    format!(
        "[{{ name: edge, address: \"0.0.0.0:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
         client_auth: {{ mode: require, trust: [fleet] }}, {keys} }}]"
    )
}

fn start(keys: &str) -> (Site, Origin, Gateway) {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("listeners", &listener(keys))]);
    let gateway = site.start();
    (site, origin, gateway)
}

fn header(version: Version, client: &str) -> Vec<u8> {
    let source = client.parse().unwrap();
    version.write(&Header::Client { source, destination: "198.51.100.1:443".parse().unwrap() })
}

/// A connection from `source`, on which nothing was said yet.
fn connect(site: &Site, source: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], site.port)).into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.into()
}

/// Says something before what the client says: in one piece with it, as a balancer may well do.
#[derive(Debug)]
struct Balanced {
    tcp: TcpStream,
    first: Vec<u8>,
}

impl Write for Balanced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let first = std::mem::take(&mut self.first);
        self.tcp.write_all(&[&first, bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

impl Read for Balanced {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(bytes)
    }
}

/// sensor-1's connection from `source`, after `first`; `None` if there is no handshake.
fn enter(site: &Site, source: &str, first: &[u8]) -> Option<SslStream<Balanced>> {
    let balanced = Balanced { tcp: connect(site, source), first: first.to_vec() };
    site.connector("sensor-1").connect("localhost", balanced).ok()
}

/// What the origin sees of a request on it.
fn ask(tls: &mut SslStream<Balanced>) -> String {
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").unwrap();
    let mut said = Vec::new();
    // The answer ends with the request's head as the origin saw it, without the empty line.
    while !String::from_utf8_lossy(&said).to_lowercase().contains("\r\nforwarded:")
        || !said.ends_with(b"\r\n")
    {
        let mut bytes = [0; 4096];
        match tls.read(&mut bytes) {
            Ok(read @ 1..) => said.extend_from_slice(&bytes[..read]),
            end => panic!("{end:?} after {}", String::from_utf8_lossy(&said)),
        }
    }
    String::from_utf8_lossy(&said).to_lowercase()
}

fn failures(gateway: &Gateway, reason: &str) -> usize {
    let name = format!("portcullis_tls_handshake_failures_total{{listener=\"edge\",reason=\"{reason}\"}}");
    gateway.metric(&name) as usize
}

#[test]
fn a_client_behind_a_balancer_is_who_the_header_says_for_origins_logs_lists_and_limits() {
    let (site, _origin, gateway) = start(
        "proxy_protocol: { from: [127.0.0.9] }, deny_from: [192.0.2.66], allow_from: [192.0.2.0/24, \"2001:db8::/32\"], \
         limits: { per_address: { connections: 1 } }",
    );
    for (version, client, shown) in [
        (Version::V1, "192.0.2.7:4711", "192.0.2.7"),
        (Version::V2, "192.0.2.7:4712", "192.0.2.7"),
        (Version::V1, "[2001:db8::7]:4713", "2001:db8::7"),
        (Version::V2, "[2001:db8::7]:4714", "2001:db8::7"),
    ] {
        let mut tls =
            eventually("the one before is gone", || enter(&site, BALANCER, &header(version, client)));
        let seen = ask(&mut tls);
        assert!(seen.contains(&format!("x-forwarded-for: {shown}\r\n")), "{seen}");
        gateway.logged(&["\"kind\":\"connection\"", &format!("\"peer\":\"{client}\""), "\"result\":\"ok\""]);
        gateway.logged(&["\"kind\":\"request\"", &format!("\"peer\":\"{client}\""), "\"status\":200"]);
        assert!(gateway.admin_get("/connections").1.contains(client));
        let second = enter(&site, BALANCER, &header(version, &client.replace(":471", ":571")));
        assert!(second.is_none(), "one at a time");
        assert!(enter(&site, BALANCER, &header(version, "192.0.2.8:1")).is_some(), "each");
    }
    eventually("counted", || (failures(&gateway, "address_connections") >= 4).then_some(()));
    assert!(enter(&site, BALANCER, &header(Version::V2, "192.0.2.66:1")).is_none());
    assert!(enter(&site, BALANCER, &header(Version::V1, "192.0.3.1:1")).is_none());
    eventually("counted", || (failures(&gateway, "address_denied") == 2).then_some(()));
    gateway.logged(&["\"kind\":\"turned_away\"", "address_denied", "\"peer\":\"192.0.2.66\""]);
    assert_eq!(failures(&gateway, "proxy_header"), 0);
}

#[test]
fn a_header_from_elsewhere_is_never_believed() {
    let (site, origin, gateway) = start(
        "proxy_protocol: { from: [127.0.0.9] }, deny_from: [127.0.0.3], allow_from: [127.0.0.0/24, 192.0.2.0/24]",
    );
    for version in [Version::V1, Version::V2] {
        for source in ["127.0.0.1", "127.0.0.3"] {
            assert!(enter(&site, source, &header(version, "192.0.2.7:1")).is_none());
        }
    }
    assert!(!gateway.log().contains("192.0.2.7") && origin.requests().is_empty());
    let mut direct = enter(&site, "127.0.0.1", b"").unwrap();
    assert!(ask(&mut direct).contains("x-forwarded-for: 127.0.0.1\r\n"), "who comes directly is who he is");
    assert!(enter(&site, "127.0.0.3", b"").is_none());
    let only = listener("proxy_protocol: { from: [127.0.0.9], others: refuse }");
    site.configure(&origin.address, &[("listeners", &only)]);
    assert_eq!(gateway.reload().0, 200);
    let before = failures(&gateway, "address_denied");
    assert!(enter(&site, "127.0.0.1", b"").is_none());
    eventually("counted", || (failures(&gateway, "address_denied") == before + 1).then_some(()));
    assert!(enter(&site, BALANCER, &header(Version::V2, "192.0.2.7:1")).is_some());
}

#[test]
fn a_balancer_that_does_not_say_who_the_client_is_passes_nobody_on() {
    let (site, origin, gateway) =
        start("proxy_protocol: { from: [127.0.0.9], timeout: 500ms }, limits: { handshake_timeout: 20s }");
    let good = header(Version::V2, "192.0.2.7:1");
    let mut wrong = good.clone();
    wrong[12] = 0x2f;
    let mut longer = good[..16].to_vec();
    longer[14] = 0xff;
    for (first, why) in [
        (&b""[..], "begins with TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin with a PROXY protocol header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 x\r\n", "none of version 1"),
        (b"PROXY UDP4 192.0.2.7 198.51.100.1 1 1\r\n", "none of version 1"),
        (&wrong, "none of version 2"),
        (&longer, "longer than"),
        (&good[1..], "does not begin"),
    ] {
        let before = failures(&gateway, "proxy_header");
        assert!(enter(&site, BALANCER, first).is_none(), "{why}");
        eventually(why, || (failures(&gateway, "proxy_header") == before + 1).then_some(()));
        gateway.logged(&[
            "\"kind\":\"connection\"",
            "\"reason\":\"proxy_header\"",
            why,
            "\"peer\":\"127.0.0.9:",
        ]);
    }
    for part in [&good[..], b"PROXY TCP4 192.0.2.7"] {
        for first in [&part[..1], &part[..part.len() - 1]] {
            let mut silent = connect(&site, BALANCER);
            let began = Instant::now();
            silent.write_all(first).unwrap();
            assert!(
                silent.read(&mut [0]).is_ok_and(|read| read == 0)
                    || began.elapsed() >= Duration::from_millis(400)
            );
            let took = began.elapsed();
            assert!((400..10_000).contains(&took.as_millis()), "not the timeout of the handshake: {took:?}");
        }
    }
    gateway.logged(&["proxy_header", "was not there within 500ms"]);
    drop(connect(&site, BALANCER));
    gateway.logged(&["\"reason\":\"disconnected\"", "before its PROXY protocol header"]);
    assert!(origin.requests().is_empty());
    // A header in pieces is one, and so is one with much in it that we do not use.
    let mut with_tlvs = good.clone();
    with_tlvs.extend([&b"\xea\x0b\xb8"[..], &[7; 3000]].concat());
    let length = u16::try_from(with_tlvs.len() - 16).unwrap().to_be_bytes();
    with_tlvs[14..16].copy_from_slice(&length);
    for header in [&good, &with_tlvs] {
        let mut tcp = connect(&site, BALANCER);
        for piece in header[..header.len() - 1].chunks(header.len() / 9) {
            tcp.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let balanced = Balanced { tcp, first: header[header.len() - 1..].to_vec() };
        let mut tls = site.connector("sensor-1").connect("localhost", balanced).unwrap();
        assert!(ask(&mut tls).contains("x-forwarded-for: 192.0.2.7\r\n"));
    }
    let in_flight = "portcullis_tls_handshakes_in_flight{listener=\"edge\"}";
    eventually("nothing is in flight", || (gateway.metric(in_flight) < 0.5).then_some(()));
}

#[test]
fn a_balancer_that_is_also_a_trusted_proxy_is_warned_of() {
    let (site, origin, _gateway) = start("proxy_protocol: { from: [127.0.0.0/28] }");
    let warned = |trusted: &str| {
        let listeners = listener("proxy_protocol: { from: [127.0.0.0/28] }");
        site.configure(&origin.address, &[("listeners", &listeners), ("trusted_proxies", trusted)]);
        let told = run(site.path(), BINARY, &["check", "-c", "gateway.yaml"]);
        let told = [told.stdout, told.stderr].concat();
        String::from_utf8_lossy(&told).contains("has balancers of `listeners[0].proxy_protocol.from`")
    };
    assert!(warned("[10.0.0.1, 127.0.0.9]") && warned("[127.0.0.0/8]"));
    assert!(!warned("[10.0.0.1, 127.0.0.16/28, 127.0.0.128/25]"));
}

#[test]
fn a_connection_of_the_balancers_own_is_the_balancers() {
    let (site, _origin, gateway) = start("proxy_protocol: { from: [127.0.0.9] }");
    for version in [Version::V1, Version::V2] {
        let mut own = enter(&site, BALANCER, &version.write(&Header::Own)).unwrap();
        assert!(ask(&mut own).contains("x-forwarded-for: 127.0.0.9\r\n"));
    }
    gateway.logged(&["\"kind\":\"request\"", "\"peer\":\"127.0.0.9:"]);
}

/// What of a connection to an origin came before the first request: a line, or a header of version 2 for IPv4.
fn announced(tcp: &mut TcpStream, version: Version) -> Vec<u8> {
    let mut bytes = vec![0; if version == Version::V1 { 1 } else { 28 }];
    if tcp.read_exact(&mut bytes).is_err() {
        return Vec::new();
    }
    while version == Version::V1 && !bytes.ends_with(b"\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    bytes
}

/// Starts a gateway whose pool is told who the client is, with `pool` as further keys, before an origin that answers each
/// request with how its connection began and which request of that it is.
fn telling(version: Version, pool: &str, tls: Option<&'static str>) -> (Site, Scripted, Gateway) {
    let site = Site::new();
    let identity = tls.map(|_| {
        let read = |kind: &str| std::fs::read(site.path().join(format!("server.{kind}"))).unwrap();
        (read("crt"), read("key"))
    });
    let origin = Scripted::start(move |mut call| {
        let began = announced(&mut call.tcp, version);
        let answer = |number: usize| {
            let text = format!("{number} {}", String::from_utf8_lossy(&began).escape_debug());
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
        };
        if let Some((chain, key)) = &identity {
            let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
            acceptor.set_certificate(&X509::from_pem(chain).unwrap()).unwrap();
            acceptor.set_private_key(&PKey::private_key_from_pem(key).unwrap()).unwrap();
            let Ok(mut tls) = acceptor.build().accept(call.tcp) else { return };
            let _ = tls.read(&mut [0; 4096]);
            let _ = tls.write_all(answer(0).as_bytes());
            let _ = tls.shutdown();
            return;
        }
        for number in 0.. {
            let Some(request) = call.request() else { return };
            if request.to_lowercase().contains("upgrade: websocket") {
                let head =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                call.say([head.as_bytes(), &began].concat());
                return;
            }
            call.say(answer(number));
        }
    });
    let version = if version == Version::V1 { "v1" } else { "v2" };
    let pools =
        format!("{{ main: {{ endpoints: [\"{}\"], proxy_protocol: {version}{pool} }} }}", origin.address);
    site.configure(
        &origin.address,
        &[("pools", &pools), ("listeners", &listener("protocols: [h2, http/1.1]"))],
    );
    let gateway = site.start();
    (site, origin, gateway)
}

#[test]
fn an_origin_that_wants_it_hears_of_each_client_and_no_connection_is_of_two() {
    for version in [Version::V1, Version::V2] {
        let (site, _origin, gateway) = telling(version, "", None);
        let mut clients: Vec<_> = (0..3).map(|_| site.wire("sensor-1")).collect();
        for _ in 0..3 {
            for client in &mut clients {
                client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let answer = client.answer().unwrap();
                assert_eq!(answer.status, 200);
                let source = client.tls.get_ref().local_addr().unwrap();
                let destination = client.tls.get_ref().peer_addr().unwrap();
                let expected = version.write(&Header::Client { source, destination });
                let expected = format!("0 {}", String::from_utf8_lossy(&expected).escape_debug());
                assert_eq!(answer.text(), expected, "the first request of a connection of its own");
            }
        }
        // Over HTTP/2, with a body, and with an upgrade it is the same.
        let reply = site.curl(Some("sensor-1"), &["--http2", "--data", "body"], "/");
        assert_eq!((reply.status, reply.version.as_str()), (200, "2"));
        assert!(reply.body.starts_with(if version == Version::V1 {
            "0 PROXY TCP4 127.0.0.1"
        } else {
            "0 \\r\\n\\r\\n\\0"
        }));
        let mut socket = site.wire("sensor-1");
        socket.send(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
             13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        );
        let source = socket.tls.get_ref().local_addr().unwrap();
        let destination = socket.tls.get_ref().peer_addr().unwrap();
        let expected = version.write(&Header::Client { source, destination });
        let said = socket.rest();
        assert!(said.starts_with("HTTP/1.1 101"), "{said}");
        assert!(said.ends_with(&*String::from_utf8_lossy(&expected)), "{said:?}");
        drop(gateway);
    }
}

#[test]
fn an_origin_hears_of_the_client_before_tls_and_of_nobody_in_a_health_check() {
    let tls = ", tls: { verify: ca.crt, server_name: localhost }";
    let (site, _origin, _gateway) = telling(Version::V1, tls, Some("server"));
    let reply = site.curl(Some("sensor-1"), &[], "/");
    assert!(reply.status == 200 && reply.body.starts_with("0 PROXY TCP4 127.0.0.1 127.0.0.1 "), "{reply:?}");
    for check in ["path: /healthz, ", ""] {
        let began: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let all = began.clone();
        let checked = Scripted::start(move |mut call| {
            let began = announced(&mut call.tcp, Version::V1);
            let is_own = began == b"PROXY UNKNOWN\r\n";
            all.lock().unwrap().push(began);
            while is_own && call.request().is_some() {
                call.say("HTTP/1.1 204 OK\r\n\r\n");
            }
        });
        let site = Site::new();
        let pool = format!(
            "{{ main: {{ endpoints: [\"{}\"], proxy_protocol: v1, health: {{ {check}interval: 100ms, \
             unhealthy_after: 1 }} }} }}",
            checked.address
        );
        site.configure(&checked.address, &[("pools", &pool)]);
        let gateway = site.start();
        eventually("it is checked", || (began.lock().unwrap().len() > 5).then_some(()));
        assert!(began.lock().unwrap().iter().all(|began| began == b"PROXY UNKNOWN\r\n"));
        let healthy =
            format!("portcullis_endpoint_healthy{{endpoint=\"{}\",pool=\"main\"}}", checked.address);
        assert_eq!(gateway.metric(&healthy) as usize, 1);
    }
}
