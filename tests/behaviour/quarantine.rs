//! Clients with one fault reach the routes that accept it, and nothing else; every other fault still refuses.

use std::time::Duration;

use crate::support::open::OpenConnection;
use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

const DAY: i64 = 86_400;
const REQUEST: &str = "GET /renew/a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /else HTTP/1.1\r\nHost: localhost\r\n\
                       Connection: close\r\n\r\n";

/// The routes of a fleet, the ordinary one first, with what the one for renewals accepts.
fn routes(accepts: &str) -> String {
    format!(
        "[{{ name: ordinary, client: {{ trust: fleet }}, pool: main }}, {{ name: anyone, client: anyone, pool: main }}, \
         {{ name: renewal, client: {{ trust: fleet }}, request: {{ path: /renew/* }}, {accepts} pool: renewal }}]"
    )
}

const THIRTY_DAYS: &str = "accepts: [{ expired_within: 30d }],";

/// A site with an origin for each pool.
struct Lane {
    site: Site,
    main: Origin,
    renewal: Origin,
}

impl Lane {
    fn new() -> Self {
        Self { site: Site::new(), main: Origin::start(), renewal: Origin::start() }
    }

    fn configure(&self, accepts: &str, trust: &str) {
        let pools = format!(
            "{{ main: {{ endpoints: [\"{}\"] }}, renewal: {{ endpoints: [\"{}\"] }} }}",
            self.main.address, self.renewal.address
        );
        let sections = [("pools", &*pools), ("routes", &routes(accepts)), ("trust", trust)];
        self.site.configure(&self.main.address, &sections);
    }

    fn start(&self, accepts: &str, trust: &str) -> Gateway {
        self.configure(accepts, trust);
        self.site.start()
    }
}

const TRUST: &str = "{ fleet: { anchors: ca.crt } }";

fn is(found: f64, wanted: u32) -> bool {
    (found - f64::from(wanted)).abs() < 0.1
}

#[test]
fn an_expired_client_reaches_the_renewal_pool_and_nothing_else() {
    let fleet = Lane::new();
    let site = &fleet.site;
    site.mint("late", "CN=late", -300 * DAY..-10 * DAY);
    site.mint("gone", "CN=gone", -300 * DAY..-40 * DAY);
    let gateway = fleet.start(THIRTY_DAYS, TRUST);
    let mut answered = 0;
    // Over both protocols; and by Pingora, which carries what may be upgraded.
    let upgrade = ["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    for way in [&["--http1.1"][..], &["--http2"], &upgrade] {
        let forged = [
            "-H",
            "Client-Cert-Standing: good",
            "-H",
            "X-Client-Verify: SUCCESS",
            "-H",
            "Client_Cert_Standing: good",
        ];
        let arguments = [way, &forged].concat();
        let reply = site.curl(Some("late"), &arguments, "/renew/x");
        assert_eq!(reply.status, 200, "{way:?}");
        assert_eq!(reply.header("client-cert-standing"), Some("expired"), "{}", reply.body);
        assert_eq!(reply.header("x-client-verify"), Some("FAILED:certificate has expired"));
        assert_eq!(reply.header("x-ssl-client-verify"), Some("FAILED:certificate has expired"));
        assert!(!reply.body.contains("good") && !reply.body.contains("SUCCESS"), "{}", reply.body);
        for path in ["/", "/renewal", "/else/renew/x"] {
            assert_eq!(site.curl(Some("late"), &arguments, path).status, 403, "{way:?} {path}");
        }
        // Nothing is wrong with this one: it goes where it always went, and nobody is told anything else.
        for path in ["/", "/renew/x"] {
            let reply = site.curl(Some("sensor-1"), &arguments, path);
            assert_eq!((reply.status, reply.header("x-client-verify")), (200, Some("SUCCESS")));
            assert_eq!(reply.header("client-cert-standing"), None, "{}", reply.body);
        }
        assert_eq!(site.curl(Some("gone"), way, "/renew/x").status, 0, "for too long");
        answered += 1;
    }
    assert_eq!(fleet.renewal.requests().len(), answered, "only that one");
    assert!(fleet.main.requests().iter().all(|request| !request.contains("CN=late")));
    let requests = |result: &str| {
        gateway.metric(&format!(
            "portcullis_requests_quarantined_total{{fault=\"expired\",result=\"{result}\"}}"
        ))
    };
    assert!(is(requests("forwarded"), 3) && is(requests("refused"), 9));
    assert!(is(gateway.metric("portcullis_refusals_total{reason=\"quarantined\"}"), 9));
    assert!(is(
        gateway.metric("portcullis_tls_handshakes_quarantined_total{fault=\"expired\",listener=\"edge\"}"),
        12
    ));
    gateway.logged(&["\"kind\":\"connection\"", "CN=late", "\"standing\":\"expired\""]);
    gateway.logged(&[
        "\"kind\":\"request\"",
        "CN=late",
        "\"standing\":\"expired\"",
        "\"refusal\":\"quarantined\"",
    ]);
    gateway.logged(&["\"kind\":\"connection\"", "CN=gone", "\"reason\":\"expired\""]);
    assert!(!gateway.log().lines().any(|line| line.contains("sensor-1") && line.contains("\"standing\"")));
}

#[test]
fn explain_and_check_know_the_lane() {
    let fleet = Lane::new();
    let site = &fleet.site;
    site.mint("late", "CN=late", -300 * DAY..-10 * DAY);
    site.mint("gone", "CN=gone", -300 * DAY..-40 * DAY);
    site.pki(&["crl"]);
    let explain = |client: &str, path: &str| {
        let (certificate, url) = (format!("{client}.crt"), format!("https://localhost{path}"));
        let output =
            run(site.path(), BINARY, &["explain", "-c", "gateway.yaml", "--cert", &certificate, "GET", &url]);
        String::from_utf8(output.stdout).unwrap()
    };
    fleet.configure(THIRTY_DAYS, TRUST);
    let renewal = explain("late", "/renew/x");
    for told in [
        "quarantined certificate has expired",
        "route `ordinary` does not match: the client is quarantined: its certificate has expired, which it does not accept",
        "forwarded to pool `renewal` by route `renewal`",
        "client-cert-standing: expired",
    ] {
        assert!(renewal.contains(told), "{told}\n{renewal}");
    }
    let refused = explain("late", "/");
    assert!(refused.contains("=> refused with 403: no route allows it"), "{refused}");
    assert!(explain("gone", "/renew/x").contains("=> refused in the handshake: expired"));
    assert!(!explain("sensor-1", "/renew/x").contains("quarantined"));
    fleet.configure("", TRUST);
    assert!(explain("late", "/renew/x").contains("=> refused in the handshake: expired"));
    let check = || {
        let output = run(site.path(), BINARY, &["check", "-c", "gateway.yaml"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }";
    let doubt = "a revocation list may leave these out";
    for (accepts, trust, is_told) in
        [(THIRTY_DAYS, listed, true), (THIRTY_DAYS, TRUST, false), ("", listed, false)]
    {
        fleet.configure(accepts, trust);
        assert_eq!(check().contains(doubt), is_told, "{accepts} {trust}");
    }
}

#[test]
fn an_expired_client_that_is_also_revoked_is_refused() {
    let fleet = Lane::new();
    let site = &fleet.site;
    site.mint("late", "CN=late", -300 * DAY..-10 * DAY);
    site.mint("stolen", "CN=stolen", -300 * DAY..-10 * DAY);
    site.pki(&["revoke", "stolen.crt"]);
    site.pki(&["crl"]);
    let gateway = fleet.start(THIRTY_DAYS, "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }");
    gateway.logged(&["a revocation list may leave these out"]);
    assert_eq!(site.curl(Some("stolen"), &[], "/renew/x").status, 0);
    gateway.logged(&["CN=stolen", "\"reason\":\"revoked\""]);
    let mut late = OpenConnection::new(site, Some("late"));
    assert_eq!((late.get("/renew/x"), late.get("/")), (200, 403));
    site.pki(&["revoke", "late.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    assert!(late.ends_within(Duration::from_secs(1)), "revoked while it was connected");
    assert_eq!(site.curl(Some("late"), &[], "/renew/x").status, 0);
}

#[test]
fn the_lane_is_closed_unless_configured_and_closes_with_the_configuration() {
    let fleet = Lane::new();
    let site = &fleet.site;
    site.mint("late", "CN=late", -300 * DAY..-10 * DAY);
    let gateway = fleet.start("", TRUST);
    assert_eq!(site.curl(Some("late"), &[], "/renew/x").status, 0);
    fleet.configure(THIRTY_DAYS, TRUST);
    assert_eq!(gateway.reload().0, 200);
    let mut late = OpenConnection::new(site, Some("late"));
    let mut good = OpenConnection::new(site, Some("sensor-1"));
    assert_eq!((late.get("/renew/x"), late.get("/"), good.get("/")), (200, 403, 200));
    fleet.configure("accepts: [{ expired_within: 9d }],", TRUST);
    assert_eq!(gateway.reload().0, 200);
    assert!(late.ends_within(Duration::from_secs(1)));
    assert_eq!(site.curl(Some("late"), &[], "/renew/x").status, 0);
    assert_eq!(good.get("/"), 200);
    assert!(is(gateway.metric("portcullis_connections_ended_total{cause=\"expired\",listener=\"edge\"}"), 1));
}

#[test]
fn a_resumed_session_is_in_the_standing_of_now() {
    let fleet = Lane::new();
    let site = &fleet.site;
    for version in ["1.2", "1.3"] {
        let flag = format!("-tls{}", version.replace('.', "_"));
        let connect =
            |session: &[&str]| site.s_client(&[&[&*flag, "-alpn", "http/1.1"], session].concat(), REQUEST);
        // What the tool tells of the session may stand in the same line.
        let statuses = |output: &str| {
            let answers = output.split("HTTP/1.1 ").skip(1);
            answers.map(|answer| answer[..3].to_owned()).collect::<Vec<_>>()
        };
        let gateway = fleet.start(THIRTY_DAYS, TRUST);
        // Admitted in quarantine, resumed in quarantine.
        site.mint("sensor-1", "CN=late", -300 * DAY..-10 * DAY);
        let (first, second) = (connect(&["-sess_out", version]), connect(&["-sess_in", version]));
        for (output, way) in [(&first, "New, TLS"), (&second, "Reused, TLS")] {
            assert!(output.contains(way), "{output}");
            assert_eq!(statuses(output), ["200", "403"], "{output}");
            assert!(output.contains("client-cert-standing: expired"), "{output}");
        }
        // Admitted in good standing, resumed after it expired.
        site.mint("sensor-1", "CN=brief", -DAY..3);
        let output = connect(&["-sess_out", version]);
        assert_eq!(statuses(&output), ["200", "200"], "{output}");
        let output = eventually("it expires", || {
            Some(connect(&["-sess_in", version])).filter(|output| statuses(output) != ["200", "200"])
        });
        assert_eq!(statuses(&output), ["200", "403"], "{output}");
        assert!(output.contains("Reused, TLS"), "{output}");
        // Nobody accepts it any more.
        fleet.configure("", TRUST);
        assert_eq!(gateway.reload().0, 200);
        assert!(statuses(&connect(&["-sess_in", version])).is_empty());
    }
}

#[test]
fn connections_end_with_the_standing_that_they_were_admitted_in() {
    for on_expiry in ["close", "keep"] {
        let fleet = Lane::new();
        let site = &fleet.site;
        let trust = format!("{{ fleet: {{ anchors: ca.crt, on_expiry: {on_expiry} }} }}");
        let gateway = fleet.start("accepts: [{ expired_within: 6s }],", &trust);
        site.mint("late", "CN=late", -DAY..-1);
        site.mint("brief", "CN=brief", -DAY..2);
        let mut late = OpenConnection::new(site, Some("late"));
        let mut brief = OpenConnection::new(site, Some("brief"));
        assert_eq!((late.get("/renew/x"), late.get("/")), (200, 403));
        assert_eq!((brief.get("/renew/x"), brief.get("/")), (200, 200));
        // Good when it came: `on_expiry` decides.
        assert_eq!(brief.ends_within(Duration::from_secs(4)), on_expiry == "close");
        if on_expiry == "close" {
            let mut again = OpenConnection::new(site, Some("brief"));
            assert_eq!(
                (again.get("/renew/x"), again.get("/")),
                (200, 403),
                "and it may come again for renewal"
            );
        } else {
            assert_eq!(brief.get("/"), 200);
        }
        // In quarantine: until its span is over.
        assert!(late.ends_within(Duration::from_secs(8)));
        assert_eq!(site.curl(Some("late"), &[], "/renew/x").status, 0);
        gateway.logged(&[
            "\"kind\":\"connection_ended\"",
            "CN=late",
            "\"cause\":\"expired\"",
            "\"standing\":\"expired\"",
        ]);
    }
}

/// A list whose nextUpdate was so many seconds ago, or comes.
fn list(site: &Site, seconds: i64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let time = |at: i64| {
        let text = jiff::Timestamp::from_second(now + at).unwrap().to_string();
        text.replace(['-', ':', 'T'], "")
    };
    std::fs::write(site.path().join("index.txt"), "").unwrap();
    std::fs::write(site.path().join("crlnumber"), format!("{:06X}\n", seconds + 100_000)).unwrap();
    std::fs::write(
        site.path().join("ca.cnf"),
        "[ca]\ndefault_ca = it\n[it]\ndatabase = index.txt\ncrlnumber = crlnumber\ndefault_md = sha256\n",
    )
    .unwrap();
    run(
        site.path(),
        "openssl",
        &[
            "ca",
            "-config",
            "ca.cnf",
            "-gencrl",
            "-keyfile",
            "ca.key",
            "-cert",
            "ca.crt",
            "-out",
            "ca.crl.new",
            "-crl_lastupdate",
            &time(seconds - DAY),
            "-crl_nextupdate",
            &time(seconds),
        ],
    );
    std::fs::rename(site.path().join("ca.crl.new"), site.path().join("ca.crl")).unwrap();
}

#[test]
fn clients_of_a_stale_list_wait_in_the_lane_until_there_is_a_new_one() {
    let fleet = Lane::new();
    let site = &fleet.site;
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }";
    list(site, -3600);
    let gateway = fleet.start("accepts: [{ revocation_stale_within: 1d }],", trust);
    let mut waiting = OpenConnection::new(site, Some("sensor-1"));
    assert_eq!((waiting.get("/renew/x"), waiting.get("/")), (200, 403));
    let reply = site.curl(Some("sensor-1"), &[], "/renew/x");
    assert_eq!(reply.header("client-cert-standing"), Some("revocation_stale"));
    assert_eq!(reply.header("x-client-verify"), Some("FAILED:revocation list is stale"));
    // Both at once is too much.
    site.mint("late", "CN=late", -300 * DAY..-10 * DAY);
    assert_eq!(site.curl(Some("late"), &[], "/renew/x").status, 0);
    list(site, 3600);
    assert_eq!(gateway.reload().0, 200);
    assert!(waiting.ends_within(Duration::from_secs(2)), "it may come again for everything");
    gateway.logged(&["\"kind\":\"connection_ended\"", "\"cause\":\"standing_restored\""]);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    // The twin: for too long.
    fleet.configure("accepts: [{ revocation_stale_within: 10m }],", trust);
    let restarted = {
        drop(gateway);
        list(site, -3600);
        site.start()
    };
    assert_eq!(site.curl(Some("sensor-1"), &[], "/renew/x").status, 0);
    restarted.logged(&["\"reason\":\"revocation_unknown\""]);
}
