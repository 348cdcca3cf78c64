//! How much a client may do: rates, quotas and what is under way, for both versions of HTTP and both ways of a request.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{BINARY, Gateway, Origin, Scripted, Site, Wire, eventually, run};

const GET: &str = "GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// One that Pingora carries.
const CHUNKED: &str =
    "POST /b HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn status(client: &mut Wire, request: &str) -> u16 {
    client.send(request);
    client.answer().map_or(0, |answer| answer.status)
}

#[test]
fn a_client_over_its_rate_is_told_when_to_come_back_and_is_served_then_and_others_are_meanwhile() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[("limits", "[{ name: device, requests: 1/4s }]")]);
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    assert_eq!(status(&mut client, GET), 200);
    client.send(GET);
    let refused = client.answer().unwrap();
    let at = Instant::now();
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.field("connection"), None);
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&wait), "{refused:?}");
    assert_eq!(refused.field("ratelimit-policy"), Some("\"device\";q=1;w=4"));
    assert_eq!(refused.field("ratelimit"), Some(&*format!("\"device\";r=0;t={wait}")));
    assert!(!refused.text().contains("device") && !refused.text().contains("limit"), "{refused:?}");
    assert_eq!(status(&mut site.wire("sensor-2"), GET), 200, "each client has a count of its own");
    let line = gateway.logged(&["\"status\":429", "\"limit\":\"device\"", "CN=sensor-1"]);
    assert!(line.contains("\"refusal\":\"limited\"") && line.contains("\"route\":\"sensors\""), "{line}");
    thread::sleep(Duration::from_secs(wait).saturating_sub(at.elapsed()));
    assert_eq!(status(&mut client, GET), 200, "on the same connection, as soon as it was told");
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(gateway.metric("portcullis_refusals_total{reason=\"limited\"}") as u64, 1);
    let exceeded = |outcome| {
        format!(
            "portcullis_limit_exceeded_total{{limit=\"device\",measure=\"requests\",outcome=\"{outcome}\"}}"
        )
    };
    assert_eq!(gateway.metric(&exceeded("refused")) as u64, 1);
    assert_eq!(gateway.metric(&exceeded("shadowed")) as u64, 0);
    assert!(gateway.metric("portcullis_limit_keys{limit=\"device\",measure=\"requests\"}") >= 1.0);
    let status: serde_json::Value = serde_json::from_str(&gateway.admin_get("/status").1).unwrap();
    let limit = &status["limits"][0];
    assert_eq!(
        (&limit["allows"], &limit["refused"]),
        (&"1/4s requests, 1 at once".into(), &1.into()),
        "{limit}"
    );
}

#[test]
fn both_ways_of_a_request_and_both_versions_of_http_count_as_one() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("limits", "[{ name: device, requests: 1/h, burst: 3 }]")]);
    let gateway = site.start();
    // An origin of the tests does not read chunks: its next request would be garbage.
    let scripted = Scripted::saying(EMPTY);
    site.configure(&scripted.address, &[("limits", "[{ name: device, requests: 1/h, burst: 3 }]")]);
    assert_eq!(gateway.reload().0, 200);
    let mut client = site.wire("sensor-1");
    assert_eq!(status(&mut client, GET), 200);
    assert_eq!(status(&mut client, CHUNKED), 200);
    let url = format!("https://localhost:{}/c", site.port);
    let statuses = site.over_h2("sensor-1", async |mut send| {
        let mut all = Vec::new();
        for method in ["GET", "GET", "HEAD", "GET"] {
            let request = http::Request::builder().method(method).uri(&url).body(()).unwrap();
            send = send.ready().await.unwrap();
            let answer = send.send_request(request, true).unwrap().0.await.unwrap();
            let field = |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            all.push((answer.status().as_u16(), field("retry-after").is_some(), field("ratelimit-policy")));
        }
        all
    });
    let policy = Some("\"device\";q=3;w=10800".to_owned());
    let refused = (429, true, policy);
    assert_eq!(statuses, [(200, false, None), refused.clone(), refused.clone(), refused]);
    for _ in 0..3 {
        assert_eq!(status(&mut client, GET), 429);
    }
    // What a body in chunks comes to nobody knows: it is not read, and the connection ends.
    let large = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n{}",
        "x".repeat(900_000)
    );
    for request in [CHUNKED, &large] {
        let mut other = site.wire("sensor-1");
        other.send(request);
        let refused = other.answer().unwrap();
        assert_eq!((refused.status, refused.field("connection")), (429, Some("close")), "{refused:?}");
        assert!(refused.field("retry-after").is_some(), "{refused:?}");
    }
    client.send("HEAD /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let last = client.answer_to("HEAD").unwrap();
    assert_eq!((last.status, last.field("connection")), (429, Some("close")));
    assert_eq!(client.rest(), "");
    assert_eq!(scripted.requests().len(), 3);
}

#[test]
fn counts_go_on_after_a_reload_and_begin_anew_where_the_limit_is_another() {
    let (site, origin) = (Site::new(), Origin::start());
    let configure = |limit: &str| site.configure(&origin.address, &[("limits", limit)]);
    configure("[{ name: device, requests: 2/h }, { name: day, quota: 10/d }]");
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    let mut ask = |times: usize| (0..times).map(|_| status(&mut client, GET)).collect::<Vec<_>>();
    assert_eq!(ask(3), [200, 200, 429]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(ask(1), [429], "the same limit");
    configure(
        "[{ name: other, requests: 1000/s }, { name: device, requests: 2/h }, { name: day, quota: 10/d }]",
    );
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(ask(1), [429], "in another place");
    configure("[{ name: device, requests: 3/h }, { name: day, quota: 4/d }]");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(ask(3), [200, 200, 429], "of the quota two were used, and two are left");
    assert!(gateway.logged(&["\"limit\":\"day\""]).contains("\"status\":429"));
    configure("[]");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(ask(3), [200, 200, 200], "without a limit");
}

#[test]
fn a_shadow_lets_everything_through_and_counts_what_it_would_refuse() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(
        &origin.address,
        &[("limits", "[{ name: trial, requests: 2/h, mode: shadow, tell: always }]")],
    );
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    for _ in 0..5 {
        client.send(GET);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.field("ratelimit")), (200, None));
    }
    let exceeded = |outcome| {
        format!(
            "portcullis_limit_exceeded_total{{limit=\"trial\",measure=\"requests\",outcome=\"{outcome}\"}}"
        )
    };
    assert_eq!(gateway.metric(&exceeded("shadowed")) as u64, 3);
    assert_eq!(gateway.metric(&exceeded("refused")) as u64, 0);
    assert_eq!(gateway.metric("portcullis_refusals_total{reason=\"limited\"}") as u64, 0);
    let line = gateway.logged(&["\"shadow_limit\":\"trial\""]);
    assert!(line.contains("\"status\":200") && !line.contains("\"limit\":"), "{line}");
}

#[test]
fn clients_of_one_unit_share_a_count_and_routes_that_are_not_named_have_none() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.client("meter-1", "CN=meter-1,OU=meters");
    let routes = "[{ name: free, request: { path: /free }, pool: main }, { name: all, pool: main }]";
    let limits = "[{ name: unit, per: subject.OU, routes: all, requests: 2/h }]";
    site.configure(&origin.address, &[("routes", routes), ("limits", limits)]);
    let _gateway = site.start();
    let ask = |client: &str, path: &str| site.curl(Some(client), &[], path).status;
    assert_eq!([ask("sensor-1", "/"), ask("sensor-2", "/"), ask("sensor-1", "/")], [200, 200, 429]);
    assert_eq!([ask("sensor-1", "/free"), ask("sensor-2", "/free")], [200, 200]);
    assert_eq!([ask("meter-1", "/"), ask("meter-1", "/"), ask("meter-1", "/")], [200, 200, 429]);
}

#[test]
fn requests_under_way_are_bounded_until_they_end_however_they_end() {
    let (site, (say, go)) = (Site::new(), channel::<()>());
    let go = std::sync::Mutex::new(go);
    let origin = Scripted::start(move |mut call| {
        while call.request().is_some() {
            // Until the test says so.
            let _ = go.lock().unwrap().recv();
            call.say(EMPTY);
        }
    });
    site.configure(&origin.address, &[("limits", "[{ name: busy, concurrent: 1 }]")]);
    let gateway = site.start();
    let is_busy = |wanted: u64| {
        eventually("the request is under way, or over", || {
            let keys = gateway.metric("portcullis_limit_keys{limit=\"busy\",measure=\"concurrent\"}");
            (keys as u64 == wanted).then_some(())
        });
    };
    let (mut one, mut two) = (site.wire("sensor-1"), site.wire("sensor-1"));
    one.send(GET);
    is_busy(1);
    two.send(GET);
    let refused = two.answer().unwrap();
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")));
    assert_eq!(refused.field("ratelimit-policy"), Some("\"busy-concurrent\";q=1;qu=\"concurrent-requests\""));
    assert_eq!(refused.field("ratelimit"), Some("\"busy-concurrent\";r=0"));
    say.send(()).unwrap();
    assert_eq!(one.answer().map(|answer| answer.status), Some(200));
    is_busy(0);
    // One whose client goes away gives its place back too, on either way.
    for request in [GET, CHUNKED] {
        two.send(request);
        is_busy(1);
        drop(std::mem::replace(&mut two, site.wire("sensor-1")));
        is_busy(0);
        say.send(()).unwrap();
    }
    say.send(()).unwrap();
    assert_eq!(status(&mut one, GET), 200);
}

#[test]
fn bytes_of_both_directions_are_charged_and_who_is_in_debt_waits() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[("limits", "[{ name: volume, bytes: 10kB/h }]")]);
    let _gateway = site.start();
    let body = "x".repeat(20_000);
    let upload = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n{body}");
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4e20\r\n{body}\r\n0\r\n\r\n"
    );
    for (client, upload) in [("sensor-1", upload), ("sensor-2", chunked)] {
        let mut client = site.wire(client);
        assert_eq!(status(&mut client, &upload), 200);
        client.send(GET);
        let refused = client.answer().unwrap();
        // 20,000 bytes are two hours, and one of them was there.
        let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        assert!(refused.status == 429 && (3_500..=3_700).contains(&wait), "{refused:?}");
        assert_eq!(
            refused.field("ratelimit-policy"),
            Some("\"volume-bytes\";q=10000;qu=\"content-bytes\";w=3600")
        );
    }
    let download = Origin::answering(|_| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 15000\r\n\r\n{}", "y".repeat(15_000)).into_bytes()
    });
    let site = Site::new();
    site.configure(&download.address, &[("limits", "[{ name: volume, bytes: 10kB/h }]")]);
    let _gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &["--http2"], "/").body.len(), 15_000);
    assert_eq!(site.curl(Some("sensor-1"), &["--http1.1"], "/").status, 429);
}

#[test]
fn answers_say_what_is_left_where_that_is_asked_for_and_keep_what_the_origin_says() {
    let (site, origin) = (
        Site::new(),
        Scripted::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRateLimit: \"origin\";r=7\r\n\r\n"),
    );
    let limits = "[{ name: device, requests: 5/h, tell: always }, { name: day, quota: 100/d, tell: always }, \
                  { name: quiet, requests: 9/h }]";
    site.configure(&origin.address, &[("limits", limits)]);
    let _gateway = site.start();
    let mut client = site.wire("sensor-1");
    for (request, left) in [(GET, 4), (CHUNKED, 3)] {
        client.send(request);
        let answer = client.answer().unwrap();
        let fields = |wanted: &str| -> Vec<String> {
            let named = answer.head.lines().filter_map(|line| line.split_once(':'));
            named
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, v)| v.trim().to_owned())
                .collect()
        };
        assert_eq!(fields("ratelimit-policy"), ["\"device\";q=5;w=3600, \"day-quota\";q=100;w=86400"]);
        let ours = fields("ratelimit");
        assert_eq!((ours.len(), &*ours[0]), (2, "\"origin\";r=7"), "{ours:?}");
        assert!(ours[1].starts_with(&format!("\"device\";r={left};t=")), "{ours:?}");
        assert!(ours[1].contains(&format!(", \"day-quota\";r={};t=86", 95 + left)), "{ours:?}");
    }
    let url = format!("https://localhost:{}/", site.port);
    let told = site.over_h2("sensor-1", async |send| {
        let request = http::Request::get(&url).body(()).unwrap();
        let answer = send.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
        answer
            .headers()
            .get_all("ratelimit")
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    });
    assert!(told.len() == 2 && told[1].starts_with("\"device\";r=2;t="), "{told:?}");
}

#[test]
fn explain_tells_which_limits_a_request_counts_for() {
    let site = Site::new();
    let limits = "[{ name: device, client: { subject: { OU: sensors } }, requests: 5/m, concurrent: 2 }, \
                  { name: others, client: { subject: { OU: meters } }, requests: 1/h }, \
                  { name: unit, per: [subject.OU, route], quota: 9/d, mode: shadow }]";
    site.configure("127.0.0.1:1", &[("limits", limits)]);
    let arguments = ["explain", "-c", "gateway.yaml", "--cert", "sensor-1.crt", "GET", "https://localhost/"];
    let text = String::from_utf8(run(site.path(), BINARY, &arguments).stdout).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("limit ")).collect();
    let expected = [
        "limit `device` per client: 5/m requests, 5 at once",
        "limit `device` per client: 2 requests at a time",
        "limit `unit` per subject.OU and route: 9 requests in 86400 seconds (only counted)",
    ];
    assert_eq!(lines, expected, "{text}");
}

fn failures(gateway: &Gateway) -> u64 {
    gateway.metric("portcullis_tls_handshake_failures_total{listener=\"edge\",reason=\"limited\"}") as u64
}

/// Whether the gateway lets this connection ask anything.
fn is_served(client: &mut Wire) -> bool {
    use std::io::Write;
    let sent = client.tls.write_all(GET.as_bytes());
    sent.is_ok() && client.answer().is_some_and(|answer| answer.status == 200)
}

#[test]
fn one_connection_too_many_is_closed_and_counted_and_another_may_come_when_one_has_gone() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let limit = |most| format!("[{{ name: few, connections: {most} }}]");
    site.configure(&origin.address, &[("limits", &limit(1))]);
    let gateway = site.start();
    let mut first = site.wire("sensor-1");
    assert!(is_served(&mut first));
    assert!(!is_served(&mut site.wire("sensor-1")));
    assert!(is_served(&mut site.wire("sensor-2")), "each client has a count of its own");
    let line = gateway.logged(&["\"kind\":\"connection\"", "\"reason\":\"limited\"", "\"limit\":\"few\""]);
    assert!(line.contains("\"result\":\"failed\"") && line.contains("CN=sensor-1"), "{line}");
    assert_eq!(failures(&gateway), 1);
    // Those who are there count on after a reload that allows more.
    site.configure(&origin.address, &[("limits", &limit(2))]);
    assert_eq!(gateway.reload().0, 200);
    let mut second = site.wire("sensor-1");
    assert!(is_served(&mut second) && is_served(&mut first));
    assert!(!is_served(&mut site.wire("sensor-1")));
    drop(first);
    eventually("there is room again", || is_served(&mut site.wire("sensor-1")).then_some(()));
    drop(second);
    let keys = "portcullis_limit_keys{limit=\"few\",measure=\"connections\"}";
    eventually("nothing is left", || (gateway.metric(keys) as u64 == 0).then_some(()));
}

#[test]
fn who_shakes_hands_too_often_is_closed_and_a_shadow_only_counts() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    let limits = "[{ name: hands, handshakes: 2/h }, { name: trial, handshakes: 1/h, mode: shadow }]";
    site.configure(&origin.address, &[("limits", limits)]);
    let gateway = site.start();
    let statuses: Vec<_> = (0..4).map(|_| site.curl(Some("sensor-1"), &[], "/").status).collect();
    assert_eq!(statuses, [200, 200, 0, 0]);
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
    assert_eq!(failures(&gateway), 2);
    let shadowed =
        "portcullis_limit_exceeded_total{limit=\"trial\",measure=\"handshakes\",outcome=\"shadowed\"}";
    assert_eq!(gateway.metric(shadowed) as u64, 1, "what is refused otherwise is no news");
    let line = gateway.logged(&["\"kind\":\"connection\"", "\"shadow_limit\":\"trial\""]);
    assert!(line.contains("\"result\":\"ok\""), "{line}");
}

#[test]
fn a_certificate_that_is_used_from_too_many_places_is_told_of_and_gets_no_further() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("limits", "[{ name: places, networks: 2 }]")]);
    let gateway = site.start();
    let mut here = site.wire_from("sensor-1", "127.0.1.1");
    let mut there = site.wire_from("sensor-1", "127.0.2.1");
    assert!(is_served(&mut here) && is_served(&mut there));
    for _ in 0..2 {
        assert!(!is_served(&mut site.wire_from("sensor-1", "127.0.3.1")));
    }
    assert!(is_served(&mut site.wire_from("sensor-1", "127.0.1.77")), "the same network");
    let line = gateway.logged(&["\"reason\":\"limited\"", "\"limit\":\"places\"", "\"networks\":3"]);
    assert!(line.contains("127.0.3.1"), "{line}");
    let told = "is seen from 3 networks at once";
    gateway.logged(&["\"kind\":\"message\"", "CN=sensor-1", told, "limit `places`"]);
    assert_eq!(gateway.log().matches(told).count(), 1, "once");
    drop(there);
    eventually("there is room again", || {
        is_served(&mut site.wire_from("sensor-1", "127.0.3.1")).then_some(())
    });
}

#[test]
fn a_certificate_that_is_used_from_too_many_places_is_only_told_of_in_a_shadow() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[("limits", "[{ name: places, networks: 1, mode: shadow }]")]);
    let gateway = site.start();
    let mut clients: Vec<_> =
        ["127.0.1.1", "127.0.2.1", "127.0.3.1"].map(|from| site.wire_from("sensor-1", from)).into();
    clients.push(site.wire_from("sensor-2", "127.0.2.1"));
    assert!(clients.iter_mut().all(is_served));
    gateway.logged(&["\"kind\":\"connection\"", "\"shadow_limit\":\"places\"", "\"networks\":3"]);
    let log = gateway.log();
    assert_eq!(
        (log.matches("seen from 2 networks").count(), log.matches("seen from 3").count()),
        (1, 0),
        "{log}"
    );
    assert!(!log.contains("`CN=sensor-2"), "{log}");
    let who = gateway.admin_get("/who?subject=CN%3Dsensor-1,OU%3Dsensors").1;
    assert!(who.contains("\"networks\": 3"), "{who}");
    drop(clients);
    let keys = "portcullis_limit_keys{limit=\"places\",measure=\"networks\"}";
    eventually("nothing is left", || (gateway.metric(keys) as u64 == 0).then_some(()));
}
