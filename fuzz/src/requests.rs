//! Requests, before anybody decides about them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use httparse::Header;
use portcullis::fields::Fields;
use portcullis::framing::chunks::Chunks;
use portcullis::framing::frames::Frames;
use portcullis::framing::{Limits, check_path, check_relative, normal_host, other_reading, path};
use portcullis::headers::Forwarding;

use crate::Target;

pub const HEAD: Target = Target {
    name: "request_head",
    about: "the head of an HTTP/1.1 request: what passes has one reading, that of the server's own parser too",
    run: portcullis::relay::fuzzing::request_head,
    seeds: || {
        [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a?b=c HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "\r\nOPTIONS * HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n",
            "PUT http://a/b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\nContent-Length: 0\r\nX: \t y \r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\n X: folded\r\nContent_Length: 1\r\nTransfer-Encoding : chunked\r\n\r\n",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

pub const TARGET: Target = Target {
    name: "request_target",
    about: "a path and a host: normalised once, they stay as they are",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let (target, host) = text.split_once(' ').unwrap_or((text, text));
        if let Ok(normal) = normal_host(host) {
            assert!(
                !normal.contains(|c: char| c.is_uppercase() || c.is_control() || c == '@' || c == '/'),
                "{normal}"
            );
            // An IPv6 address has lost its brackets.
            if !normal.contains(':') {
                let again = normal_host(&normal);
                assert!(again.as_ref() == Ok(&normal) || normal.ends_with('.'), "{normal} {again:?}");
            }
        }
        if check_relative("GET", target).is_err() {
            return;
        }
        let path = path(target);
        assert_eq!(check_path(path), Ok(()));
        assert!(path.starts_with('/') && path.is_ascii());
        for segment in decoded(path).split(['/', '\\']) {
            assert!(segment != "." && segment != "..", "{path}");
        }
        if let Some(other) = other_reading(path) {
            assert_eq!(check_path(&other), Ok(()), "{path} {other}");
            assert_eq!(other_reading(&other), None, "{path} {other}");
        }
    },
    seeds: || {
        [
            "/ a",
            "/a//b;c=d/%2e%2e/x?y=../z Example.COM:8443",
            "/caf%C3%A9/a%20b [::1]:1",
            "/%3B/..%3bx/b a.",
            "/a/./b/../c a:b@c",
            "* a_b",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

/// Until nothing is left to decode, as the most generous origin would.
fn decoded(path: &str) -> String {
    let mut text = path.to_owned();
    loop {
        let next = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if next == text {
            return text;
        }
        text = next;
    }
}

pub const CHUNKS: Target = Target {
    name: "chunks",
    about: "a chunked body: watched in whatever pieces, and taken apart by the server's own parser to the same end",
    run: |bytes| {
        let Some((step, text)) = bytes.split_first() else { return };
        let limits = Limits { body: 1 << 20, ..Limits::DEFAULT };
        let mut whole = Chunks::new(&limits);
        let at_once = whole.watch(text);
        let mut cut = Chunks::new(&limits);
        let in_pieces = text.chunks(usize::from(*step).max(1)).try_for_each(|piece| cut.watch(piece));
        assert_eq!(at_once, in_pieces);
        if at_once.is_err() {
            return;
        }
        assert_eq!(whole, cut);
        let mut rest = text;
        while let Ok(httparse::Status::Complete((head, size))) = httparse::parse_chunk_size(rest) {
            if size == 0 {
                break;
            }
            let Some(after) = rest[head..].get(size as usize..) else {
                assert!(!whole.is_done(), "it ends in the middle of a chunk");
                return;
            };
            if after.len() < 2 {
                assert!(!whole.is_done());
                return;
            }
            rest = after.strip_prefix(b"\r\n").expect("each chunk ends where its size says");
        }
    },
    seeds: || {
        [
            "\x034\r\nabcd\r\n0\r\n\r\n",
            "\x014;a=\"b\"\r\nabcd\r\nA\r\n0123\r\n6789\r\n0\r\nX-A: b\r\n\r\nGET",
            "\x0200f\r\n0123456789abcde\r\n000\r\n\r\n",
            "\x05ffffffffffffffff\r\n",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

pub const FRAMES: Target = Target {
    name: "frames",
    about: "the frames of an HTTP/2 connection: counted in the same way wherever they are cut",
    run: |bytes| {
        let Some((step, text)) = bytes.split_first() else { return };
        let now = Instant::now();
        let (mut whole, mut cut) = (Frames::new(100, now), Frames::new(100, now));
        let at_once = whole.watch(text, || now);
        let in_pieces = text.chunks(usize::from(*step).max(1)).try_for_each(|piece| cut.watch(piece, || now));
        assert_eq!(at_once, in_pieces);
        if at_once.is_ok() {
            assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
        }
    },
    seeds: || {
        let preface = b"\x05PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let frame =
            |kind: u8, len: u8| [&[0, 0, len, kind, 0, 0, 0, 0, 1][..], &vec![0; len.into()]].concat();
        let several = [frame(4, 6), frame(1, 9), frame(0, 0), frame(3, 4), frame(6, 8), frame(8, 4)].concat();
        vec![[&preface[..], &several].concat(), [&preface[..], &frame(3, 4).repeat(501)].concat()]
    },
};

pub const FORWARDING: Target = Target {
    name: "forwarding",
    about: "what a trusted proxy says of where a request came from: our own word comes last, and nothing swallows it",
    run: |bytes| {
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        let names = ["X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Host", "Forwarded"];
        let fields: Vec<Header<'_>> =
            lines.iter().zip(names.iter().cycle()).map(|(value, name)| Header { name, value }).collect();
        let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let trusting = Forwarding::new(vec!["192.0.2.0/24".parse().expect("a network")]);
        for forwarding in [&trusting, &Forwarding::new(Vec::new())] {
            let said = forwarding.headers(peer, "a.example", Fields::Lines(&fields));
            let value = |name: &str| {
                let of = said.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str());
                of.unwrap_or(Ok("")).expect("visible ASCII").to_owned()
            };
            let last = |list: &str, wanted: &str| list == wanted || list.ends_with(&format!(", {wanted}"));
            assert!(last(&value("x-forwarded-for"), "192.0.2.1"), "{said:?}");
            let forwarded = value("forwarded");
            assert!(last(&forwarded, "for=192.0.2.1;host=a.example;proto=https"), "{said:?}");
            assert!(["http", "https"].contains(&value("x-forwarded-proto").as_str()));
            let (mut quoted, mut escaped) = (false, false);
            for byte in forwarded.bytes() {
                (quoted, escaped) = match byte {
                    _ if escaped => (quoted, false),
                    b'\\' if quoted => (true, true),
                    b'"' => (!quoted, false),
                    _ => (quoted, false),
                };
            }
            assert!(!quoted, "our word is inside of quotes: {forwarded}");
        }
    },
    seeds: || {
        [
            "203.0.113.1\nhttps\na.example\nfor=\"[2001:db8::1]\";proto=http",
            "a, b\nhttp\n\nfor=\"\\\"a\"\n,\nx\n\"\nfor=\"a",
        ]
        .map(Vec::from)
        .to_vec()
    },
};
