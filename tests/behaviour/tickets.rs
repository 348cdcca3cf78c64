//! Session tickets: what seals them, who shares that, and what a session is bound to.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::{BINARY, Gateway, Origin, Site, eventually, free_port, run};

const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "1.2"), ("-tls1_3", "1.3")];

#[derive(Debug, PartialEq, Eq)]
enum Made {
    Full,
    Resumed,
    Nothing,
}
use Made::{Full, Nothing, Resumed};

/// What `s_client` made of a handshake, if a request was answered over it.
fn connect(site: &Site, version: &str, more: &[&str]) -> Made {
    let named = more.iter().position(|argument| *argument == "-servername");
    let host = named.map_or("localhost", |at| more[at + 1]);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let output = site.s_client(&[&[version, "-alpn", "http/1.1"], more].concat(), &request);
    match (output.contains("200 OK"), output.contains("Reused, TLS"), output.contains("New, TLS")) {
        (true, true, false) => Resumed,
        (true, false, true) => Full,
        _ => Nothing,
    }
}

/// The listener `edge`, with `tls` and `more` beside what it needs.
fn listeners(tls: &str, more: &str) -> String {
    let asked = if more.contains("client_auth") { "" } else { ", client_auth: { trust: [fleet] }" };
    format!(
        "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}]\
         {tls} }}{asked}{more} }}]"
    )
}

const SHARED: &str = ", ticket_keys: { file: tickets.key }";

/// A key as an operator makes one.
fn key() -> String {
    String::from_utf8(run(Path::new("/"), "openssl", &["rand", "-hex", "80"]).stdout).unwrap()
}

/// Puts it there whole, as `mv` does.
fn write_keys(site: &Site, keys: &str) {
    let (new, file) = (site.path().join("tickets.key.new"), site.path().join("tickets.key"));
    std::fs::write(&new, keys).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn declined(gateway: &Gateway, cause: &str) -> f64 {
    gateway
        .metric(&format!("portcullis_tls_resumptions_declined_total{{cause=\"{cause}\",listener=\"edge\"}}"))
}

/// All that were declined must be for this cause.
fn assert_declined(gateway: &Gateway, cause: &str, times: f64) {
    assert!((declined(gateway, cause) - times).abs() < 0.1, "{cause}: {}", gateway.admin_get("/metrics").1);
    let all = gateway.admin_get("/metrics").1;
    let family = all.lines().filter(|line| line.starts_with("portcullis_tls_resumptions_declined_total{"));
    let sum: f64 = family.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
    assert!((sum - times).abs() < 0.1, "{cause}: {all}");
}

fn ticket_keys(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_tls_ticket_keys{listener=\"edge\"}")
}

/// Another node of the same service: the same certificates, and the sessions of the same client.
fn node(site: &Site, origin: &Origin, keys: &str) -> Site {
    let node = Site { directory: tempfile::tempdir().unwrap(), port: free_port(), admin: free_port() };
    for file in ["ca.crt", "server.crt", "server.key", "sensor-1.crt", "sensor-1.key", "admin.token"] {
        std::fs::copy(site.path().join(file), node.path().join(file)).unwrap();
    }
    for (_, session) in VERSIONS {
        // Where there is one already.
        let _ = std::fs::copy(site.path().join(session), node.path().join(session));
    }
    write_keys(&node, keys);
    node.configure(&origin.address, &[("listeners", &listeners(SHARED, ""))]);
    node
}

#[test]
fn sessions_are_resumed_at_every_node_that_has_the_key_and_after_a_restart() {
    let (site, origin, shared) = (Site::new(), Origin::start(), key());
    write_keys(&site, &shared);
    site.configure(&origin.address, &[("listeners", &listeners(SHARED, ""))]);
    let gateway = site.start();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
    }
    let with_the_key = node(&site, &origin, &format!("# the old one is second\n{}\n{shared}", key()));
    let without = node(&site, &origin, &key());
    let gateways = (with_the_key.start(), without.start());
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&with_the_key, flag, &["-sess_in", version]), Resumed, "{version}");
        assert_eq!(connect(&without, flag, &["-sess_in", version]), Full, "{version}");
    }
    assert_declined(&gateways.0, "unknown_key", 0.0);
    assert_declined(&gateways.1, "unknown_key", 2.0);
    gateways.1.logged(&["\"resumption_declined\":\"unknown_key\"", "\"result\":\"ok\""]);
    drop(gateway);
    let _restarted = site.start();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed, "{version}");
    }
}

#[test]
fn a_session_of_one_listener_is_worth_nothing_at_another_with_the_same_keys() {
    let (site, origin, shared) = (Site::new(), Origin::start(), key());
    let other = free_port();
    let both = listeners(SHARED, "");
    let both = format!("{}, {}", &both[..both.len() - 1], &both[1..])
        .replacen("PORT", &site.port.to_string(), 1)
        .replace("edge, address: \"127.0.0.1:PORT", &format!("other, address: \"127.0.0.1:{other}"));
    write_keys(&site, &shared);
    site.configure(&origin.address, &[("listeners", &both)]);
    let gateway = site.start();
    let at_the_other = Site { port: other, ..node(&site, &origin, &shared) };
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed);
        std::fs::copy(site.path().join(version), at_the_other.path().join(version)).unwrap();
        assert_eq!(connect(&at_the_other, flag, &["-sess_in", version]), Full, "{version}");
    }
    let at = "portcullis_tls_resumptions_declined_total{cause=\"policy\",listener=\"other\"}";
    assert!((gateway.metric(at) - 2.0).abs() < 0.1);
}

#[test]
fn a_key_opens_tickets_until_it_is_taken_out_of_the_file() {
    let (site, origin, old, new) = (Site::new(), Origin::start(), key(), key());
    write_keys(&site, &old);
    site.configure(&origin.address, &[("listeners", &listeners(SHARED, ""))]);
    let gateway = site.start();
    let begin = |name: &str| {
        for (flag, version) in VERSIONS {
            assert_eq!(connect(&site, flag, &["-sess_out", &format!("{name}{version}")]), Full);
        }
    };
    let resume = |name: &str| {
        VERSIONS.map(|(flag, version)| connect(&site, flag, &["-sess_in", &format!("{name}{version}")]))
    };
    begin("old");
    // First every node learns the new key, then each seals with it, then the old one goes.
    write_keys(&site, &format!("{old}{new}"));
    eventually("both keys are held", || (ticket_keys(&gateway) > 1.5).then_some(()));
    assert_eq!(resume("old"), [Resumed, Resumed]);
    write_keys(&site, &format!("{new}{old}"));
    gateway.logged(&[&format!("2 ticket keys, `{}…` seals", &new[..8])]);
    assert_eq!(resume("old"), [Resumed, Resumed]);
    begin("new");
    write_keys(&site, &new);
    eventually("one key is held", || (ticket_keys(&gateway) < 1.5).then_some(()));
    assert_eq!((resume("old"), resume("new")), ([Full, Full], [Resumed, Resumed]));
    assert_declined(&gateway, "unknown_key", 2.0);
    // What is no key file changes nothing.
    write_keys(&site, "not a key\n");
    gateway.logged(&["reload refused", "line 1 is no key"]);
    assert_eq!(resume("new"), [Resumed, Resumed]);
    assert!((ticket_keys(&gateway) - 1.0).abs() < 0.1);
}

#[test]
fn a_key_file_is_refused_that_others_may_read_or_that_holds_no_keys() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("listeners", &listeners(SHARED, ""))]);
    let check = || {
        let mut command = std::process::Command::new(BINARY);
        let output = command.args(["check", "-c", "gateway.yaml"]).current_dir(site.path()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let refused = |told: &[&str]| {
        let (accepted, text) = check();
        let at = "listeners[0].tls.ticket_keys.file";
        assert!(
            !accepted && text.contains(at) && told.iter().all(|told| text.contains(told)),
            "{told:?}: {text}"
        );
    };
    refused(&["cannot be read", "openssl rand -hex 80"]);
    let good = key();
    write_keys(&site, &good);
    assert!(check().0, "{}", check().1);
    let file = site.path().join("tickets.key");
    for (mode, told) in [(0o644, "everybody"), (0o642, "everybody"), (0o660, "its group may change")] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        refused(&[told, "chmod 640"]);
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(check().0, "{}", check().1);
    for (text, told) in [
        (String::new(), "it holds no key"),
        (format!("{good}{}", &good[..100]), "line 2 is no key"),
        ("ab".repeat(80), "line 1 is not random"),
        (format!("{good}{good}"), "the keys of lines 1 and 2 have the same name"),
        ("x".repeat(70_000), "is no key file"),
    ] {
        write_keys(&site, &text);
        refused(&[told]);
        // Nothing of what may be a key is shown.
        assert!(!check().1.contains(&good[100..120]));
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    refused(&["is no key file"]);
    std::fs::remove_dir(&file).unwrap();
    run(site.path(), "mkfifo", &["-m", "600", "tickets.key"]);
    refused(&["is no key file"]);
}

#[test]
fn keys_rotate_on_a_schedule_and_older_ones_open_for_a_ticket_lifetime() {
    let (site, origin) = (Site::new(), Origin::start());
    let tls = ", ticket_lifetime: 30s, ticket_keys: { rotate: 1s }";
    site.configure(&origin.address, &[("listeners", &listeners(tls, ""))]);
    let gateway = site.start();
    let made = || gateway.metric("portcullis_tls_ticket_key_made_timestamp_seconds{listener=\"edge\"}");
    let first_made = made();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
    }
    let held = ticket_keys(&gateway);
    eventually("the key is replaced", || (ticket_keys(&gateway) > held + 1.5).then_some(()));
    assert!(made() > first_made);
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed, "{version}");
    }
    assert_declined(&gateway, "unknown_key", 0.0);

    let tls = ", ticket_lifetime: 2s, ticket_keys: { rotate: 1s }";
    site.configure(&origin.address, &[("listeners", &listeners(tls, ""))]);
    assert_eq!(gateway.reload().0, 200);
    for (flag, version) in VERSIONS {
        let _ = connect(&site, flag, &["-sess_out", version]);
        let before = declined(&gateway, "unknown_key");
        eventually("the key is given up", || {
            std::thread::sleep(Duration::from_millis(300));
            assert_ne!(connect(&site, flag, &["-sess_in", version]), Nothing);
            (declined(&gateway, "unknown_key") > before).then_some(())
        });
    }
    eventually("nobody holds more keys than are of use", || (ticket_keys(&gateway) < 4.5).then_some(()));
}

#[test]
fn keys_that_are_made_here_outlive_a_reload_and_end_with_the_process() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("listeners", &listeners("", ""))]);
    let gateway = site.start();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
    }
    // What changes nothing that a handshake asks for: another rotation, limits, one more anchor, a new certificate.
    site.pki_in("next", &["init", "--common-name", "Next CA"]);
    let anchors = [site.path().join("ca.crt"), site.path().join("next/ca.crt")]
        .map(|file| std::fs::read(file).unwrap());
    std::fs::write(site.path().join("both.crt"), anchors.concat()).unwrap();
    site.pki(&["issue", "renewed", "--kind", "server", "--subject", "CN=localhost", "--dns", "localhost"]);
    let renewed = listeners(", ticket_keys: { rotate: 6h }", ", limits: { connections: 99 }")
        .replace("server.", "renewed.");
    let trust = ("trust", "{ fleet: { anchors: both.crt } }");
    site.configure(&origin.address, &[("listeners", &renewed), trust]);
    assert_eq!(gateway.reload().0, 200);
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed, "{version}");
    }
    assert_declined(&gateway, "policy", 0.0);
    drop(gateway);
    let restarted = site.start();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Full, "{version}");
    }
    assert_declined(&restarted, "unknown_key", 2.0);
}

#[test]
fn a_session_of_another_policy_is_not_resumed() {
    let (site, origin) = (Site::new(), Origin::start());
    let domains = ("trust", "{ fleet: { anchors: ca.crt }, staff: { anchors: ca.crt } }");
    let optional = ", client_auth: { mode: optional, trust: [fleet] }";
    let before = listeners("", optional);
    site.configure(&origin.address, &[("listeners", &before), domains]);
    let gateway = site.start();
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed);
    }
    let mut times = 0.0;
    for (after, versions) in [
        (listeners("", ""), &VERSIONS[..]),
        (listeners("", ", client_auth: { mode: optional, trust: [fleet, staff] }"), &VERSIONS[..]),
        (listeners(", minimum_version: \"1.3\"", optional), &VERSIONS[1..]),
        (listeners(", ciphers: [ECDHE-ECDSA-AES256-GCM-SHA384]", optional), &VERSIONS[..1]),
        (listeners(", groups: [P-256, X25519]", optional), &VERSIONS[..]),
    ] {
        site.configure(&origin.address, &[("listeners", &after), domains]);
        assert_eq!(gateway.reload().0, 200);
        for (flag, version) in versions {
            assert_eq!(connect(&site, flag, &["-sess_in", version]), Full, "{version} {after}");
            times += 1.0;
        }
        assert_declined(&gateway, "policy", times);
    }
    // And back again.
    site.configure(&origin.address, &[("listeners", &before), domains]);
    assert_eq!(gateway.reload().0, 200);
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_in", version]), Resumed);
    }
    assert_declined(&gateway, "policy", times);
}

#[test]
fn a_session_of_one_server_name_is_not_resumed_under_another() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["issue", "other", "--kind", "server", "--subject", "CN=other", "--dns", "other.test"]);
    for certificates in ["", "{ chain: other.crt, key: other.key }, "] {
        let listeners = listeners("", "").replace("[{ chain", &format!("[{certificates}{{ chain"));
        site.configure(&origin.address, &[("listeners", &listeners)]);
        let gateway = site.start();
        let mut times = 0.0;
        for (flag, version) in VERSIONS {
            let name = |name: &'static str, session: &'static str| match name {
                "" => vec![session, version, "-noservername"],
                name => vec![session, version, "-servername", name],
            };
            assert_eq!(connect(&site, flag, &name("localhost", "-sess_out")), Full);
            assert_eq!(connect(&site, flag, &name("localhost", "-sess_in")), Resumed);
            assert_eq!(connect(&site, flag, &name("LOCALHOST", "-sess_in")), Resumed);
            for other in ["other.test", ""] {
                assert_eq!(connect(&site, flag, &name(other, "-sess_in")), Full, "{version} {other}");
                times += 1.0;
            }
            assert_eq!(connect(&site, flag, &name("", "-sess_out")), Full);
            assert_eq!(connect(&site, flag, &name("", "-sess_in")), Resumed);
            assert_eq!(connect(&site, flag, &name("localhost", "-sess_in")), Full);
            times += 1.0;
        }
        assert_declined(&gateway, "server_name", times);
    }
}

#[test]
fn a_session_ends_with_the_certificate_of_its_client() {
    let (site, origin) = (Site::new(), Origin::start());
    let anybody = ("routes", "[{ client: verified, pool: main }]");
    site.configure(&origin.address, &[("listeners", &listeners("", "")), anybody]);
    let gateway = site.start();
    for (flag, version) in VERSIONS {
        crate::ending::short_lived(&site, "brief", 5);
        let brief = ["-cert", "brief.crt"];
        assert_eq!(connect(&site, flag, &[&brief[..], &["-sess_out", version]].concat()), Full);
        let resume = || connect(&site, flag, &[&brief[..], &["-sess_in", version]].concat());
        assert_eq!(resume(), Resumed, "{version}");
        let before = declined(&gateway, "expired");
        eventually("the certificate has expired", || (resume() == Nothing).then_some(()));
        assert!((declined(&gateway, "expired") - before - 1.0).abs() < 0.1);
    }
}

/// The session that `s_client` wrote, with its ticket changed by `change`; the ticket is known by the name of its key.
fn tamper(site: &Site, session: &str, name: &[u8], change: impl Fn(&mut [u8])) {
    let text = std::fs::read_to_string(site.path().join(session)).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN SSL")).skip(1);
    let body: String = lines.take_while(|line| !line.starts_with("-----END SSL")).collect();
    let mut der = STANDARD.decode(body).unwrap();
    let at = der.windows(name.len()).position(|window| window == name).expect("the ticket is in the session");
    change(&mut der[at..]);
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let pem = format!(
        "-----BEGIN SSL SESSION PARAMETERS-----\n{}\n-----END SSL SESSION PARAMETERS-----\n",
        lines.join("\n")
    );
    std::fs::write(site.path().join("changed"), pem).unwrap();
}

#[test]
fn a_ticket_that_was_changed_is_not_resumed() {
    let (site, origin, key) = (Site::new(), Origin::start(), key());
    write_keys(&site, &key);
    site.configure(&origin.address, &[("listeners", &listeners(SHARED, ""))]);
    let gateway = site.start();
    let name: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap()).collect();
    let (mut unknown, mut malformed) = (0.0, 0.0);
    for (flag, version) in VERSIONS {
        assert_eq!(connect(&site, flag, &["-sess_out", version]), Full);
        tamper(&site, version, &name, |_| {});
        assert_eq!(connect(&site, flag, &["-sess_in", "changed"]), Resumed, "{version}");
        for at in [0, 15, 16, 27, 28, 100, 300] {
            tamper(&site, version, &name, |ticket| ticket[at] ^= 1);
            assert_eq!(connect(&site, flag, &["-sess_in", "changed"]), Full, "{version} {at}");
            *(if at < 16 { &mut unknown } else { &mut malformed }) += 1.0;
        }
        tamper(&site, version, &name, |ticket| ticket[16..400].fill(0));
        assert_eq!(connect(&site, flag, &["-sess_in", "changed"]), Full, "{version}");
        malformed += 1.0;
    }
    assert!((declined(&gateway, "unknown_key") - unknown).abs() < 0.1);
    assert!((declined(&gateway, "malformed") - malformed).abs() < 0.1);
}
