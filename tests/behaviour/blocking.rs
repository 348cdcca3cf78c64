//! Clients that an operator shuts out: at once, for as long as said, and after a restart as well.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::ending::{Connections, ROUTES, SECOND, origin};
use crate::operating::{operate, operate_json};
use crate::support::open::OpenConnection;
use crate::support::{BINARY, Gateway, Origin, Site, eventually};

const STATE: (&str, &str) = ("server", "{ threads: 1, drain_timeout: 1s, state_directory: state }");

fn blocked_site(origin: &str, extra: &[(&str, &str)]) -> Site {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(origin, &[&[STATE], extra].concat());
    site
}

fn status(site: &Site, client: &str) -> u16 {
    site.curl(Some(client), &[], "/").status
}

fn done(site: &Site, arguments: &[&str]) -> String {
    let (code, output, error) = operate(site, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    output
}

fn fails(site: &Site, arguments: &[&str]) -> String {
    let (code, output, error) = operate(site, arguments);
    assert_eq!(code, Some(1), "{arguments:?}: {output}");
    error
}

#[test]
fn a_blocked_client_is_out_at_once_and_stays_out_after_a_restart_until_it_is_unblocked() {
    let site = blocked_site(&origin(), &[ROUTES]);
    let gateway = site.start();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(site.s_client(&[flag, "-sess_out", version], request).contains("200 OK"));
    }
    let mut blocked = Connections::open(&site, "sensor-1");
    let mut other = Connections::open(&site, "sensor-2");
    let told = done(&site, &["block", "--subject", "CN=sensor-1", "--reason", "stolen, ticket 4711"]);
    assert_eq!(told, "blocked; 5 connections ended");
    blocked.all_end();
    assert_eq!(status(&site, "sensor-1"), 0);
    other.all_live();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let output = site.s_client(&[flag, "-sess_in", version], request);
        assert!(!output.contains("200 OK"), "{version}: {output}");
    }
    assert_eq!(status(&site, "sensor-2"), 200);
    let failures = "portcullis_tls_handshake_failures_total{listener=\"edge\",reason=\"denied\"}";
    assert!(gateway.metric(failures) > 2.5, "{}", gateway.metric(failures));
    gateway.logged(&["\"kind\":\"connection_ended\"", "\"cause\":\"denied\"", "CN=sensor-1", "ticket 4711"]);
    gateway.logged(&[
        "\"action\":\"block\"",
        "\"selector\":\"subject=CN=sensor-1\"",
        "\"connections\":5",
        "ticket 4711",
    ]);
    let file = site.path().join("state/blocked.yaml");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(gateway);
    let gateway = site.start();
    assert_eq!((status(&site, "sensor-1"), status(&site, "sensor-2")), (0, 200));
    let list = done(&site, &["blocked"]);
    assert!(
        list.contains("for ever") && list.contains("--subject CN=sensor-1") && list.contains("1 blocked"),
        "{list}"
    );
    assert!(fails(&site, &["unblock", "--subject", "CN=sensor-3"]).contains("nobody is blocked like this"));
    assert_eq!(status(&site, "sensor-1"), 0);
    assert!(done(&site, &["unblock", "--subject", "CN=sensor-1"]).contains("CN=sensor-1"));
    assert_eq!(status(&site, "sensor-1"), 200);
    gateway.logged(&["\"action\":\"unblock\"", "\"result\":\"ok\""]);
    // A restart does not bring it back, nor does a reload.
    drop(gateway);
    let gateway = site.start();
    assert_eq!(status(&site, "sensor-1"), 200);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(status(&site, "sensor-1"), 200);
}

#[test]
fn a_block_means_whom_it_names_in_every_way_it_can_be_named() {
    let origin = Origin::start();
    let site = blocked_site(&origin.address, &[]);
    let _gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    let client = operate_json(&site, &["connections"])["connections"][0]["client"].clone();
    let of = |field: &str| client[field].as_str().unwrap().to_owned();
    let (serial, issuer) = (of("serial"), of("issuer"));
    for name in [
        &["--cert", "sensor-1.crt"][..],
        &["--fingerprint", &of("fingerprint")],
        &["--key-fingerprint", &of("key_fingerprint")],
        &["--serial", &serial, "--issuer", &issuer],
        &["--serial", &serial, "--issuer", "CN=test  ca"],
        &["--subject", "OU=sensors,CN=sensor-1"],
        &["--subject", "CN=sensor-1", "--trust-domain", "fleet"],
    ] {
        done(&site, &[&["block"], name].concat());
        assert_eq!((status(&site, "sensor-1"), status(&site, "sensor-2")), (0, 200), "{name:?}");
        done(&site, &[&["unblock"], name].concat());
        assert_eq!(status(&site, "sensor-1"), 200, "{name:?}");
    }
    for nobody in [
        &["--serial", &serial, "--issuer", "CN=Another CA"][..],
        &["--subject", "CN=sensor-1,OU=staff"],
        &["--subject", "CN=sensor"],
        &["--fingerprint", &of("key_fingerprint")],
    ] {
        done(&site, &[&["block"], nobody].concat());
        assert_eq!(status(&site, "sensor-1"), 200, "{nobody:?}");
    }
    assert!(done(&site, &["blocked"]).contains("4 blocked"));
    for (arguments, told) in [
        (&["block"][..], "it must be said who"),
        (&["block", "--serial", "0A"], "only together with its issuer"),
        (&["block", "--subject", "CN=x", "--connection", "00000000000000ab"], "cannot narrow that"),
        (&["block", "--subject", "CN=x", "--fingerprint", &of("fingerprint")], "by one name"),
        (
            &["block", "--subject", "CN=x", "--for", "1d", "--until", "2099-01-01T00:00:00Z"],
            "cannot be used with",
        ),
        (&["block", "--subject", "CN=x", "--until", "tomorrow"], "is not a moment"),
        (&["unblock", "--trust-domain", "fleet"], "it must be said who"),
    ] {
        let (code, _, error) = operate(&site, arguments);
        assert!(code == Some(2) && error.contains(told), "{arguments:?}: {code:?} {error}");
    }
    assert!(
        fails(&site, &["block", "--subject", "CN=x", "--trust-domain", "staff"]).contains("called `staff`")
    );
    assert!(
        fails(&site, &["block", "--subject", "CN=x", "--until", "2020-01-01T00:00:00Z"])
            .contains("it is past")
    );
}

#[test]
fn a_block_with_an_end_ends_by_itself_also_when_the_gateway_was_not_there() {
    let origin = Origin::start();
    let site = blocked_site(&origin.address, &[]);
    let gateway = site.start();
    done(&site, &["block", "--subject", "CN=sensor-1", "--for", "6s"]);
    done(&site, &["block", "--subject", "CN=sensor-2", "--for", "1d"]);
    assert_eq!((status(&site, "sensor-1"), status(&site, "sensor-2")), (0, 0));
    drop(gateway);
    let _gateway = site.start();
    assert_eq!(status(&site, "sensor-1"), 0);
    eventually("its time is over", || (status(&site, "sensor-1") == 200).then_some(()));
    assert_eq!(status(&site, "sensor-2"), 0);
    assert!(
        done(&site, &["block", "--subject", "CN=sensor-2", "--for", "2d"])
            .contains("in place of an earlier block")
    );
    let list = done(&site, &["blocked"]);
    assert!(list.contains("1 blocked") && !list.contains("CN=sensor-1"), "what is over is forgotten: {list}");
}

#[test]
fn a_block_needs_a_place_and_permission_and_else_changes_nothing() {
    let origin = Origin::start();
    let site = Site::new();
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    assert!(fails(&site, &["block", "--subject", "CN=sensor-1"]).contains("hint: `server.state_directory`"));
    assert!(done(&site, &["blocked"]).contains("nobody can be blocked"));
    let url = format!("http://127.0.0.1:{}/block", site.admin);
    for (header, expected) in
        [("X: y", "401"), ("Authorization: Bearer wrong", "401"), ("Origin: null", "403")]
    {
        let mut command = Command::new("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            header,
            "-d",
            "subject=CN=sensor-1",
            &url,
        ]);
        assert_eq!(String::from_utf8_lossy(&command.output().unwrap().stdout), expected, "{header}");
    }
    assert_eq!(gateway.admin_get("/block?subject=CN%3Dsensor-1").0, 405);
    assert_eq!(open.get("/"), 200);
    gateway.logged(&["\"action\":\"block\"", "\"result\":\"refused\""]);
    gateway.logged(&["\"action\":\"block\"", "\"result\":\"failed\"", "server.state_directory"]);
}

#[test]
fn a_full_disk_blocks_nobody_half() {
    let origin = Origin::start();
    let site = blocked_site(&origin.address, &[]);
    // No file may have a byte, which is told like a disk that is full.
    let mut command = Command::new("sh");
    command.current_dir(site.path());
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f 0; exec {BINARY} run -c gateway.yaml")]);
    let gateway = Gateway::spawn(command, site.admin);
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    let told = fails(&site, &["block", "--subject", "CN=sensor-1"]);
    assert!(told.contains("blocked.yaml` cannot be written, so nothing was changed"), "{told}");
    assert_eq!(open.get("/"), 200);
    assert_eq!(status(&site, "sensor-1"), 200);
    let left = std::fs::read_dir(site.path().join("state")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(
        !left.into_iter().any(|name| name.to_string_lossy().starts_with("blocked")),
        "nothing is left behind"
    );
    gateway.logged(&["\"action\":\"block\"", "\"result\":\"failed\"", "cannot be written"]);
}

#[test]
fn whatever_is_wrong_with_other_files_a_client_can_be_blocked() {
    let origin = Origin::start();
    let site = Site::new();
    site.pki(&["crl"]);
    let trust = ("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }");
    site.configure(&origin.address, &[STATE, trust]);
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    std::fs::write(site.path().join("ca.crl"), "half a li").unwrap();
    assert_eq!(gateway.reload().0, 422);
    assert_eq!(open.get("/"), 200);
    assert_eq!(done(&site, &["block", "--subject", "CN=sensor-1"]), "blocked; 1 connection ended");
    assert!(open.ends_within(SECOND));
    assert_eq!(status(&site, "sensor-1"), 0);
}

#[test]
fn a_list_of_blocked_clients_that_is_damaged_or_gone_lets_nobody_in() {
    let origin = Origin::start();
    let site = blocked_site(&origin.address, &[]);
    let gateway = site.start();
    done(&site, &["block", "--subject", "CN=sensor-1"]);
    let file = site.path().join("state/blocked.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    for damage in [Some("deny: [{ subject: { CN: sensor-1 }, until: soon }]"), Some("deny"), Some(""), None] {
        match damage {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert_eq!(gateway.reload().0, 422, "{damage:?}");
        let told = fails(&site, &["block", "--subject", "CN=sensor-2"]);
        assert!(told.contains("blocked.yaml") && told.contains("nothing was changed"), "{damage:?}: {told}");
        assert!(fails(&site, &["blocked"]).contains("blocked.yaml"));
        assert_eq!((status(&site, "sensor-1"), status(&site, "sensor-2")), (0, 200), "{damage:?}");
        std::fs::write(&file, &good).unwrap();
    }
    // Whoever edits it by hand is heard as well.
    std::fs::write(&file, "deny: [{ subject: { CN: sensor-2 } }]").unwrap();
    eventually("it is in force", || (status(&site, "sensor-2") == 0).then_some(()));
    assert_eq!(status(&site, "sensor-1"), 200);
}

#[test]
fn who_somebody_is_and_whether_they_would_be_let_in() {
    let origin = Origin::start();
    let site = Site::new();
    site.pki(&["issue", "sensor-2", "--subject", "CN=sensor-2,OU=sensors", "--dns", "two.sensors.example"]);
    site.pki(&["crl"]);
    let trust = ("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }");
    site.configure(&origin.address, &[STATE, trust]);
    let gateway = site.start();
    assert!(
        done(&site, &["who", "--subject", "CN=sensor-2"])
            .starts_with("no certificate of this client is at hand")
    );
    let by_file = done(&site, &["who", "--cert", "sensor-2.crt"]);
    for part in [
        "CN=sensor-2,OU=sensors",
        "two.sensors.example",
        "edge       lets it in, by trust domain fleet",
        "no open connection",
        "not noted",
    ] {
        assert!(by_file.contains(part), "{part}: {by_file}");
    }
    let mut open: Vec<_> = (0..3).map(|_| OpenConnection::new(&site, Some("sensor-2"))).collect();
    assert_eq!(open[0].get("/"), 200);
    let who = operate_json(&site, &["who", "--subject", "CN=sensor-2"]);
    assert_eq!((&who["open"], who["certificates"].as_array().unwrap().len()), (&3.into(), 1), "{who:#}");
    assert_eq!(who["certificates"][0]["listeners"][0]["admitted"], true);
    assert!(who["certificates"][0]["seen"]["first"].is_string(), "{who:#}");
    drop(open);
    let fingerprint = who["certificates"][0]["fingerprint"].as_str().unwrap();
    eventually("they are gone", || (operate_json(&site, &["connections"])["open"] == 0).then_some(()));
    let gone = operate_json(&site, &["who", "--fingerprint", fingerprint]);
    assert!(gone["open"] == 0 && gone["seen"]["last"].is_string(), "{gone:#}");
    done(&site, &["block", "--subject", "CN=sensor-2", "--reason", "stolen"]);
    let blocked = done(&site, &["who", "--subject", "CN=sensor-2"]);
    assert!(blocked.contains("BLOCKED for ever: stolen"), "{blocked}");
    let blocked = done(&site, &["who", "--cert", "sensor-2.crt"]);
    assert!(
        blocked.contains("does NOT let it in")
            && blocked.contains("blocked.yaml")
            && blocked.contains("(denied)"),
        "{blocked}"
    );
    done(&site, &["unblock", "--subject", "CN=sensor-2"]);
    site.pki(&["revoke", "sensor-2.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    let revoked = done(&site, &["who", "--cert", "sensor-2.crt"]);
    assert!(revoked.contains("does NOT let it in") && revoked.contains("(revoked)"), "{revoked}");
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "stranger"]);
    assert!(done(&site, &["who", "--cert", "other/stranger.crt"]).contains("(unknown_issuer)"));
    std::fs::write(
        site.path().join("many.crt"),
        std::fs::read_to_string(site.path().join("ca.crt")).unwrap().repeat(299),
    )
    .unwrap();
    assert!(fails(&site, &["who", "--cert", "many.crt"]).contains("`many.crt` holds 299 certificates"));
    let (code, _, error) = operate(&site, &["who", "--trust-domain", "fleet"]);
    assert!(code == Some(2) && error.contains("it must be said who"), "{error}");
}
