//! The client's side of a request in HTTP/1.1.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::Method;
use pingora_core::protocols::Shutdown;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::carry::{Carried, Downstream, Failure};
use super::pace::Pace;
use super::request::line;
use super::response::Response;
use crate::gateway::ratelimit::Field;
use crate::gateway::refusal::{Page, Refusal};
use crate::listener::connection::{Connection, Progress};
use crate::listener::stream::ClientStream;

/// What one read takes at most: a TLS record.
const READ: usize = 16 * 1024;

/// What is kept of requests that a client sends before it has its answer. Then it must wait.
const MOST_AHEAD: usize = 64 * 1024;

/// How much of an answer gathers before it is sent.
const GATHER: usize = 16 * 1024;

thread_local! {
    /// Where bytes land first: a connection that waits holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
    static DATE: RefCell<(u64, String)> = RefCell::default();
}

/// A client's connection.
pub(super) struct Http1 {
    stream: ClientStream,
    /// What came and was not yet used.
    pub(super) inbox: Vec<u8>,
    outbox: Vec<u8>,
    pub(super) pace: Pace,
    /// No further request is read.
    pub(super) is_last: bool,
    /// The answer's body goes in chunks, because its length is not known.
    chunked: bool,
    /// The answer is in the outbox, or sent, to its end.
    is_whole: bool,
    /// Of the answer; 0 before it.
    pub(super) status: u16,
    /// Bytes of the answer's body.
    pub(super) sent: u64,
    /// When the last answer ended.
    pub(super) quiet_since: Instant,
}

impl Http1 {
    pub(super) fn new(stream: ClientStream, quiet_since: Instant) -> Self {
        Self {
            stream,
            pace: Pace::default(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            is_last: false,
            chunked: false,
            is_whole: false,
            status: 0,
            sent: 0,
            quiet_since,
        }
    }

    /// As it was before anything was read.
    pub(super) fn into_stream(self) -> ClientStream {
        let mut stream = self.stream;
        stream.unread(self.inbox);
        stream
    }

    /// Waits for more bytes; false when there are none to come. While it is idle it also returns when the connection is
    /// nearer to its end than `known`.
    pub(super) async fn fill(&mut self, connection: &Connection, known: Progress) -> io::Result<bool> {
        poll_fn(|cx| {
            if let Poll::Ready(read) = self.poll_fill(cx) {
                return Poll::Ready(read.map(|read| read > 0));
            }
            if self.inbox.is_empty() {
                connection.poll_progress(cx, known).map(|()| Ok(true))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            self.inbox.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Moves the request out of the inbox, and the rest of its body as it comes.
    pub(super) async fn take_body(&mut self, carried: &mut Carried) -> Result<(), Failure> {
        self.consume(carried.taken);
        if carried.missing == 0 {
            return Ok(());
        }
        let started = Instant::now();
        while carried.missing > 0 {
            let limit = self.pace.next(started, (carried.body - carried.missing) as u64)?;
            let limit = carried.limit(limit).map_err(|_| Failure::ClientSlow)?;
            match fast_timeout(limit, poll_fn(|cx| self.poll_fill(cx))).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(Failure::ClientGone),
                Err(_) => return Err(Failure::ClientSlow),
            }
            let taken = self.inbox.len().min(carried.missing);
            carried.request.extend_from_slice(&self.inbox[..taken]);
            carried.missing -= taken;
            self.consume(taken);
        }
        Ok(())
    }

    fn consume(&mut self, taken: usize) {
        if taken == self.inbox.len() {
            // An idle connection holds no buffer.
            self.inbox = Vec::new();
        } else {
            self.inbox.drain(..taken);
        }
    }

    /// Says no in our name, if nothing was said yet, and ends the connection after it.
    pub(super) async fn refuse(&mut self, failure: &Failure, carried: &Carried) {
        self.is_last = true;
        let refusal = match failure {
            Failure::Refused(refusal) => *refusal,
            Failure::ClientSlow => Refusal::TooSlow,
            Failure::ClientGone | Failure::ClientDeaf | Failure::BrokenOff | Failure::OutOfTime => return,
        };
        if self.status == 0 {
            self.say(&Page::new(refusal, &carried.exchange), &carried.method).await;
        }
    }

    /// Says no to a request, and goes on with the next.
    pub(super) async fn decline(&mut self, refusal: Refusal, carried: &Carried) -> Result<(), Failure> {
        self.is_last |= self.stream.is_retiring();
        self.is_whole = true;
        self.write(&Page::new(refusal, &carried.exchange), &carried.method);
        self.flush().await
    }

    /// The last word on this connection.
    pub(super) async fn say(&mut self, page: &Page, method: &Method) {
        self.is_last = true;
        self.write(page, method);
        // A client that is gone cannot be told.
        let _ = self.flush().await;
    }

    fn write(&mut self, page: &Page, method: &Method) {
        self.status = page.status;
        self.begin(page.status);
        for (name, value) in page.fields() {
            line(&mut self.outbox, name, value.as_bytes());
        }
        self.date();
        if self.is_last {
            self.outbox.extend_from_slice(b"connection: close\r\n");
        }
        self.outbox.extend_from_slice(b"\r\n");
        if *method != Method::HEAD {
            self.outbox.extend_from_slice(&page.body);
            self.sent = page.body.len() as u64;
        }
    }

    fn begin(&mut self, status: u16) {
        let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        self.outbox.extend_from_slice(b"HTTP/1.1 ");
        number(&mut self.outbox, u64::from(status));
        self.outbox.push(b' ');
        self.outbox.extend_from_slice(reason.unwrap_or_default().as_bytes());
        self.outbox.extend_from_slice(b"\r\n");
    }

    /// RFC 9110, section 6.6.1.
    fn date(&mut self) {
        let seconds =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        DATE.with_borrow_mut(|(of, text)| {
            if *of != seconds || text.is_empty() {
                (*of, *text) = (seconds, httpdate::fmt_http_date(SystemTime::now()));
            }
            line(&mut self.outbox, "Date", text.as_bytes());
        });
    }

    /// Ready for the next request.
    pub(super) fn end_of_answer(&mut self, ended: Instant) {
        self.quiet_since = ended;
        (self.status, self.sent, self.chunked, self.is_whole) = (0, 0, false, false);
    }

    pub(super) async fn close(mut self) {
        self.stream.shutdown().await;
    }
}

impl Downstream for Http1 {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.inbox.len() < MOST_AHEAD {
            if !matches!(ready!(self.poll_fill(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn interim(&mut self, response: &Response) {
        self.begin(response.status);
        for (name, value) in response.fields() {
            line(&mut self.outbox, name, value);
        }
        self.outbox.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, response: &Response, told: &[Field], is_done: bool) -> Result<(), Failure> {
        self.outbox.reserve(response.len() + 128);
        self.status = response.status;
        self.begin(response.status);
        for (name, value) in response.fields() {
            line(&mut self.outbox, name, value);
        }
        for (name, value) in told {
            line(&mut self.outbox, name, value.as_bytes());
        }
        if !response.has_date {
            self.date();
        }
        // The gateway may have begun to stop meanwhile.
        self.is_last |= self.stream.is_retiring();
        self.chunked = response.length.is_none() && !is_done;
        match response.length {
            // RFC 9110, section 8.6: there it must not be.
            Some(_) if response.status == 204 => {}
            Some(length) => {
                self.outbox.extend_from_slice(b"Content-Length: ");
                number(&mut self.outbox, length);
                self.outbox.extend_from_slice(b"\r\n");
            }
            None if self.chunked => self.outbox.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            None => {}
        }
        if self.is_last {
            self.outbox.extend_from_slice(b"Connection: close\r\n");
        }
        self.outbox.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn body(&mut self, piece: Bytes, _is_last: bool) -> Result<(), Failure> {
        self.sent += piece.len() as u64;
        if self.chunked {
            // Its last chunk is the empty one of `end`, whoever knows of it before.
            hexadecimal(&mut self.outbox, piece.len());
            self.outbox.extend_from_slice(b"\r\n");
            self.outbox.extend_from_slice(&piece);
            self.outbox.extend_from_slice(b"\r\n");
        } else {
            self.outbox.extend_from_slice(&piece);
        }
        if self.outbox.len() >= GATHER { self.flush().await } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.is_whole = true;
        if self.chunked {
            self.outbox.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.is_whole && self.is_last {
            // What ends the connection goes with it.
            self.stream.hold();
        }
        let mut written = 0;
        while written < self.outbox.len() {
            // The clock is asked only where the client makes us wait.
            let mut waits = None;
            let write = poll_fn(|cx| {
                let write = Pin::new(&mut self.stream).poll_write(cx, &self.outbox[written..]);
                if write.is_pending() {
                    waits.get_or_insert_with(Instant::now);
                }
                write
            });
            match fast_timeout(self.pace.piece(), write).await {
                Ok(Ok(len @ 1..)) => written += len,
                Ok(_) => return Err(Failure::ClientGone),
                Err(_) => return Err(Failure::ClientDeaf),
            }
            if let Some(since) = waits {
                self.pace.waited(since, self.sent)?;
            }
        }
        // An idle connection holds no buffer.
        self.outbox = Vec::new();
        Ok(())
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let (mut at, mut left) = (digits.len(), number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn hexadecimal(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[number >> (4 * digit) & 0xf]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_everybody_writes_them(value: u64, small in 0_usize..300) {
            for value in [value, small as u64] {
                let mut out = Vec::new();
                number(&mut out, value);
                prop_assert_eq!(out, value.to_string().into_bytes());
                let mut out = Vec::new();
                hexadecimal(&mut out, value as usize);
                prop_assert_eq!(out, format!("{value:x}").into_bytes());
            }
        }
    }
}
