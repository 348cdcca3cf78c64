//! What breaks around the gateway: endpoints, the log, descriptors, the resolver, the clock. Each costs whom it must, and
//! everybody else is served meanwhile. Other faults stand with what they concern: `relay.rs`, `upstream.rs`, `blocking.rs`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::open::OpenConnection;
use crate::support::steady::Steady;
use crate::support::{Call, Origin, Scripted, Site, eventually};

/// An endpoint that does with each request what its path asks for. It ends the connection where this returns false.
fn misbehave(call: &mut Call, request: &str) -> bool {
    match request.split(' ').nth(1).unwrap_or_default() {
        "/broken/hang" => std::thread::sleep(Duration::from_secs(4)),
        "/broken/reset" => {
            // What was not read yet is thrown away, and the client of it told so.
            socket2::SockRef::from(&call.tcp).set_linger(Some(Duration::ZERO)).unwrap();
        }
        "/broken/short" => call.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"),
        "/broken/long" => {
            call.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabcdef");
            return true;
        }
        "/broken/drip" => {
            call.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
            while call.tcp.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        "/broken/drip-head" => {
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: so that it takes long\r\n\r\n" {
                if call.tcp.write_all(&[*byte]).is_err() {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        "/broken/fields" => {
            call.say(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(300)));
        }
        "/broken/garbage" => call.say("\x16\x03\x01 this is not what was asked for\r\n\r\n"),
        _ => {
            call.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            return true;
        }
    }
    false
}

/// What a client gets for `path`, as an ordinary request or as one that is Pingora's: a status, or 0 for an answer that is
/// cut off.
fn outcome(site: &Site, path: &str, is_ordinary: bool) -> u16 {
    let mut client = site.wire("sensor-1");
    if is_ordinary {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    } else {
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        ));
    }
    client.answer().map_or(0, |answer| answer.status)
}

#[test]
fn an_endpoint_that_breaks_in_any_way_costs_its_own_requests_only() {
    let (site, origin) = (Site::new(), Origin::start());
    let broken = Scripted::start(|mut call| {
        while let Some(request) = call.request() {
            if !misbehave(&mut call, &request) {
                return;
            }
        }
    });
    // Of TLS: one that says something else, one that says nothing, one that leaves.
    let babbling = Scripted::start(|mut call| call.say("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let silent =
        Scripted::start(|mut call| while call.tcp.read(&mut [0; 1000]).is_ok_and(|read| read > 0) {});
    let leaving = Scripted::start(|_| ());
    let tls = "tls: { verify: ca.crt, server_name: localhost }, timeouts: { connect: 500ms }";
    let pools = format!(
        "{{ main: {{ endpoints: [\"{}\"] }}, \
           broken: {{ endpoints: [\"{}\"], timeouts: {{ first_byte: 1s, total: 2s }}, ejection: {{ consecutive_failures: 1000 }} }}, \
           babbling: {{ endpoints: [\"{}\"], {tls} }}, silent: {{ endpoints: [\"{}\"], {tls} }}, \
           leaving: {{ endpoints: [\"{}\"], {tls} }} }}",
        origin.address, broken.address, babbling.address, silent.address, leaving.address
    );
    let routes = "[{ request: { path: \"/broken/*\" }, pool: broken }, { request: { path: /babbling }, pool: babbling }, \
                   { request: { path: /silent }, pool: silent }, { request: { path: /leaving }, pool: leaving }, \
                   { pool: main }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let gateway = site.start();
    let others = Steady::start(&site);
    for (path, expected) in [
        ("/broken/hang", 504),
        ("/broken/reset", 502),
        ("/broken/short", 0),
        ("/broken/long", 200),
        ("/broken/drip", 0),
        ("/broken/drip-head", 504),
        ("/broken/fields", 502),
        ("/broken/garbage", 502),
        ("/babbling", 502),
        ("/silent", 504),
        ("/leaving", 502),
    ] {
        for is_ordinary in [true, false] {
            // Of a head that trickles Pingora bounds each piece and the size, but not the time of the whole.
            if path == "/broken/drip-head" && !is_ordinary {
                continue;
            }
            let began = Instant::now();
            assert_eq!(outcome(&site, path, is_ordinary), expected, "{path} {is_ordinary}");
            assert!(began.elapsed() < Duration::from_secs(8), "{path}: {:?}", began.elapsed());
            // Nothing of it is left behind for the next one.
            assert_eq!(outcome(&site, "/broken/ok", is_ordinary), 200, "after {path} {is_ordinary}");
        }
    }
    others.serves_everybody();
    assert_eq!(others.failures(), [""; 0]);
    assert!(gateway.metric("portcullis_panics_total") < 0.5);
}

#[test]
fn a_log_on_a_full_disk_is_counted_and_holds_nobody_up() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    // Whoever writes there is told that the disk is full.
    let gateway = site.start_in_shell("true", ">/dev/full");
    let others = Steady::start(&site);
    others.serves_everybody();
    let dropped = || gateway.metric("portcullis_log_records_dropped_total");
    eventually("records are counted as dropped", || (dropped() > 10.0).then_some(()));
    assert_eq!(gateway.reload().0, 200);
    others.serves_everybody();
    assert_eq!(others.failures(), [""; 0]);
}

#[test]
fn a_log_that_nobody_reads_is_counted_and_holds_nobody_up() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let fifo = site.path().join("log");
    crate::support::run(site.path(), "mkfifo", &["log"]);
    let open = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let gateway = site.start_in_shell("true", ">log");
    let mut client = OpenConnection::new(&site, Some("sensor-1"));
    let dropped = || gateway.metric("portcullis_log_records_dropped_total");
    let began = Instant::now();
    // The pipe holds 64 KiB and the queue 16,384 records.
    while dropped() < 1.0 {
        for _ in 0..2000 {
            assert_eq!(client.get("/"), 200);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{} dropped", dropped());
    }
    assert_eq!(client.get("/"), 200);
    // Whoever reads on is told that there is a hole.
    let mut reader = open;
    let mut text = String::new();
    while !text.contains("log records were dropped") {
        let mut bytes = vec![0; 64 * 1024];
        let read = reader.read(&mut bytes).unwrap();
        text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        client.get("/");
    }
}

#[test]
fn a_listener_without_descriptors_says_so_keeps_whom_it_has_and_recovers() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start_in_shell("ulimit -n 100", "");
    let mut before = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(before.get("/"), 200);
    let mut strangers = Vec::new();
    for _ in 0..120 {
        strangers.push(TcpStream::connect(("127.0.0.1", site.port)).unwrap());
    }
    gateway.logged(&["cannot accept", "LimitNOFILE"]);
    // The connection to the endpoint is there already.
    for _ in 0..20 {
        assert_eq!(before.get("/"), 200);
    }
    // Strangers are dropped at the deadline of the handshake, whether they leave or not: then there is room.
    eventually("a new client is served", || {
        (site.curl(Some("sensor-1"), &["--max-time", "5"], "/").status == 200).then_some(())
    });
    drop(strangers);
    assert_eq!(before.get("/"), 200);
    let complaints = gateway.log().matches("cannot accept").count();
    assert!(complaints < 10, "one fault was told of {complaints} times");
    assert!(gateway.metric("portcullis_panics_total") < 0.5);
}

#[test]
fn a_resolver_that_is_slow_holds_up_neither_requests_nor_reloads() {
    let (site, origin) = (Site::new(), Origin::start());
    let port = origin.address.rsplit(':').next().unwrap();
    let pools = format!("{{ main: {{ endpoints: [\"origin.test:{port}\"], dns_refresh: 1s }} }}");
    std::fs::write(site.path().join("names"), "127.0.0.1").unwrap();
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start_with_names("names");
    let mut client = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(client.get("/"), 200);
    std::fs::write(site.path().join("names"), "127.0.0.1 8").unwrap();
    let log = gateway.logged(&["cannot be resolved within 5s"]);
    assert!(log.contains("origin.test"), "{log}");
    let slowest = (0..200)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(client.get("/"), 200);
            began.elapsed()
        })
        .max();
    assert!(slowest < Some(Duration::from_secs(2)), "{slowest:?}");
    let began = Instant::now();
    assert_eq!(gateway.reload().0, 200);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(client.get("/"), 200);
}

#[test]
fn a_clock_that_jumps_ends_whom_it_must_and_lets_everybody_else_go_on() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let set = |ahead: i64| std::fs::write(site.path().join("ahead"), ahead.to_string()).unwrap();
    set(0);
    site.mint("sensor-short", "CN=sensor-short,OU=sensors", -600..3600);
    let gateway = site.start_with_clock("ahead");
    let others = Steady::start(&site);
    let mut short = OpenConnection::new(&site, Some("sensor-short"));
    assert_eq!(short.get("/"), 200);
    // Two hours ahead: its certificate has expired meanwhile.
    set(7200);
    assert!(short.ends_within(Duration::from_secs(20)));
    gateway.logged(&["sensor-short", "expired"]);
    assert_eq!(site.curl(Some("sensor-short"), &[], "/").status, 0);
    others.serves_everybody();
    // Back, and further back: what was sealed or seen "in the future" harms nobody, and it may come again.
    for ahead in [0, -200] {
        set(ahead);
        eventually("it is let in again", || {
            (site.curl(Some("sensor-short"), &[], "/").status == 200).then_some(())
        });
        others.serves_everybody();
    }
    assert_eq!(gateway.reload().0, 200);
    others.serves_everybody();
    assert_eq!(others.failures(), [""; 0]);
    assert!(gateway.metric("portcullis_panics_total") < 0.5);
}
