//! Pools: who answers, and what a client sees when nobody does.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{DeadEndpoint, H2Origin, Origin, Site, eventually, free_port};

#[test]
fn a_request_goes_to_the_next_endpoint_when_one_refuses_the_connection() {
    let (site, origin, dead) = (Site::new(), Origin::start(), DeadEndpoint::new());
    let pools = format!("{{ main: {{ endpoints: [\"{}\", \"{}\"] }} }}", dead.address, origin.address);
    site.configure("", &[("pools", &pools)]);
    let _gateway = site.start();
    for method in ["GET", "POST", "GET", "GET"] {
        assert_eq!(site.curl(Some("sensor-1"), &["-X", method], "/").status, 200, "{method}");
    }
}

#[test]
fn what_failed_is_told_by_502_503_and_504_and_nothing_else() {
    let (site, down) = (Site::new(), DeadEndpoint::new());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pools = format!(
        "{{ dead: {{ endpoints: [\"{}\"] }}, \
           silent: {{ endpoints: [\"{}\"], timeouts: {{ first_byte: 300ms }} }}, \
           nameless: {{ endpoints: [\"no-such-host.invalid:80\"] }} }}",
        down.address,
        silent.local_addr().unwrap()
    );
    let routes = "[{ request: { path: /dead }, pool: dead }, { request: { path: /silent }, pool: silent }, \
                   { request: { path: /nameless }, pool: nameless }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let gateway = site.start();
    for (path, status, reason) in [
        ("/dead", 502, "upstream_connect_failed"),
        ("/silent", 504, "upstream_timeout"),
        ("/nameless", 503, "no_endpoint"),
    ] {
        let reply = site.curl(Some("sensor-1"), &[], path);
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.body.starts_with("request ") && reply.body.lines().count() == 1, "{}", reply.body);
        gateway.logged(&[reason, &format!("\"path\":\"{path}\"")]);
    }
}

#[test]
fn an_unhealthy_endpoint_gets_nothing_until_it_is_healthy_again() {
    let (site, good) = (Site::new(), Origin::start());
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let other = Origin::answering(move |head| {
        let status = if is_broken.load(Ordering::Relaxed) { "500 Broken" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{head}", head.len()).into_bytes()
    });
    let pools = format!(
        "{{ main: {{ endpoints: [\"{}\", \"{}\"], health: {{ path: /healthz, interval: 100ms, unhealthy_after: 2 }} }} }}",
        good.address, other.address
    );
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start();
    let healthy = format!("portcullis_endpoint_healthy{{endpoint=\"{}\",pool=\"main\"}}", other.address);
    eventually("it is found unhealthy", || (gateway.metric(&healthy) < 0.5).then_some(()));
    let statuses: Vec<u16> = (0..6).map(|_| site.curl(Some("sensor-1"), &[], "/").status).collect();
    assert_eq!(statuses, [200; 6]);
    broken.store(false, Ordering::Relaxed);
    eventually("it is found healthy", || (gateway.metric(&healthy) > 0.5).then_some(()));
    for _ in 0..4 {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/served").status, 200);
    }
    assert!(other.requests().iter().any(|head| head.starts_with("GET /served")));
}

#[test]
fn an_origin_over_tls_must_show_a_certificate_that_is_believed() {
    let site = Site::new();
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    let port = free_port();
    // openssl's own little web server, which demands our certificate.
    let mut origin = std::process::Command::new("openssl")
        .current_dir(site.path())
        .args(["s_server", "-www", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
        .args([
            "-cert",
            "server.crt",
            "-key",
            "server.key",
            "-CAfile",
            "ca.crt",
            "-Verify",
            "1",
            "-verify_return_error",
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the origin listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let pool = |name: &str, ca: &str, server_name: &str| {
        format!(
            "{name}: {{ endpoints: [\"127.0.0.1:{port}\"], tls: {{ verify: {ca}, server_name: {server_name}, client: {{ \
             chain: sensor-1.crt, key: sensor-1.key }} }} }}"
        )
    };
    let pools = format!(
        "{{ {}, {}, {} }}",
        pool("good", "ca.crt", "localhost"),
        pool("wrong-ca", "other/ca.crt", "localhost"),
        pool("wrong-name", "ca.crt", "elsewhere.example")
    );
    let routes = "[{ request: { path: /good }, pool: good }, { request: { path: /wrong-ca }, pool: wrong-ca }, \
                   { request: { path: /wrong-name }, pool: wrong-name }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let _gateway = site.start();
    let statuses =
        ["/good", "/wrong-ca", "/wrong-name"].map(|path| site.curl(Some("sensor-1"), &[], path).status);
    let _ = origin.kill();
    let _ = origin.wait();
    assert_eq!(statuses, [200, 502, 502]);
}

/// Answers with a header and then a byte of the body from time to time, for ever.
fn trickling_origin() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    address
}

#[test]
fn a_request_that_takes_longer_than_its_total_time_ends() {
    let (site, origin, trickling) = (Site::new(), Origin::start(), trickling_origin());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pool = |name: &str, address: &str| {
        format!("{name}: {{ endpoints: [\"{address}\"], timeouts: {{ total: 600ms }} }}")
    };
    let pools = format!(
        "{{ {}, {}, {} }}",
        pool("quick", &origin.address),
        pool("silent", &silent.local_addr().unwrap().to_string()),
        pool("trickling", &trickling)
    );
    let routes = "[{ request: { path: /quick }, pool: quick }, { request: { path: /silent }, pool: silent }, \
                   { request: { path: /trickling }, pool: trickling }]";
    site.configure("", &[("pools", &pools), ("routes", routes)]);
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/quick").status, 200);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/silent").status, 504);
    let started = Instant::now();
    let reply = site.curl(Some("sensor-1"), &[], "/trickling");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // The header was sent already: what is left to say is that the body is not whole.
    assert_eq!(reply.status, 200);
    assert!(reply.body.len() < 1000);
    gateway.logged(&["\"path\":\"/trickling\"", "the request's time is over"]);
}

#[test]
fn an_endpoint_that_fails_again_and_again_is_left_alone_for_a_while() {
    let (site, good) = (Site::new(), Origin::start());
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    // It takes connections and closes them.
    let other = Origin::answering(move |head| {
        if is_broken.load(Ordering::Relaxed) {
            return Vec::new();
        }
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()).into_bytes()
    });
    let pools = format!(
        "{{ main: {{ endpoints: [\"{}\", \"{}\"], ejection: {{ consecutive_failures: 2, duration: 2s }} }} }}",
        good.address, other.address
    );
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start();
    let healthy = format!("portcullis_endpoint_healthy{{endpoint=\"{}\",pool=\"main\"}}", other.address);
    let mut failures = 0;
    eventually("it is ejected", || {
        failures += usize::from(site.curl(Some("sensor-1"), &["-X", "POST"], "/").status == 502);
        (gateway.metric(&healthy) < 0.5).then_some(())
    });
    assert_eq!(failures, 2);
    let statuses: Vec<u16> = (0..6).map(|_| site.curl(Some("sensor-1"), &[], "/").status).collect();
    assert_eq!(statuses, [200; 6]);
    broken.store(false, Ordering::Relaxed);
    eventually("it is served again", || {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/again").status, 200);
        other.requests().iter().any(|head| head.starts_with("GET /again")).then_some(())
    });
    assert!(gateway.metric(&healthy) > 0.5);
}

#[test]
fn grpc_passes_through_with_its_trailers_and_the_identity() {
    let (site, origin) = (Site::new(), H2Origin::start());
    let pools = format!("{{ main: {{ endpoints: [\"{}\"], protocol: h2 }} }}", origin.address);
    site.configure("", &[("pools", &pools)]);
    let _gateway = site.start();
    let arguments = [
        "--http2",
        "-D",
        "-",
        "-H",
        "te: trailers",
        "-H",
        "content-type: application/grpc",
        "-H",
        "x-client-cn: forged",
        "--data-binary",
        "message",
    ];
    let reply = site.curl(Some("sensor-1"), &arguments, "/service/Method");
    assert_eq!((reply.status, &*reply.version), (200, "2"));
    assert!(reply.body.contains("grpc-status: 0") && reply.body.contains("echo message"), "{}", reply.body);
    let seen = origin.requests();
    let seen = seen.first().unwrap();
    for line in ["te: trailers", "content-type: application/grpc", "x-client-cn: sensor-1"] {
        assert!(seen.contains(line), "{seen}");
    }
    assert!(!seen.contains("forged"));
}

#[test]
fn a_name_is_resolved_again_while_running_and_the_last_good_answer_stays() {
    let (site, port) = (Site::new(), free_port());
    let origins = ["127.0.0.1", "127.0.0.2"].map(|address| Origin::at(&format!("{address}:{port}")));
    let names = site.path().join("names");
    std::fs::write(&names, "127.0.0.1").unwrap();
    let pools = format!("{{ main: {{ endpoints: [\"origin.test:{port}\"], dns_refresh: 1s }} }}");
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start_with_names("names");
    let request = |path: &str| assert_eq!(site.curl(Some("sensor-1"), &[], path).status, 200, "{path}");
    request("/first");
    assert_eq!(origins.each_ref().map(|origin| origin.requests().len()), [1, 0]);
    std::fs::write(&names, "127.0.0.2").unwrap();
    eventually("the new address is used", || {
        request("/moved");
        (!origins[1].requests().is_empty()).then_some(())
    });
    let before = origins[0].requests().len();
    std::fs::write(&names, "").unwrap();
    gateway.logged(&["`origin.test:", "cannot be resolved, its last addresses stay"]);
    request("/nameless");
    assert_eq!(origins[0].requests().len(), before);
}

/// Which of three origins each request reached.
fn reached(balance: &str, requests: &[(&str, &[&str])]) -> Vec<usize> {
    let (site, origins) = (Site::new(), [Origin::start(), Origin::start(), Origin::start()]);
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let endpoints = origins.each_ref().map(|origin| format!("\"{}\"", origin.address)).join(", ");
    let pools = format!("{{ main: {{ endpoints: [{endpoints}], balance: {{ hash: {balance} }} }} }}");
    site.configure("", &[("pools", &pools)]);
    let _gateway = site.start();
    let mut reached = Vec::new();
    for (client, arguments) in requests {
        let before = origins.each_ref().map(|origin| origin.requests().len());
        assert_eq!(site.curl(Some(client), arguments, "/").status, 200);
        let after = origins.each_ref().map(|origin| origin.requests().len());
        reached.push((0..3).find(|&index| after[index] > before[index]).unwrap());
    }
    reached
}

#[test]
fn a_hash_of_a_header_keeps_to_one_endpoint_for_each_value_and_spreads_the_values() {
    let headers: Vec<String> = (0..12).map(|number| format!("X-Tenant: tenant-{number}")).collect();
    let arguments: Vec<[&str; 2]> = headers.iter().map(|header| ["-H", header.as_str()]).collect();
    let once = arguments.iter().map(|arguments| ("sensor-1", &arguments[..]));
    let again = arguments.iter().map(|arguments| ("sensor-2", &arguments[..]));
    let reached = reached("{ header: X-Tenant }", &once.chain(again).collect::<Vec<_>>());
    assert_eq!(reached[..12], reached[12..], "whoever asks, a tenant stays where it was");
    assert!(reached.iter().any(|&index| index != reached[0]), "{reached:?}");
}

#[test]
fn a_hash_of_the_client_keeps_to_one_endpoint_whatever_else_the_request_says() {
    let headers: Vec<String> = (0..8).map(|number| format!("X-Tenant: tenant-{number}")).collect();
    let arguments: Vec<[&str; 2]> = headers.iter().map(|header| ["-H", header.as_str()]).collect();
    let requests: Vec<_> = arguments.iter().map(|arguments| ("sensor-1", &arguments[..])).collect();
    let reached = reached("client", &requests);
    assert!(reached.iter().all(|&index| index == reached[0]), "{reached:?}");
}

#[test]
fn an_endpoint_that_takes_no_connections_is_found_unhealthy_and_found_again() {
    let (site, good, port) = (Site::new(), Origin::start(), free_port());
    let address = format!("127.0.0.1:{port}");
    let pools = format!(
        "{{ main: {{ endpoints: [\"{}\", \"{address}\"], health: {{ interval: 100ms, unhealthy_after: 1 }} }} }}",
        good.address
    );
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start();
    let healthy = format!("portcullis_endpoint_healthy{{endpoint=\"{address}\",pool=\"main\"}}");
    eventually("it is found unhealthy", || (gateway.metric(&healthy) < 0.5).then_some(()));
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let late = Origin::at(&address);
    eventually("it is found healthy", || (gateway.metric(&healthy) > 0.5).then_some(()));
    eventually("it is served", || {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
        (!late.requests().is_empty()).then_some(())
    });
}
