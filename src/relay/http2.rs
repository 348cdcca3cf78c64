//! HTTP/2 connections, and the client's side of a request in HTTP/2.
//!
//! The `h2` crate speaks the protocol, and Pingora checks each request before anybody sees it; only the way from there
//! to the endpoint and back is ours.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{
    H2Accept, H2Options, HttpSession, default_h2_options, handshake,
};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest};
use pingora_core::server::ShutdownWatch;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_timeout::fast_timeout::{fast_sleep, fast_timeout};
use tokio::sync::Notify;

use super::carry::{self, Carried, Downstream, Failure};
use super::handover::Unread;
use super::head::{LARGEST_BODY, is_plain_target};
use super::pace::Pace;
use super::request::Asked;
use super::response::Response;
use super::{Bounds, FIRST_WORD, Relay};
use crate::config::ListenerLimits;
use crate::fields::{Fields, text};
use crate::framing::frames::Frames;
use crate::framing::{Fault, Limits};
use crate::gateway::ratelimit::Field;
use crate::gateway::refusal::{Page, Refusal};
use crate::gateway::request::check_framing;
use crate::listener::connection::{Connection, Progress};
use crate::listener::stream::{ClientStream, Watched};

/// Requests that are no HTTP. A client that sends more of them is not worth its connection.
const MOST_MALFORMED: usize = 32;

/// Streams that a client may break so that we must reset them, on one connection.
const MOST_BROKEN: usize = 100;

/// Requests that a client may take back before we have looked at them: as many as it may have at once. Beyond, the library
/// ends the connection.
const MOST_TAKEN_BACK_UNSEEN: usize = 100;

/// How long a client may take to hear why its connection ends.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes of a body's last piece that are small.
const SMALL: usize = 16 * 1024;

impl Relay {
    /// One HTTP/2 connection, to its end.
    pub async fn serve_http2(
        self: &Arc<Self>,
        stream: ClientStream,
        connection: &Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) {
        let digest = Arc::new(Digest {
            ssl_digest: None,
            timing_digest: stream.get_timing_digest(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        });
        let mut stream = stream;
        let Some(Bounds { idle: first_request, limits }) = self.bounds(connection) else { return };
        stream.gather();
        stream.watch(Watched::Frames(Box::new(Frames::new(limits.resets_per_second, Instant::now()))));
        let preface = handshake(Box::new(stream), Some(options(&limits)));
        let Ok(Ok(mut http2)) = fast_timeout(first_request, preface).await else { return };
        let open = Arc::new(Open::default());
        let (mut malformed, mut farewell) = (0, Farewell::NotYet);
        // A client that has only just shaken hands is about to ask.
        let mut may_end = false;
        while malformed < MOST_MALFORMED {
            let Some(Bounds { idle, limits }) = self.bounds(connection) else { return };
            let (known, idle) = match farewell {
                Farewell::NotYet => (Progress::Open, idle),
                Farewell::Due => (Progress::Retiring, idle.min(FIRST_WORD)),
                Farewell::Said => (Progress::Cut, idle),
            };
            let next = {
                // Dropping it between two requests loses nothing.
                let mut accept = pin!(HttpSession::from_h2_conn(&mut http2, digest.clone()));
                let mut idle = pin!(open.idle(idle));
                poll_fn(|cx| {
                    if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                        return Poll::Ready(Next::Accepted(accepted));
                    }
                    if let Some(fault) = connection.fault() {
                        return Poll::Ready(Next::Flood(fault));
                    }
                    if connection.poll_progress(cx, known).is_ready() {
                        return Poll::Ready(Next::Ending);
                    }
                    idle.as_mut().poll(cx).map(|()| Next::Idle)
                })
                .await
            };
            match next {
                Next::Accepted(Ok(Some(H2Accept::Session(session)))) => {
                    may_end = true;
                    self.serve_stream(session, &limits, OpenRequest::new(&open), connection, shutdown);
                }
                Next::Accepted(Ok(Some(H2Accept::Rejected))) => {
                    malformed += 1;
                    self.refused_unread(connection, &Unread::nothing(), Refusal::BadRequest, None);
                }
                Next::Flood(fault) => {
                    self.refused_unread(connection, &Unread::nothing(), fault.into(), Some(fault));
                    break;
                }
                Next::Ending => farewell = Farewell::Due,
                Next::Idle if farewell == Farewell::Due => may_end = true,
                Next::Accepted(Err(error)) if is_abuse(&error) => {
                    // The library has said goodbye.
                    self.refused_unread(connection, &Unread::nothing(), Refusal::Flood, Some(Fault::Abuse));
                    connection.set_lingers(true);
                    return;
                }
                // The client closed, or spoke no HTTP/2, or nobody waits for anything: the socket is simply closed.
                Next::Accepted(Ok(None) | Err(_)) | Next::Idle => {
                    // But the last answer may still be on its way, and the client sends frames about it.
                    connection.set_lingers(farewell == Farewell::Said);
                    return;
                }
            }
            if farewell == Farewell::Due && (may_end || connection.progress() > Progress::Retiring) {
                farewell = Farewell::Said;
                // Two GOAWAY frames, a round trip apart: what the client sends between them is served.
                http2.graceful_shutdown();
            }
        }
        http2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        connection.set_lingers(true);
        // Nothing more is read. A client that does not read either is not waited for.
        let _ = fast_timeout(GOODBYE, poll_fn(|cx| http2.poll_closed(cx))).await;
    }

    /// Serves one request on a task of its own. What the task holds is boxed once: a task is copied when it is spawned.
    fn serve_stream(
        self: &Arc<Self>,
        session: HttpSession,
        limits: &ListenerLimits,
        request: OpenRequest,
        connection: &Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) {
        let relay = self.clone();
        if let Some(carried) = self.prepare_http2(&session, &limits.request, connection) {
            let mut stream = Box::new((
                Http2 { session, pace: Pace::new(limits), has_ended: false, sent: 0 },
                carried,
                request,
            ));
            tokio::spawn(async move {
                let (client, carried, _open) = &mut *stream;
                relay.carry_http2(client, carried).await;
            });
        } else {
            if session.req_header().method == Method::CONNECT {
                self.refused_unread(connection, &Unread::connect(), Refusal::Connect, Some(Fault::Connect));
            }
            let (session, shutdown) = (ServerSession::new_http2(session), shutdown.clone());
            tokio::spawn(async move {
                let _open = request;
                let _ = relay.proxy.process_new_http(session, &shutdown).await;
            });
        }
    }

    fn prepare_http2(
        &self,
        session: &HttpSession,
        limits: &Limits,
        connection: &Arc<Connection>,
    ) -> Option<Carried> {
        let request = session.req_header();
        let target = request.uri.path_and_query()?.as_str();
        let fits = request.headers.len() <= limits.fields && target.len() <= limits.target;
        if !fits || !is_ordinary(request) || !is_plain_target(target) {
            return None;
        }
        let fields = Fields::Map(&request.headers);
        let asked = Asked { method: &request.method, target, host: host(request)?, fields };
        // What follows counts the request: then it is ours.
        let body = body(session).filter(|body| *body as u64 <= limits.body)?;
        let mut carried = self.prepare(&asked, connection)?;
        carried.body = body;
        carried.missing = carried.body;
        Some(carried)
    }

    async fn carry_http2(&self, client: &mut Http2, carried: &mut Carried) {
        crate::panics::provoke("http2");
        let result = match (client.take_body(carried).await, carried.exchange.refusal) {
            (Ok(()), Some(refusal)) => {
                client.say(&Page::new(refusal, &carried.exchange), &carried.method).await;
                Ok(())
            }
            (Ok(()), None) => carry::carry(client, carried).await,
            (Err(failure), _) => Err(failure),
        };
        if let Err(failure) = &result {
            client.refuse(failure, carried).await;
        }
        let status = client.session.response_written().map_or(0, |response| response.status.as_u16());
        carried.finish(status, client.sent, result.as_ref().err(), &self.telemetry);
    }
}

/// Pingora's, and tighter where the library is generous.
fn options(limits: &ListenerLimits) -> H2Options {
    let mut options = default_h2_options();
    options.max_header_list_size(limits.request.head as u32);
    options.max_local_error_reset_streams(Some(MOST_BROKEN));
    options.max_pending_accept_reset_streams(MOST_TAKEN_BACK_UNSEEN);
    options
}

/// Whether the library would have no more of it.
fn is_abuse(error: &pingora_core::Error) -> bool {
    let cause = error.cause.as_ref().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

enum Next {
    Accepted(pingora_core::Result<Option<H2Accept>>),
    /// The client keeps us busy with frames that ask for nothing.
    Flood(Fault),
    Ending,
    Idle,
}

/// Whether the client was told that it must ask elsewhere from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    NotYet,
    Due,
    Said,
}

/// Of one connection: how many requests are not answered yet.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    none: Notify,
}

impl Open {
    /// Ready once there was no request for a while.
    async fn idle(&self, limit: Duration) {
        while self.count.load(Ordering::Acquire) > 0 {
            self.none.notified().await;
        }
        fast_sleep(limit).await;
    }
}

/// One of them, until it is dropped.
struct OpenRequest(Arc<Open>);

impl OpenRequest {
    fn new(open: &Arc<Open>) -> Self {
        open.count.fetch_add(1, Ordering::AcqRel);
        Self(open.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_one();
        }
    }
}

fn is_ordinary(request: &RequestHeader) -> bool {
    let method = &request.method;
    let is_known = matches!(
        *method,
        Method::GET
            | Method::POST
            | Method::PUT
            | Method::HEAD
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    );
    let is_http =
        request.uri.scheme().is_none_or(|scheme| *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP);
    is_known
        && is_http
        && !request.headers.contains_key(header::EXPECT)
        && check_framing(&request.headers).is_ok()
}

/// As the client wrote it; `None` where it wrote two, or none.
fn host(request: &RequestHeader) -> Option<&str> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let mut hosts = request.headers.get_all(header::HOST).iter();
    match (authority, hosts.next(), hosts.next()) {
        (Some(authority), None, None) => Some(authority),
        (Some(authority), Some(host), None) if host == authority => Some(authority),
        (None, Some(host), None) => text(host.as_bytes()),
        _ => None,
    }
}

/// Bytes of the body; `None` where it is large, or not known.
fn body(session: &HttpSession) -> Option<usize> {
    match session.req_header().headers.get(header::CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok().filter(|length| *length <= LARGEST_BODY),
        None => session.is_body_empty().then_some(0),
    }
}

/// A client's stream.
struct Http2 {
    session: HttpSession,
    pace: Pace,
    has_ended: bool,
    /// Bytes of the answer's body.
    sent: u64,
}

impl Http2 {
    async fn take_body(&mut self, carried: &mut Carried) -> Result<(), Failure> {
        if carried.missing == 0 {
            return Ok(());
        }
        let started = Instant::now();
        while carried.missing > 0 {
            let limit = self.pace.next(started, (carried.body - carried.missing) as u64)?;
            let limit = carried.limit(limit).map_err(|_| Failure::ClientSlow)?;
            let piece = match fast_timeout(limit, self.session.read_body_bytes()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(_) => return Err(Failure::ClientGone),
                Err(_) => return Err(Failure::ClientSlow),
            };
            carried.missing = carried.missing.checked_sub(piece.len()).ok_or(Failure::ClientGone)?;
            carried.request.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// Says no in our name, if nothing was said yet.
    async fn refuse(&mut self, failure: &Failure, carried: &Carried) {
        let refusal = match failure {
            Failure::Refused(refusal) => *refusal,
            Failure::ClientSlow => Refusal::TooSlow,
            Failure::ClientGone | Failure::ClientDeaf | Failure::BrokenOff | Failure::OutOfTime => {
                return self.session.shutdown();
            }
        };
        if self.session.response_written().is_some() {
            return self.session.shutdown();
        }
        self.say(&Page::new(refusal, &carried.exchange), &carried.method).await;
    }

    /// An answer in our name.
    async fn say(&mut self, page: &Page, method: &Method) {
        let Ok(mut header) = ResponseHeader::build_no_case(page.status, Some(5)) else { return };
        for (name, value) in page.fields() {
            let _ = header.insert_header(name, value);
        }
        let has_body = *method != Method::HEAD;
        if self.session.write_response_header(Box::new(header), !has_body).is_ok() && has_body {
            self.sent = page.body.len() as u64;
            // A client that is gone cannot be told.
            let _ = self.session.write_body(page.body.clone(), true).await;
        }
    }
}

impl Downstream for Http2 {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.session.idle()).poll(cx).map(|_| ())
    }

    /// The `h2` crate cannot send any.
    fn interim(&mut self, _: &Response) {}

    fn head(&mut self, response: &Response, told: &[Field], is_done: bool) -> Result<(), Failure> {
        let mut header = translate(response).map_err(|()| Failure::Refused(Refusal::UpstreamFailed))?;
        for (name, value) in told {
            header.append_header(*name, value.as_str()).map_err(|_| Failure::Refused(Refusal::Internal))?;
        }
        self.has_ended = is_done;
        self.session.write_response_header(Box::new(header), is_done).map_err(|_| Failure::ClientGone)
    }

    async fn body(&mut self, piece: Bytes, is_last: bool) -> Result<(), Failure> {
        self.sent += piece.len() as u64;
        self.has_ended = is_last;
        // A whole small answer need not ask for room first: the library keeps it until the client's window opens.
        if is_last
            && piece.len() <= SMALL
            && let Some(mut writer) = self.session.take_response_body_writer()
        {
            return writer.send_data(piece, true).map_err(|_| Failure::ClientGone);
        }
        let since = Instant::now();
        match fast_timeout(self.pace.piece(), self.session.write_body(piece, is_last)).await {
            Ok(Ok(())) => self.pace.waited(since, self.sent),
            Ok(Err(_)) => Err(Failure::ClientGone),
            Err(_) => Err(Failure::ClientDeaf),
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        self.session.finish().map_err(|_| Failure::ClientGone)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

fn translate(response: &Response) -> Result<ResponseHeader, ()> {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(response.status).map_err(|_| ())?;
    // With the two that are added: the map need not grow.
    parts.headers.reserve(8);
    for (name, value) in response.fields() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ())?;
        parts.headers.append(name, HeaderValue::from_bytes(value).map_err(|_| ())?);
    }
    if let Some(length) = response.length.filter(|_| response.status != 204) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(parts.into())
}
