//! Routes as a whole: deciding, explaining, and the index that must not change what is decided.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::select;

use super::sample::Sample;
use super::*;
use crate::certificate::{AttributeKind, Certificate};
use crate::fields::Fields;
use crate::pattern::{Pattern, PatternKind, PatternSpec};
use crate::trust::{Fault, FaultKind};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(&PatternSpec::Text(text.into())).unwrap()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| pattern(text)).collect()
}

fn kind(key: &str) -> AttributeKind {
    AttributeKind::from_key(key).unwrap()
}

fn subject(key: &str, texts: &[&str]) -> ClientMatch {
    ClientMatch { subject: vec![(kind(key), patterns(texts))], ..ClientMatch::default() }
}

fn route(name: &str, client: ClientMatch, request: RequestRule) -> Route {
    Route {
        accepts: Accepts::default(),
        name: name.into(),
        client: ClientRule::Verified(client),
        request,
        target: Target::Pool(name.into()),
    }
}

fn client_route(client: ClientMatch) -> Route {
    route("r", client, RequestRule::default())
}

fn request_route(request: RequestRule) -> Route {
    Route { client: ClientRule::Anyone, ..route("r", ClientMatch::default(), request) }
}

fn path_rule(texts: &[&str]) -> RequestRule {
    RequestRule { path: patterns(texts), ..RequestRule::default() }
}

struct Asked<'a> {
    host: &'a str,
    path: &'a str,
    method: Method,
    headers: HeaderMap,
}

impl Asked<'_> {
    fn view(&self) -> RequestView<'_> {
        RequestView {
            host: self.host,
            path: self.path,
            method: &self.method,
            headers: Fields::Map(&self.headers),
        }
    }
}

fn asked() -> Asked<'static> {
    Asked { host: "example.com", path: "/", method: Method::GET, headers: HeaderMap::new() }
}

fn pool(table: &RouteTable, identity: Option<&ClientIdentity>, asked: &Asked<'_>) -> Option<String> {
    match table.decide(identity, &asked.view()) {
        Decision::Pool { pool, .. } => Some(pool.to_string()),
        Decision::NotInTable { .. } | Decision::NoRoute | Decision::TwoReadings(_) => None,
    }
}

fn admits(route: Route, sample: &Sample) -> bool {
    pool(&RouteTable::build(vec![route]), Some(&sample.identity("fleet")), &asked()).is_some()
}

fn reasons(route: Route, identity: Option<&ClientIdentity>, asked: &Asked<'_>) -> Vec<String> {
    let table = RouteTable::build(vec![route]);
    match table.explain(identity, &asked.view()).remove(0).outcome {
        RouteOutcome::Missed(reasons) => reasons,
        RouteOutcome::Matched => Vec::new(),
    }
}

#[test]
fn a_path_with_another_reading_is_decided_about_only_if_both_lead_to_one_route() {
    let rule = |text: &str| RequestRule { path: patterns(&[text]), ..RequestRule::default() };
    let admin = || route("admin", subject("CN", &["root"]), rule("/admin/*"));
    let table = RouteTable::build(vec![admin(), route("all", ClientMatch::default(), rule("/*"))]);
    let (root, sensor) =
        (Sample::new().subject("CN", "root").identity("fleet"), Sample::new().identity("fleet"));
    let ask = |identity, path| pool(&table, Some(identity), &Asked { path, ..asked() });
    assert_eq!(ask(&root, "/admin/a//b").as_deref(), Some("admin"));
    assert_eq!(ask(&root, "//admin/a"), None);
    assert_eq!(ask(&root, "/admin;a/b"), None);
    assert_eq!(ask(&root, "//readings").as_deref(), Some("all"));
    // For whom both are the same, both may be.
    assert_eq!(ask(&sensor, "//admin/a").as_deref(), Some("all"));
    // Where only the other reading leads anywhere, nobody gets there.
    let table = RouteTable::build(vec![admin()]);
    let decided = table.decide(Some(&root), &Asked { path: "//admin/a", ..asked() }.view());
    assert!(matches!(decided, Decision::TwoReadings(other) if other == "/admin/a"));
}

#[test]
fn the_first_route_that_matches_wins_and_no_match_is_none() {
    let named = |name: &str, cn: &str| route(name, subject("CN", &[cn]), RequestRule::default());
    let table = RouteTable::build(vec![
        named("exact", "sensor-1"),
        named("glob", "sensor-*"),
        named("late", "sensor-1"),
        named("later", "sensor-2"),
    ]);
    let sensor = |cn| Sample::new().subject("CN", cn).identity("fleet");
    assert_eq!(pool(&table, Some(&sensor("sensor-1")), &asked()).as_deref(), Some("exact"));
    assert_eq!(pool(&table, Some(&sensor("sensor-2")), &asked()).as_deref(), Some("glob"));
    assert_eq!(pool(&table, Some(&sensor("gateway")), &asked()), None);
    assert_eq!(pool(&table, None, &asked()), None);
    assert!(matches!(RouteTable::build(Vec::new()).decide(None, &asked().view()), Decision::NoRoute));
}

#[test]
fn a_rule_on_the_common_name_needs_exactly_one() {
    let two = Sample::new().subject_all("CN", &["a", "b"]);
    assert!(!admits(client_route(subject("CN", &["a"])), &two));
    assert!(!admits(client_route(subject("CN", &["*"])), &two));
    assert!(!admits(client_route(subject("CN", &["*"])), &Sample::new().subject("OU", "a")));
    assert!(admits(client_route(subject("CN", &["a"])), &Sample::new().subject("CN", "a")));
    assert!(admits(client_route(subject("OU", &["a"])), &Sample::new().subject_all("OU", &["b", "a"])));
    assert!(admits(client_route(ClientMatch::default()), &two));
}

#[test]
fn attributes_are_compared_parsed_and_not_as_text() {
    let forged = Sample::new().subject("O", "x,CN=admin").subject("CN", "guest");
    assert!(!admits(client_route(subject("CN", &["admin"])), &forged));
    assert!(!admits(client_route(subject("OU", &["guest"])), &forged));
}

#[test]
fn a_name_counts_only_inside_the_domain_that_issued_it() {
    let client = ClientMatch { trust: vec!["staff".into()], ..subject("CN", &["admin"]) };
    let table = RouteTable::build(vec![client_route(client)]);
    let admin = Sample::new().subject("CN", "admin");
    assert!(pool(&table, Some(&admin.identity("staff")), &asked()).is_some());
    assert_eq!(pool(&table, Some(&admin.identity("fleet")), &asked()), None);
}

#[test]
fn routes_for_strangers_are_for_clients_without_identity_only() {
    let anonymous = || Route { client: ClientRule::Anonymous, ..client_route(ClientMatch::default()) };
    let known = Sample::new().subject("CN", "a");
    assert!(pool(&RouteTable::build(vec![anonymous()]), None, &asked()).is_some());
    assert!(!admits(anonymous(), &known));
    assert!(admits(request_route(RequestRule::default()), &known));
    assert!(pool(&RouteTable::build(vec![request_route(RequestRule::default())]), None, &asked()).is_some());
}

#[test]
fn alternative_names_are_matched_by_type_and_wildcards_in_them_are_literal() {
    let san = |san: SanMatch| client_route(ClientMatch { san, ..ClientMatch::default() });
    let dns = |text: &str| san(SanMatch { dns: patterns(&[text]), ..SanMatch::default() });
    assert!(admits(dns("api.example.com"), &Sample::new().dns("API.example.com")));
    assert!(admits(dns("API.example.com"), &Sample::new().dns("api.example.com")));
    assert!(!admits(dns("api.example.com"), &Sample::new().dns("*.example.com")));
    assert!(!admits(dns("api.example.com"), &Sample::new().uri("api.example.com")));
    assert!(!admits(dns("api.example.com"), &Sample::new().subject("CN", "api.example.com")));
    let email = |text: &str| san(SanMatch { email: patterns(&[text]), ..SanMatch::default() });
    assert!(admits(email("*@example.com"), &Sample::new().email("a@other.org").email("a@example.com")));
    assert!(!admits(email("*@example.com"), &Sample::new().email("a@example.com.evil.org")));
    let uri = |text: &str| san(SanMatch { uri: patterns(&[text]), ..SanMatch::default() });
    assert!(admits(uri("spiffe://example.com/ci/*"), &Sample::new().uri("spiffe://example.com/ci/build")));
    assert!(!admits(uri("spiffe://example.com/ci/*"), &Sample::new().uri("spiffe://example.com/cia")));
    let ip = || san(SanMatch { ip: vec![IpAddr::from([192, 0, 2, 1])], ..SanMatch::default() });
    assert!(admits(ip(), &Sample::new().ip([192, 0, 2, 1])));
    assert!(!admits(ip(), &Sample::new().ip([192, 0, 2, 2])));
}

#[test]
fn digests_and_serials_name_one_certificate() {
    let sample = Sample::new().subject("CN", "a").serial(0x2a);
    let (certificate, other) = (sample.certificate(), Sample::new().subject("CN", "b").certificate());
    let by = |fingerprint: &Certificate| {
        client_route(ClientMatch { fingerprint: vec![*fingerprint.fingerprint()], ..ClientMatch::default() })
    };
    assert!(admits(by(&certificate), &sample) && !admits(by(&other), &sample));
    let key = vec![*other.key_fingerprint()];
    assert!(admits(client_route(ClientMatch { key_fingerprint: key, ..ClientMatch::default() }), &sample));
    let serial = |issuer: &str, serial: &str| {
        let serial = vec![SerialMatch { issuer: issuer.into(), serial: serial.parse().unwrap() }];
        client_route(ClientMatch { serial, ..ClientMatch::default() })
    };
    assert!(admits(serial("CN=Root", "2a"), &sample));
    assert!(!admits(serial("CN=Root", "2b"), &sample));
    for issuer in ["CN=Roo", "CN=Root2", "", "CN=Other"] {
        assert!(!admits(serial(issuer, "2a"), &sample), "{issuer}");
    }
    assert!(!admits(serial("CN=Root", "2a"), &sample.issuer("CN", "Other")));
}

#[test]
fn the_issuer_can_be_asked_for() {
    let issuer = |text: &str| {
        let issuer = vec![(kind("CN"), patterns(&[text]))];
        client_route(ClientMatch { issuer, ..ClientMatch::default() })
    };
    assert!(admits(issuer("Root"), &Sample::new()) && !admits(issuer("Roof"), &Sample::new()));
}

#[test]
fn hosts_paths_and_methods_must_all_match() {
    let rule = RequestRule {
        host: patterns(&["*.Example.com"]),
        path: patterns(&["/readings/*"]),
        method: vec![Method::GET, Method::POST],
        ..RequestRule::default()
    };
    let table = RouteTable::build(vec![request_route(rule)]);
    let hit = |host, path, method| pool(&table, None, &Asked { host, path, method, ..asked() }).is_some();
    assert!(hit("api.example.com", "/readings", Method::GET));
    assert!(hit("api.example.com", "/readings/1", Method::POST));
    assert!(!hit("example.com", "/readings/1", Method::GET));
    assert!(!hit("api.example.com", "/readings2", Method::GET));
    assert!(!hit("api.example.com", "/readings/1", Method::HEAD));
}

#[test]
fn a_header_that_is_sent_twice_must_match_both_times() {
    let name = HeaderName::from_static("x-stage");
    let rule = |texts: &[&str]| RequestRule {
        header: texts.iter().map(|text| (name.clone(), pattern(text))).collect(),
        ..RequestRule::default()
    };
    let hit = |texts: &[&str], values: &[&'static str]| {
        let mut sent = asked();
        for value in values {
            sent.headers.append(&name, HeaderValue::from_static(value));
        }
        pool(&RouteTable::build(vec![request_route(rule(texts))]), None, &sent).is_some()
    };
    assert!(hit(&["test"], &["test"]) && hit(&["test", "live"], &["live"]));
    assert!(hit(&["test", "live"], &["live", "test"]));
    assert!(!hit(&["test"], &[]) && !hit(&["test"], &["live"]) && !hit(&["test"], &["test", "live"]));
}

#[test]
fn a_table_names_the_pool_of_each_client() {
    let table = IdentityTable::parse(&b"sensor-1,p\nsensor-2,q\n"[..], &["p".into(), "q".into()]).unwrap();
    let table = Arc::new(table);
    let by_table = |fallback: Option<&str>| {
        let key = IdentityKey::SubjectAttribute(AttributeKind::CommonName);
        let target = Target::Table { key, table: table.clone(), fallback: fallback.map(Arc::from) };
        RouteTable::build(vec![Route { target, ..client_route(ClientMatch::default()) }])
    };
    let sensor = |cn| Sample::new().subject("CN", cn).identity("fleet");
    assert_eq!(pool(&by_table(None), Some(&sensor("sensor-2")), &asked()).as_deref(), Some("q"));
    assert_eq!(pool(&by_table(Some("f")), Some(&sensor("sensor-3")), &asked()).as_deref(), Some("f"));
    let table = by_table(None);
    let refused = sensor("sensor-3");
    let decision = table.decide(Some(&refused), &asked().view());
    assert!(matches!(decision, Decision::NotInTable { route_index: 0, .. }));
}

#[test]
fn all_misses_are_told_in_words() {
    let client = ClientMatch { trust: vec!["staff".into()], ..subject("OU", &["sensors"]) };
    let rule = RequestRule {
        method: vec![Method::GET, Method::POST],
        header: vec![(HeaderName::from_static("x-stage"), pattern("test"))],
        ..path_rule(&["/readings/*", "/status"])
    };
    let gateway = Sample::new().subject("OU", "gateways").identity("fleet");
    let sent = Asked { path: "/other", method: Method::PUT, ..asked() };
    assert_eq!(
        reasons(route("r", client, rule), Some(&gateway), &sent),
        [
            "trust domain is `fleet`, wanted `staff`",
            "subject OU is `gateways`, wanted `sensors`",
            "path is `/other`, wanted `/readings/*` or `/status`",
            "method is PUT, wanted GET or POST",
            "header x-stage is missing, wanted `test`",
        ]
    );
}

#[test]
fn misses_of_names_say_what_the_certificate_has() {
    let told = |client: ClientMatch, sample: &Sample| {
        reasons(client_route(client), Some(&sample.identity("fleet")), &asked()).join("; ")
    };
    let two = Sample::new().subject_all("CN", &["a", "b"]).dns("a.example").ip([192, 0, 2, 1]);
    assert_eq!(told(subject("CN", &["a"]), &two), "subject CN is `a` and `b` at once, wanted exactly one");
    assert_eq!(told(subject("O", &["x"]), &two), "subject O is missing, wanted `x`");
    let san = SanMatch {
        dns: vec![Pattern::parse(&PatternSpec::Kind(PatternKind::Suffix(".org".into()))).unwrap()],
        uri: patterns(&["spiffe://a"]),
        ip: vec![IpAddr::from([10, 0, 0, 1])],
        ..SanMatch::default()
    };
    assert_eq!(
        told(ClientMatch { san, ..ClientMatch::default() }, &two),
        "SAN dns is `a.example`, wanted `suffix: .org`; SAN uri is missing, wanted `spiffe://a`; \
         SAN ip is `192.0.2.1`, wanted `10.0.0.1`"
    );
    let serial = vec![SerialMatch { issuer: "CN=A".into(), serial: "01".parse().unwrap() }];
    assert_eq!(
        told(ClientMatch { serial, ..ClientMatch::default() }, &two),
        "serial is `1F` of `CN=Root`, wanted `01` of `CN=A`"
    );
    assert_eq!(
        reasons(client_route(subject("O", &["x"])), None, &asked()),
        ["the client has no certificate"]
    );
}

#[test]
fn explaining_ends_with_the_route_that_decides() {
    let named = |name: &str, cn: &str| route(name, subject("CN", &[cn]), RequestRule::default());
    let table = RouteTable::build(vec![named("a", "x"), named("b", "y"), named("c", "y")]);
    let identity = Sample::new().subject("CN", "y").identity("fleet");
    let traces = table.explain(Some(&identity), &asked().view());
    assert_eq!(traces.iter().map(|trace| &*trace.route).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(traces[1].outcome, RouteOutcome::Matched);
}

/// Ten thousand routes that differ in one exact value leave no more than one to check.
#[test]
fn ten_thousand_routes_leave_few_to_check() {
    let number = |n: usize| format!("n{n}.example");
    let by = |rule: &dyn Fn(&str) -> (ClientMatch, RequestRule)| {
        let routes = (0..10_000).map(|n| {
            let (mut client, request) = rule(&number(n));
            // Shared by all, and no help.
            client.trust = vec!["fleet".into()];
            route(&number(n), client, request)
        });
        RouteTable::build(routes.collect())
    };
    let value = number(7777);
    let path = format!("/{value}/x");
    let identity = Sample::new().subject("CN", &value).subject_all("OU", &["x", &value]);
    let identity = identity.dns(&value).uri(&format!("spiffe://{value}/ci/x")).identity("fleet");
    let host = format!("api.{value}");
    let sent = Asked { host: &host, path: &path, ..asked() };
    let san = |san| ClientMatch { san, ..ClientMatch::default() };
    let tables = [
        by(&|value| (subject("CN", &[value]), RequestRule::default())),
        by(&|value| (subject("OU", &[value, "y"]), path_rule(&["/*"]))),
        by(&|value| {
            (san(SanMatch { dns: patterns(&[value]), ..SanMatch::default() }), RequestRule::default())
        }),
        by(&|value| {
            let uri = patterns(&[&format!("spiffe://{value}/ci/*")]);
            (san(SanMatch { uri, ..SanMatch::default() }), RequestRule::default())
        }),
        by(&|value| (ClientMatch::default(), path_rule(&[&format!("/{value}/*"), "/status"]))),
        by(&|value| {
            let host = patterns(&[&format!("*.{value}")]);
            (ClientMatch::default(), RequestRule { host, ..RequestRule::default() })
        }),
    ];
    for (number, table) in tables.iter().enumerate() {
        assert_eq!(pool(table, Some(&identity), &sent).as_deref(), Some(&*value), "{number}");
        assert_eq!(table.index.candidates(Some(&identity), &sent.view()).count(), 1, "{number}");
    }
}

fn any_patterns(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<Pattern>> {
    let one = (select(texts), 0..8u8).prop_map(|(text, form)| {
        let plain = text.replace('*', "");
        let spec = match form {
            0 => PatternSpec::Kind(PatternKind::Prefix(plain)),
            1 => PatternSpec::Kind(PatternKind::Suffix(plain)),
            2 => PatternSpec::Kind(PatternKind::Regex(text.replace('*', "[ab]*"))),
            _ => PatternSpec::Text(text.into()),
        };
        Pattern::parse(&spec).unwrap_or_else(|_| pattern(text))
    });
    prop_oneof![4 => Just(Vec::new()), 3 => proptest::collection::vec(one, 1..3)]
}

fn any_client() -> impl Strategy<Value = ClientRule> {
    const NAMES: &[&str] = &["a", "b", "A", "*", "a*", "*a", "a*b"];
    const URIS: &[&str] = &["s://a/b", "s://a/*", "s://*", "s://a/b*", "*/b"];
    let some = |list: &'static [&'static str]| proptest::collection::vec(select(list), 0..2);
    let attributes = || (any_patterns(NAMES), any_patterns(NAMES), any_patterns(NAMES));
    let sans = (any_patterns(NAMES), any_patterns(NAMES), any_patterns(URIS));
    let verified = (some(&["fleet", "staff"]), attributes(), sans, some(&["1", "2"]), any::<bool>())
        .prop_map(|(trust, (cn, ou, issuer), (dns, email, uri), serial, by_key)| {
            let mut client = ClientMatch {
                trust: trust.into_iter().map(Arc::from).collect(),
                san: SanMatch { dns, email, uri, ip: Vec::new() },
                serial: serial
                    .into_iter()
                    .map(|serial| SerialMatch { issuer: "CN=a".into(), serial: serial.parse().unwrap() })
                    .collect(),
                ..ClientMatch::default()
            };
            client.subject = vec![(kind("CN"), cn), (kind("OU"), ou)];
            client.subject.retain(|(_, patterns)| !patterns.is_empty());
            client.issuer = if issuer.is_empty() { Vec::new() } else { vec![(kind("CN"), issuer)] };
            if by_key {
                // The key of every sample is the same.
                client.key_fingerprint = vec![*Sample::new().certificate().key_fingerprint()];
            }
            ClientRule::Verified(client)
        });
    prop_oneof![1 => Just(ClientRule::Anonymous), 2 => Just(ClientRule::Anyone), 8 => verified]
}

const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/a/b/a", "/b", "*"];
const HOSTS: &[&str] = &["a", "b.a", "a.b.a", "a.a"];

fn any_request_rule() -> impl Strategy<Value = RequestRule> {
    const HOST_PATTERNS: &[&str] = &["a", "B.a", "*.a", "*b.a", "*", "a.*.a"];
    const PATH_PATTERNS: &[&str] = &["/", "/a", "/*", "/a/*", "/a*", "/a/b*", "*/b", "/a/*/a", "*"];
    let methods = proptest::collection::vec(select(vec![Method::GET, Method::PUT]), 0..2);
    (any_patterns(HOST_PATTERNS), any_patterns(PATH_PATTERNS), methods)
        .prop_map(|(host, path, method)| RequestRule { host, path, method, header: Vec::new() })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    const NAMES: &[&str] = &["a", "b", "ab", "A", "*"];
    let names = |most: usize| proptest::collection::vec(select(NAMES), 0..=most);
    let uris = proptest::collection::vec(select(vec!["s://a", "s://a/b", "s://a/b/c", "s://b"]), 0..3);
    (names(2), names(3), names(3), names(2), uris, 1..3u8, select(NAMES)).prop_map(
        |(cn, ou, dns, email, uri, serial, issuer)| {
            let sample = Sample::new().serial(serial).issuer("CN", issuer);
            let sample = sample.subject_all("CN", &cn).subject_all("OU", &ou);
            let sample = dns.iter().fold(sample, |sample, name| sample.dns(name));
            let sample = email.iter().fold(sample, |sample, name| sample.email(name));
            uri.iter().fold(sample, |sample, name| sample.uri(name))
        },
    )
}

fn any_span() -> impl Strategy<Value = Duration> {
    (1..4_u64).prop_map(Duration::from_secs)
}

fn any_fault() -> impl Strategy<Value = Fault> {
    (select(FaultKind::ALL.to_vec()), any_span()).prop_map(|(kind, within)| Fault { kind, within })
}

fn any_accepts() -> impl Strategy<Value = Accepts> {
    let span = || proptest::option::weighted(0.3, any_span());
    (span(), span()).prop_map(|(expired_within, revocation_stale_within)| Accepts {
        expired_within,
        revocation_stale_within,
    })
}

#[test]
fn a_client_with_a_fault_matches_no_route_that_does_not_accept_it_whatever_the_order() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let accepting =
        |accepts| Route { accepts, ..route("renewal", ClientMatch::default(), RequestRule::default()) };
    let expired = |days: Duration| Fault { kind: FaultKind::Expired, within: days };
    let renewal = || accepting(Accepts { expired_within: Some(days(30)), ..Accepts::default() });
    let ordinary = || route("ordinary", ClientMatch::default(), RequestRule::default());
    let anyone = || Route { name: "anyone".into(), ..request_route(RequestRule::default()) };
    let of = |routes: Vec<Route>, identity: &ClientIdentity| {
        let table = RouteTable::build(routes);
        let sent = asked();
        let decided = match table.decide(Some(identity), &sent.view()) {
            Decision::Pool { route, .. } => Some(route.name.to_string()),
            _ => None,
        };
        let told =
            table.explain(Some(identity), &sent.view()).into_iter().find_map(|trace| match trace.outcome {
                RouteOutcome::Missed(reasons) => Some(reasons.join("; ")),
                RouteOutcome::Matched => None,
            });
        (decided, told.unwrap_or_default())
    };
    let client = || Sample::new().subject("CN", "a").identity("fleet");
    let late = client().quarantined(expired(days(30)));
    for routes in [vec![ordinary(), anyone(), renewal()], vec![renewal(), anyone(), ordinary()]] {
        assert_eq!(of(routes, &late).0.as_deref(), Some("renewal"));
    }
    let (decided, told) = of(vec![ordinary(), anyone()], &late);
    assert_eq!(decided, None);
    assert_eq!(told, "the client is quarantined: its certificate has expired, which it does not accept");
    // For longer than the route accepts, and with another fault.
    let later = client().quarantined(expired(days(60)));
    let (decided, told) = of(vec![renewal()], &later);
    assert_eq!((decided, told.contains("for longer than it accepts")), (None, true), "{told}");
    let stale = client().quarantined(Fault { kind: FaultKind::RevocationStale, within: days(1) });
    assert_eq!(of(vec![renewal()], &stale).0, None);
    // The twin: nothing is wrong, and every route is open.
    assert_eq!(of(vec![ordinary()], &client()).0.as_deref(), Some("ordinary"));
    assert_eq!(of(vec![renewal()], &client()).0.as_deref(), Some("renewal"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_index_decides_as_a_scan_of_all_routes_would(
        rules in proptest::collection::vec((any_client(), any_request_rule(), any_accepts()), 0..20),
        sample in proptest::option::of(any_sample()),
        fault in proptest::option::weighted(0.3, any_fault()),
        domain in select(vec!["fleet", "staff"]),
        (host, path, method) in (select(HOSTS), select(PATHS), select(vec![Method::GET, Method::PUT])),
    ) {
        let routes = rules.into_iter().enumerate().map(|(number, (client, request, accepts))| {
            Route { accepts, client, ..route(&number.to_string(), ClientMatch::default(), request) }
        });
        let table = RouteTable::build(routes.collect());
        let identity = sample.map(|sample| sample.identity(domain));
        let identity = match fault {
            Some(fault) => identity.map(|identity| identity.quarantined(fault)),
            None => identity,
        };
        let sent = Asked { host, path, method, ..asked() };
        let naive = table.routes().iter().position(|route| route.matches(identity.as_ref(), &sent.view()));
        let decided = match table.decide(identity.as_ref(), &sent.view()) {
            Decision::Pool { route_index, .. } => Some(route_index),
            _ => None,
        };
        prop_assert_eq!(decided, naive);
        if let (Some(index), Some(fault), true) = (decided, fault, identity.is_some()) {
            prop_assert!(table.routes()[index].accepts.span(fault.kind) >= Some(fault.within));
        }
        let traces = table.explain(identity.as_ref(), &sent.view());
        let explained = traces.iter().position(|trace| trace.outcome == RouteOutcome::Matched);
        prop_assert_eq!(explained, naive);
    }
}
