//! Heads that pass, heads that do not, and what other parsers make of those that pass.

use http::Method;
use httparse::{EMPTY_HEADER, Request, Status};
use pingora_core::protocols::http::v1::server::HttpSession;
use proptest::prelude::*;

use super::*;

fn of(text: &str) -> Result<Option<Head>, Fault> {
    check(text.as_bytes(), &Limits::DEFAULT)
}

fn with(line: &str, fields: &str) -> Result<Option<Head>, Fault> {
    of(&format!("{line}\r\nHost: a\r\n{fields}\r\n"))
}

#[test]
fn heads_with_one_reading_pass() {
    for (fields, body) in [
        ("", Body::Length(0)),
        ("Content-Length: 5\r\n", Body::Length(5)),
        ("CONTENT-LENGTH:05 \r\n", Body::Length(5)),
        ("Transfer-Encoding: Chunked\r\n", Body::Chunked),
        ("Expect: 100-Continue\r\nContent-Length: 5\r\n", Body::Length(5)),
        ("Connection: Upgrade, keep-alive\r\nUpgrade: WebSocket\r\n", Body::Length(0)),
        ("Connection: TE, close\r\nTE: trailers\r\n", Body::Length(0)),
        ("Connection: \r\nX-A:\r\nX-B: \t\u{fc} \r\nx.y!z: b\r\n", Body::Length(0)),
    ] {
        let text = format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\nrest");
        assert_eq!(of(&text), Ok(Some(Head { len: text.len() - 4, body })), "{fields:?}");
    }
    for line in [
        "get / HTTP/1.1",
        "GET http://a HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
        "\r\nGET / HTTP/1.1",
    ] {
        assert!(matches!(with(line, ""), Ok(Some(_))), "{line:?}");
    }
}

#[test]
fn a_head_that_is_cut_off_anywhere_is_waited_for() {
    let text = "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for end in 0..text.len() {
        assert_eq!(of(&text[..end]), Ok(None), "{end}");
    }
}

#[test]
fn first_lines_with_another_reading_do_not_pass() {
    for (line, fault) in [
        ("GET / HTTP/1.2", Fault::Version),
        ("GET / HTTP/2.0", Fault::Version),
        ("GET / http/1.1", Fault::Version),
        ("GET / HTTP/1.1 ", Fault::RequestLine),
        ("GET  / HTTP/1.1", Fault::RequestLine),
        (" GET / HTTP/1.1", Fault::RequestLine),
        ("GET /", Fault::RequestLine),
        ("GET\t/\tHTTP/1.1", Fault::RequestLine),
        ("GET / HTTP/1.1\t", Fault::Version),
        ("G@T / HTTP/1.1", Fault::RequestLine),
        ("G\0T / HTTP/1.1", Fault::RequestLine),
        ("", Fault::RequestLine),
        ("\r\n\r\nGET / HTTP/1.1", Fault::RequestLine),
        ("\nGET / HTTP/1.1", Fault::LineEnd),
        ("GET /a b HTTP/1.1", Fault::RequestLine),
        ("GET /\0 HTTP/1.1", Fault::TargetCharacter),
        ("GET /\rb HTTP/1.1", Fault::LineEnd),
        ("CONNECT a:1 HTTP/1.1", Fault::Connect),
        ("GET a:1 HTTP/1.1", Fault::BadTarget),
        ("GET * HTTP/1.1", Fault::BadTarget),
        ("GET http://b/ HTTP/1.1", Fault::SeveralHosts),
    ] {
        assert_eq!(with(line, ""), Err(fault), "{line:?}");
    }
}

#[test]
fn fields_with_another_reading_do_not_pass() {
    for (fields, fault) in [
        ("X-A: b\n", Fault::LineEnd),
        ("X-A: b\rc\r\n", Fault::LineEnd),
        ("X-A: b\r\r\n", Fault::LineEnd),
        (" X-A: b\r\n", Fault::Folded),
        ("X-A: b\r\n\tc\r\n", Fault::Folded),
        ("X-A : b\r\n", Fault::FieldName),
        ("X A: b\r\n", Fault::FieldName),
        (": b\r\n", Fault::FieldName),
        ("X-A\r\n", Fault::FieldName),
        ("X-\u{e9}: b\r\n", Fault::FieldName),
        ("X-A: \0\r\n", Fault::FieldValue),
        ("X-A: \x7f\r\n", Fault::FieldValue),
        ("X-A: \x0b\r\n", Fault::FieldValue),
        ("Host: a\r\n", Fault::SeveralHosts),
        ("HOST: b\r\n", Fault::SeveralHosts),
        ("Content-Length: \r\n", Fault::BadLength),
        ("Content-Length: +1\r\n", Fault::BadLength),
        ("Content-Length: 0x1\r\n", Fault::BadLength),
        ("Content-Length: 1, 1\r\n", Fault::BadLength),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", Fault::BadLength),
        ("Content-Length: 18446744073709551616\r\n", Fault::BadLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Fault::TwoFramings),
        ("Transfer-Encoding: gzip, chunked\r\n", Fault::BadCoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Fault::BadCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::BadCoding),
        ("Transfer-Encoding: identity\r\n", Fault::BadCoding),
        ("Transfer-Encoding: \x0bchunked\r\n", Fault::FieldValue),
        ("Transfer-Encoding:\r\n", Fault::BadCoding),
        ("Transfer_Encoding: chunked\r\n", Fault::Lookalike),
        ("content_length: 1\r\n", Fault::Lookalike),
        ("Expect: 101\r\n", Fault::Expectation),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", Fault::Expectation),
        ("Connection: X-A\r\n", Fault::BadConnection),
        ("Connection: close, Content-Length\r\n", Fault::BadConnection),
        ("Upgrade: websocket\r\n", Fault::BadUpgrade),
        ("Connection: upgrade\r\nUpgrade: h2c\r\n", Fault::BadUpgrade),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c\r\n", Fault::BadUpgrade),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n", Fault::BadUpgrade),
        ("HTTP2-Settings: a\r\n", Fault::BadUpgrade),
        ("Content-Length: 1073741825\r\n", Fault::LargeBody),
    ] {
        assert_eq!(with("GET / HTTP/1.1", fields), Err(fault), "{fields:?}");
    }
    assert_eq!(with("GET / HTTP/1.0", "Transfer-Encoding: chunked\r\n"), Err(Fault::BadCoding));
    assert_eq!(
        with("POST / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n"),
        Err(Fault::BadUpgrade)
    );
    assert_eq!(of("GET / HTTP/1.1\r\nX-A: b\r\n\r\n"), Err(Fault::NoHost));
    assert_eq!(of("GET / HTTP/1.0\r\nX-A: b\r\n\r\n"), Err(Fault::NoHost));
    assert_eq!(of("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Err(Fault::BadHost));
}

#[test]
fn limits_hold_before_the_head_is_whole() {
    let limits = Limits { head: 100, fields: 3, target: 10, ..Limits::DEFAULT };
    let check = |text: &str| check(text.as_bytes(), &limits);
    assert_eq!(check("GET /12345678"), Ok(None));
    assert_eq!(check(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(9))), Ok(None));
    assert_eq!(check(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(10))), Err(Fault::LongTarget));
    assert_eq!(check(&"a".repeat(100)), Err(Fault::LongTarget));
    let line = "GET / HTTP/1.1\r\n";
    assert_eq!(check(&format!("{line}X: {}", "a".repeat(200))), Err(Fault::LargeHead));
    assert_eq!(check(&format!("{line}A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n")), Err(Fault::LargeHead));
    let fits = format!("{line}Host: a\r\nX: {}\r\n\r\n", "a".repeat(100 - 16 - 9 - 5 - 2));
    assert_eq!(fits.len(), 100);
    assert!(matches!(check(&fits), Ok(Some(_))));
    assert_eq!(check(&fits.replace("X: a", "X: aa")), Err(Fault::LargeHead));
}

/// What Pingora makes of a head.
struct Served {
    method: Method,
    target: Vec<u8>,
    version: http::Version,
    fields: Vec<(String, Vec<u8>)>,
    len: usize,
}

fn served(text: &[u8]) -> Option<Served> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        tokio::io::AsyncWriteExt::write_all(&mut client, text).await.unwrap();
        drop(client);
        let mut session = HttpSession::new(Box::new(server));
        let len = session.read_request().await.ok()??;
        let head = session.req_header();
        let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_owned()));
        Some(Served {
            method: head.method.clone(),
            target: head.raw_path().to_owned(),
            version: head.version,
            fields: fields.collect(),
            len,
        })
    })
}

fn agree(text: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Some(head)) = check(text, &Limits::DEFAULT) else { return Ok(()) };
    let mut room = [EMPTY_HEADER; 256];
    let mut parsed = Request::new(&mut room);
    prop_assert_eq!(parsed.parse(text), Ok(Status::Complete(head.len)));
    let Some(served) = served(text) else {
        return Err(TestCaseError::fail("Pingora refuses it"));
    };
    prop_assert_eq!(served.method.as_str(), parsed.method.unwrap());
    prop_assert_eq!(&*served.target, parsed.path.unwrap().as_bytes());
    prop_assert_eq!(served.version == http::Version::HTTP_11, parsed.version == Some(1));
    prop_assert_eq!(served.len, head.len);
    let mut ours: Vec<_> = parsed
        .headers
        .iter()
        .map(|field| (field.name.to_ascii_lowercase(), field.value.to_owned()))
        .collect();
    let mut theirs = served.fields;
    ours.sort();
    theirs.sort();
    prop_assert_eq!(&ours, &theirs);
    let count = |name: &str| ours.iter().filter(|(found, _)| found == name).count();
    prop_assert_eq!(count("host"), 1);
    prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
    prop_assert_eq!(count("transfer-encoding") == 1, head.body == Body::Chunked);
    Ok(())
}

fn line() -> impl Strategy<Value = String> {
    let method =
        prop_oneof![Just("GET"), Just("POST"), Just("OPTIONS"), Just("x-Y"), Just("CONNECT"), Just("")];
    let target = prop_oneof![
        "/[a-z%./?#:|]{0,6}".prop_map(|text| text),
        Just("*".to_owned()),
        "http://[ab]/?[a-z]{0,2}",
        "[ -~]{0,4}"
    ];
    let version =
        prop_oneof![4 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2"), 1 => Just("")];
    (method, target, version).prop_map(|(method, target, version)| format!("{method} {target} {version}"))
}

fn field() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("Host"),
        Just("Content-Length"),
        Just("Transfer-Encoding"),
        Just("Connection"),
        Just("Upgrade"),
        Just("Expect"),
        Just("X-A"),
        Just("X-A "),
        Just(" X-A"),
        Just("")
    ];
    let value = prop_oneof![
        Just("a".to_owned()),
        Just("4".into()),
        Just("chunked".into()),
        Just("websocket".into()),
        "[ -~\t\u{e9}\\x00\r]{0,6}"
    ];
    (name, prop_oneof![4 => Just(": "), 1 => Just(":"), 1 => Just("")], value)
        .prop_map(|(name, colon, value)| format!("{name}{colon}{value}"))
}

proptest! {
    #[test]
    fn what_passes_is_read_by_all_parsers_in_the_same_way(
        line in line(),
        mut fields in proptest::collection::vec(field(), 0..4),
        has_host in prop::bool::weighted(0.8),
        end in prop_oneof![6 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")],
        odd in 0_usize..8,
    ) {
        if has_host {
            fields.insert(0, "Host: a".into());
        }
        let mut text = format!("{line}\r\n");
        for (number, field) in fields.iter().enumerate() {
            text += field;
            text += if number == odd { end } else { "\r\n" };
        }
        text += "\r\nGET /next HTTP/1.1\r\n";
        agree(text.as_bytes())?;
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_by_all_in_the_same_way(at in 0_usize..200, byte: u8, other in 0_usize..200, second: u8) {
        let mut text = b"POST /a/b?c=d HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let len = text.len();
        text[at % len] = byte;
        text[other % len] = second;
        agree(&text)?;
    }

    #[test]
    fn whatever_comes_nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&text, &Limits::DEFAULT);
    }
}
