//! Requests that somebody could read in another way: refused before anybody acts on them, with the reason in the log.

use std::io::Read;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::{Scripted, Site};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What follows a request that is refused, and must not be believed.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_head_with_two_readings_is_refused_ends_the_connection_and_never_reaches_an_origin() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let host = "Host: localhost\r\n";
    let mut faults = Vec::new();
    for (number, (line, fields, status, reason)) in [
        ("GET /N HTTP/1.1", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400, "both a length and"),
        ("GET /N HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", 400, "not `chunked`"),
        (
            "GET /N HTTP/1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
            "not `chunked`",
        ),
        ("GET /N HTTP/1.1", "Transfer-Encoding: identity\r\n", 400, "not `chunked`"),
        ("GET /N HTTP/1.1", "Transfer-Encoding: \x0bchunked\r\n", 400, "control characters"),
        ("GET /N HTTP/1.1", "Transfer-Encoding : chunked\r\n", 400, "no token"),
        ("GET /N HTTP/1.1", "Transfer_Encoding: chunked\r\n", 400, "looks like one that frames"),
        ("GET /N HTTP/1.0", "Transfer-Encoding: chunked\r\n", 400, "not `chunked`"),
        ("GET /N HTTP/1.1", "Content-Length: 4\r\nContent-Length: 4\r\n", 400, "not one number"),
        ("GET /N HTTP/1.1", "Content-Length: 4, 4\r\n", 400, "not one number"),
        ("GET /N HTTP/1.1", "Content-Length: +4\r\n", 400, "not one number"),
        ("GET /N HTTP/1.1", "X-A: b\r\n folded\r\n", 400, "continues the one before"),
        ("GET /N HTTP/1.1", "X-A: b\nX-B: c\r\n", 400, "something else than CR LF"),
        ("GET /N HTTP/1.1", "X-A: b\rX-B: c\r\n", 400, "something else than CR LF"),
        ("GET /N HTTP/1.1", "X-A: \0\r\n", 400, "control characters"),
        ("GET /N HTTP/1.1", ": b\r\n", 400, "no token"),
        ("GET /N HTTP/1.1", "X A: b\r\n", 400, "no token"),
        ("GET /N HTTP/1.1", "Host: localhost\r\n", 400, "several hosts"),
        ("GET http://other/N HTTP/1.1", "", 400, "several hosts"),
        ("GET /N HTTP/1.1", "Connection: Cookie\r\nCookie: a=b\r\n", 400, "Connection names"),
        (
            "GET /N HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n",
            400,
            "Connection names",
        ),
        ("GET /N HTTP/1.1", "HTTP2-Settings: a\r\n", 400, "not one to a WebSocket"),
        ("GET /N HTTP/1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n", 400, "not one to a WebSocket"),
        ("GET /N HTTP/1.1", "Upgrade: websocket\r\n", 400, "not one to a WebSocket"),
        (
            "POST /N HTTP/1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 40\r\n",
            400,
            "not one to a WebSocket",
        ),
        ("GET /N HTTP/1.1", "Expect: 100-continue, 101\r\n", 417, "100-continue"),
        ("GET /N b HTTP/1.1", "", 400, "first line"),
        ("GET /N", "", 400, "first line"),
        ("GET /N HTTP/1.2", "", 400, "neither HTTP/1.1"),
        ("GET /N#b HTTP/1.1", "", 400, "must be encoded"),
        ("GET /N/../b HTTP/1.1", "", 400, "dot segments"),
        ("GET * HTTP/1.1", "", 400, "`*` of OPTIONS"),
        ("CONNECT /N HTTP/1.1", "", 405, "tunnel"),
        ("GET /N HTTP/1.1", &format!("X-A: {}\r\n", "x".repeat(70_000)), 431, "too large"),
        ("GET /N HTTP/1.1", &"X-A: b\r\n".repeat(130), 431, "too many fields"),
        (&format!("GET /N{} HTTP/1.1", "x".repeat(9_000)), "", 414, "target is too long"),
        ("POST /N HTTP/1.1", "Content-Length: 2000000000\r\n", 413, "body is too large"),
    ]
    .into_iter()
    .enumerate()
    {
        let line = line.replace("/N", &format!("/n{number}n"));
        // With the rest of it, and what is smuggled, in one piece.
        let request = format!("{line}\r\n{host}{fields}\r\n{SMUGGLED}");
        let mut client = site.wire("sensor-1");
        client.send(&request);
        let got = client.answer().map(|answer| answer.status);
        let rest = client.rest();
        if got != Some(status) || !rest.is_empty() {
            faults.push(format!("{line} {fields:.80?}: {got:?} {rest:?}"));
        }
        let path = if line.contains(" /n") && line.contains(" HTTP") {
            format!("/n{number}n")
        } else {
            String::new()
        };
        gateway.logged(&["\"kind\":\"request\"", &path, &format!("\"status\":{status}"), reason]);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(origin.requests(), Vec::<String>::new());
    for (reason, least) in [
        ("bad_request", 20.0),
        ("connect", 1.0),
        ("expectation", 1.0),
        ("head_too_large", 2.0),
        ("target_too_long", 1.0),
        ("body_too_large", 1.0),
    ] {
        let counted = gateway.metric(&format!("portcullis_refusals_total{{reason=\"{reason}\"}}"));
        assert!(counted >= least, "{reason} {counted}");
    }
}

#[test]
fn what_is_unusual_but_has_one_reading_is_served() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut expected = Vec::new();
    for (number, (line, fields, body)) in [
        ("GET /N HTTP/1.0", String::new(), ""),
        ("\r\nGET /N HTTP/1.1", String::new(), ""),
        ("GET http://localhost/N HTTP/1.1", String::new(), ""),
        ("PROPFIND /N HTTP/1.1", String::new(), ""),
        ("GET /N?a=[b]|{c}\\ HTTP/1.1", String::new(), ""),
        ("GET /N HTTP/1.1", "Connection: TE, keep-alive\r\nTE: trailers\r\n".into(), ""),
        ("GET /N HTTP/1.1", "X-A: b\r\n".repeat(120), ""),
        ("GET /N HTTP/1.1", format!("X-A: {}\r\n", "x".repeat(60_000)), ""),
        (
            "POST /N HTTP/1.1",
            "Transfer-Encoding: CHUNKED\r\n".into(),
            "004;a=b\r\nbody\r\n0\r\nX-A: b\r\n\r\n",
        ),
        ("POST /N HTTP/1.1", "Transfer-Encoding: chunked\r\n".into(), "0\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = site.wire("sensor-1");
        client.send(format!(
            "{}\r\nHost: localhost\r\n{fields}\r\n{body}",
            line.replace("/N", &format!("/n{number}"))
        ));
        assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{line} {fields:.80}");
        expected.push(format!("/n{number}"));
    }
    let seen: Vec<_> = origin
        .requests()
        .iter()
        .map(|request| request.split([' ', '?']).nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_client_that_waits_for_leave_to_send_its_body_gets_it() {
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            call.tcp.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        call.say("HTTP/1.1 100 Continue\r\n\r\n");
        call.tcp.read_exact(&mut [0; 4]).unwrap();
        call.say(EMPTY);
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut client = site.wire("sensor-1");
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.answer().map(|answer| answer.status), Some(100));
    client.send("body");
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
}

/// An origin that never answers, and what came on each of its connections once it was closed.
fn listening() -> (Scripted, Receiver<String>) {
    let (say, heard) = channel();
    let say = Mutex::new(say);
    let origin = Scripted::start(move |mut call| {
        let mut all = Vec::new();
        let _ = call.tcp.read_to_end(&mut all);
        let _ = say.lock().unwrap().send(String::from_utf8_lossy(&all).into_owned());
    });
    (origin, heard)
}

/// After a chunk that was good.
const BAD_CHUNKS: [(&str, &str); 14] = [
    ("x\r\n", "no hexadecimal"),
    ("\r\n", "no hexadecimal"),
    ("-1\r\n", "no hexadecimal"),
    ("0x1\r\n", "no hexadecimal"),
    ("1 \r\n", "no hexadecimal"),
    ("1\n", "no hexadecimal"),
    ("1000000000000000\r\n", "no hexadecimal"),
    ("1;a\nb\r\n", "extension"),
    ("1;\0\r\n", "extension"),
    ("2\r\nabc\r\n", "does not end"),
    ("2\r\nab\n", "does not end"),
    ("0\r\nX-A : b\r\n\r\n", "trailer"),
    ("0\r\nX-A: b\n\r\n", "trailer"),
    ("0\r\n\n", "trailer"),
];

#[test]
fn chunks_with_two_readings_that_come_with_their_head_reach_no_origin() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (number, (chunk, reason)) in BAD_CHUNKS.into_iter().enumerate() {
        let mut client = site.wire("sensor-1");
        client.send(format!(
            "POST /n{number}n HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n{chunk}{SMUGGLED}"
        ));
        assert_eq!(client.answer().map(|answer| answer.status), Some(400), "{chunk:?}");
        assert_eq!(client.rest(), "", "{chunk:?}");
        gateway.logged(&["\"kind\":\"request\"", &format!("/n{number}n"), "bad_request", reason]);
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
}

#[test]
fn chunks_with_two_readings_that_come_later_end_the_request_unfinished() {
    let (site, (origin, heard)) = (Site::new(), listening());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (number, (chunk, reason)) in BAD_CHUNKS.into_iter().enumerate() {
        let mut client = site.wire("sensor-1");
        client.send(format!(
            "POST /n{number}n HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n"
        ));
        std::thread::sleep(Duration::from_millis(100));
        client.send(format!("{chunk}{SMUGGLED}"));
        assert_eq!(client.answer().map(|answer| answer.status), Some(400), "{chunk:?}");
        assert_eq!(client.rest(), "", "{chunk:?}");
        gateway.logged(&["\"kind\":\"request\"", &format!("/n{number}n"), "bad_request", reason]);
        let seen = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        // What was good, and no end: no origin takes this for a whole request, or sees another one behind it.
        assert!(seen.ends_with("4\r\ngood\r\n"), "{chunk:?} {seen:?}");
    }
}

/// A site whose listener has these limits, and what its origin was asked.
fn limited(limits: &str, origin: &str, extra: &[(&str, &str)]) -> Site {
    let site = Site::new();
    let listeners = format!(
        "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
         client_auth: {{ mode: require, trust: [fleet] }}, limits: {{ {limits} }} }}]"
    );
    site.configure(origin, &[&[("listeners", &*listeners)], extra].concat());
    site
}

#[test]
fn a_listener_says_how_large_a_request_may_be_in_either_version() {
    let origin = Scripted::saying(EMPTY);
    let site = limited(
        "max_head_bytes: 2048, max_fields: 16, max_target_bytes: 64, max_body_bytes: 100",
        &origin.address,
        &[],
    );
    let gateway = site.start();
    let long = format!("/{}", "x".repeat(64));
    let field = format!("X-A: {}", "x".repeat(2100));
    let many: Vec<String> = (0..16).map(|number| format!("X-{number}: a")).collect();
    let body = "x".repeat(101);
    for version in ["--http1.1", "--http2"] {
        let ask = |arguments: &[&str], path: &str| {
            site.curl(Some("sensor-1"), &[&[version, "-H", "Expect:"], arguments].concat(), path).status
        };
        assert_eq!(ask(&[], "/fits"), 200, "{version}");
        assert_eq!(ask(&["--data", &body[..100]], "/fits"), 200, "{version}");
        assert_eq!(ask(&[], &long), 414, "{version}");
        assert_eq!(ask(&["-H", &field], "/"), 431, "{version}");
        let many: Vec<&str> = many.iter().flat_map(|field| ["-H", field]).collect();
        assert_eq!(ask(&many, "/"), 431, "{version}");
        let path = format!("/large{version}");
        let heard = ask(&["--data", &body], &path);
        gateway.logged(&[&path, "\"status\":413", "body_too_large"]);
        // Over HTTP/2 some versions of curl take an answer that comes before they have sent the body for a broken stream.
        assert!(heard == 413 || version == "--http2", "{heard}");
    }
    let url = format!("https://localhost:{}/large", site.port);
    for length in [Some("101"), None] {
        let status = site.over_h2("sensor-1", async |send| {
            let mut request = http::Request::post(&url);
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let request = request.body(()).unwrap();
            let (response, mut sending) = send.ready().await.unwrap().send_request(request, false).unwrap();
            // Refused by its head, it may be over already.
            let _ = sending.send_data(body.clone().into(), true);
            response.await.unwrap().status()
        });
        assert_eq!(status, 413, "{length:?}");
    }
    // Of a length that nobody says.
    let file = site.path().join("body");
    std::fs::write(&file, &body).unwrap();
    let chunked =
        ["--http1.1", "-H", "Expect:", "-T", file.to_str().unwrap(), "-H", "Transfer-Encoding: chunked"];
    assert_eq!(site.curl(Some("sensor-1"), &chunked, "/chunked").status, 413);
    let whole = origin.requests();
    assert!(whole.iter().all(|request| request.contains(" /fits ")), "{whole:?}");
}

#[test]
fn a_body_that_trickles_is_ended_by_the_listeners_rate() {
    let origin = Scripted::saying(EMPTY);
    let site = limited("body_timeout: 1s, min_bytes_per_second: 1000", &origin.address, &[]);
    let gateway = site.start();
    for (path, length) in [("/small", 10_000), ("/large", 1_000_000)] {
        let mut client = site.wire("sensor-1");
        client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
        let began = std::time::Instant::now();
        let mut status = None;
        client.tls.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while status.is_none() && began.elapsed() < Duration::from_secs(8) {
            client.send("x");
            status = client.answer().map(|answer| answer.status);
        }
        assert_eq!(status, Some(408), "{path}");
        gateway.logged(&["\"kind\":\"request\"", path, "too_slow"]);
    }
    // One that is fast enough, though it takes longer than that time.
    let mut client = site.wire("sensor-1");
    client.send("POST /fast HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        client.send("x".repeat(2000));
    }
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
}

#[test]
fn a_client_that_does_not_read_its_answer_frees_the_endpoint() {
    for is_ordinary in [true, false] {
        let (say, heard) = channel();
        let say = Mutex::new(say);
        let origin = Scripted::start(move |mut call| {
            call.request();
            call.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            let piece = vec![b'x'; 1 << 16];
            while std::io::Write::write_all(&mut call.tcp, &piece).is_ok() {}
            let _ = say.lock().unwrap().send(());
        });
        // A method that is not ordinary takes Pingora's way.
        let method = if is_ordinary { "GET" } else { "PROPFIND" };
        let site = limited("body_timeout: 1s", &origin.address, &[]);
        let _gateway = site.start();
        let mut deaf = site.wire("sensor-1");
        deaf.send(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        heard.recv_timeout(Duration::from_secs(15)).unwrap();
    }
}

#[test]
fn limits_that_nobody_could_keep_are_refused() {
    let origin = Scripted::saying(EMPTY);
    let site = limited(
        "max_head_bytes: 100, max_fields: 1000, max_target_bytes: 1, max_body_bytes: 0, min_bytes_per_second: 0, \
         resets_per_second: 0, max_trailer_bytes: 99999999",
        &origin.address,
        &[],
    );
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["check", "-c", "gateway.yaml"])
        .current_dir(site.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    for key in [
        "max_head_bytes",
        "max_fields",
        "max_target_bytes",
        "max_body_bytes",
        "min_bytes_per_second",
        "resets_per_second",
        "max_trailer_bytes",
    ] {
        assert!(
            text.contains(&format!("listeners[0].limits.{key}: ")) && text.contains("expected: "),
            "{text}"
        );
    }
}

#[test]
fn a_path_that_an_origin_may_read_as_another_routes_path_is_refused_and_any_other_passes_unchanged() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    let routes = "[{ client: { trust: fleet, subject: { CN: nobody } }, request: { path: [\"/admin/*\", \"/a:b\", \"/caf%C3%A9\"] }, pool: main }, \
                   { client: { trust: fleet }, request: { path: \"/readings/*\" }, pool: main }]";
    site.configure(&origin.address, &[("routes", routes)]);
    let gateway = site.start();
    let mut expected = Vec::new();
    for version in ["--http1.1", "--http2"] {
        for path in [
            "/readings//x",
            "/readings/x;v=1",
            "/readings/a%3ab",
            "/readings/%c3%a9",
            "/readings/%C3%A9/",
            "/readings/x//",
        ] {
            assert_eq!(site.curl(Some("sensor-1"), &[version], path).status, 200, "{path}");
            expected.push(path);
        }
        // As it was sent it leads nowhere, and as it may be read it leads to a route.
        for path in ["//readings/x", "/readings;x/y", "/%72eadings", "/readings/..;/x", "/readings/..%3b/x"] {
            assert_eq!(site.curl(Some("sensor-1"), &[version], path).status, 400, "{path}");
        }
    }
    gateway.logged(&["\"kind\":\"request\"", "//readings/x", "two_readings"]);
    let explained = |path: &str| {
        let url = format!("https://localhost{path}");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["explain", "-c", "gateway.yaml", "--cert", "sensor-1.crt", "GET", &url])
            .current_dir(site.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        explained("//readings/x").contains("may read the path as `/readings/x`"),
        "{}",
        explained("//readings/x")
    );
    assert!(explained("/readings//x").contains("forwarded to pool"));
    let seen: Vec<_> =
        origin.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn the_path_that_the_routes_saw_is_the_path_that_the_origin_gets() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    // The same ones in each run.
    let mut state = 7_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    let parts = [
        "/", "a", "B", ".", "..", "%20", "%2e", "%C3%A9", "%c3", ";", ":", "|", "[", "%3A", "%25", "?", "=",
        "~",
    ];
    let mut wire = site.wire("sensor-1");
    let (mut served, mut refused) = (0, 0);
    for number in 0..300 {
        let target = (0..next(6)).fold(format!("/{number}/"), |target, _| target + parts[next(parts.len())]);
        // One is ordinary, the other takes Pingora's way.
        for method in ["GET", "PROPFIND"] {
            let before = origin.requests().len();
            wire.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let status = wire.answer().map_or(0, |answer| answer.status);
            if status == 200 {
                served += 1;
                let line = format!("{method} {target} HTTP/1.1\r\n");
                assert!(origin.requests().last().unwrap().starts_with(&line), "{target}");
                let path = target.split('?').next().unwrap();
                gateway.logged(&[
                    &format!("\"method\":\"{method}\""),
                    &format!("\"path\":\"{path}\",\"status\":200"),
                ]);
            } else {
                refused += 1;
                assert_eq!((status, origin.requests().len()), (400, before), "{target}");
                wire = site.wire("sensor-1");
            }
        }
    }
    assert!(served > 100 && refused > 50, "{served} {refused}");
}
