//! Revocation lists: who is out by them, everywhere and soon, and what a list that cannot be relied on does not change.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ending::{Connections, origin};
use crate::support::open::OpenConnection;
use crate::support::{Gateway, Site, eventually, run};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const TRUST: &str = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }";

fn site(trust: &str) -> (Site, Gateway) {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["crl"]);
    let routes = ("routes", "[{ pool: main }]");
    site.configure(&origin(), &[routes, ("trust", trust), ("server", "{ threads: 2, drain_timeout: 1s }")]);
    let gateway = site.start();
    (site, gateway)
}

fn resume(site: &Site, version: &str, session: &[&str]) -> String {
    site.s_client(&[&[version, "-alpn", "http/1.1"], session].concat(), REQUEST)
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn a_revoked_client_is_out_everywhere_and_nobody_else_notices() {
    let (site, gateway) = site(TRUST);
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(resume(&site, version, &["-sess_out", version]).contains("New, TLS"));
        assert!(resume(&site, version, &["-sess_in", version]).contains("Reused, TLS"));
    }
    let (mut revoked, mut other) =
        (Connections::open(&site, "sensor-1"), Connections::open(&site, "sensor-2"));
    site.pki(&["revoke", "sensor-1.crt"]);
    let changed = Instant::now();
    site.pki(&["crl"]);
    revoked.all_end();
    let took = changed.elapsed();
    for version in ["-tls1_2", "-tls1_3"] {
        let output = resume(&site, version, &["-sess_in", version]);
        assert!(!output.contains("200 OK"), "{output}");
        let output = resume(&site, version, &[]);
        assert!(!output.contains("200 OK"), "{output}");
    }
    other.all_live();
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
    let lag = |stage: &str, what: &str| {
        gateway.metric(&format!("portcullis_revocation_propagation_seconds_{what}{{stage=\"{stage}\"}}"))
    };
    eventually("the last connection is closed", || (lag("connections_closed", "count") > 0.5).then_some(()));
    assert!((lag("in_force", "count") - 1.0).abs() < 0.1, "one change");
    let told = lag("in_force", "sum") + lag("connections_closed", "sum");
    // From the moment the file was there: that is later than the one at which we set out to write it.
    assert!(told > 0.05 && told < took.as_secs_f64() + 0.5, "{told} s are told of {took:?}");
}

#[test]
fn each_list_in_force_is_shown_and_no_other() {
    let both = "{ fleet: { anchors: both.crt, revocation: { lists: [ca.crl, other/ca.crl] } } }";
    let site = Site::new();
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl", "--days", "7"]);
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["crl"]);
    let read = |file: &str| std::fs::read_to_string(site.path().join(file)).unwrap();
    std::fs::write(site.path().join("both.crt"), read("ca.crt") + &read("other/ca.crt")).unwrap();
    site.configure(&origin(), &[("trust", both)]);
    let gateway = site.start();
    let shown = |name: &str, issuer: &str| {
        let series = format!(
            "portcullis_revocation_list_{name}{{issuer=\"CN={issuer}\",scope=\"\",trust_domain=\"fleet\"}} "
        );
        let metrics = gateway.admin_get("/metrics").1;
        metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok())
    };
    let own = "Test CA";
    assert_eq!((shown("entries", own), shown("entries", "Other CA")), (Some(1.0), Some(0.0)));
    let week = shown("next_update_timestamp_seconds", own).unwrap()
        - shown("this_update_timestamp_seconds", own).unwrap();
    assert!((week - 7.0 * 86_400.0).abs() < 1.0, "{week}");
    let status: serde_json::Value = serde_json::from_str(&gateway.admin_get("/status").1).unwrap();
    let lists = status["trust"][0]["revocation_lists"].as_array().unwrap();
    let list = lists.iter().find(|list| list["issuer"] == format!("CN={own}")).unwrap();
    assert_eq!(
        (&list["revoked"], &list["number"], &list["is_stale"]),
        (&1.into(), &"01".into(), &false.into())
    );
    // A list that is refused shows nothing; one that is gone is gone.
    std::fs::write(site.path().join("other/ca.crl"), "damaged").unwrap();
    eventually("it is refused", || (reloads(&gateway, "failed") > 0.5).then_some(()));
    assert_eq!((shown("entries", own), shown("entries", "Other CA")), (Some(1.0), Some(0.0)));
    site.configure(&origin(), &[("trust", TRUST)]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!((shown("entries", own), shown("entries", "Other CA")), (Some(1.0), None));
}

#[test]
fn a_list_that_cannot_be_relied_on_changes_nothing_and_is_told_of() {
    let (site, gateway) = site(TRUST);
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["crl"]);
    let at = |file: &str| site.path().join(file);
    let read = |file: &str| std::fs::read(at(file)).unwrap();
    let empty = read("ca.crl");
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    let out = || site.curl(Some("sensor-1"), &[], "/").status == 0;
    eventually("the list is in force", || out().then_some(()));
    let good = read("ca.crl");
    let tampered = {
        let pem = String::from_utf8(good.clone()).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let mut der = openssl::base64::decode_block(&body).unwrap();
        let last = der.len() - 3;
        der[last] ^= 1;
        der
    };
    let issuer = "CN=Test CA";
    for (number, (list, told)) in [
        (Some(empty), format!("the revocation list of `{issuer}` is older than the one in force")),
        (Some(read("other/ca.crl")), "its issuer `CN=Other CA` is not among the certificates".to_owned()),
        (Some(tampered), format!("its signature is not that of its issuer `{issuer}`")),
        (Some(good[..good.len() / 2].to_vec()), "the file seems to be cut off".to_owned()),
        (Some(Vec::new()), "`ca.crl` is empty".to_owned()),
        (Some(b"<html>503</html>".to_vec()), "it holds no revocation list".to_owned()),
        (None, "`ca.crl` cannot be read: No such file or directory".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        match list {
            Some(bytes) => std::fs::write(at("ca.crl"), bytes).unwrap(),
            None => std::fs::remove_file(at("ca.crl")).unwrap(),
        }
        eventually("it is refused", || (reloads(&gateway, "failed") > number as f64 + 0.5).then_some(()));
        let place = "trust.fleet.revocation.lists";
        gateway.logged(&["reload refused", place, &told.replace("`ca.crl`", "ca.crl`")]);
        assert!(out(), "what was in force stays: {told}");
        assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200, "{told}");
        assert!(gateway.metric("portcullis_config_stale") > 0.5);
        assert!(gateway.admin_get("/status").1.contains(place));
    }
    site.pki(&["crl"]);
    eventually("the next good one mends it", || {
        (gateway.metric("portcullis_config_stale") < 0.5).then_some(())
    });
    assert!(out());
}

#[test]
fn a_list_that_goes_from_a_directory_brings_nobody_back() {
    let site = Site::new();
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["crl"]);
    let at = |file: &str| site.path().join(file);
    let read = |file: &str| std::fs::read_to_string(at(file)).unwrap();
    std::fs::write(at("both.crt"), read("ca.crt") + &read("other/ca.crt")).unwrap();
    std::fs::create_dir(at("crl.d")).unwrap();
    std::fs::rename(at("ca.crl"), at("crl.d/fleet.crl")).unwrap();
    std::fs::rename(at("other/ca.crl"), at("crl.d/other.crl")).unwrap();
    let trust =
        |lists: &str| format!("{{ fleet: {{ anchors: both.crt, revocation: {{ lists: [{lists}] }} }} }}");
    let configure = |lists: &str| site.configure(&origin(), &[("trust", &trust(lists))]);
    configure("crl.d");
    let gateway = site.start();
    let out = || site.curl(Some("sensor-1"), &[], "/").status == 0;
    assert!(out());
    std::fs::rename(at("crl.d/fleet.crl"), at("crl.d/fleet.crl.old")).unwrap();
    eventually("it is refused", || (reloads(&gateway, "failed") > 0.5).then_some(()));
    gateway.logged(&["reload refused", "the revocation list of `CN=Test CA` that is in force", "is gone"]);
    assert!(out());
    // Nor when all is read anew.
    let (status, told) = gateway.reload();
    assert!(status != 200 && told.contains("is gone"), "{told}");
    assert!(out());
    // Who says so in the configuration is believed.
    configure("crl.d/other.crl");
    assert_eq!(gateway.reload().0, 200);
    assert!(!out());
}

/// A list as `openssl ca` writes it. `index`: serial and reason of each entry.
fn openssl_list(directory: &Path, number: u32, base: Option<u32>, index: &[(&str, &str)], file: &str) {
    openssl_list_between(directory, None, number, base, index, file);
}

/// `dates`: of this update and the next one, as `YYYYMMDDHHMMSSZ`.
fn openssl_list_between(
    directory: &Path,
    dates: Option<&[String; 2]>,
    number: u32,
    base: Option<u32>,
    index: &[(&str, &str)],
    file: &str,
) {
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    let entries = index.iter().map(|(serial, reason)| {
        format!("R\t350101000000Z\t250101000000Z,{reason}\t{serial}\tunknown\t/CN=x\n")
    });
    write("index.txt", entries.collect());
    write("crlnumber", format!("{number:04X}\n"));
    let delta = base.map_or(String::new(), |base| format!("2.5.29.27 = critical,DER:02:01:{base:02X}\n"));
    write(
        "ca.cnf",
        format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = index.txt\ncrlnumber = crlnumber\ndefault_md = sha256\n\
             default_crl_days = 7\ncertificate = ca.crt\nprivate_key = ca.key\ncrl_extensions = extensions\n\
             [extensions]\n{delta}authorityKeyIdentifier = keyid\n"
        ),
    );
    let mut arguments = vec!["ca", "-gencrl", "-config", "ca.cnf", "-out", "list.new"];
    if let Some([this, next]) = dates {
        arguments.extend(["-crl_lastupdate", this, "-crl_nextupdate", next]);
    }
    run(directory, "openssl", &arguments);
    std::fs::rename(directory.join("list.new"), directory.join(file)).unwrap();
}

fn serial(directory: &Path, client: &str) -> String {
    let output = run(directory, "openssl", &["x509", "-in", &format!("{client}.crt"), "-noout", "-serial"]);
    String::from_utf8(output.stdout).unwrap().trim().trim_start_matches("serial=").to_owned()
}

#[test]
fn a_delta_list_of_openssl_revokes_and_pardons_on_top_of_its_base() {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let [one, two] = ["sensor-1", "sensor-2"].map(|client| serial(site.path(), client));
    openssl_list(site.path(), 4, None, &[(&one, "certificateHold")], "base.crl");
    openssl_list(site.path(), 5, Some(4), &[], "delta.crl");
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [base.crl, delta.crl] } } }";
    site.configure(&origin(), &[("routes", "[{ pool: main }]"), ("trust", trust)]);
    let gateway = site.start();
    let statuses = || ["sensor-1", "sensor-2"].map(|client| site.curl(Some(client), &[], "/").status);
    assert_eq!(statuses(), [0, 200]);
    openssl_list(site.path(), 6, Some(4), &[(&one, "removeFromCRL"), (&two, "keyCompromise")], "delta.crl");
    eventually("the delta is in force", || (statuses() == [200, 0]).then_some(()));
    // Without the base that it follows, it changes nothing.
    openssl_list(site.path(), 9, Some(8), &[(&one, "keyCompromise")], "delta.crl");
    eventually("it is refused", || (reloads(&gateway, "failed") > 0.5).then_some(()));
    let log = gateway.logged(&["reload refused", "the delta list 0x09", "the newest complete list is 0x04"]);
    assert!(log.contains("get the issuer's newest complete list too"), "{log}");
    assert_eq!(statuses(), [200, 0]);
    openssl_list(site.path(), 8, None, &[(&two, "keyCompromise")], "base.crl");
    eventually("its base has come", || (statuses() == [0, 0]).then_some(()));
}

#[test]
fn clients_of_an_issuer_without_a_list_are_refused_where_lists_are_required() {
    let site = Site::new();
    site.pki(&["crl"]);
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "sensor-2", "--subject", "CN=sensor-2,OU=sensors"]);
    let read = |file: &str| std::fs::read_to_string(site.path().join(file)).unwrap();
    std::fs::write(site.path().join("both.crt"), read("ca.crt") + &read("other/ca.crt")).unwrap();
    let trust = |lists: &str, when_missing: &str| {
        format!("{{ fleet: {{ anchors: both.crt, revocation: {{ lists: [{lists}]{when_missing} }} }} }}")
    };
    let routes = ("routes", "[{ pool: main }]");
    let configure = |lists: &str, when_missing: &str| {
        site.configure(&origin(), &[routes, ("trust", &trust(lists, when_missing))]);
    };
    let statuses = || ["sensor-1", "other/sensor-2"].map(|client| site.curl(Some(client), &[], "/").status);
    configure("ca.crl", "");
    let gateway = site.start();
    assert_eq!(statuses(), [200, 200]);
    gateway.logged(&["no revocation list speaks about what `CN=Other CA` issued; nothing of it is revoked"]);
    let mut open = OpenConnection::new(&site, Some("other/sensor-2"));
    let mut other = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!((open.get("/"), other.get("/")), (200, 200));
    configure("ca.crl", ", when_missing: refuse");
    assert_eq!(gateway.reload().0, 200);
    assert!(open.ends_within(Duration::from_secs(1)), "whoever is in goes");
    assert_eq!(other.get("/"), 200);
    assert_eq!(statuses(), [200, 0]);
    gateway.logged(&[
        "\"revocation_unknown\"",
        "there is no revocation list of `CN=Other CA`",
        "CN=sensor-2",
    ]);
    site.pki_in("other", &["crl"]);
    configure("ca.crl, other/ca.crl", ", when_missing: refuse");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(statuses(), [200, 200]);
    // Nobody could come in.
    configure("", ", when_missing: refuse");
    let (status, told) = gateway.reload();
    assert_eq!(status, 422);
    assert!(told.contains("trust.fleet.revocation.when_missing: `refuse` without a list"), "{told}");
    assert_eq!(statuses(), [200, 200]);
}

#[test]
fn a_list_that_nobody_replaces_is_told_of_before_and_when_it_grows_stale() {
    let site = Site::new();
    let moment = |from_now: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(from_now);
        at.to_string()[..19].replace(['-', ':', 'T'], "") + "Z"
    };
    let dates = [moment(-100), moment(5)];
    openssl_list_between(site.path(), Some(&dates), 1, None, &[], "ca.crl");
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl], when_stale: refuse } } }";
    site.configure(&origin(), &[("routes", "[{ pool: main }]"), ("trust", trust)]);
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let issuer = "trust.fleet: the revocation list of `CN=Test CA`";
    gateway.logged(&["\"warn\"", issuer, "is to be replaced by", "most of its time has passed"]);
    gateway.logged(&[
        "\"warn\"",
        issuer,
        "should have been replaced by",
        "clients of this issuer are refused",
    ]);
    eventually("its clients are refused", || {
        (site.curl(Some("sensor-1"), &[], "/").status == 0).then_some(())
    });
    assert_eq!(
        gateway.log().matches("should have been replaced by").count()
            - gateway.log().matches("is unknown: the revocation list").count(),
        1
    );
    assert!(gateway.admin_get("/status").1.contains("\"is_stale\": true"));
}
