//! The head of an HTTP/1.1 request, line by line.
//!
//! This decides only whether a head may be believed, and where it and its body end; whoever serves the request reads its
//! fields with a parser of their own. Both see the same, because nothing is let through that a parser could be generous
//! about.

use super::target::check_target;
use super::{Fault, Limits, is_token, is_value, normal_host, trim};

/// A head that can be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes, with the empty line.
    pub len: usize,
    pub body: Body,
}

/// How long the body is (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked,
}

/// Looks at the head that `bytes` begin with; `None` while it is neither whole nor known to be at fault.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<Option<Head>, Fault> {
    // A server should pass over an empty line before a request (RFC 9112, section 2.2): over one.
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let mut lines = Lines { rest: &bytes[skipped..], limit: limits.head, used: 0 };
    let Some(first) = lines.next(Fault::LongTarget)? else { return Ok(None) };
    let first = RequestLine::read(first, limits)?;
    let mut fields = Fields::default();
    loop {
        match lines.next(Fault::LargeHead)? {
            None => return Ok(None),
            Some([]) => break,
            Some(line) => fields.read(line, limits)?,
        }
    }
    let body = fields.judge(&first, limits)?;
    Ok(Some(Head { len: skipped + lines.used, body }))
}

/// Lines that end in CR LF, and have neither of them elsewhere.
struct Lines<'a> {
    rest: &'a [u8],
    limit: usize,
    used: usize,
}

impl<'a> Lines<'a> {
    /// Without its end; `None` where the end is not there yet. `too_long` is the fault if it cannot come any more.
    fn next(&mut self, too_long: Fault) -> Result<Option<&'a [u8]>, Fault> {
        let left = self.limit - self.used;
        let Some(end) = memchr::memchr(b'\n', self.rest) else {
            return if self.rest.len() >= left { Err(too_long) } else { Ok(None) };
        };
        if end >= left {
            return Err(too_long);
        }
        let line = self.rest[..end].strip_suffix(b"\r").ok_or(Fault::LineEnd)?;
        if memchr::memchr(b'\r', line).is_some() {
            return Err(Fault::LineEnd);
        }
        self.rest = &self.rest[end + 1..];
        self.used += end + 1;
        Ok(Some(line))
    }
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    is_1_0: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8], limits: &Limits) -> Result<Self, Fault> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::RequestLine);
        };
        if !is_token(method) || target.is_empty() {
            return Err(Fault::RequestLine);
        }
        if method == b"CONNECT" {
            return Err(Fault::Connect);
        }
        let is_1_0 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err(Fault::Version),
        };
        if target.len() > limits.target {
            return Err(Fault::LongTarget);
        }
        // A token is ASCII.
        let method = std::str::from_utf8(method).map_err(|_| Fault::RequestLine)?;
        let target = std::str::from_utf8(target).map_err(|_| Fault::TargetCharacter)?;
        Ok(Self { method, target, is_1_0 })
    }
}

/// What the fields say about the message and the connection.
#[derive(Default)]
struct Fields<'a> {
    count: usize,
    host: Option<&'a [u8]>,
    length: Option<u64>,
    is_chunked: bool,
    upgrade: bool,
    names_upgrade: bool,
    expects: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, line: &'a [u8], limits: &Limits) -> Result<(), Fault> {
        self.count += 1;
        if self.count > limits.fields {
            return Err(Fault::LargeHead);
        }
        if matches!(line[0], b' ' | b'\t') {
            return Err(Fault::Folded);
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::FieldName)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err(Fault::FieldName);
        }
        if !is_value(value) {
            return Err(Fault::FieldValue);
        }
        self.note(name, value)
    }

    fn note(&mut self, name: &'a [u8], value: &'a [u8]) -> Result<(), Fault> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        // By length first: it tells most fields apart.
        match name.len() {
            4 if is(b"host") => match self.host.replace(value) {
                None => Ok(()),
                Some(_) => Err(Fault::SeveralHosts),
            },
            6 if is(b"expect") => {
                let is_known = value.eq_ignore_ascii_case(b"100-continue");
                if is_known && !std::mem::replace(&mut self.expects, true) {
                    Ok(())
                } else {
                    Err(Fault::Expectation)
                }
            }
            7 if is(b"upgrade") => {
                let is_known = value.eq_ignore_ascii_case(b"websocket");
                if is_known && !std::mem::replace(&mut self.upgrade, true) {
                    Ok(())
                } else {
                    Err(Fault::BadUpgrade)
                }
            }
            10 if is(b"connection") => self.note_connection(value),
            14 if is(b"content-length") => match self.length.replace(length(value)?) {
                None => Ok(()),
                Some(_) => Err(Fault::BadLength),
            },
            // Of use only in the clear, where it changes the protocol beneath everybody's feet.
            14 if is(b"http2-settings") => Err(Fault::BadUpgrade),
            17 if is(b"transfer-encoding") => {
                let is_known = value.eq_ignore_ascii_case(b"chunked");
                if is_known && !std::mem::replace(&mut self.is_chunked, true) {
                    Ok(())
                } else {
                    Err(Fault::BadCoding)
                }
            }
            // Some origins take one for the other.
            14 if is(b"content_length") => Err(Fault::Lookalike),
            17 if is(b"transfer_encoding") => Err(Fault::Lookalike),
            _ => Ok(()),
        }
    }

    /// A client that names other fields here has them taken out of its request after the routes have seen them.
    fn note_connection(&mut self, value: &[u8]) -> Result<(), Fault> {
        for option in value.split(|byte| *byte == b',').map(trim).filter(|option| !option.is_empty()) {
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            if is(b"upgrade") {
                self.names_upgrade = true;
            } else if !is(b"close") && !is(b"keep-alive") && !is(b"te") {
                return Err(Fault::BadConnection);
            }
        }
        Ok(())
    }

    /// What can be told only of all fields together.
    fn judge(&self, first: &RequestLine<'_>, limits: &Limits) -> Result<Body, Fault> {
        let host = self.host.ok_or(Fault::NoHost)?;
        normal_host(std::str::from_utf8(host).map_err(|_| Fault::BadHost)?)?;
        check_target(first.method, first.target, host)?;
        if self.is_chunked && self.length.is_some() {
            return Err(Fault::TwoFramings);
        }
        // HTTP/1.0 knows no chunks: who stands before us may have taken them for the next request.
        if self.is_chunked && first.is_1_0 {
            return Err(Fault::BadCoding);
        }
        if self.upgrade {
            let has_body = self.is_chunked || self.length.is_some_and(|length| length > 0);
            if !self.names_upgrade || has_body || first.is_1_0 || first.method != "GET" {
                return Err(Fault::BadUpgrade);
            }
        }
        match self.length {
            _ if self.is_chunked => Ok(Body::Chunked),
            Some(length) if length > limits.body => Err(Fault::LargeBody),
            length => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

/// Digits and nothing else (RFC 9110, section 8.6).
fn length(value: &[u8]) -> Result<u64, Fault> {
    let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    let number = || value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    if is_number { Ok(number()) } else { Err(Fault::BadLength) }
}

#[cfg(test)]
mod tests;
