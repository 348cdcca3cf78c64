//! More clients than can shake hands: who gets in all the same, and what becomes of the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod};
use socket2::{Domain, Socket, Type};

use crate::support::open::OpenConnection;
use crate::support::{Gateway, Origin, Site, eventually};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const WAITED: &str = "portcullis_tls_handshake_wait_seconds_count{listener=\"edge\"}";
/// From whom a whole crowd comes, in contrast to the clients of the tests, who come from 127.0.0.1.
const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn limited(limits: &str) -> String {
    format!(
        "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
         client_auth: {{ mode: require, trust: [fleet] }}, limits: {{ {limits} }} }}]"
    )
}

fn site(origin: &Origin, limits: &str) -> Site {
    let site = Site::new();
    site.configure(&origin.address, &[("listeners", &limited(limits))]);
    site
}

fn failures(gateway: &Gateway, reason: &str) -> f64 {
    gateway
        .metric(&format!("portcullis_tls_handshake_failures_total{{listener=\"edge\",reason=\"{reason}\"}}"))
}

fn connect(from: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket.into())
}

/// The ClientHello of a client that has no session.
fn client_hello() -> Vec<u8> {
    #[derive(Debug)]
    struct Sink(Vec<u8>);
    impl Read for Sink {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
    match Ssl::new(&context).unwrap().connect(Sink(Vec::new())) {
        Err(HandshakeError::WouldBlock(begun)) => begun.get_ref().0.clone(),
        _ => panic!("nobody answered"),
    }
}

/// Connections that are all opened anew as soon as the gateway has answered or closed them.
struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// So many at a time, each of which sends `words`. `from` is told how many came before.
    fn start(
        size: usize,
        port: u16,
        words: Vec<u8>,
        from: impl Fn(u32) -> Ipv4Addr + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = thread::spawn(move || {
            let mut number = 0;
            let mut members: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
            while !stopping.load(Ordering::Relaxed) {
                for member in &mut members {
                    let stays = member.as_mut().is_some_and(|socket| {
                        matches!(socket.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
                    });
                    if !stays {
                        *member = connect(from(number), port).ok();
                        number += 1;
                        if let Some(socket) = member {
                            let _ = socket.write_all(&words);
                            let _ = socket.set_nonblocking(true);
                        }
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Of the whole network of loopback, one address each.
fn everywhere(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number % 0x10_0000)
}

/// Each address comes once, has its hello answered, and says nothing more.
#[test]
fn those_that_greet_from_everywhere_and_then_are_silent_do_not_keep_newcomers_out() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 30s, handshakes_in_flight: 40, exempt: [127.0.0.0/8]");
    let gateway = site.start();
    let hello = client_hello();
    let mut crowd = Vec::new();
    for number in 0..80 {
        let mut socket = connect(everywhere(number * 256), site.port).unwrap();
        // A reset may be there first.
        let _ = socket.write_all(&hello);
        crowd.push(socket);
    }
    eventually("there is no more room", || (failures(&gateway, "overloaded") > 39.5).then_some(()));
    for client in 0..10 {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "{client}");
        for _ in 0..3 {
            let mut socket = connect(everywhere(100_000 + crowd.len() as u32 * 256), site.port).unwrap();
            let _ = socket.write_all(&hello);
            crowd.push(socket);
        }
    }
}

#[test]
fn silent_connections_of_one_source_do_not_take_the_places_of_others() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 30s, handshakes_in_flight: 20, exempt: [127.0.0.0/8]");
    let gateway = site.start();
    let silent: Vec<_> = (0..60).map(|_| connect(CROWD, site.port).unwrap()).collect();
    eventually("there is no more room", || (failures(&gateway, "overloaded") > 39.5).then_some(()));
    for _ in 0..5 {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    }
    // The first of the five took the place of one of the crowd.
    assert!(failures(&gateway, "overloaded") > 40.5);
    let crowd = Crowd::start(60, site.port, Vec::new(), |_| CROWD);
    for _ in 0..5 {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    }
    drop((silent, crowd));
}

#[test]
fn a_silent_crowd_from_everywhere_gives_way_to_whoever_speaks() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 30s, handshakes_in_flight: 20, exempt: [127.0.0.0/8]");
    let gateway = site.start();
    let _silent: Vec<_> = (0..60).map(|number| connect(everywhere(number), site.port).unwrap()).collect();
    eventually("there is no more room", || (failures(&gateway, "overloaded") > 39.5).then_some(()));
    for _ in 0..5 {
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    }
    assert!(failures(&gateway, "overloaded") > 40.5);
}

#[test]
fn clients_get_in_and_requests_are_answered_while_one_source_floods_with_hellos() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 10s");
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    let crowd = Crowd::start(300, site.port, client_hello(), |_| CROWD);
    eventually("handshakes wait for one another", || (gateway.metric(WAITED) > 1000.0).then_some(()));
    for _ in 0..5 {
        assert_eq!(open.get("/"), 200);
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    }
    drop(crowd);
    eventually("nobody waits any more", || {
        (gateway.metric("portcullis_tls_handshakes_waiting{listener=\"edge\"}") < 0.5).then_some(())
    });
    assert!(gateway.metric("portcullis_tls_handshake_computing_seconds_total{listener=\"edge\"}") > 0.0);
}

#[test]
fn in_a_storm_of_strangers_whoever_comes_back_gets_in_and_those_who_would_wait_too_long_are_closed_early() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 1s");
    let gateway = site.start();
    for version in ["1.2", "1.3"] {
        let flag = format!("-tls{}", version.replace('.', "_"));
        assert!(site.s_client(&[&flag, "-sess_out", version], REQUEST).contains("200 OK"));
    }
    let crowd = Crowd::start(2000, site.port, client_hello(), everywhere);
    // Half a second after the line began to stand nobody may wait for longer than a twentieth of one.
    eventually("strangers are turned away", || (failures(&gateway, "waited_too_long") > 100.5).then_some(()));
    let before = failures(&gateway, "waited_too_long");
    for _ in 0..3 {
        for version in ["1.2", "1.3"] {
            let flag = format!("-tls{}", version.replace('.', "_"));
            let output = site.s_client(&[&flag, "-sess_in", version], REQUEST);
            assert!(output.contains("200 OK") && output.contains("Reused"), "{version}: {output}");
        }
    }
    assert!(failures(&gateway, "waited_too_long") > before, "the storm had not ended");
    gateway.logged(&["\"kind\":\"turned_away\"", "waited_too_long"]);
    drop(crowd);
    eventually("strangers are served again", || {
        (site.curl(Some("sensor-1"), &[], "/").status == 200).then_some(())
    });
}

#[test]
fn a_burst_that_can_be_served_in_time_is_served_to_the_last_client() {
    let origin = Origin::start();
    let site = site(&origin, "handshake_timeout: 20s");
    let gateway = site.start();
    let clients: Vec<_> =
        (0..100).map(|number| (connect(everywhere(number), site.port).unwrap(), &site)).collect();
    thread::scope(|scope| {
        for (tcp, site) in clients {
            scope.spawn(move || assert_eq!(OpenConnection::over(tcp, site, Some("sensor-1")).get("/"), 200));
        }
    });
    assert!(failures(&gateway, "waited_too_long") + failures(&gateway, "overloaded") < 0.5);
}
