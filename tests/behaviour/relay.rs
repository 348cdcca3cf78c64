//! Requests that the gateway carries itself: with the same outcome as Pingora's way, whatever either side does.

use crate::support::{Scripted, Site};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_http2_body_of_no_announced_length_reaches_the_origin_whole() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let url = format!("https://localhost:{}/", site.port);
    let status = site.over_h2("sensor-1", async |send| {
        let request = http::Request::post(&url).body(()).unwrap();
        let (response, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data("a streamed ".into(), false).unwrap();
        body.send_data("message".into(), true).unwrap();
        response.await.unwrap().status()
    });
    assert_eq!(status, 200);
    let seen = origin.requests().concat();
    assert!(seen.contains("a streamed ") && seen.contains("message"), "{seen}");
}

#[test]
fn a_request_that_is_handed_over_is_counted_once() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let url = format!("https://localhost:{}/", site.port);
    site.over_h2("sensor-1", async |mut send| {
        for _ in 0..2 {
            let request = http::Request::post(&url).header("content-length", "100000").body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, mut body) = send.send_request(request, false).unwrap();
            body.send_data(vec![b'x'; 100_000].into(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }
    });
    for number in ["-1\"", "-2\""] {
        let line = gateway.logged(&["\"kind\":\"request\"", number]);
        assert!(line.contains("\"bytes_in\":100000"), "{line}");
    }
}

#[test]
fn an_endpoint_that_answers_before_it_has_read_the_request_is_heard() {
    use std::io::Read;
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        // A few bytes, then the answer; then, one time of two, the rest is left unread.
        let _ = call.tcp.read_exact(&mut [0; 10]);
        call.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
        if call.number % 2 == 1 {
            while call.tcp.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        }
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let body = "x".repeat(64 * 1024);
    for _ in 0..6 {
        let mut client = site.wire("sensor-1");
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, &*answer.text()), (413, "large"));
    }
}

#[test]
fn an_endpoint_that_answers_while_it_reads_gets_the_whole_request() {
    use std::io::Read;
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            call.tcp.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        call.say("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
        let (mut left, mut bytes) = (60_000, [0; 1000]);
        while left > 0 {
            call.tcp.read_exact(&mut bytes).unwrap();
            call.say(bytes);
            left -= bytes.len();
        }
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut client = site.wire("sensor-1");
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{}",
        "y".repeat(60_000)
    ));
    let answer = client.answer().unwrap();
    assert!(answer.status == 200 && answer.body == vec![b'y'; 60_000]);
}

/// Pools with one endpoint that serves `first` on each connection and does with the second request what `then` says.
fn second_request(
    method: &str,
    timeouts: &str,
    then: impl Fn(&mut crate::support::Call) + Send + Sync + 'static,
) -> (u16, usize, String) {
    let site = Site::new();
    let origin = Scripted::start(move |mut call| {
        if call.request().is_none() {
            return;
        }
        call.say(EMPTY);
        if call.request().is_some() {
            then(&mut call);
        }
    });
    let pools = format!(
        "{{ main: {{ endpoints: [\"{}\"], timeouts: {{ {timeouts} }}, ejection: {{ consecutive_failures: 1, duration: 60s }} }} }}",
        origin.address
    );
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    client.send("GET /first HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    client.send(format!("{method} /second HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
    let status = client.answer().map_or(0, |answer| answer.status);
    let times = origin.requests().iter().filter(|request| request.contains(" /second ")).count();
    let healthy = format!("portcullis_endpoint_healthy{{endpoint=\"{}\",pool=\"main\"}}", origin.address);
    (status, times, if gateway.metric(&healthy) > 0.5 { "healthy" } else { "ejected" }.into())
}

#[test]
fn a_kept_connection_that_closes_under_a_request_is_replaced_once_unless_the_request_must_not_be_sent_twice()
{
    assert_eq!(second_request("GET", "", |_| ()), (200, 2, "healthy".into()));
    assert_eq!(second_request("POST", "", |_| ()), (502, 1, "healthy".into()));
}

#[test]
fn an_endpoint_that_is_too_slow_is_not_asked_again_because_its_connection_was_kept() {
    let slow = |_: &mut crate::support::Call| std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(second_request("GET", "first_byte: 300ms", slow), (504, 1, "ejected".into()));
}

#[test]
fn an_endpoint_that_breaks_off_after_it_has_said_something_is_not_asked_again() {
    let hints = |call: &mut crate::support::Call| call.say("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    assert_eq!(second_request("GET", "", hints).1, 1);
    let cut = |call: &mut crate::support::Call| call.say("HTTP/1.1 200 O");
    assert_eq!(second_request("GET", "", cut), (502, 1, "ejected".into()));
}

#[test]
fn early_hints_arrive_early_and_a_flood_of_them_is_an_error() {
    let site = Site::new();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    let origin = Scripted::start(move |mut call| {
        let flood = call.request().is_some_and(|request| request.starts_with("GET /flood"));
        call.say(hints);
        if flood {
            for _ in 0..100_000 {
                call.say(hints);
            }
        } else {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        call.say(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut client = site.wire("sensor-1");
    let began = std::time::Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let hint = client.answer().unwrap();
    assert_eq!((hint.status, hint.field("link")), (103, Some("</a.css>")));
    assert!(began.elapsed() < std::time::Duration::from_millis(400));
    assert_eq!(client.answer().unwrap().status, 200);
    client.send("GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let last = std::iter::from_fn(|| client.answer()).last().unwrap();
    assert_eq!(last.status, 502);
}

#[test]
fn a_head_that_is_too_large_is_answered_though_the_client_still_sends_and_is_counted() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for _ in 0..5 {
        let mut client = site.wire("sensor-1");
        client.send(format!(
            "GET /large HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n",
            "x".repeat(2_000_000)
        ));
        assert_eq!(client.answer().map(|answer| answer.status), Some(431));
    }
    gateway.logged(&["\"kind\":\"request\"", "\"path\":\"/large\"", "\"status\":431", "head_too_large"]);
    assert!((gateway.metric("portcullis_refusals_total{reason=\"head_too_large\"}") - 5.0).abs() < 0.5);
}

#[test]
fn what_is_refused_before_our_filters_see_it_is_counted_and_recorded_once() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let count = |reason| gateway.metric(&format!("portcullis_refusals_total{{reason=\"{reason}\"}}"));
    let refused = || (count("bad_request") + count("connect")) as u32;
    for (number, (request, status)) in [
        ("GET /a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n folded\r\n\r\n", 400),
        ("GET /b HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET /c HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("GET /e HTTP/3.0\r\n\r\n", 400),
        ("\x16\x03\x01\x00\x10 no HTTP at all\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("GET /../f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = site.wire("sensor-1");
        client.send(request);
        assert_eq!(client.answer().map(|answer| answer.status), Some(status), "{request}");
        assert_eq!(client.rest(), "", "{request}");
        crate::support::eventually(request, || (refused() as usize == number + 1).then_some(()));
    }
    for path in ["/a", "/b", "/c", "/d", "/e", "a:1", "/../f"] {
        let line = format!("\"path\":\"{path}\"");
        gateway.logged(&["\"kind\":\"request\"", &line, "\"refusal\":"]);
        assert_eq!(gateway.log().matches(&line).count(), 1);
    }
}

#[test]
fn a_head_that_trickles_ends_the_connection_whoever_reads_it() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { mode: require, trust: [fleet] }, limits: { \
                     request_header_timeout: 1s } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let _gateway = site.start();
    let many = "X-A: b\r\n".repeat(70);
    for start in [
        "GET / HTTP/1.1\r\n",
        &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}"),
        "GET /<a HTTP/1.1\r\nHost: a\r\n",
    ] {
        let mut client = site.wire("sensor-1");
        client.send(start);
        let began = std::time::Instant::now();
        let mut trickle = "X-A: ".chars().chain(std::iter::repeat('b'));
        loop {
            use std::io::Write;
            let byte = trickle.next().unwrap();
            if client.tls.write_all(&[byte as u8]).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(began.elapsed() < std::time::Duration::from_secs(5), "{start}");
        }
    }
}

#[test]
fn a_body_that_trickles_ends_with_the_requests_time() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    let pools =
        format!("{{ main: {{ endpoints: [\"{}\"], timeouts: {{ total: 600ms }} }} }}", origin.address);
    site.configure("", &[("pools", &pools)]);
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    client.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..9 {
        client.send("x");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(client.answer().map(|answer| answer.status), Some(408));
    gateway.logged(&["/slow", "too_slow", "the client sends its request too slowly"]);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_head_request_is_refused_without_a_body() {
    let (site, dead) = (Site::new(), crate::support::DeadEndpoint::new());
    site.configure(&dead.address, &[("routes", "[{ request: { path: /a }, pool: main }]")]);
    let _gateway = site.start();
    for (path, status) in [("/a", "502"), ("/none", "403"), ("/%2e", "400")] {
        let mut client = site.wire("sensor-1");
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = client.answer_to("HEAD").unwrap();
        assert_eq!(answer.status.to_string(), status);
        assert!(answer.field("content-length").is_some(), "{}", answer.head);
        if status != "403" {
            assert_eq!(client.rest(), "");
        }
        let reply = site.curl(Some("sensor-1"), &["--http2", "--head"], path);
        assert_eq!(reply.status.to_string(), status);
        assert!(reply.body.to_lowercase().contains("x-request-id"), "{}", reply.body);
    }
}

#[test]
fn requests_in_one_segment_are_answered_in_turn_until_one_is_not_ordinary() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let of = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let body = "POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n";
    let body = body.replace("30", &"GET /hidden HTTP/1.1\r\nHost: a\r\n".len().to_string());
    let mut client = site.wire("sensor-1");
    client.send([of("a"), body, of("c")].concat());
    let statuses: Vec<_> = (0..3).map(|_| client.answer().map(|answer| answer.status)).collect();
    assert_eq!(statuses, [Some(200); 3]);
    // An odd one behind it: it is answered, and what follows it is not believed.
    let odd = "GET /odd HTTP/1.1\r\nHost: localhost\r\nX-A: b\n\r\n";
    client.send([of("d"), odd.to_owned(), of("smuggled")].concat());
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    assert_eq!(client.rest(), "");
    // Bytes that belong to no request.
    let mut client = site.wire("sensor-1");
    client.send([of("e"), "no request at all\r\n\r\n".into(), of("smuggled")].concat());
    assert_eq!(client.answer().map(|answer| answer.status), Some(200));
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
    assert_eq!(client.rest(), "");
    let paths: Vec<_> =
        origin.requests().iter().map(|request| request.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/a", "/b", "/c", "/d", "/e"]);
}

#[test]
fn a_request_is_the_same_wherever_it_is_cut() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let text = "POST /cut?a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
    let mut client = site.wire("sensor-1");
    for at in 1..text.len() {
        client.send(&text[..at]);
        client.send(&text[at..]);
        assert_eq!(client.answer().map(|answer| answer.status), Some(200), "{at}");
    }
    let seen = origin.requests();
    assert_eq!(seen.len(), text.len() - 1);
    assert!(seen.iter().all(|request| *request == seen[0]), "{seen:?}");
}

#[test]
fn what_an_endpoint_may_not_say_is_502_and_what_it_may_is_passed_on() {
    let ends = "Connection: close\r\n";
    for (answer, status, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab".to_owned(), 200, "ab"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 500 Second\r\n\r\n".into(), 200, "ab"),
        (format!("HTTP/1.1 200 OK\r\n{ends}\r\nuntil the end"), 200, "until the end"),
        (format!("HTTP/1.0 200 OK\r\n{ends}\r\nold"), 200, "old"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n1\r\nb\r\n0\r\nX-Trailer: a\r\n\r\n".into(), 200, "ab"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nab".into(), 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nab".into(), 304, ""),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n".into(), 502, "request"),
        ("garbage\r\n\r\n".into(), 502, "request"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 502, "request"),
        (format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "x".repeat(100_000)), 502, "request"),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(1000)), 502, "request"),
    ] {
        let site = Site::new();
        let closes = answer.contains(ends);
        let said = answer.clone();
        let origin = Scripted::start(move |mut call| {
            while call.request().is_some() {
                call.say(&said);
                if closes {
                    return;
                }
            }
        });
        site.configure(&origin.address, &[]);
        let _gateway = site.start();
        // The second one meets whatever the first one left behind.
        for _ in 0..2 {
            let mut client = site.wire("sensor-1");
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let got = client.answer().unwrap();
            assert_eq!(got.status, status, "{answer:?}");
            assert!(got.text().starts_with(body), "{answer:?} {got:?}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_is_never_whole_for_the_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-A",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX",
    ] {
        let site = Site::new();
        let origin = Scripted::start(move |mut call| {
            call.request();
            call.say(answer);
        });
        site.configure(&origin.address, &[]);
        let gateway = site.start();
        let mut client = site.wire("sensor-1");
        client.send("GET /cut HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(client.answer().is_none(), "{answer}");
        gateway.logged(&["/cut", "broke off"]);
        assert_ne!(site.curl(Some("sensor-1"), &["--http2", "--fail-early"], "/cut").status, 502, "{answer}");
    }
}

#[test]
fn a_client_that_leaves_frees_the_endpoint_and_one_that_does_not_read_costs_no_memory() {
    use std::io::{Read, Write};
    let site = Site::new();
    let (left, told) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let origin = Scripted::start(move |mut call| {
        if call.request().is_some_and(|request| request.contains("/large")) {
            call.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            let piece = vec![b'x'; 1 << 20];
            let mut sent = 0;
            call.tcp.set_write_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
            while sent < 1000 && call.tcp.write_all(&piece).is_ok() {
                sent += 1;
            }
            let _ = left.lock().unwrap().send(sent);
        } else {
            // Never answers: the end of the connection is what it waits for.
            let read = call.tcp.read(&mut [0; 1]).unwrap_or(1);
            let _ = left.lock().unwrap().send(read);
        }
    });
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    client.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(client);
    assert_eq!(told.recv_timeout(std::time::Duration::from_secs(5)).unwrap(), 0);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = memory();
    let mut deaf = site.wire("sensor-1");
    deaf.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let sent = told.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert!(sent < 100, "{sent} MiB went to a client that reads nothing");
    assert!(memory().saturating_sub(before) < 8 * 1024, "{} KiB", memory() - before);
}

#[test]
fn a_body_that_ends_with_an_empty_piece_leaves_nothing_behind_on_the_endpoints_connection() {
    use std::io::Read;
    let site = Site::new();
    let (said, heard) = std::sync::mpsc::channel();
    let said = std::sync::Mutex::new(said);
    let origin = Scripted::start(move |mut call| {
        while call.request().is_some() {
            call.say(EMPTY);
            // Whatever comes now belongs to no request.
            call.tcp.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
            let mut bytes = [0; 100];
            let read = call.tcp.read(&mut bytes).unwrap_or(0);
            said.lock().unwrap().send(String::from_utf8_lossy(&bytes[..read]).into_owned()).unwrap();
            call.tcp.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        }
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let url = format!("https://localhost:{}/", site.port);
    for piece in ["", "message"] {
        site.over_h2("sensor-1", async |send| {
            let request = http::Request::post(&url).body(()).unwrap();
            let (response, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
            body.send_data(piece.into(), false).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            body.send_data("".into(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        });
        assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(5)).unwrap(), "", "{piece:?}");
    }
}

#[test]
fn a_drain_ends_idle_connections_and_lets_requests_under_way_finish() {
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        while let Some(request) = call.request() {
            if request.contains("/slow") {
                std::thread::sleep(std::time::Duration::from_millis(800));
            }
            call.say(EMPTY);
        }
    });
    site.configure(&origin.address, &[]);
    let mut gateway = site.start();
    let of = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut idle = site.wire("sensor-1");
    idle.send(of("first"));
    assert_eq!(idle.answer().map(|answer| answer.status), Some(200));
    let mut silent = site.wire("sensor-1");
    let mut busy = site.wire("sensor-1");
    busy.send(of("slow"));
    let url = format!("https://localhost:{}/slow", site.port);
    let (status, next) = site.over_h2("sensor-1", async |mut send| {
        let request = http::Request::get(&url).body(()).unwrap();
        send = send.ready().await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        gateway.signal("TERM");
        let status = response.await.unwrap().status();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let refused = match send.ready().await {
            Ok(mut send) => {
                let request = http::Request::get(&url).body(()).unwrap();
                match send.send_request(request, true) {
                    Ok((response, _)) => response.await.is_err(),
                    Err(_) => true,
                }
            }
            Err(_) => true,
        };
        (status, refused)
    });
    assert!(status == 200 && next);
    assert_eq!(busy.answer().map(|answer| answer.status), Some(200));
    assert_eq!((idle.rest(), silent.rest()), (String::new(), String::new()));
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn a_reload_changes_the_identity_headers_of_an_open_connection() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut client = site.wire("sensor-1");
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.answer().map(|answer| answer.status), Some(200));
        origin.requests().last().unwrap().to_lowercase()
    };
    assert!(ask().contains("x-client-cn: sensor-1"));
    site.configure(&origin.address, &[("identity_headers", "[xfcc]")]);
    assert_eq!(gateway.reload().0, 200);
    let seen = ask();
    assert!(!seen.contains("x-client-cn") && seen.contains("x-forwarded-client-cert"), "{seen}");
}

#[test]
fn many_http2_streams_at_once_and_some_that_are_taken_back_are_all_told_apart() {
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        while let Some(request) = call.request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let body = path.repeat(5000);
            call.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let port = site.port;
    site.over_h2("sensor-1", async move |mut send| {
        let mut answers = Vec::new();
        for number in 0..100 {
            let request = http::Request::get(format!("https://localhost:{port}/{number}")).body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, mut stream) = send.send_request(request, true).unwrap();
            if number % 15 == 0 {
                stream.send_reset(h2::Reason::CANCEL);
            } else {
                answers.push(tokio::spawn(async move {
                    let mut body = response.await.unwrap().into_body();
                    let mut text = Vec::new();
                    while let Some(piece) = body.data().await {
                        let piece = piece.unwrap();
                        // A window that opens slowly.
                        tokio::task::yield_now().await;
                        body.flow_control().release_capacity(piece.len()).unwrap();
                        text.extend_from_slice(&piece);
                    }
                    assert_eq!(String::from_utf8(text).unwrap(), format!("/{number}").repeat(5000));
                }));
            }
        }
        for answer in answers {
            answer.await.unwrap();
        }
    });
    let busy = || gateway.metric("portcullis_connections{listener=\"edge\"}");
    crate::support::eventually("the connection is over", || (busy() < 0.5).then_some(()));
}
