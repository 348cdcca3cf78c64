//! What the fuzz targets may know of how ordinary requests and their answers are read.

use bytes::BytesMut;
use http::Method;

use super::head::{self, Parsed};
use super::response::{Malformed, Response};
use crate::framing::head::Body;
use crate::framing::{self, Fault, Limits};

/// Where a head ends, how long its body is, and its fields.
#[derive(Debug, PartialEq, Eq)]
pub struct OrdinaryHead {
    pub len: usize,
    pub body: usize,
    pub target: String,
    pub host: String,
    pub fields: Vec<(String, Vec<u8>)>,
}

/// `None`: it is not whole, or not ordinary.
pub fn ordinary_head(bytes: &[u8]) -> Option<OrdinaryHead> {
    let mut room = head::room();
    let Parsed::Ordinary(head) = head::parse(bytes, &mut room) else { return None };
    let fields = head.fields.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
    let (target, host) = (head.target.to_owned(), head.host.to_owned());
    Some(OrdinaryHead { len: head.len, body: head.body, target, host, fields })
}

/// Whatever is taken for an ordinary request has one reading, and both ways of reading it see the same.
pub fn request_head(bytes: &[u8]) {
    let limits = Limits { body: u64::MAX, head: usize::MAX, target: usize::MAX, ..Limits::DEFAULT };
    let checked = framing::head::check(bytes, &limits);
    if let Some(ordinary) = ordinary_head(bytes) {
        let known = framing::head::Head { len: ordinary.len, body: Body::Length(ordinary.body as u64) };
        // Which host is meant is asked later, and what is none is refused then.
        let unnamed = framing::normal_host(&ordinary.host).is_err() && checked == Err(Fault::BadHost);
        assert!(checked == Ok(Some(known)) || unnamed, "{ordinary:?} {checked:?}");
    }
    let Ok(Some(head)) = checked else { return };
    assert_eq!(
        framing::head::check(&bytes[..head.len], &limits),
        Ok(Some(head)),
        "what follows a head changes it"
    );
    // Somebody who sends it slowly is told nothing else.
    for end in [head.len / 2, head.len - 1] {
        assert_eq!(framing::head::check(&bytes[..end], &limits), Ok(None), "the first {end} bytes");
    }
    let mut room = [httparse::EMPTY_HEADER; Limits::DEFAULT.fields];
    let mut parsed = httparse::Request::new(&mut room);
    let read = parsed.parse(bytes);
    assert_eq!(read, Ok(httparse::Status::Complete(head.len)), "the server's parser reads it in another way");
    let values = |name: &str| parsed.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name)).count();
    match head.body {
        Body::Chunked => assert_eq!((values("transfer-encoding"), values("content-length")), (1, 0)),
        Body::Length(length) => {
            assert_eq!(values("transfer-encoding"), 0);
            assert!(length == 0 || values("content-length") > 0);
        }
    }
}

/// What came of an endpoint's bytes: the head's status and fields, the body, whether it is whole, and what is left.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    is_done: bool,
    rest: Vec<u8>,
}

/// An answer is read in the same way in whatever pieces it comes, and nothing of it can break out of what a client is
/// sent.
pub fn response(bytes: &[u8], method: &Method, step: usize) {
    let whole = answer(bytes, method, bytes.len().max(1));
    let pieces = answer(bytes, method, step.max(1));
    // A fault may be seen before or after the piece in front of it was passed on.
    assert_eq!(whole.is_err(), pieces.is_err(), "{whole:?} {pieces:?}");
    let (Ok(Some(whole)), Ok(Some(pieces))) = (whole, pieces) else { return };
    assert_eq!(whole, pieces);
    assert!((100..1000).contains(&whole.status), "{}", whole.status);
    for (name, value) in &whole.fields {
        assert!(!name.is_empty() && http::HeaderName::from_bytes(name.as_bytes()).is_ok(), "{name:?}");
        assert!(http::HeaderValue::from_bytes(value).is_ok(), "{name}: {value:?}");
        for framing in ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade"] {
            assert!(!name.eq_ignore_ascii_case(framing), "{name}");
        }
    }
}

/// `None`: the head is not whole.
fn answer(bytes: &[u8], method: &Method, step: usize) -> Result<Option<Answer>, Malformed> {
    let (mut buffer, mut head, mut body) = (BytesMut::new(), None, Vec::new());
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = Response::take(&mut buffer, method)?;
        }
        let Some(response) = &mut head else { continue };
        while let Some(piece) = response.body.take(&mut buffer)? {
            body.extend_from_slice(&piece);
        }
    }
    Ok(head.map(|head| Answer {
        status: head.status,
        fields: head.fields().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        body,
        is_done: head.body.is_done(),
        rest: buffer.to_vec(),
    }))
}
