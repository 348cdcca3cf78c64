//! An endpoint's answer: its head, and where its body ends (RFC 9112, section 6.3).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use httparse::{Header, ParserConfig, Status};

/// Fields of an answer: as many as Pingora takes.
const MOST_FIELDS: usize = 256;

/// Bytes of an answer's head.
const LONGEST: usize = 64 * 1024;

/// An endpoint said something that is no HTTP, or can be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint's answer is malformed")]
pub(super) struct Malformed;

/// The head of an answer, still in the form in which it came.
pub(super) struct Response {
    pub(super) status: u16,
    bytes: Bytes,
    fields: Vec<Field>,
    pub(super) body: Body,
    /// The connection may serve another request after this one.
    pub(super) keeps_alive: bool,
    /// Of the body, where it is known, also where there is none because the method was HEAD.
    pub(super) length: Option<u64>,
    pub(super) has_date: bool,
}

/// Where one field stands in the bytes.
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

/// What is left of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Between, in and after the chunks (RFC 9112, section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
}

impl Response {
    /// Takes the head off the front of `buffer`; `None` while it is not complete.
    pub(super) fn take(buffer: &mut BytesMut, method: &Method) -> Result<Option<Self>, Malformed> {
        // Not filled beforehand: that would take as long as parsing does.
        let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, &mut room);
        let len = match parsed {
            Ok(Status::Complete(len)) if len <= LONGEST => len,
            Ok(Status::Partial) if buffer.len() < LONGEST => return Ok(None),
            _ => return Err(Malformed),
        };
        let (status, version) = (response.code.ok_or(Malformed)?, response.version.ok_or(Malformed)?);
        // Three digits are all that the parser asks for; below 100 nobody knows what they mean, or whether a body follows.
        if status < 100 {
            return Err(Malformed);
        }
        let framing = Framing::read(response.headers, version)?;
        let base = buffer.as_ptr() as usize;
        let place = |part: &[u8]| ((part.as_ptr() as usize - base) as u32, part.len() as u32);
        let forwarded = response.headers.iter().filter(|field| !framing.is_left_out(field.name));
        let fields: Vec<Field> = forwarded
            .map(|field| Field { name: place(field.name.as_bytes()), value: place(field.value) })
            .collect();
        let has_date = response.headers.iter().any(|field| field.name.eq_ignore_ascii_case("date"));
        let body = framing.body(status, method);
        Ok(Some(Self {
            status,
            fields,
            body,
            keeps_alive: framing.keeps_alive && body != Body::UntilClose,
            length: if framing.chunked { None } else { framing.length },
            has_date,
            bytes: buffer.split_to(len).freeze(),
        }))
    }

    /// The fields that the client gets, but for those that frame the body.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let part = |(start, len): (u32, u32)| &self.bytes[start as usize..(start + len) as usize];
        // The parser took the name for a token, which is ASCII.
        self.fields
            .iter()
            .filter_map(move |field| Some((std::str::from_utf8(part(field.name)).ok()?, part(field.value))))
    }

    /// Bytes of the head.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// What the fields say about the message itself.
struct Framing<'a> {
    length: Option<u64>,
    chunked: bool,
    keeps_alive: bool,
    /// The values of Connection: it names fields that belong to this connection only.
    connection: Vec<&'a str>,
}

impl<'a> Framing<'a> {
    fn read(fields: &[Header<'a>], version: u8) -> Result<Self, Malformed> {
        let mut framing = Self { length: None, chunked: false, keeps_alive: false, connection: Vec::new() };
        for field in fields {
            match field.name.len() {
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    framing.connection.push(crate::fields::text(field.value).ok_or(Malformed)?);
                }
                14 if field.name.eq_ignore_ascii_case("content-length") => framing.add_length(field.value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    // Once, and nothing but chunks: we asked for no other coding.
                    if framing.chunked || version != 1 || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed);
                    }
                    framing.chunked = true;
                }
                _ => {}
            }
        }
        if framing.chunked && framing.length.is_some() {
            return Err(Malformed);
        }
        let has = |wanted: &str| framing.options().any(|option| option.eq_ignore_ascii_case(wanted));
        framing.keeps_alive = !has("close") && (version == 1 || has("keep-alive"));
        Ok(framing)
    }

    fn add_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let text = crate::fields::text(value).ok_or(Malformed)?;
        let is_number =
            !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
        let length: u64 = is_number.then(|| text.parse().ok()).flatten().ok_or(Malformed)?;
        if self.length.is_some_and(|before| before != length) {
            return Err(Malformed);
        }
        self.length = Some(length);
        Ok(())
    }

    fn options(&self) -> impl Iterator<Item = &'a str> {
        self.connection.iter().flat_map(|value| value.split(',')).map(str::trim)
    }

    fn body(&self, status: u16, method: &Method) -> Body {
        let has_none = *method == Method::HEAD || matches!(status, 100..=199 | 204 | 304);
        match (self.chunked, self.length) {
            _ if has_none => Body::Length(0),
            (true, _) => Body::Chunked(Chunk::Size),
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::UntilClose,
        }
    }

    /// What belongs to the endpoint's connection, and what we say ourselves.
    fn is_left_out(&self, name: &str) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let of_connection = match name.len() {
            2 => is("te"),
            7 => is("trailer") || is("upgrade"),
            10 => is("connection") || is("keep-alive"),
            14 => is("content-length"),
            16 => is("proxy-connection"),
            17 => is("transfer-encoding"),
            _ => false,
        };
        of_connection || (!self.connection.is_empty() && self.options().any(is))
    }
}

impl Body {
    pub(super) fn is_done(self) -> bool {
        self == Self::Length(0)
    }

    /// Takes the next piece of the body off the front of `buffer`; `None` where more must arrive first. Of a body that
    /// is done, whatever follows stays where it is.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        loop {
            match self {
                Self::Length(0) => return Ok(None),
                Self::Length(left) => return Ok(piece(left, buffer)),
                Self::UntilClose => return Ok((!buffer.is_empty()).then(|| buffer.split().freeze())),
                Self::Chunked(Chunk::Data(left)) => {
                    let taken = piece(left, buffer);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::DataEnd);
                    }
                    return Ok(taken);
                }
                Self::Chunked(chunk) => match chunk.advance(buffer)? {
                    Some(next) => *self = next,
                    None => return Ok(None),
                },
            }
        }
    }
}

fn piece(left: &mut u64, buffer: &mut BytesMut) -> Option<Bytes> {
    let len = (buffer.len() as u64).min(*left);
    *left -= len;
    (len > 0).then(|| buffer.split_to(len as usize).freeze())
}

/// A line between chunks: a size with its extensions, or a trailer field.
const LONGEST_LINE: usize = 8 * 1024;

impl Chunk {
    /// Over the next line; `None` while it is not complete.
    fn advance(self, buffer: &mut BytesMut) -> Result<Option<Body>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            return if buffer.len() > LONGEST_LINE { Err(Malformed) } else { Ok(None) };
        };
        let line = buffer[..end].strip_suffix(b"\r").ok_or(Malformed)?;
        let next = match self {
            Self::Size => match size(line)? {
                0 => Body::Chunked(Self::Trailer),
                size => Body::Chunked(Self::Data(size)),
            },
            Self::DataEnd if line.is_empty() => Body::Chunked(Self::Size),
            Self::Trailer if line.is_empty() => Body::Length(0),
            // A proxy may drop trailer fields (RFC 9110, section 6.5.1).
            Self::Trailer => Body::Chunked(Self::Trailer),
            Self::DataEnd | Self::Data(_) => return Err(Malformed),
        };
        buffer.advance(end + 1);
        Ok(Some(next))
    }
}

/// Hexadecimal digits, then nothing or an extension, which nobody uses.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 {
        return Err(Malformed);
    }
    digits.iter().try_fold(0, |size, byte| {
        let digit = char::from(*byte).to_digit(16).ok_or(Malformed)?;
        Ok(size << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(text: &str, method: &Method) -> Result<Option<(Response, BytesMut)>, Malformed> {
        let mut buffer = BytesMut::from(text);
        Ok(Response::take(&mut buffer, method)?.map(|response| (response, buffer)))
    }

    fn get(head: &str) -> Response {
        take(&format!("{head}\r\n\r\n"), &Method::GET).unwrap().unwrap().0
    }

    fn is_malformed(head: &str) -> bool {
        take(&format!("{head}\r\n\r\n"), &Method::GET).is_err()
    }

    #[test]
    fn a_head_is_read_and_what_belongs_to_the_connection_is_left_out() {
        let (response, rest) = take(
            "HTTP/1.1 200 OK\r\nServer: a\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 5\r\nDate: now\r\n\r\nhello",
            &Method::GET,
        )
        .unwrap()
        .unwrap();
        assert_eq!(response.fields().collect::<Vec<_>>(), [("Server", &b"a"[..]), ("Date", b"now")]);
        assert_eq!((response.status, response.body, response.length), (200, Body::Length(5), Some(5)));
        assert!(response.keeps_alive && response.has_date);
        assert_eq!(&rest[..], b"hello");
    }

    #[test]
    fn a_head_that_is_cut_off_is_waited_for() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert!((0..text.len()).all(|end| take(&text[..end], &Method::GET).unwrap().is_none()));
    }

    #[test]
    fn the_body_ends_where_the_head_says() {
        assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 7").body, Body::Length(7));
        assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7").body, Body::Length(7));
        assert_eq!(get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").body, Body::Chunked(Chunk::Size));
        assert_eq!(get("HTTP/1.1 200 OK\r\nServer: a").body, Body::UntilClose);
        assert_eq!(get("HTTP/1.1 204 No Content\r\nServer: a").body, Body::Length(0));
        assert_eq!(get("HTTP/1.1 304 Not Modified\r\nContent-Length: 7").body, Body::Length(0));
        let (head, _) = take("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", &Method::HEAD).unwrap().unwrap();
        assert_eq!((head.body, head.length), (Body::Length(0), Some(7)));
    }

    #[test]
    fn a_connection_is_kept_only_where_both_sides_know_the_end() {
        assert!(get("HTTP/1.1 200 OK\r\nContent-Length: 0").keeps_alive);
        assert!(!get("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close").keeps_alive);
        assert!(!get("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, Close").keeps_alive);
        assert!(!get("HTTP/1.0 200 OK\r\nContent-Length: 0").keeps_alive);
        assert!(get("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive").keeps_alive);
        assert!(!get("HTTP/1.1 200 OK\r\nServer: a").keeps_alive);
    }

    #[test]
    fn answers_that_can_be_read_in_two_ways_are_malformed() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
            "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
            "HTTP/1.1 200 OK\r\nContent-Length: -1",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 000 OK",
            "SIP/2.0 200 OK",
        ] {
            assert!(is_malformed(head), "{head}");
        }
    }

    /// The body that comes out, and what is left, when the bytes arrive in pieces of `step`.
    fn unchunk(bytes: &[u8], step: usize) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let (mut body, mut buffer, mut out) = (Body::Chunked(Chunk::Size), BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(piece) = body.take(&mut buffer)? {
                out.extend_from_slice(&piece);
            }
        }
        Ok((out, body.is_done(), buffer.to_vec()))
    }

    #[test]
    fn chunks_are_joined_whatever_pieces_they_arrive_in() {
        let text = b"5\r\nhello\r\n1;x=y\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: a\r\n\r\nnext";
        for step in 1..text.len() {
            assert_eq!(
                unchunk(text, step).unwrap(),
                (b"hello 0123456789".to_vec(), true, b"next".to_vec()),
                "{step}"
            );
        }
    }

    #[test]
    fn chunks_that_are_none_are_malformed() {
        for text in
            ["\r\n", "x\r\n", "5\nhello\r\n", "5\r\nhelloX\r\n", "-1\r\n", "1000000000000000\r\n", "0x5\r\n"]
        {
            assert_eq!(unchunk(text.as_bytes(), 100), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..50) {
            let _ = Response::take(&mut BytesMut::from(&bytes[..]), &Method::GET);
            let _ = unchunk(&bytes, step);
        }

        #[test]
        fn what_is_chunked_is_joined(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5), step in 1_usize..60) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend(format!("{:x}\r\n", piece.len()).bytes());
                text.extend(piece);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\n\r\n");
            prop_assert_eq!(unchunk(&text, step).unwrap(), (pieces.concat(), true, Vec::new()));
        }
    }
}
