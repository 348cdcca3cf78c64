//! A fault of the program ends the work it happened in, and nothing else.
//!
//! Only in debug builds can one be provoked: see `panics::provoke`.

use std::process::Command;
use std::time::Duration;

use crate::support::open::OpenConnection;
use crate::support::{BINARY, Gateway, Origin, Site, eventually};

/// A gateway that panics where the file `panic` says.
struct Faulty {
    site: Site,
    gateway: Gateway,
    _origin: Origin,
}

impl Faulty {
    fn start() -> Option<Self> {
        if !cfg!(debug_assertions) {
            eprintln!("a release build panics nowhere by request: nothing is tested");
            return None;
        }
        let (site, origin) = (Site::new(), Origin::start());
        site.configure(
            &origin.address,
            &[("server", "{ threads: 1, drain_timeout: 1s, state_directory: state }")],
        );
        let mut command = Command::new(BINARY);
        command.args(["run", "-c", "gateway.yaml"]).current_dir(site.path());
        command.env("PORTCULLIS_TEST_PANIC", site.path().join("panic")).env_remove("RUST_BACKTRACE");
        let gateway = Gateway::spawn(command, site.admin);
        Some(Self { site, gateway, _origin: origin })
    }

    fn panic_in(&self, place: &str) {
        std::fs::write(self.site.path().join("panic"), place).unwrap();
    }

    fn panics(&self) -> f64 {
        self.gateway.metric("portcullis_panics_total")
    }

    fn status(&self, arguments: &[&str], path: &str) -> u16 {
        self.site.curl(Some("sensor-1"), arguments, path).status
    }
}

#[test]
fn a_panic_ends_one_connection_is_counted_and_others_are_served() {
    let Some(faulty) = Faulty::start() else { return };
    let others = ["--http1.1", "--http2"];
    let upgrade: &[&str] = &["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    for (place, arguments) in [
        ("accept", &["--http1.1"][..]),
        ("handshake", &["--http2"]),
        ("http1", &["--http1.1"]),
        ("http2", &["--http2"]),
        ("pingora", upgrade),
    ] {
        let before = faulty.panics();
        faulty.panic_in(place);
        assert_eq!(faulty.status(arguments, "/secret-of-a-client"), 0, "{place}");
        faulty.panic_in("nowhere");
        assert!((faulty.panics() - before - 1.0).abs() < 0.1, "{place}: {}", faulty.panics());
        for version in others {
            assert_eq!(faulty.status(&[version], "/"), 200, "{place}");
        }
        eventually("nothing is left open", || {
            (faulty.gateway.metric("portcullis_connections{listener=\"edge\"}") < 0.1).then_some(())
        });
    }
    let log = faulty.gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("a fault of the program")).collect();
    assert_eq!(told.len(), 5, "one line each: {told:?}");
    assert!(told.iter().all(|line| line.contains("src/panics.rs") && line.contains("a test asked for it")));
    assert!(!told.iter().any(|line| line.contains("secret-of-a-client")), "{told:?}");
    assert!(!log.contains("thread '"), "the standard library's own report is left out");
    let all = |name: &str| {
        let (_, text) = faulty.gateway.admin_get("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let started = all("portcullis_tls_handshakes_started_total{");
    let ended = all("portcullis_tls_handshakes_total{");
    // The one that was never admitted is the difference.
    assert!((started - ended).abs() < 1.1, "{started} {ended}");
    assert!(all("portcullis_tls_handshakes_in_flight{") < 0.1);
}

#[test]
fn a_panic_of_one_stream_leaves_the_others_of_its_connection() {
    let Some(faulty) = Faulty::start() else { return };
    let port = faulty.site.port;
    let statuses = faulty.site.over_h2("sensor-1", async |mut send| {
        let mut statuses = Vec::new();
        for place in ["nowhere", "http2", "nowhere"] {
            faulty.panic_in(place);
            let request = http::Request::get(format!("https://localhost:{port}/")).body(()).unwrap();
            send = send.ready().await.unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            statuses.push(answer.await.map_or(0, |answer| answer.status().as_u16()));
        }
        statuses
    });
    assert_eq!(statuses, [200, 0, 200]);
}

#[test]
fn a_panic_of_a_reload_or_a_command_leaves_what_is_in_force_and_the_next_one_works() {
    let Some(faulty) = Faulty::start() else { return };
    faulty.panic_in("admin");
    assert_eq!(faulty.gateway.admin_request("POST", "/reload").0, 500);
    // What asks is not answered either while the fault lasts.
    faulty.panic_in("reload");
    let (status, told) = faulty.gateway.reload();
    assert!(status == 422 && told.contains("broke off by a fault of the program"), "{status} {told}");
    assert!((faulty.gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1);
    assert_eq!(faulty.status(&[], "/"), 200);
    faulty.gateway.signal("HUP");
    faulty.gateway.logged(&["reload refused", "broke off"]);
    faulty.panic_in("nowhere");
    assert_eq!(faulty.gateway.reload().0, 200);
    assert!(faulty.gateway.metric("portcullis_config_stale") < 0.1);
    // The thread that listens for the signal lives.
    let generation = |gateway: &Gateway| gateway.admin_get("/status").1;
    let before = generation(&faulty.gateway);
    faulty.gateway.signal("HUP");
    eventually("it is reloaded", || (generation(&faulty.gateway) != before).then_some(()));
}

#[test]
fn a_panic_while_files_are_watched_does_not_end_the_watching() {
    let Some(faulty) = Faulty::start() else { return };
    let before = faulty.panics();
    faulty.panic_in("refresh");
    let certificate = faulty.site.path().join("server.crt");
    let touch = || std::fs::write(&certificate, std::fs::read(&certificate).unwrap()).unwrap();
    touch();
    eventually("it broke off", || (faulty.panics() > before).then_some(()));
    faulty.panic_in("nowhere");
    touch();
    eventually("the change after it is seen", || {
        (faulty.gateway.metric("portcullis_config_stale") < 0.1).then_some(())
    });
}

#[test]
fn who_is_blocked_is_out_although_looking_for_its_connections_broke_off() {
    let Some(faulty) = Faulty::start() else { return };
    let mut open = OpenConnection::new(&faulty.site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    faulty.panic_in("review");
    let output = Command::new(BINARY)
        .args(["block", "-c", "gateway.yaml", "--subject", "CN=sensor-1"])
        .current_dir(faulty.site.path())
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(0), "who asked is told: {output:?}");
    assert_eq!(faulty.status(&[], "/"), 0, "it is blocked");
    faulty.panic_in("nowhere");
    assert!(open.ends_within(Duration::from_secs(5)));
}

#[test]
fn a_thread_that_the_gateway_cannot_do_without_does_not_end_alone() {
    let Some(mut faulty) = Faulty::start() else { return };
    faulty.panic_in("watch");
    assert_eq!(faulty.gateway.wait(), Some(101));
    faulty.gateway.logged(&["`watch` is gone by a fault of the program, so the gateway ends"]);
}
