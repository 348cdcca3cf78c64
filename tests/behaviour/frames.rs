//! HTTP/2 frame by frame: what RFC 9113 forbids, and floods of what it allows.
//!
//! The cases are those that matter of h2spec's: each says where the fault lies, in a stream or in the connection. For a
//! fault of a stream the whole connection may end, for one of the connection it must.

use crate::support::frames::*;
use crate::support::{Origin, Scripted, Site};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

/// Where a fault lies, with the codes that may be said.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Stream(&'static [u32]),
    Connection(&'static [u32]),
    /// There is none: the connection lives, and stream 1 has this status, if it has one.
    None(Option<u16>),
}

use Fault::{Connection as C, None as N, Stream as S};

fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

/// A request whose body is still to come.
fn open(stream: u32) -> Vec<u8> {
    headers(stream, 0, &request("/"))
}

fn with(fields: &[(&'static str, &'static str)]) -> Vec<u8> {
    headers(1, END_STREAM, &[&request("/"), fields].concat())
}

fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = request("/").into_iter().filter(|(other, _)| *other != name).collect();
    headers(1, END_STREAM, &fields)
}

fn cases() -> Vec<(&'static str, Vec<u8>, Fault)> {
    let block_of = |path| block(&request(path));
    let mut all: Vec<(&'static str, Vec<u8>, Fault)> = Vec::new();
    let mut add = |name, bytes: Vec<u8>, fault| all.push((name, bytes, fault));
    // Section 4: frames.
    add("unknown frame", [frame(0x16, 0, 0, b"12345678"), get(1, "/")].concat(), N(Some(200)));
    add("unknown flags", frame(PING, 0xfe, 0, b"12345678"), N(None));
    add("reserved bit", [frame(PING, 0, 1 << 31, b"12345678"), get(1, "/")].concat(), N(Some(200)));
    add("largest DATA", [open(1), frame(DATA, END_STREAM, 1, &[0; 16_384])].concat(), N(Some(200)));
    add("DATA too large", [open(1), frame(DATA, END_STREAM, 1, &vec![0; 16_385])].concat(), S(&[SIZE]));
    add("HEADERS too large", frame(HEADERS, END_HEADERS, 1, &vec![0; 16_385]), C(&[SIZE, COMPRESSION]));
    add(
        "no header block",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        C(&[COMPRESSION, PROTOCOL]),
    );
    add(
        "PRIORITY within a block",
        [frame(HEADERS, 0, 1, &block_of("/")), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])].concat(),
        C(&[PROTOCOL]),
    );
    add(
        "HEADERS within a block",
        [frame(HEADERS, 0, 1, &block_of("/")), get(3, "/")].concat(),
        C(&[PROTOCOL]),
    );
    add(
        "unknown frame within a block",
        [frame(HEADERS, 0, 1, &block_of("/")), frame(0x16, 0, 1, b"a")].concat(),
        C(&[PROTOCOL]),
    );
    // Section 5.1: streams.
    add("DATA, idle", frame(DATA, END_STREAM, 1, b"a"), C(&[PROTOCOL]));
    add("RST_STREAM, idle", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), C(&[PROTOCOL]));
    add("WINDOW_UPDATE, idle", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 8]), C(&[PROTOCOL]));
    add("CONTINUATION, idle", frame(CONTINUATION, END_HEADERS, 1, &block_of("/")), C(&[PROTOCOL]));
    add(
        "DATA, half closed",
        [get(1, "/"), frame(DATA, END_STREAM, 1, b"a")].concat(),
        S(&[CLOSED, PROTOCOL]),
    );
    add("HEADERS, half closed", [get(1, "/"), get(1, "/")].concat(), S(&[CLOSED, PROTOCOL]));
    add(
        "CONTINUATION, half closed",
        [get(1, "/"), frame(CONTINUATION, END_HEADERS, 1, &block_of("/"))].concat(),
        C(&[CLOSED, PROTOCOL]),
    );
    add(
        "DATA after RST_STREAM",
        [open(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(DATA, END_STREAM, 1, b"a")].concat(),
        S(&[CLOSED]),
    );
    add(
        "CONTINUATION after RST_STREAM",
        [
            open(1),
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            frame(CONTINUATION, END_HEADERS, 1, &block_of("/")),
        ]
        .concat(),
        C(&[CLOSED, PROTOCOL]),
    );
    add("even stream", get(2, "/"), C(&[PROTOCOL]));
    add("lower stream", [get(5, "/"), get(3, "/")].concat(), C(&[PROTOCOL]));
    add(
        "depends on itself",
        frame(
            HEADERS,
            END_HEADERS | END_STREAM | WITH_PRIORITY,
            1,
            &[&[0, 0, 0, 1, 9], &*block_of("/")].concat(),
        ),
        S(&[PROTOCOL]),
    );
    add("PRIORITY depends on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]), S(&[PROTOCOL]));
    // Section 6: each kind.
    add("DATA on stream 0", frame(DATA, 0, 0, b"a"), C(&[PROTOCOL]));
    add(
        "DATA padded too much",
        [open(1), frame(DATA, PADDED | END_STREAM, 1, &[9, b'a'])].concat(),
        C(&[PROTOCOL]),
    );
    add("HEADERS on stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &block_of("/")), C(&[PROTOCOL]));
    add(
        "HEADERS padded too much",
        frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[&[255], &*block_of("/")].concat()),
        C(&[PROTOCOL]),
    );
    add(
        "HEADERS padded",
        frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[&[2], &*block_of("/"), &[0, 0]].concat()),
        N(Some(200)),
    );
    add("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9]), C(&[PROTOCOL]));
    add(
        "PRIORITY of four bytes",
        [open(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 3])].concat(),
        S(&[SIZE, PROTOCOL]),
    );
    add("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), C(&[PROTOCOL]));
    add(
        "RST_STREAM of three bytes",
        [open(1), frame(RST_STREAM, 0, 1, &[0, 0, 0])].concat(),
        C(&[SIZE, PROTOCOL]),
    );
    add("SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]), C(&[SIZE, PROTOCOL]));
    add("SETTINGS ACK that nobody waits for", frame(SETTINGS, ACK, 0, &[]), C(&[PROTOCOL]));
    add("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 1]), C(&[PROTOCOL]));
    add("SETTINGS of three bytes", frame(SETTINGS, 0, 0, &[0, 3, 0]), C(&[SIZE, PROTOCOL]));
    add("ENABLE_PUSH 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), C(&[PROTOCOL]));
    add("INITIAL_WINDOW_SIZE 2^31", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), C(&[FLOW, PROTOCOL]));
    add("MAX_FRAME_SIZE below", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), C(&[PROTOCOL]));
    add("MAX_FRAME_SIZE above", frame(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]), C(&[PROTOCOL]));
    add(
        "unknown setting",
        [frame(SETTINGS, 0, 0, &[0, 0xff, 0, 0, 0, 1]), get(1, "/")].concat(),
        N(Some(200)),
    );
    add(
        "PUSH_PROMISE of a client",
        [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &*block_of("/")].concat())].concat(),
        C(&[PROTOCOL]),
    );
    add(
        "PING ACK that nobody waits for",
        [frame(PING, ACK, 0, b"12345678"), get(1, "/")].concat(),
        N(Some(200)),
    );
    add("PING on a stream", frame(PING, 0, 1, b"12345678"), C(&[PROTOCOL]));
    add("PING of six bytes", frame(PING, 0, 0, b"123456"), C(&[SIZE, PROTOCOL]));
    add("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), C(&[PROTOCOL]));
    add("WINDOW_UPDATE 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), C(&[PROTOCOL]));
    add(
        "WINDOW_UPDATE 0 of a stream",
        [open(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
        S(&[PROTOCOL]),
    );
    add("WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), C(&[SIZE, PROTOCOL]));
    let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    add("window above 2^31", [most.clone(), most].concat(), C(&[FLOW]));
    let most = frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
    add("window of a stream above 2^31", [open(1), most.clone(), most].concat(), S(&[FLOW]));
    let pieces = block_of("/");
    let (one, two) = pieces.split_at(10);
    let begin = frame(HEADERS, END_STREAM, 1, one);
    add("CONTINUATION", [begin.clone(), frame(CONTINUATION, END_HEADERS, 1, two)].concat(), N(Some(200)));
    add(
        "CONTINUATION of another stream",
        [begin, frame(CONTINUATION, END_HEADERS, 3, two)].concat(),
        C(&[PROTOCOL]),
    );
    add(
        "CONTINUATION on stream 0",
        [frame(HEADERS, END_STREAM, 1, one), frame(CONTINUATION, END_HEADERS, 0, two)].concat(),
        C(&[PROTOCOL]),
    );
    add(
        "CONTINUATION after the block's end",
        [get(1, "/"), frame(CONTINUATION, END_HEADERS, 1, two)].concat(),
        C(&[PROTOCOL, CLOSED]),
    );
    add(
        "CONTINUATION after DATA",
        [open(1), frame(DATA, 0, 1, b"a"), frame(CONTINUATION, END_HEADERS, 1, two)].concat(),
        C(&[PROTOCOL]),
    );
    // Section 8: requests.
    add(
        "trailers that do not end the stream",
        [open(1), headers(1, 0, &[("x-a", "b")])].concat(),
        S(&[PROTOCOL]),
    );
    add(
        "pseudo field in trailers",
        [open(1), headers(1, END_STREAM, &[(":method", "GET")])].concat(),
        S(&[PROTOCOL]),
    );
    add("upper case", with(&[("X-A", "b")]), S(&[PROTOCOL]));
    for name in [" x", "x ", "x y", "x:", "x\r\n", "x\0", "", "\u{e9}"] {
        add("a name that is no token", with(&[(name, "b")]), S(&[PROTOCOL]));
    }
    for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b"] {
        add("a value with CR, LF or NUL", with(&[("x-a", value)]), S(&[PROTOCOL]));
    }
    add("unknown pseudo field", with(&[(":test", "a")]), S(&[PROTOCOL]));
    add(
        "pseudo field of an answer",
        headers(1, END_STREAM, &[&[(":status", "200")], &*request("/")].concat()),
        S(&[PROTOCOL]),
    );
    add(
        "pseudo field after others",
        headers(1, END_STREAM, &[&[("x-a", "b")], &*request("/")].concat()),
        S(&[PROTOCOL]),
    );
    for (name, value) in [
        ("connection", "keep-alive"),
        ("keep-alive", "5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate;q=0.5"),
    ] {
        add("field of a connection", with(&[(name, value)]), S(&[PROTOCOL]));
    }
    add("te: trailers", with(&[("te", "trailers")]), N(Some(200)));
    for name in [":method", ":scheme", ":path"] {
        add("missing pseudo field", without(name), S(&[PROTOCOL]));
        let value = request("/").into_iter().find(|(other, _)| *other == name).unwrap().1;
        let twice = [&[(name, value)], &*request("/")].concat();
        add("pseudo field twice", headers(1, END_STREAM, &twice), S(&[PROTOCOL]));
    }
    let authority = [&[(":authority", "localhost")], &*request("/")].concat();
    add("authority twice", headers(1, END_STREAM, &authority), S(&[PROTOCOL]));
    add("empty path", headers(1, END_STREAM, &request("")), S(&[PROTOCOL]));
    add(
        "length that differs from one DATA",
        [
            headers(1, 0, &[&*request("/"), &[("content-length", "1")]].concat()),
            frame(DATA, END_STREAM, 1, b"ab"),
        ]
        .concat(),
        S(&[PROTOCOL]),
    );
    add(
        "length that differs from two DATA",
        [
            headers(1, 0, &[&*request("/"), &[("content-length", "1")]].concat()),
            frame(DATA, 0, 1, b"a"),
            frame(DATA, END_STREAM, 1, b"b"),
        ]
        .concat(),
        S(&[PROTOCOL]),
    );
    add(
        "more length than DATA",
        [
            headers(1, 0, &[&*request("/"), &[("content-length", "3")]].concat()),
            frame(DATA, END_STREAM, 1, b"ab"),
        ]
        .concat(),
        S(&[PROTOCOL]),
    );
    add("length without DATA", with(&[("content-length", "3")]), S(&[PROTOCOL]));
    for lengths in [
        &[("content-length", "a")][..],
        &[("content-length", "-1")],
        &[("content-length", "1"), ("content-length", "2")],
    ] {
        add("length that is no number", with(lengths), S(&[PROTOCOL]));
    }
    // RFC 7541.
    let compressed =
        |bytes: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&*block(&request("/")), bytes].concat());
    add("index 0", compressed(&[0x80]), C(&[COMPRESSION, PROTOCOL]));
    add("index beyond the table", compressed(&[0xff, 0x7f]), C(&[COMPRESSION, PROTOCOL]));
    add("name beyond the table", compressed(&[0x7f, 0x7f, 1, b'a']), C(&[COMPRESSION, PROTOCOL]));
    add(
        "table larger than allowed",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x3f, 0xff, 0xff, 0x7f], &*block_of("/")].concat()),
        C(&[COMPRESSION, PROTOCOL]),
    );
    add("table changed at the end", compressed(&[0x21]), C(&[COMPRESSION, PROTOCOL]));
    add(
        "EOS in a text",
        compressed(&[0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff]),
        C(&[COMPRESSION, PROTOCOL]),
    );
    add(
        "padding of a text that is too long",
        compressed(&[0, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x9f, 0x85]),
        C(&[COMPRESSION, PROTOCOL]),
    );
    all
}

#[test]
fn what_rfc_9113_forbids_ends_the_stream_or_the_connection() {
    // Answers only once the body is there, and never those of streams that broke.
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut faults = Vec::new();
    let cases = cases();
    assert!(cases.len() > 80);
    for (name, bytes, fault) in cases {
        let mut wire = site.frames("sensor-1");
        wire.send(&bytes);
        let ok = match fault {
            N(None) => wire.is_alive(),
            N(Some(status)) => wire.outcome(1) == Outcome::Status(status) && wire.is_alive(),
            S(codes) => match ends(&mut wire) {
                Outcome::Reset(code) | Outcome::GoAway(code) => codes.contains(&code),
                Outcome::Closed => true,
                // Malformed requests may be answered (RFC 9113, section 8.1.1).
                Outcome::Status(status) => status == 400,
            },
            C(codes) => match goes(&mut wire) {
                Outcome::GoAway(code) => codes.contains(&code),
                other => other == Outcome::Closed,
            },
        };
        if !ok {
            let mut again = site.frames("sensor-1");
            again.send(&bytes);
            faults.push(format!("{name}: {:?} instead of {fault:?}", again.outcome(1)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// How stream 1 or the connection breaks; an answer that was on its way counts only where nothing else follows.
fn ends(wire: &mut FrameWire) -> Outcome {
    match wire.outcome(1) {
        Outcome::Status(200) => wire.outcome(1),
        other => other,
    }
}

fn goes(wire: &mut FrameWire) -> Outcome {
    loop {
        match wire.outcome(1) {
            Outcome::Status(_) | Outcome::Reset(_) => {}
            other => return other,
        }
    }
}

#[test]
fn requests_that_translate_into_something_else_reach_no_origin() {
    let (site, origin) = (Site::new(), Scripted::saying(EMPTY));
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut refused = Vec::new();
    let replaced = |name: &'static str, value: &'static str| {
        let mut fields = request("/bad");
        fields.iter_mut().find(|(other, _)| *other == name).unwrap().1 = value;
        fields
    };
    let plus = |name: &'static str, value: &'static str| [&*request("/bad"), &[(name, value)]].concat();
    for (fields, expected) in [
        (replaced(":path", "*"), Outcome::Status(400)),
        (replaced(":path", "bad"), Outcome::Reset(PROTOCOL)),
        (replaced(":path", "/bad/../x"), Outcome::Status(400)),
        (replaced(":path", "/bad\u{e9}"), Outcome::Status(400)),
        (replaced(":path", "/bad\" HTTP/1.1"), Outcome::Reset(PROTOCOL)),
        (replaced(":path", "/bad HTTP/1.1\r\nX-A: b"), Outcome::Reset(PROTOCOL)),
        (replaced(":path", "/bad\tb"), Outcome::Reset(PROTOCOL)),
        (replaced(":path", "http://localhost/bad"), Outcome::Reset(PROTOCOL)),
        (replaced(":method", "GET /bad HTTP/1.1\r\nX"), Outcome::Reset(PROTOCOL)),
        (replaced(":method", "G T"), Outcome::Reset(PROTOCOL)),
        (replaced(":scheme", "ftp"), Outcome::Status(400)),
        (replaced(":authority", "user@localhost"), Outcome::Status(400)),
        (replaced(":authority", "localhost:80:90"), Outcome::Reset(PROTOCOL)),
        (replaced(":authority", "localhost/a"), Outcome::Reset(PROTOCOL)),
        (replaced(":authority", ""), Outcome::Reset(PROTOCOL)),
        (plus("host", "other"), Outcome::Status(400)),
        (plus("expect", "other"), Outcome::Status(417)),
        (plus("content-length", "0, 0"), Outcome::Reset(PROTOCOL)),
    ] {
        let mut wire = site.frames("sensor-1");
        wire.send(headers(1, END_STREAM, &fields));
        let got = wire.outcome(1);
        // A whole connection may end for what is no header block at all.
        if got != expected && !(expected == Outcome::Reset(PROTOCOL) && got == Outcome::GoAway(PROTOCOL)) {
            refused.push(format!("{fields:?}: {got:?}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert_eq!(origin.requests(), Vec::<String>::new());
    gateway.logged(&["\"kind\":\"request\"", "\"status\":417", "100-continue"]);
    // What some origins take for a length, or for a coding, is not passed on.
    let mut wire = site.frames("sensor-1");
    let lookalikes = [("content_length", "7"), ("transfer_encoding", "chunked"), ("x_a", "b")];
    wire.send(headers(1, END_STREAM, &[&*request("/good"), &lookalikes].concat()));
    assert_eq!(wire.outcome(1), Outcome::Status(200));
    let seen = origin.requests().concat();
    assert!(seen.contains("x_a: b") && !seen.contains("content_") && !seen.contains("transfer_"), "{seen}");
}

#[test]
fn more_streams_than_were_offered_are_refused_and_the_others_served() {
    let site = Site::new();
    let origin = Scripted::start(|mut call| {
        while call.request().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(500));
            call.say(EMPTY);
        }
    });
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut wire = site.frames("sensor-1");
    let all: Vec<u8> = (0..101).flat_map(|number| get(2 * number + 1, "/")).collect();
    wire.send(&all);
    assert_eq!(wire.outcome(201), Outcome::Reset(REFUSED));
    assert!(wire.is_alive());
}

/// The frames of a number.
type Flood = Box<dyn Fn(u32) -> Vec<u8>>;

#[test]
fn floods_of_frames_end_their_connection_with_a_reason_and_others_are_served() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("logging", "{ access: { requests: false } }")]);
    let gateway = site.start();
    let taken_back = |number: u32| {
        let stream = 2 * number + 1;
        [get(stream, "/"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    let many_settings: Vec<u8> = (0..2000).flat_map(|_| [0, 4, 0, 1, 0, 0]).collect();
    let same = |bytes: Vec<u8>| move |_: u32| bytes.clone();
    let mut before = 0.0;
    let floods: Vec<(&str, Flood)> = vec![
        ("PING", Box::new(same(frame(PING, 0, 0, b"12345678")))),
        ("SETTINGS", Box::new(same(frame(SETTINGS, 0, 0, &[])))),
        ("many settings", Box::new(same(frame(SETTINGS, 0, 0, &many_settings)))),
        ("PRIORITY", Box::new(|number| frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 9]))),
        ("WINDOW_UPDATE", Box::new(same(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])))),
        ("unknown frames", Box::new(same(frame(0x20, 0, 0, &[])))),
        ("requests taken back", Box::new(taken_back)),
    ];
    for (name, flood) in floods {
        let mut wire = site.frames("sensor-1");
        let mut sent = 0;
        // As fast as it goes, until nothing more is taken.
        while sent < 200_000 && wire.send((sent..sent + 100).flat_map(&flood).collect::<Vec<u8>>()) {
            sent += 100;
        }
        let ended = goes(&mut wire);
        assert!(matches!(ended, Outcome::GoAway(CALM) | Outcome::Closed), "{name} {ended:?}");
        crate::support::eventually(name, || {
            let counted = gateway.metric("portcullis_refusals_total{reason=\"flood\"}");
            (counted > before).then(|| before = counted)
        });
        assert_eq!(site.curl(Some("sensor-1"), &["--http2"], "/").status, 200, "{name}");
    }
}

#[test]
fn a_client_that_is_told_to_calm_down_hears_why() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let taken_back = |number: u32| {
        [get(2 * number + 1, "/"), frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
    };
    for (flood, reason) in [
        (frame(PING, 0, 0, b"12345678").repeat(20_000), "frames that ask for nothing"),
        ((0..150).flat_map(taken_back).collect(), "more than the HTTP/2 library allows"),
    ] {
        let mut wire = site.frames("sensor-1");
        wire.send(flood);
        assert_eq!(goes(&mut wire), Outcome::GoAway(CALM), "{reason}");
        gateway.logged(&["\"kind\":\"request\"", "\"refusal\":\"flood\"", reason]);
    }
    // A few at a time, which the library allows.
    let mut wire = site.frames("sensor-1");
    let mut pieces = (0..400).map(|n| (n * 5..n * 5 + 5).flat_map(taken_back).collect::<Vec<u8>>());
    assert!(!pieces.all(|piece| wire.send(piece) && wire.is_alive()));
    gateway.logged(&["\"kind\":\"request\"", "\"refusal\":\"flood\"", "too many requests were taken back"]);
}

/// What the library bounds: header blocks, empty DATA, broken streams.
#[test]
fn blocks_without_end_and_bombs_end_the_connection() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("logging", "{ access: { requests: false } }")]);
    let gateway = site.start();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = memory();
    // A value of 4,000 bytes that is put into the table once, and then named as often as there is room.
    let mut bomb = block(&request("/"));
    bomb.extend([0x40, 1, b'a']);
    integer(&mut bomb, 0, 7, 4000);
    bomb.extend(vec![b'x'; 4000]);
    bomb.extend(vec![0xbe; 10_000]);
    let mut endless = site.frames("sensor-1");
    endless.send(frame(HEADERS, END_STREAM, 1, &block(&request("/"))));
    let piece = frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")]));
    while endless.send(piece.repeat(100)) {}
    for (name, bytes) in [
        ("bomb", frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)),
        (
            "empty CONTINUATION",
            [
                frame(HEADERS, END_STREAM, 1, &block(&request("/"))),
                frame(CONTINUATION, 0, 1, &[]).repeat(1000),
            ]
            .concat(),
        ),
        ("empty DATA", [open(1), frame(DATA, 0, 1, &[]).repeat(2000)].concat()),
        (
            "broken streams",
            (0..300_u32).flat_map(|n| headers(2 * n + 1, END_STREAM, &[("x-a", "b")])).collect(),
        ),
    ] {
        for _ in 0..5 {
            let mut wire = site.frames("sensor-1");
            wire.send(&bytes);
            let ended = goes(&mut wire);
            assert!(
                matches!(ended, Outcome::GoAway(CALM | PROTOCOL | COMPRESSION) | Outcome::Closed),
                "{name} {ended:?}"
            );
        }
    }
    assert_eq!(site.curl(Some("sensor-1"), &["--http2"], "/").status, 200);
    assert!(memory().saturating_sub(before) < 16 * 1024, "{} KiB", memory() - before);
}

#[test]
fn what_is_no_http2_at_all_ends_the_connection() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    for text in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[0; 100]]
    {
        let mut wire = site.bare_frames("sensor-1");
        wire.send(text);
        assert!(matches!(goes(&mut wire), Outcome::GoAway(PROTOCOL) | Outcome::Closed));
    }
    // The first frame must be SETTINGS.
    let mut wire = site.bare_frames("sensor-1");
    wire.send([PREFACE, &*get(1, "/")].concat());
    assert!(matches!(goes(&mut wire), Outcome::GoAway(PROTOCOL) | Outcome::Closed));
}

#[test]
fn a_client_may_take_back_all_that_it_asked_at_once() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut wire = site.frames("sensor-1");
    let taken_back = |number: u32| {
        [get(2 * number + 1, "/"), frame(RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
    };
    wire.send((0..90).flat_map(taken_back).collect::<Vec<u8>>());
    assert!(wire.is_alive());
    assert!(gateway.metric("portcullis_refusals_total{reason=\"flood\"}") < 0.5);
}
