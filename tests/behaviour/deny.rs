//! Whom the operator denies is out within a second, everywhere, and nobody else notices.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ending::{Connections, ROUTES, origin};
use crate::resumption::connect;
use crate::support::open::OpenConnection;
use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: (&str, &str) = ("server", "{ threads: 2, drain_timeout: 1s }");

/// A site whose trust domain has this deny list, and two sensors.
fn site(origin: &str, deny: &str) -> Site {
    let site = Site::new();
    for file in ["sensor-1.crt", "sensor-1.key"] {
        std::fs::remove_file(site.path().join(file)).unwrap();
    }
    site.pki(&["issue", "sensor-1", "--subject", "CN=sensor-1,OU=sensors", "--dns", "sensor-1.test"]);
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(
        origin,
        &[ROUTES, SERVER, ("trust", &format!("{{ fleet: {{ anchors: ca.crt, deny: {deny} }} }}"))],
    );
    site
}

/// Replaces a file as careful programs do.
fn replace(site: &Site, file: &str, text: &str) {
    let path = site.path().join(file);
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn deny(site: &Site, entry: &str) {
    replace(site, "deny.yaml", &format!("deny: [{entry}]\n"));
}

fn is_out(site: &Site, client: &str) -> bool {
    site.curl(Some(client), &[], "/").status == 0
}

fn shell(site: &Site, command: &str) -> String {
    String::from_utf8(run(site.path(), "sh", &["-c", command]).stdout).unwrap().trim().to_owned()
}

/// Each way in which an entry can name sensor-1.
fn entries(site: &Site) -> Vec<(&'static str, String)> {
    let serial = shell(site, "openssl x509 -in sensor-1.crt -noout -serial | cut -d= -f2");
    let print = shell(site, "openssl x509 -in sensor-1.crt -noout -fingerprint -sha256 | cut -d= -f2");
    let key = shell(
        site,
        "openssl x509 -in sensor-1.crt -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -r | \
         cut -d' ' -f1",
    );
    vec![
        ("serial", format!("{{ serial: {serial}, issuer: CN=Test CA }}")),
        ("fingerprint", format!("{{ fingerprint: \"{print}\" }}")),
        ("key", format!("{{ key_fingerprint: {key} }}")),
        ("names", "{ subject: { CN: sensor-1, OU: sensors } }".to_owned()),
        ("names", "{ san: { dns: sensor-1.test } }".to_owned()),
    ]
}

fn ended(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_connections_ended_total{cause=\"denied\",listener=\"edge\"}")
}

#[test]
fn a_client_is_out_everywhere_within_a_second_of_the_entry_that_names_it() {
    let site = site(&origin(), "deny.yaml");
    deny(&site, "");
    let gateway = site.start();
    let mut stays = Connections::open(&site, "sensor-2");
    for (round, (way, entry)) in (1..).zip(entries(&site)) {
        for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
            assert!(connect(&site, flag, &["-sess_out", version]).contains("200 OK"), "{entry}");
            assert!(connect(&site, flag, &["-sess_in", version]).contains("Reused, TLS"), "{entry}");
        }
        let mut denied = Connections::open(&site, "sensor-1");
        deny(&site, &entry);
        denied.all_end();
        eventually("all are counted", || (ended(&gateway) > 5.0 * f64::from(round) - 0.5).then_some(()));
        assert!(is_out(&site, "sensor-1"), "{entry}");
        for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
            let output = connect(&site, flag, &["-sess_in", version]);
            assert!(!output.contains("200 OK"), "{entry}, {version}\n{output}");
        }
        let told = format!("is denied by its {way}: entry 1 of `deny.yaml`, for ever");
        gateway.logged(&["\"kind\":\"connection_ended\"", "\"cause\":\"denied\"", "CN=sensor-1", &told]);
        gateway.logged(&["\"kind\":\"connection\"", "\"denied\"", "CN=sensor-1", &told]);
        assert_eq!(stays.idle.get("/"), 200);
        assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
        deny(&site, "");
        eventually("it may come in again", || (!is_out(&site, "sensor-1")).then_some(()));
    }
    stays.all_live();
    let failures = "portcullis_tls_handshake_failures_total{listener=\"edge\",reason=\"denied\"}";
    assert!(gateway.metric(failures) > 4.5);
    assert!(
        !gateway.log().lines().any(|line| line.contains("connection_ended") && line.contains("sensor-2"))
    );
}

#[test]
fn an_entry_that_has_come_to_its_end_keeps_nobody_out() {
    let (origin, now) = (Origin::start(), || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let site = site(&origin.address, "deny.csv");
    let end = now() + 4;
    let until = shell(&site, &format!("date -u -d @{end} +%Y-%m-%dT%H:%M:%SZ"));
    let row = format!("subject.CN,until,reason\nsensor-1,{until},\"lost, maybe\"\n");
    std::fs::write(site.path().join("deny.csv"), &row).unwrap();
    let gateway = site.start();
    assert!(is_out(&site, "sensor-1"));
    gateway.logged(&["line 2 of `deny.csv`, until", "(lost, maybe)"]);
    assert!(now() < end, "the machine was too slow for this test");
    eventually("it may come in again", || (!is_out(&site, "sensor-1")).then_some(()));
    assert!(now() >= end);
    assert!(gateway.metric("portcullis_reloads_total{result=\"ok\"}") < 0.1, "without a reload");
}

#[test]
fn the_reason_is_for_the_operator_and_never_for_the_client() {
    let origin = Origin::start();
    let site = site(&origin.address, "deny.yaml");
    deny(&site, "{ subject: { CN: sensor-1 }, reason: embezzlement }");
    let gateway = site.start();
    for flag in ["-tls1_2", "-tls1_3"] {
        let output = connect(&site, flag, &[]);
        assert!(output.contains("certificate revoked") && !output.contains("embezzlement"), "{output}");
    }
    gateway.logged(&["embezzlement"]);
}

#[test]
fn a_list_that_is_wrong_or_gone_leaves_the_one_before_in_force() {
    let origin = Origin::start();
    let site = site(&origin.address, "[deny.yaml, more.csv]");
    deny(&site, "{ subject: { CN: sensor-1 } }");
    std::fs::write(site.path().join("more.csv"), "fingerprint\n").unwrap();
    let gateway = site.start();
    let failed = || gateway.metric("portcullis_reloads_total{result=\"failed\"}");
    let path = |file: &str| site.path().join(file);
    let wrong: [(&str, &dyn Fn()); 5] = [
        ("entry 2: fingerprint: `12` has 2 hex digits", &|| {
            deny(&site, "{ subject: { CN: sensor-2 } }, { fingerprint: 12 }");
        }),
        ("it is not a deny list in YAML", &|| replace(&site, "deny.yaml", "deny:\n  - { subj")),
        ("`deny.yaml` is empty", &|| replace(&site, "deny.yaml", "")),
        ("line 2: it has 2 columns (expected: 1", &|| replace(&site, "more.csv", "fingerprint\na,b\n")),
        ("`deny.yaml` cannot be read", &|| std::fs::remove_file(path("deny.yaml")).unwrap()),
    ];
    for (told, damage) in wrong {
        let before = failed();
        damage();
        eventually(told, || (failed() > before + 0.5).then_some(()));
        gateway.logged(&["reload refused", told]);
        assert!(gateway.admin_get("/status").1.contains("trust.fleet.deny["), "{told}");
        assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1, "{told}");
        assert!(is_out(&site, "sensor-1"), "{told}");
        assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200, "{told}");
        std::fs::write(path("more.csv"), "fingerprint\n").unwrap();
        deny(&site, "{ subject: { CN: sensor-1 } }");
        eventually("it is mended", || (gateway.metric("portcullis_config_stale") < 0.1).then_some(()));
    }
    deny(&site, "{ subject: { CN: sensor-2 } }");
    eventually("the next good one is in force", || is_out(&site, "sensor-2").then_some(()));
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn lists_come_and_go_in_a_directory() {
    let origin = Origin::start();
    let site = site(&origin.address, "deny.d");
    let directory = site.path().join("deny.d");
    std::fs::create_dir(&directory).unwrap();
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    let entry = |client: &str| format!("deny: [{{ subject: {{ CN: {client} }} }}]");
    std::fs::write(directory.join("one.yaml"), entry("sensor-1")).unwrap();
    assert!(open.ends_within(SECOND), "added");
    std::fs::write(directory.join("two.csv"), "subject.CN\nsensor-2\n").unwrap();
    eventually("a second one counts too", || is_out(&site, "sensor-2").then_some(()));
    assert!(is_out(&site, "sensor-1"));
    std::fs::rename(directory.join("one.yaml"), directory.join("one.yaml.off")).unwrap();
    eventually("renamed, it does not count", || (!is_out(&site, "sensor-1")).then_some(()));
    gateway.logged(&["`one.yaml.off` in `deny.d` is passed over"]);
    assert!(is_out(&site, "sensor-2"));
    // A directory that vanishes is no directory without lists.
    std::fs::rename(&directory, site.path().join("away")).unwrap();
    gateway.logged(&["reload refused", "trust.fleet.deny[0]", "`deny.d` cannot be read"]);
    assert!(is_out(&site, "sensor-2"));
    std::fs::remove_file(site.path().join("away/two.csv")).unwrap();
    std::fs::rename(site.path().join("away"), &directory).unwrap();
    eventually("removed, it keeps nobody out", || (!is_out(&site, "sensor-2")).then_some(()));
    let mut open = OpenConnection::new(&site, Some("sensor-2"));
    assert_eq!(open.get("/"), 200);
    std::fs::write(directory.join("three.yml"), entry("sensor-2")).unwrap();
    assert!(open.ends_within(SECOND), "the new directory is watched like the old one");
}

#[test]
fn a_volume_of_lists_is_swapped_whole() {
    let origin = Origin::start();
    let site = site(&origin.address, "volume");
    let volume = site.path().join("volume");
    // As the kubelet does it.
    let publish = |version: &str, client: &str| {
        std::fs::create_dir_all(volume.join(version)).unwrap();
        std::fs::write(volume.join(version).join("deny.csv"), format!("subject.CN\n{client}\n")).unwrap();
        std::os::unix::fs::symlink(version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    publish("..1", "nobody");
    std::os::unix::fs::symlink("..data/deny.csv", volume.join("deny.csv")).unwrap();
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    publish("..2", "sensor-1");
    assert!(open.ends_within(SECOND));
    assert!(!is_out(&site, "sensor-2"));
    assert!(!gateway.log().contains("passed over"));
}

#[test]
fn revocation_lists_may_lie_in_a_directory_that_is_never_empty() {
    let origin = Origin::start();
    let site = site(&origin.address, "deny.yaml");
    deny(&site, "");
    site.configure(
        &origin.address,
        &[ROUTES, SERVER, ("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [crl.d] } } }")],
    );
    let check = || {
        let output = std::process::Command::new(BINARY)
            .args(["check", "-c", "gateway.yaml"])
            .current_dir(site.path())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::create_dir(site.path().join("crl.d")).unwrap();
    let (good, told) = check();
    assert!(
        !good && told.contains("trust.fleet.revocation.lists[0]: `crl.d` holds no revocation list"),
        "{told}"
    );
    let publish = || {
        site.pki(&["crl"]);
        std::fs::rename(site.path().join("ca.crl"), site.path().join("crl.d/fleet.crl")).unwrap();
    };
    publish();
    assert!(check().0);
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    site.pki(&["revoke", "sensor-1.crt"]);
    publish();
    assert!(open.ends_within(SECOND));
    std::fs::remove_file(site.path().join("crl.d/fleet.crl")).unwrap();
    gateway.logged(&["reload refused", "`crl.d` holds no revocation list"]);
    assert!(is_out(&site, "sensor-1"));
}

#[test]
fn what_the_gateway_blocked_itself_counts_in_every_trust_domain_and_does_not_vanish() {
    let origin = Origin::start();
    let site = site(&origin.address, "deny.yaml");
    deny(&site, "");
    std::fs::create_dir(site.path().join("state")).unwrap();
    let server = ("server", "{ threads: 1, drain_timeout: 1s, state_directory: state }");
    site.configure(&origin.address, &[ROUTES, server]);
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    let block = |entries: &str| replace(&site, "state/blocked.yaml", &format!("deny: [{entries}]"));
    block("{ subject: { CN: sensor-1 } }, { subject: { CN: sensor-2 }, trust: staff }");
    assert!(open.ends_within(SECOND));
    assert!(!is_out(&site, "sensor-2"), "what is blocked in another trust domain is not blocked here");
    std::fs::remove_file(site.path().join("state/blocked.yaml")).unwrap();
    gateway.logged(&["reload refused", "server.state_directory", "is gone, which says who is blocked"]);
    assert!(is_out(&site, "sensor-1"));
    block("{ subject: { CN: sensor-2 }, trust: fleet }");
    eventually("the new one is in force", || is_out(&site, "sensor-2").then_some(()));
    assert!(!is_out(&site, "sensor-1"));
}

#[test]
fn explain_names_the_entry_and_check_doubts_what_can_mean_nobody() {
    let origin = Origin::start();
    let site = site(&origin.address, "deny.yaml");
    let ask = |arguments: &[&str]| {
        let command =
            std::process::Command::new(BINARY).args(arguments).current_dir(site.path()).output().unwrap();
        let text = [command.stdout, command.stderr].concat();
        (command.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let explain = |client: &str| {
        ask(&[
            "explain",
            "-c",
            "gateway.yaml",
            "--cert",
            &format!("{client}.crt"),
            "GET",
            "https://localhost/",
        ])
        .1
    };
    deny(
        &site,
        "{ subject: { CN: sensor-2 }, until: 2020-01-01T00:00:00Z }, { subject: { CN: sensor-1 }, until: \
         2099-01-01T00:00:00+01:00, reason: stolen }, { serial: 1, issuer: CN=Tset CA }, { subject: { CN: a }, trust: flet }",
    );
    let told = explain("sensor-1");
    let denied = "denied: certificate `CN=sensor-1,OU=sensors` is denied by its names: entry 2 of `deny.yaml`, until \
                  2098-12-31 23:00:00 UTC (stolen)";
    assert!(told.contains(denied), "{told}");
    assert!(explain("sensor-2").contains("forwarded to pool `main`"));
    let (good, told) = ask(&["check", "-c", "gateway.yaml"]);
    assert!(good, "{told}");
    for doubt in [
        "entry 1 of `deny.yaml` has lapsed",
        "entry 3 of `deny.yaml` names the issuer `CN=Tset CA`, which is no anchor",
        "entry 4 of `deny.yaml` is for trust domain `flet`, which there is not",
    ] {
        assert!(told.contains(doubt), "{told}");
    }
    deny(&site, "{ fingerprint: xyz }");
    let (good, told) = ask(&["check", "-c", "gateway.yaml"]);
    assert!(
        !good && told.contains("trust.fleet.deny[0]: `deny.yaml`, entry 1: fingerprint: `xyz`"),
        "{told}"
    );
}
