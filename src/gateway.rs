//! The proxy itself, in the order of Pingora's phases. Each phase is a few lines that call the core.

pub mod decision;
pub mod exchange;
pub mod ratelimit;
pub mod refusal;
pub mod request;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

use crate::config::HostHeader;
use crate::fields::Fields;
use crate::framing::Fault;
use crate::listener::connection::Connection;
use crate::listener::connection_of;
use crate::proxy_protocol::Header;
use crate::route::RequestView;
use crate::runtime::Cell;
use crate::telemetry::Telemetry;
use crate::upstream::{HashInput, OnBehalf};
use exchange::{Exchange, Outcome};
use refusal::Refusal;

/// What some origins take for the fields that frame a message.
const LOOKALIKES: [&str; 2] = ["content_length", "transfer_encoding"];

/// Maps each request to the pool that its client is entitled to.
pub struct Gateway {
    cell: Arc<Cell>,
    telemetry: Arc<Telemetry>,
}

impl Gateway {
    pub fn new(cell: Arc<Cell>, telemetry: Arc<Telemetry>) -> Self {
        Self { cell, telemetry }
    }

    async fn refuse(&self, session: &mut Session, exchange: &mut Exchange, refusal: Refusal) -> Result<bool> {
        exchange.refusal = Some(refusal);
        // Pingora closes a connection of HTTP/1.1 on which a body is still to come.
        let ends = refusal.ends_connection() || !session.as_mut().is_body_done();
        exchange.lingers(ends && !session.is_http2());
        refusal::respond(session, refusal, exchange).await?;
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.cell.pin())
    }

    /// Pingora would add a compression module to every request; an origin's answer is not ours to change.
    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    /// Decides: who asks for what, and which pool may answer.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let Some(connection) = connection(session).cloned() else {
            return self.refuse(session, exchange, Refusal::Internal).await;
        };
        exchange.begin(&connection);
        crate::panics::provoke("pingora");
        exchange.lingers(false);
        set_timeouts(session, exchange);
        match decide(session.req_header(), &connection, exchange) {
            Ok(()) => Ok(false),
            Err(refusal) => self.refuse(session, exchange, refusal).await,
        }
    }

    /// Chooses one of the pool's endpoints that was not tried yet.
    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        let runtime = exchange.runtime.clone();
        let Some(pool) = exchange.pool.and_then(|id| runtime.pools.get(id)) else {
            return Error::e_explain(ErrorType::InternalError, "no pool was chosen");
        };
        let request = session.req_header();
        let input = HashInput {
            client: exchange.identity().map(|identity| identity.certificate().fingerprint()),
            path: request.uri.path(),
            headers: Fields::Map(&request.headers),
        };
        let Some(endpoint) = pool.choose(pool.hash(&input), &exchange.tried) else {
            exchange.refusal = Some(exchange.refusal.unwrap_or(Refusal::NoEndpoint));
            return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint is available");
        };
        let Some(patience) = exchange.patience(session.is_upgrade_req()) else {
            exchange.refusal = Some(Refusal::UpstreamTimeout);
            return Error::e_explain(ErrorType::HTTPStatus(504), "the request's time is over");
        };
        let Some(peer) = pool.peer(endpoint, patience, || on_behalf(session, exchange)) else {
            exchange.refusal = Some(Refusal::NoEndpoint);
            return Error::e_explain(ErrorType::HTTPStatus(503), "the endpoint's name has no address");
        };
        exchange.lease(endpoint.id());
        Ok(peer)
    }

    /// Tells the origin who is calling. This runs after the hop-by-hop headers were removed, so that a client
    /// cannot have what is added here stripped by naming it in `Connection`.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        let Some(connection) = exchange.connection.clone() else {
            return Error::e_explain(ErrorType::InternalError, "a request without a connection");
        };
        let runtime = exchange.runtime.clone();
        // An origin may read `GET http://host/path` otherwise than the routes did (RFC 9112, section 3.2.2).
        if !matches!(upstream.raw_path(), [b'/' | b'*', ..]) {
            upstream.set_uri(upstream.uri.clone());
        }
        for name in runtime.identity_headers.reserved_in(&upstream.headers) {
            upstream.remove_header(&name);
        }
        for (name, value) in &*connection.identity_headers(runtime.generation, &runtime.identity_headers) {
            upstream.insert_header(name.clone(), value.clone())?;
        }
        let incoming = &session.req_header().headers;
        let forwarded =
            runtime.forwarding.headers(connection.peer.ip(), exchange.host(), Fields::Map(incoming));
        for name in runtime.forwarding.dropped_in(&upstream.headers) {
            upstream.remove_header(&name);
        }
        for (name, value) in forwarded {
            upstream.append_header(name, value)?;
        }
        if session.req_header().version != http::Version::HTTP_11 {
            // A client of HTTP/1.0 does not understand what it would be answered (RFC 9110, section 10.1.1), and in HTTP/2 we
            // cannot say it.
            upstream.remove_header(&header::EXPECT);
            // Only in HTTP/1.1 were they looked for.
            for lookalike in LOOKALIKES {
                upstream.remove_header(lookalike);
            }
        }
        if let Some(HostHeader::Set(host)) = exchange.pool().map(|pool| pool.host_header()) {
            upstream.insert_header(header::HOST, host.as_str())?;
        }
        if exchange.pool().is_some_and(|pool| pool.announces()) && !session.is_upgrade_req() {
            // The connection is of this client, whom the next request is hardly of.
            upstream.insert_header(header::CONNECTION, "close")?;
        }
        Ok(())
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        _reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&pingora_core::protocols::Digest>,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.connected();
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.answered(response.status.as_u16());
        for (name, value) in exchange.told() {
            response.append_header(name, value)?;
        }
        Ok(())
    }

    /// A body that trickles is cut off when the request's time is over.
    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        // Of an empty last piece, which many HTTP/2 clients send, Pingora makes a last chunk of its own, and another one
        // for the end: the endpoint would take the second one for the beginning of the next request.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        if let Some(limits) = exchange.limits() {
            let read = session.body_bytes_read() as u64;
            if !session.was_upgraded() && read > limits.request.body {
                exchange.refuse(Fault::LargeBody);
                return Error::e_explain(ErrorType::HTTPStatus(413), "the request's body is too large");
            }
            // A body of unknown length may be a conversation, in which nobody need say much.
            let is_late = exchange.elapsed()
                > limits.body_timeout + Duration::from_secs(read / limits.min_bytes_per_second);
            let is_announced = session.req_header().headers.contains_key(header::CONTENT_LENGTH);
            if is_late && is_announced && !end_of_stream && exchange.upstream_status.is_none() {
                return slow(ErrorSource::Downstream);
            }
        }
        in_time(session, exchange, ErrorSource::Downstream)
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>> {
        in_time(session, exchange, ErrorSource::Upstream).map(|()| None)
    }

    /// Nothing was sent yet: another endpoint may be tried, whatever the method.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let refusal = match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Refusal::ConnectTimeout,
            _ => Refusal::ConnectFailed,
        };
        let may_retry = exchange.failed(refusal);
        error.set_retry(may_retry);
        error
    }

    /// Something may have reached the endpoint: only a request that is safe to repeat is sent again.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        let repeatable = request::is_idempotent(&session.req_header().method)
            && !session.as_ref().retry_buffer_truncated()
            && exchange.upstream_status.is_none();
        if *error.esource() == ErrorSource::Upstream {
            let refusal = match error.etype() {
                ErrorType::ReadTimedout | ErrorType::WriteTimedout => Refusal::UpstreamTimeout,
                _ => Refusal::UpstreamFailed,
            };
            // A kept-alive connection that the origin had closed says nothing about the origin's health; one that is
            // silent, or ends in the middle of an answer, does.
            if reused && refusal == Refusal::UpstreamFailed && exchange.upstream_status.is_none() {
                exchange.was_stale(refusal);
            } else {
                exchange.failed(refusal);
            }
        }
        if repeatable {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Exchange,
    ) -> FailToProxy {
        let seen = exchange.connection.as_ref().and_then(|connection| connection.fault());
        exchange.fault = seen.or(exchange.fault);
        let code = match (error.etype(), error.esource()) {
            _ if exchange.fault.is_some() => 400,
            (ErrorType::HTTPStatus(code), _) => *code,
            (_, ErrorSource::Upstream) => exchange.refusal.map_or(502, Refusal::status),
            // The client is gone: nobody is there to be told.
            (
                ErrorType::WriteError
                | ErrorType::ReadError
                | ErrorType::ConnectionClosed
                | ErrorType::H2Error,
                ErrorSource::Downstream,
            ) => 0,
            (ErrorType::ReadTimedout, ErrorSource::Downstream) => 408,
            (_, ErrorSource::Downstream) => 400,
            _ => 500,
        };
        if code > 0 && session.response_written().is_none() {
            let fault = exchange.fault.map(Refusal::from);
            let refusal = fault.or(exchange.refusal).unwrap_or(match code {
                400 => Refusal::BadRequest,
                408 => Refusal::TooSlow,
                _ => Refusal::Internal,
            });
            exchange.refusal = Some(refusal);
            exchange.lingers(!session.is_http2());
            session.set_keepalive(None);
            let _ = refusal::respond(session, refusal, exchange).await;
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        let request = session.req_header();
        let error = error.map(|error| error as &dyn std::fmt::Display);
        let fault = exchange.fault;
        let outcome = Outcome {
            method: &request.method,
            path: request.uri.path(),
            status: session.response_written().map_or(0, |response| response.status.as_u16()),
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            error: fault.as_ref().map(|fault| fault as &dyn std::fmt::Display).or(error),
        };
        exchange.finish(&outcome, &self.telemetry);
    }

    /// The request's own record says what happened; Pingora need not say it again.
    fn suppress_error_log(&self, _: &Session, _: &Exchange, _: &Error) -> bool {
        true
    }
}

fn in_time(session: &Session, exchange: &Exchange, source: ErrorSource) -> Result<()> {
    if exchange.patience(session.is_upgrade_req()).is_some() {
        return Ok(());
    }
    slow(source)
}

fn slow(source: ErrorSource) -> Result<()> {
    let mut error = Error::explain(ErrorType::ReadTimedout, "the request's time is over");
    error.esource = source;
    Err(error)
}

/// A connection may be idle for as long as its listener allows, and an upgraded one (a WebSocket) as long as it likes.
fn set_timeouts(session: &mut Session, exchange: &Exchange) {
    let Some(limits) = exchange.limits() else { return };
    // Off already means: the client or a shutdown wants the connection to end after this request.
    if session.get_keepalive().is_some() {
        session.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
    }
    let patience = (!session.is_upgrade_req()).then_some(limits.body_timeout);
    session.set_read_timeout(patience);
    session.set_write_timeout(patience);
}

fn connection(session: &Session) -> Option<&Arc<Connection>> {
    connection_of(session.digest()?.proxy_digest.as_deref()?)
}

/// What an endpoint is told about the client before anything else, if it is.
fn on_behalf(session: &Session, exchange: &Exchange) -> OnBehalf {
    let Some(connection) = &exchange.connection else {
        return OnBehalf { header: Header::Own, connection: rand::random() };
    };
    let source = connection.peer;
    let ours = session.server_addr().and_then(|address| address.as_inet().copied());
    let nowhere = if source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let destination = ours.unwrap_or_else(|| SocketAddr::new(nowhere, 0));
    OnBehalf { header: Header::Client { source, destination }, connection: connection.id.0 }
}

/// Reads the request in the one form that routing and forwarding use, and decides about it.
fn decide(request: &RequestHeader, connection: &Connection, exchange: &mut Exchange) -> Result<(), Refusal> {
    let limits = exchange.limits().ok_or(Refusal::Internal)?.request;
    let host = request::check(request, &limits).map_err(|fault| exchange.refuse(fault))?;
    let view = RequestView {
        host: &host,
        path: request.uri.path(),
        method: &request.method,
        headers: Fields::Map(&request.headers),
    };
    let decided = decision::decide(&exchange.runtime, connection, &view);
    exchange.host = Some(host.into());
    exchange.route = decided.route;
    exchange.pool = Some(decided.pool?);
    exchange.admit()
}
