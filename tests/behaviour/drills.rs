//! Whatever an operator does to a gateway that works, no client's request and no handshake fails.
//!
//! `bench/trust` does the same for longer, with more clients.

use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use crate::support::open::OpenConnection;
use crate::support::steady::Steady;
use crate::support::{BINARY, Gateway, Origin, Site, eventually};

const SERVER: (&str, &str) = ("server", "{ threads: 2, drain_timeout: 10s, upgrade_socket: upgrade.sock }");

/// Or else the log of a failure is long.
const LOGGING: (&str, &str) = ("logging", "{ access: { requests: false, connections: false } }");

fn origin() -> Origin {
    Origin::answering(|head| {
        if head.starts_with("GET /slow") {
            std::thread::sleep(Duration::from_millis(300));
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    })
}

#[test]
fn reloads_fail_no_request_and_no_handshake() {
    let (site, origin) = (Site::new(), origin());
    site.configure(&origin.address, &[SERVER, LOGGING]);
    let gateway = site.start();
    let clients = Steady::start(&site);
    for round in 0..5 {
        let mut routes = String::from("[");
        for number in 0..round {
            let _ = write!(
                routes,
                "{{ name: r{number}, client: {{ trust: fleet, subject: {{ CN: x }} }}, pool: main }}, "
            );
        }
        routes += "{ client: { trust: fleet }, pool: main }]";
        site.configure(&origin.address, &[SERVER, LOGGING, ("routes", &routes)]);
        assert_eq!(gateway.reload().0, 200);
        clients.serves_everybody();
    }
    assert_eq!(clients.failures(), [] as [String; 0]);
}

#[test]
fn upgrades_of_the_program_fail_no_request_and_no_handshake() {
    let (site, origin) = (Site::new(), origin());
    site.configure(&origin.address, &[SERVER, LOGGING]);
    let mut gateway = site.start();
    let clients = Steady::start(&site);
    for _ in 0..2 {
        let mut command = Command::new(BINARY);
        command.args(["run", "-c", "gateway.yaml", "--upgrade"]).current_dir(site.path());
        let successor = Gateway::spawn(command, site.admin);
        eventually("the new process waits", || site.path().join("upgrade.sock").exists().then_some(()));
        gateway.signal("QUIT");
        assert_eq!(gateway.wait(), Some(0));
        gateway.logged(&["\"drained\""]);
        gateway = successor;
        clients.serves_everybody();
    }
    assert_eq!(clients.failures(), [] as [String; 0]);
}

#[test]
fn a_client_that_shakes_hands_when_a_drain_begins_is_answered_once() {
    let (site, origin) = (Site::new(), origin());
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { trust: [fleet] }, limits: { handshake_timeout: 30s } }]";
    let server = ("server", "{ threads: 1, drain_timeout: 60s }");
    site.configure(&origin.address, &[server, LOGGING, ("listeners", listeners)]);
    let mut gateway = site.start();
    let tcp = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    let open = "portcullis_connections{listener=\"edge\"}";
    eventually("it is connected", || (gateway.metric(open) > 0.5).then_some(()));
    gateway.signal("TERM");
    gateway.logged(&["draining"]);
    let mut client = OpenConnection::over(tcp, &site, Some("sensor-1"));
    assert_eq!(client.get("/"), 200);
    // Long before the deadline, and although the client does not leave by itself.
    assert_eq!(gateway.wait(), Some(0));
    gateway.logged(&["\"drained\""]);
}

/// As systemd does: somebody else holds the socket, which the program finds at descriptor 3.
fn activate(site: &Site, socket: &TcpListener) -> Gateway {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=edge; \
                  exec \"$0\" run -c gateway.yaml";
    let mut command = Command::new("sh");
    command.args(["-c", script, BINARY]).current_dir(site.path());
    command.stdin(OwnedFd::from(socket.try_clone().unwrap()));
    Gateway::spawn(command, site.admin)
}

fn by_systemd(site: &Site, origin: &Origin) -> TcpListener {
    site.configure(&origin.address, &[SERVER, LOGGING]);
    let file = site.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let address = format!("\"127.0.0.1:{}\"", site.port);
    std::fs::write(&file, text.replacen(&address, "\"systemd:edge\"", 1)).unwrap();
    TcpListener::bind(("127.0.0.1", site.port)).unwrap()
}

#[test]
fn restarts_with_a_socket_of_systemd_fail_no_request_and_no_handshake() {
    let (site, origin) = (Site::new(), origin());
    let socket = by_systemd(&site, &origin);
    let mut gateway = activate(&site, &socket);
    let clients = Steady::start(&site);
    for _ in 0..2 {
        gateway.signal("TERM");
        assert_eq!(gateway.wait(), Some(0));
        gateway.logged(&["\"drained\""]);
        gateway = activate(&site, &socket);
        clients.serves_everybody();
    }
    assert_eq!(clients.failures(), [] as [String; 0]);
}

#[test]
fn a_restart_that_cuts_everybody_off_is_noticed() {
    let (site, origin) = (Site::new(), origin());
    let socket = by_systemd(&site, &origin);
    let mut gateway = activate(&site, &socket);
    let clients = Steady::start(&site);
    gateway.signal("KILL");
    gateway.wait();
    let _gateway = activate(&site, &socket);
    clients.serves_everybody();
    assert_ne!(clients.failures(), [] as [String; 0]);
}
