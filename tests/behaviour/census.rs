//! Which client certificates were seen: counted, named, remembered across restarts, and what a rotation needs to know.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::open::OpenConnection;
use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

const ROUTES: (&str, &str) = ("routes", "[{ pool: main }]");
const STATE: (&str, &str) = ("server", "{ threads: 1, drain_timeout: 5s, state_directory: state }");

fn census(gateway: &Gateway) -> Value {
    let (status, body) = gateway.admin_get("/census");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Of the only domain.
fn anchor<'a>(census: &'a Value, subject: &str) -> &'a Value {
    let anchors = census["trust"][0]["anchors"].as_array().unwrap();
    let wanted = |anchor: &&Value| anchor["subject"].as_str().is_some_and(|it| it.contains(subject));
    anchors.iter().find(wanted).unwrap_or_else(|| panic!("{census:#}"))
}

fn subjects(census: &Value) -> Vec<&str> {
    census["expiring_next"].as_array().unwrap().iter().map(|it| it["subject"].as_str().unwrap()).collect()
}

/// The metrics of an anchor, summed.
fn sum(gateway: &Gateway, family: &str, label: &str) -> f64 {
    let (_, text) = gateway.admin_get("/metrics");
    let series = text.lines().filter(|line| line.starts_with(&format!("{family}{{")) && line.contains(label));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn is(found: f64, wanted: u32) -> bool {
    (found - f64::from(wanted)).abs() < 0.1
}

#[test]
fn clients_are_counted_by_anchor_and_expiry_and_those_that_expire_next_are_named() {
    let (site, origin) = (Site::new(), Origin::start());
    for (name, days) in [("week", "5"), ("month", "20"), ("quarter", "80")] {
        site.pki(&["issue", name, "--days", days]);
    }
    site.configure(&origin.address, &[ROUTES]);
    let gateway = site.start();
    gateway.logged(&["the census of client certificates is kept in memory only", "server.state_directory"]);
    let before = census(&gateway);
    assert_eq!((anchor(&before, "Test CA")["certificates"].as_u64(), subjects(&before).len()), (Some(0), 0));
    for client in ["quarter", "sensor-1", "week", "month", "week"] {
        assert_eq!(site.curl(Some(client), &[], "/").status, 200);
    }
    // A client that is refused is not there.
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "stranger"]);
    assert_eq!(site.curl(Some("other/stranger"), &[], "/").status, 0);
    let after = census(&gateway);
    let fleet = anchor(&after, "Test CA");
    assert_eq!(fleet["certificates"], 4, "{after:#}");
    assert_eq!(fleet["expiring"], serde_json::json!({ "7d": 1, "30d": 2, "90d": 3 }));
    assert_eq!((&fleet["expired"], &fleet["in_force"]), (&Value::from(0), &Value::from(true)));
    assert_eq!(subjects(&after), ["CN=week", "CN=month", "CN=quarter", "CN=sensor-1,OU=sensors"]);
    let next = &after["expiring_next"][0];
    assert_eq!(next["fingerprint"].as_str().unwrap().len(), 64);
    assert!(next["fingerprint"].as_str().unwrap().starts_with(next["fingerprint_begins"].as_str().unwrap()));
    assert!(next["first_seen"].is_string() && next["not_after"].is_string(), "{next}");
    assert!(is(sum(&gateway, "portcullis_client_certificates", "Test CA"), 4));
    assert!(is(sum(&gateway, "portcullis_client_certificates_expiring", "within=\"30d\""), 2));
    assert!(is(sum(&gateway, "portcullis_client_certificates_expired", "Test CA"), 0));
    assert!(is(gateway.metric("portcullis_census_missed_total"), 0));
    // Renewed, for a shorter time than before.
    site.pki(&["issue", "week-2", "--subject", "CN=week", "--days", "3"]);
    assert_eq!(site.curl(Some("week-2"), &[], "/").status, 200);
    let renewed = census(&gateway);
    let fleet = anchor(&renewed, "Test CA");
    assert_eq!((&fleet["certificates"], &fleet["superseded"]), (&Value::from(4), &Value::from(1)));
    assert_eq!(subjects(&renewed)[..2], ["CN=week", "CN=month"]);
    assert_ne!(renewed["expiring_next"][0]["not_after"], next["not_after"], "the one of now");
    assert_eq!(gateway.admin_request("POST", "/census").0, 405);
}

#[test]
fn the_census_outlives_the_process_and_a_broken_one_is_put_aside() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[STATE]);
    let file = site.path().join("state/census");
    let mut gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
    let first = census(&gateway);
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), Some(0));
    let kept = std::fs::read(&file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let mut gateway = site.start();
    let restarted = eventually("the census is there again", || {
        Some(census(&gateway)).filter(|it| anchor(it, "Test CA")["certificates"] == 2)
    });
    assert_eq!(subjects(&restarted), subjects(&first));
    assert_eq!(restarted["expiring_next"][0]["first_seen"], first["expiring_next"][0]["first_seen"]);
    gateway.signal("INT");
    gateway.wait();
    assert!(file.exists(), "stopped at once");

    std::fs::write(&file, &kept[..kept.len() - 1]).unwrap();
    let gateway = site.start();
    gateway.logged(&["the census in", "is broken and begins anew", "census.broken"]);
    assert!(!file.exists() && site.path().join("state/census.broken").exists());
    assert_eq!(anchor(&census(&gateway), "Test CA")["certificates"], 0);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn a_process_that_takes_over_goes_on_with_the_census_of_the_one_before() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let server = "{ threads: 1, drain_timeout: 2s, state_directory: state, upgrade_socket: upgrade.sock }";
    site.configure(&origin.address, &[("server", server)]);
    let mut old = site.start();
    let mut new = Command::new(BINARY)
        .args(["run", "-c", "gateway.yaml", "--upgrade"])
        .current_dir(site.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the new process waits", || site.path().join("upgrade.sock").exists().then_some(()));
    // Seen by the old one after the new one has looked for a file.
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    old.signal("QUIT");
    assert_eq!(old.wait(), Some(0));
    eventually("the new process serves", || {
        (site.curl(Some("sensor-2"), &[], "/").status == 200).then_some(())
    });
    run(site.path(), "kill", &["-TERM", &new.id().to_string()]);
    new.wait().unwrap();
    let gateway = site.start();
    eventually("both were seen", || {
        (anchor(&census(&gateway), "Test CA")["certificates"] == 2).then_some(())
    });
}

#[test]
fn a_census_that_cannot_be_kept_is_told_and_serves_on() {
    let (site, origin) = (Site::new(), Origin::start());
    std::fs::write(site.path().join("state"), "a file").unwrap();
    site.configure(&origin.address, &[STATE]);
    let gateway = site.start();
    gateway.logged(&["the census of client certificates is kept in memory only", "state"]);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(anchor(&census(&gateway), "Test CA")["certificates"], 1);
}

#[test]
fn the_census_is_bounded_and_can_be_switched_off() {
    let (site, origin) = (Site::new(), Origin::start());
    for name in ["a", "b", "c"] {
        site.pki(&["issue", name]);
    }
    site.configure(&origin.address, &[ROUTES, ("census", "{ maximum: 2 }")]);
    let gateway = site.start();
    for client in ["a", "b", "c"] {
        assert_eq!(site.curl(Some(client), &[], "/").status, 200);
        // One after the other is also fetched one after the other.
        census(&gateway);
    }
    let two = census(&gateway);
    assert_eq!((&two["held"], &two["evicted"]), (&Value::from(2), &Value::from(1)), "{two:#}");
    assert!(is(gateway.metric("portcullis_census_evicted_total"), 1));
    site.configure(&origin.address, &[ROUTES, ("census", "{ maximum: 0 }")]);
    assert_eq!(gateway.reload().0, 200);
    census(&gateway);
    assert_eq!(site.curl(Some("a"), &[], "/").status, 200);
    let off = census(&gateway);
    assert_eq!(off["maximum"], 0);
    // What was known is dropped by and by; nobody is added.
    assert!(off["held"].as_u64().unwrap() <= 2);
    for (text, told) in [
        ("{ window: 0d }", "census.window: `0d` is not a duration"),
        ("{ maximum: 99999999999 }", "census.maximum: 99999999999 is too much"),
        ("{ maximun: 1 }", "did you mean `maximum`?"),
    ] {
        site.configure(&origin.address, &[ROUTES, ("census", text)]);
        let (status, body) = gateway.reload();
        assert!(status == 422 && body.contains(told), "{body}");
    }
}

/// Old and new authority side by side, then the old one goes.
#[test]
fn an_authority_is_replaced_while_requests_are_served() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki_in("new", &["init", "--common-name", "New CA"]);
    site.pki_in("new", &["issue", "sensor-1", "--subject", "CN=sensor-1,OU=sensors"]);
    let copy = |from: &str, to: &str| {
        for kind in ["crt", "key"] {
            std::fs::copy(
                site.path().join(format!("{from}.{kind}")),
                site.path().join(format!("{to}.{kind}")),
            )
            .unwrap();
        }
    };
    copy("new/sensor-1", "renewed");
    let bundle = |files: &[&str]| {
        let texts = files.iter().map(|file| std::fs::read_to_string(site.path().join(file)).unwrap());
        let (partial, whole) = (site.path().join("anchors.part"), site.path().join("anchors.crt"));
        std::fs::write(&partial, texts.collect::<String>()).unwrap();
        std::fs::rename(partial, whole).unwrap();
    };
    bundle(&["ca.crt"]);
    site.configure(
        &origin.address,
        &[("trust", "{ fleet: { anchors: anchors.crt } }"), ("server", "{ threads: 2, drain_timeout: 1s }")],
    );
    let gateway = site.start();
    let reload = || assert_eq!(gateway.reload().0, 200);
    assert_eq!(site.curl(Some("renewed"), &[], "/").status, 0, "not known yet");

    bundle(&["ca.crt", "new/ca.crt"]);
    reload();
    let mut old = OpenConnection::new(&site, Some("sensor-1"));
    let mut laggard = OpenConnection::new(&site, Some("sensor-2"));
    let mut new = OpenConnection::new(&site, Some("renewed"));
    assert_eq!((old.get("/"), laggard.get("/"), new.get("/")), (200, 200, 200));
    let overlap = census(&gateway);
    let (before, after) = (anchor(&overlap, "Test CA"), anchor(&overlap, "New CA"));
    // Of the two clients of the old one, one has renewed and only holds a connection open.
    assert_eq!(
        (&before["certificates"], &before["superseded"]),
        (&Value::from(1), &Value::from(1)),
        "{overlap:#}"
    );
    assert_eq!((&before["connections"], &after["connections"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(after["certificates"], 1);
    assert!(is(sum(&gateway, "portcullis_anchor_connections", "Test CA"), 2));

    let told = || {
        let output = run(site.path(), BINARY, &["trust", "-c", "gateway.yaml"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let needed = told();
    for part in [
        "fleet: `CN=Test CA` (",
        ") is needed: 1 client, 2 open connections",
        ") is needed: 1 client, 1 open connection",
        "CN=sensor-1,OU=sensors",
    ] {
        assert!(needed.contains(part), "{part}\n{needed}");
    }

    // The server's certificate is replaced as well, and the old authority goes, while the new one's client asks on.
    let asking = std::thread::spawn(move || {
        for answered in 0..200 {
            if new.get("/") != 200 {
                return Err(answered);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(new)
    });
    site.pki(&["issue", "server-2", "--kind", "server", "--subject", "CN=localhost", "--dns", "localhost"]);
    copy("server-2", "server");
    reload();
    assert_eq!(laggard.get("/"), 200, "a server certificate that is replaced ends nobody's connection");
    bundle(&["new/ca.crt"]);
    reload();
    assert!(old.ends_within(Duration::from_secs(1)) && laggard.ends_within(Duration::from_secs(1)));
    for (client, status) in [("sensor-1", 0), ("sensor-2", 0), ("renewed", 200)] {
        assert_eq!(site.curl(Some(client), &[], "/").status, status, "{client}");
    }
    let mut new = asking.join().unwrap().unwrap_or_else(|answered| panic!("cut off after {answered}"));
    assert_eq!(new.get("/"), 200);
    let last = eventually("their connections are gone", || {
        Some(census(&gateway)).filter(|it| anchor(it, "Test CA")["connections"] == 0)
    });
    let before = anchor(&last, "Test CA");
    assert_eq!((&before["in_force"], &before["certificates"]), (&Value::from(false), &Value::from(1)));
    assert_eq!(anchor(&last, "New CA")["connections"], 1);
    let told = told();
    assert!(told.contains("is gone: 1 client seen since"), "{told}");
}
