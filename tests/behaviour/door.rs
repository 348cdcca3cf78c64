//! Who is turned away before the handshake, by where it comes from. The addresses of loopback are as many sources.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

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

/// A TCP connection that comes from `source` and says nothing; `None` if it was reset already.
fn knock(site: &Site, source: &str) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into()).unwrap();
    let connected = socket.connect(&SocketAddr::from(([127, 0, 0, 1], site.port)).into());
    connected.ok().map(|()| socket.into())
}

/// Whether the gateway keeps a silent connection open, as far as a short wait can tell.
fn is_kept(tcp: &mut TcpStream) -> bool {
    tcp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let read = tcp.read(&mut [0]);
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// The status that sensor-1 gets when it comes from `source`.
fn ask(site: &Site, source: &str) -> u16 {
    site.curl(Some("sensor-1"), &["--interface", source], "/").status
}

fn failures(gateway: &Gateway, reason: &str) -> usize {
    let name = format!("portcullis_tls_handshake_failures_total{{listener=\"edge\",reason=\"{reason}\"}}");
    gateway.metric(&name) as usize
}

/// Waits until so many were turned away for this reason.
fn turned_away(gateway: &Gateway, reason: &str, count: usize) {
    eventually(&format!("{count} for {reason}"), || (failures(gateway, reason) == count).then_some(()));
}

fn lines(gateway: &Gateway, kind: &str) -> Vec<String> {
    let kind = format!("\"kind\":\"{kind}\"");
    gateway.log().lines().filter(|line| line.contains(&kind)).map(str::to_owned).collect()
}

#[test]
fn unless_told_otherwise_no_address_and_no_network_takes_all_handshakes_of_a_listener() {
    let (site, _origin, gateway) =
        start("limits: { handshakes_in_flight: 100, handshake_timeout: 60s, connections: 1000 }");
    let mut silent: Vec<_> = (0..60).map(|_| knock(&site, "127.0.0.1")).collect();
    turned_away(&gateway, "address_handshakes", 10);
    assert_eq!(ask(&site, "127.0.0.1"), 0, "its half is taken");
    assert_eq!(ask(&site, "127.0.0.2"), 200, "its neighbour's is not");
    silent.extend((0..40).map(|_| knock(&site, "127.0.0.2")));
    turned_away(&gateway, "network_handshakes", 15);
    assert_eq!(ask(&site, "127.0.0.3"), 0, "three quarters are taken by its network");
    assert_eq!(ask(&site, "127.0.1.1"), 200, "and the rest is for all others");
    let in_flight = gateway.metric("portcullis_tls_handshakes_in_flight{listener=\"edge\"}") as usize;
    assert_eq!(in_flight, 75);
    let mut first = silent.swap_remove(0).unwrap();
    assert!(is_kept(&mut first), "who was there stays");
    drop((first, silent));
    eventually("there is room again", || (ask(&site, "127.0.0.1") == 200).then_some(()));
    assert_eq!(failures(&gateway, "overloaded"), 0);
    let [started, in_flight] = ["started_total", "in_flight"].map(|what| {
        gateway.metric(&format!("portcullis_tls_handshakes_{what}{{listener=\"edge\"}}")) as usize
    });
    assert!(started >= 100 && in_flight == 0);
}

#[test]
fn an_address_has_as_many_connections_as_it_may_and_no_more() {
    let (site, _origin, gateway) = start(
        "limits: { per_address: { connections: 2 }, per_network: { connections: 3 }, exempt: [127.0.9.0/24] }",
    );
    let ask_and_stay = || {
        let mut client = site.wire("sensor-1");
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.answer().unwrap().status, 200);
        client
    };
    let held = [ask_and_stay(), ask_and_stay()];
    assert_eq!(ask(&site, "127.0.0.1"), 0);
    turned_away(&gateway, "address_connections", 1);
    let neighbour = knock(&site, "127.0.0.2").unwrap();
    eventually("it is in flight", || {
        (gateway.metric("portcullis_tls_handshakes_in_flight{listener=\"edge\"}") > 0.5).then_some(())
    });
    assert_eq!(ask(&site, "127.0.0.3"), 0);
    turned_away(&gateway, "network_connections", 1);
    assert_eq!(ask(&site, "127.0.1.1"), 200);
    let exempt: Vec<_> = (0..5).map(|_| knock(&site, "127.0.9.1").unwrap()).collect();
    assert_eq!(ask(&site, "127.0.9.1"), 200);
    assert_eq!(failures(&gateway, "address_connections"), 1);
    drop((held, neighbour, exempt));
    eventually("there is room again", || (ask(&site, "127.0.0.1") == 200).then_some(()));
}

#[test]
fn an_address_that_comes_too_often_is_turned_away_until_it_has_paused() {
    let (site, origin, gateway) = start("limits: { per_address: { connections_per_second: 1, burst: 3 } }");
    let _many: Vec<_> = (0..30).map(|_| knock(&site, "127.0.0.1")).collect();
    eventually("it is turned away", || {
        let all = gateway.metric("portcullis_tls_handshakes_started_total{listener=\"edge\"}") as usize;
        (all == 30 && (1..=27).contains(&failures(&gateway, "address_rate"))).then_some(())
    });
    assert_eq!(ask(&site, "127.0.0.2"), 200, "its neighbour is not");
    eventually("it may come again", || (ask(&site, "127.0.0.1") == 200).then_some(()));
    let network = "limits: { per_network: { connections_per_second: 1, burst: 3 } }";
    site.configure(&origin.address, &[("listeners", &listener(network))]);
    assert_eq!(gateway.reload().0, 200);
    let _more: Vec<_> = (1..30).map(|last| knock(&site, &format!("127.0.0.{last}"))).collect();
    eventually("so is its network", || (failures(&gateway, "network_rate") > 0).then_some(()));
    assert_eq!(ask(&site, "127.0.1.1"), 200);
}

#[test]
fn lists_say_who_may_knock_and_follow_a_reload_also_for_those_who_are_in() {
    let (site, origin, gateway) = start("allow_from: [127.0.0.0/24], deny_from: [127.0.0.2]");
    assert_eq!(ask(&site, "127.0.0.1"), 200);
    assert_eq!(ask(&site, "127.0.0.2"), 0, "denied, although allowed");
    assert_eq!(ask(&site, "127.0.1.1"), 0, "not allowed");
    turned_away(&gateway, "address_denied", 2);
    let mut inside = site.wire("sensor-1");
    inside.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(inside.answer().unwrap().status, 200);
    site.configure(&origin.address, &[("listeners", &listener("deny_from: [127.0.0.1/32, 127.0.3.0/24]"))]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(inside.rest(), "", "it is out");
    gateway.logged(&["connection_ended", "address_denied", "sensor-1"]);
    let ended = "portcullis_connections_ended_total{cause=\"address_denied\",listener=\"edge\"}";
    assert_eq!(gateway.metric(ended) as usize, 1);
    assert_eq!(ask(&site, "127.0.0.1"), 0);
    assert_eq!(ask(&site, "127.0.3.1"), 0);
    assert_eq!(ask(&site, "127.0.0.2"), 200);
    assert_eq!(ask(&site, "127.0.1.1"), 200);
    for (address, kept_out) in
        [("127.0.0.1", true), ("127.0.3.9", true), ("127.0.0.2", false), ("::1", false)]
    {
        let arguments = ["explain", "-c", "gateway.yaml", "--cert", "sensor-1.crt", "--from", address];
        let told = run(site.path(), BINARY, &[&arguments[..], &["GET", "https://localhost/"]].concat());
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(told.contains("=> refused in the handshake: address_denied: "), kept_out, "{told}");
        assert_eq!(told.contains("=> forwarded to pool `main`"), !kept_out, "{told}");
    }
    let wrong = listener("deny_from: [127.0.0.1/24]");
    site.configure(&origin.address, &[("listeners", &wrong)]);
    let (status, told) = gateway.reload();
    assert!(status != 200 && told.contains("did you mean `127.0.0.0/24`?"), "{told}");
    assert_eq!(ask(&site, "127.0.0.1"), 0, "what was in force still is");
}

#[test]
fn those_who_are_turned_away_are_all_counted_reset_and_told_of_in_a_few_lines() {
    let (site, _origin, gateway) = start("deny_from: [127.0.0.2]");
    for _ in 0..300 {
        let Some(mut refused) = knock(&site, "127.0.0.2") else { continue };
        refused.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let end = refused.read(&mut [0]);
        let is_reset = matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(is_reset, "{end:?}");
    }
    turned_away(&gateway, "address_denied", 300);
    gateway.logged(&["\"connections\":1,", "\"peer\":\"127.0.0.2\"", "address_denied", "lists keep"]);
    let told = || -> u64 {
        let lines = lines(&gateway, "turned_away");
        let count =
            |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["connections"].as_u64();
        lines.iter().filter_map(count).sum()
    };
    eventually("all are told of", || (told() == 300).then_some(()));
    let lines = (lines(&gateway, "turned_away").len(), lines(&gateway, "connection").len());
    assert!(lines.0 <= 6 && lines.1 == 0, "{lines:?}");
    assert_eq!(ask(&site, "127.0.0.1"), 200);
}
