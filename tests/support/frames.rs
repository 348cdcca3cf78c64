//! An HTTP/2 client that sends exactly the frames a test wants sent (RFC 9113, section 4.1).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openssl::ssl::SslStream;

use super::open::connector;
use super::{Site, eventually};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame, with whatever length its payload has.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: every field as a literal that is not remembered, without Huffman (RFC 7541, section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, 0, 7, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// RFC 7541, section 5.1.
pub fn integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut left = value - most;
    while left >= 128 {
        out.push(128 | (left % 128) as u8);
        left /= 128;
    }
    out.push(left as u8);
}

/// What a request is made of, for `path`.
pub fn request(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
}

/// A whole request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&request(path)))
}

/// What became of a stream, or of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct FrameWire {
    tls: SslStream<TcpStream>,
}

impl Site {
    /// A connection of HTTP/2 as `client`, on which nothing was said.
    pub fn bare_frames(&self, client: &str) -> FrameWire {
        let connect = || {
            let tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            tcp.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
            tcp.set_nodelay(true).unwrap();
            // A busy machine may need more than the listener's time for a handshake.
            connector(self, Some(client), b"\x02h2").connect("localhost", tcp).ok()
        };
        FrameWire { tls: eventually("a client shakes hands", connect) }
    }

    /// The same after the preface. Answers use no table of fields.
    pub fn frames(&self, client: &str) -> FrameWire {
        let mut wire = self.bare_frames(client);
        // SETTINGS_HEADER_TABLE_SIZE = 0.
        wire.send(
            [PREFACE, &frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]), &frame(SETTINGS, ACK, 0, &[])].concat(),
        );
        wire
    }
}

impl FrameWire {
    /// False: the gateway takes no more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.tls.write_all(bytes.as_ref()).is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.tls.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.tls.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }

    /// Reads on until something is said about `stream`, or the connection ends.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(next) = self.next() else { return Outcome::Closed };
            let code = |at: usize| u32::from_be_bytes(next.payload[at..at + 4].try_into().unwrap());
            match next.kind {
                GOAWAY => return Outcome::GoAway(code(4)),
                RST_STREAM if next.stream == stream => return Outcome::Reset(code(0)),
                HEADERS if next.stream == stream => return Outcome::Status(status(&next.payload)),
                _ => {}
            }
        }
    }

    /// Whether a ping is answered.
    pub fn is_alive(&mut self) -> bool {
        if !self.send(frame(PING, 0, 0, b"is alive")) {
            return false;
        }
        while let Some(next) = self.next() {
            match next.kind {
                PING if next.flags == ACK && next.payload == b"is alive" => return true,
                GOAWAY => return false,
                _ => {}
            }
        }
        false
    }
}

/// Of an answer: the first field of its block (RFC 7541, appendix A and B).
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size may come before it.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    let block = &block[at..];
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A literal whose name is `:status`.
        0x08 | 0x18 | 0x48 => digits(&block[2..2 + usize::from(block[1] & 0x7f)], block[1] & 0x80 != 0),
        other => panic!("{other:#x} is no status"),
    }
}

fn digits(bytes: &[u8], is_huffman: bool) -> u16 {
    if !is_huffman {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut at, mut number) = (0, 0);
    let take =
        |at: usize, len: usize| bits[at..at + len].iter().fold(0, |all, bit| all << 1 | u16::from(*bit));
    for _ in 0..3 {
        // 0, 1 and 2 are five bits long, the others six.
        let short = take(at, 5);
        let digit = if short <= 2 { short } else { take(at, 6) - 0x19 + 3 };
        at += if short <= 2 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    number
}
