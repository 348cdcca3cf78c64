//! From a request that is ready to be sent to an answer that is delivered, in either version of HTTP.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Method;
use pingora_timeout::fast_timeout::fast_timeout;

use super::request::Asked;
use super::response::{Body, Malformed, Response};
use crate::gateway::exchange::{Exchange, Outcome};
use crate::gateway::ratelimit::Field;
use crate::gateway::refusal::Refusal;
use crate::gateway::request::is_idempotent;
use crate::telemetry::Telemetry;
use crate::upstream::{HashValue, Origin, Patience};

/// Times a request may meet a kept-alive connection that its endpoint had closed.
const MOST_STALE: u32 = 16;

/// Informational answers before the one that counts.
const MOST_INTERIM: u32 = 16;

/// A request on its way.
pub(super) struct Carried {
    pub(super) exchange: Exchange,
    pub(super) method: Method,
    target: Box<str>,
    /// Head and body for the endpoint.
    pub(super) request: Vec<u8>,
    /// Bytes of the body that have not come yet.
    pub(super) missing: usize,
    /// Bytes of the client's own form of it, in its buffer.
    pub(super) taken: usize,
    pub(super) body: usize,
    pub(super) is_last: bool,
    hash: HashValue,
}

/// Why a request was not answered by an endpoint, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the client went away")]
    ClientGone,
    #[error("the client sends its request too slowly")]
    ClientSlow,
    #[error("the client receives its answer too slowly")]
    ClientDeaf,
    /// Nothing was sent to the client yet.
    #[error("{}", .0.as_str())]
    Refused(Refusal),
    /// The answer had begun.
    #[error("the endpoint broke off its answer")]
    BrokenOff,
    /// The answer had begun.
    #[error("the request's time is over")]
    OutOfTime,
}

/// The client's side of a request.
pub(super) trait Downstream {
    /// Ready when nobody waits for the answer any more. What the client sends meanwhile is kept for later.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    fn interim(&mut self, response: &Response);

    /// `is_done`: there is no body.
    /// `told`: what we have to say besides.
    fn head(&mut self, response: &Response, told: &[Field], is_done: bool) -> Result<(), Failure>;

    /// `is_last`: the body ends with this piece.
    async fn body(&mut self, piece: Bytes, is_last: bool) -> Result<(), Failure>;

    /// The body has ended; maybe nobody knew when its last piece was passed on.
    fn end(&mut self) -> Result<(), Failure>;

    /// Sends what has gathered.
    async fn flush(&mut self) -> Result<(), Failure>;
}

impl Carried {
    pub(super) fn new(exchange: Exchange, asked: &Asked<'_>, request: Vec<u8>, hash: HashValue) -> Self {
        Self {
            exchange,
            method: asked.method.clone(),
            target: asked.target.into(),
            request,
            missing: 0,
            taken: 0,
            body: 0,
            is_last: false,
            hash,
        }
    }

    /// Counts and records the request. Returns when it ended.
    pub(super) fn finish(
        &mut self,
        status: u16,
        sent: u64,
        failure: Option<&Failure>,
        telemetry: &Telemetry,
    ) -> Instant {
        match failure {
            Some(Failure::Refused(refusal)) => self.exchange.refusal = Some(*refusal),
            Some(Failure::ClientSlow) => self.exchange.refusal = Some(Refusal::TooSlow),
            Some(Failure::BrokenOff) => {
                self.exchange.failed(Refusal::UpstreamFailed);
            }
            Some(Failure::OutOfTime) => {
                self.exchange.failed(Refusal::UpstreamTimeout);
            }
            Some(Failure::ClientGone | Failure::ClientDeaf) | None => {}
        }
        let outcome = Outcome {
            method: &self.method,
            path: crate::framing::path(&self.target),
            status,
            bytes_in: (self.body - self.missing) as u64,
            bytes_out: sent,
            error: failure.map(|failure| failure as &dyn std::fmt::Display),
        };
        self.exchange.finish(&outcome, telemetry)
    }

    /// How long the next step may take.
    pub(super) fn limit(&self, usual: Duration) -> Result<Duration, Failure> {
        match self.exchange.patience(false) {
            Some(Patience::AtMost(left)) => Ok(usual.min(left)),
            Some(Patience::Usual | Patience::Endless) => Ok(usual),
            None => Err(Failure::Refused(Refusal::UpstreamTimeout)),
        }
    }

    fn first_byte(&self) -> Duration {
        self.exchange.pool().map_or(Duration::ZERO, |pool| pool.timeouts().first_byte)
    }
}

/// Asks endpoints until one answers, and passes the answer on.
pub(super) async fn carry<D: Downstream>(client: &mut D, carried: &mut Carried) -> Result<(), Failure> {
    let mut buffer = BytesMut::new();
    let request = std::mem::take(&mut carried.request);
    let mut unsent = Unsent::new(&request);
    let (mut origin, response) = ask(client, carried, &mut unsent, &mut buffer).await?;
    carried.exchange.answered(response.status);
    let mut body = response.body;
    client.head(&response, &carried.exchange.told(), body.is_done())?;
    deliver(client, &mut origin, carried, &mut unsent, &mut body, &mut buffer).await?;
    client.flush().await?;
    if response.keeps_alive && body.is_done() && buffer.is_empty() && unsent.is_over() {
        let idle = carried.exchange.pool().map_or(Duration::ZERO, |pool| pool.timeouts().idle);
        origin.keep(idle);
    }
    Ok(())
}

/// What of a request did not go to the endpoint yet. It may answer before it has read all of it.
struct Unsent<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
    is_refused: bool,
}

impl<'a> Unsent<'a> {
    fn new(whole: &'a [u8]) -> Self {
        Self { whole, rest: whole, is_refused: false }
    }

    fn again(&mut self) {
        *self = Self::new(self.whole);
    }

    fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Sends what the endpoint takes. One that takes no more may have said why: its answer is read either way.
    fn poll_send(&mut self, cx: &mut Context<'_>, origin: &mut Origin) {
        while !self.rest.is_empty() && !self.is_refused {
            match origin.poll_write(cx, self.rest) {
                Poll::Ready(Ok(sent @ 1..)) => self.rest = &self.rest[sent..],
                Poll::Ready(_) => self.is_refused = true,
                Poll::Pending => return,
            }
        }
    }
}

async fn deliver<D: Downstream>(
    client: &mut D,
    origin: &mut Origin,
    carried: &Carried,
    unsent: &mut Unsent<'_>,
    body: &mut Body,
    buffer: &mut BytesMut,
) -> Result<(), Failure> {
    loop {
        while let Some(piece) = body.take(buffer).map_err(|Malformed| Failure::BrokenOff)? {
            client.body(piece, body.is_done()).await?;
        }
        if body.is_done() {
            return client.end();
        }
        // Whatever came is on its way before we wait for more.
        client.flush().await?;
        let limit = carried.limit(carried.first_byte()).map_err(|_| Failure::OutOfTime)?;
        match arrive(client, origin, unsent, buffer, limit).await {
            Ok(0) if *body == Body::UntilClose => return client.end(),
            Err(Arrival::Upstream(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Failure::OutOfTime);
            }
            Ok(0) | Err(Arrival::Upstream(_)) => return Err(Failure::BrokenOff),
            Ok(_) => {}
            Err(Arrival::ClientGone) => return Err(Failure::ClientGone),
        }
    }
}

/// Finds an endpoint that answers, within the limits of what may be sent twice.
async fn ask<D: Downstream>(
    client: &mut D,
    carried: &mut Carried,
    unsent: &mut Unsent<'_>,
    buffer: &mut BytesMut,
) -> Result<(Origin, Response), Failure> {
    let mut stale = 0;
    loop {
        let mut origin = match reach(carried).await {
            Ok(origin) => origin,
            // Nothing was sent yet: another endpoint may be tried, whatever the method.
            Err(Unreached::Failed(refusal)) if carried.exchange.failed(refusal) => continue,
            Err(Unreached::Failed(refusal) | Unreached::Nowhere(refusal)) => {
                return Err(Failure::Refused(refusal));
            }
        };
        carried.exchange.connected();
        match attempt(client, &mut origin, carried, unsent, buffer).await {
            Ok(response) => return Ok((origin, response)),
            Err(Attempt::ClientGone) => return Err(Failure::ClientGone),
            Err(Attempt::TimeIsOver(failure)) => return Err(failure),
            Err(Attempt::Closed(failed)) if origin.is_reused() => {
                carried.exchange.was_stale(failed);
                stale += 1;
                if !is_idempotent(&carried.method) || stale >= MOST_STALE {
                    return Err(Failure::Refused(failed));
                }
                unsent.again();
            }
            Err(Attempt::Closed(failed) | Attempt::Failed(failed)) => {
                carried.exchange.failed(failed);
                return Err(Failure::Refused(failed));
            }
        }
    }
}

enum Unreached {
    /// This endpoint; another one may do.
    Failed(Refusal),
    /// There is none to go to.
    Nowhere(Refusal),
}

/// A connection to one of the pool's endpoints that was not tried yet.
async fn reach(carried: &mut Carried) -> Result<Origin, Unreached> {
    let Some(pool) = carried.exchange.pool() else { return Err(Unreached::Nowhere(Refusal::Internal)) };
    let limit = pool.timeouts().connect;
    let Some(endpoint) = pool.choose(carried.hash, &carried.exchange.tried) else {
        return Err(Unreached::Nowhere(carried.exchange.refusal.unwrap_or(Refusal::NoEndpoint)));
    };
    let (id, address) = (endpoint.id(), endpoint.next_address());
    carried.exchange.lease(id);
    let address = address.ok_or(Unreached::Nowhere(Refusal::NoEndpoint))?;
    if let Some(origin) = Origin::kept(address) {
        return Ok(origin);
    }
    let limit = carried.limit(limit);
    let limit = limit.map_err(|_| Unreached::Nowhere(Refusal::UpstreamTimeout))?;
    // Boxed, for it is rare and large: every request would carry the room for it.
    Box::pin(Origin::connect(address, limit)).await.map_err(|error| {
        Unreached::Failed(match error.kind() {
            io::ErrorKind::TimedOut => Refusal::ConnectTimeout,
            _ => Refusal::ConnectFailed,
        })
    })
}

enum Attempt {
    ClientGone,
    TimeIsOver(Failure),
    /// The endpoint closed the connection and had said nothing: if it is an old one, it may have crossed the request.
    Closed(Refusal),
    /// It said something else than an answer, or nothing in time.
    Failed(Refusal),
}

async fn attempt<D: Downstream>(
    client: &mut D,
    origin: &mut Origin,
    carried: &Carried,
    unsent: &mut Unsent<'_>,
    buffer: &mut BytesMut,
) -> Result<Response, Attempt> {
    let (mut has_spoken, mut interim) = (false, 0);
    loop {
        let limit = carried.limit(carried.first_byte()).map_err(Attempt::TimeIsOver)?;
        match arrive(client, origin, unsent, buffer, limit).await {
            Ok(1..) => has_spoken = true,
            Err(Arrival::ClientGone) => return Err(Attempt::ClientGone),
            Err(Arrival::Upstream(error)) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Attempt::Failed(Refusal::UpstreamTimeout));
            }
            Ok(0) | Err(Arrival::Upstream(_)) if has_spoken => {
                return Err(Attempt::Failed(Refusal::UpstreamFailed));
            }
            Ok(0) | Err(Arrival::Upstream(_)) => return Err(Attempt::Closed(Refusal::UpstreamFailed)),
        }
        let before = interim;
        while let Some(response) = Response::take(buffer, &carried.method)
            .map_err(|Malformed| Attempt::Failed(Refusal::UpstreamFailed))?
        {
            match response.status {
                // Nobody asked for another protocol.
                101 => return Err(Attempt::Failed(Refusal::UpstreamFailed)),
                100..=199 if interim == MOST_INTERIM => {
                    return Err(Attempt::Failed(Refusal::UpstreamFailed));
                }
                // Nobody waits for leave to send a body.
                100 => interim += 1,
                102..=199 => {
                    interim += 1;
                    client.interim(&response);
                }
                _ => return Ok(response),
            }
        }
        if interim > before {
            // They are of use only before the answer.
            client.flush().await.map_err(|_| Attempt::ClientGone)?;
        }
    }
}

enum Arrival {
    ClientGone,
    Upstream(io::Error),
}

/// Waits for bytes of the endpoint, and sends it what it did not take yet; 0 is the end of its stream.
async fn arrive<D: Downstream>(
    client: &mut D,
    origin: &mut Origin,
    unsent: &mut Unsent<'_>,
    buffer: &mut BytesMut,
    limit: Duration,
) -> Result<usize, Arrival> {
    let bytes = std::future::poll_fn(|cx| {
        unsent.poll_send(cx, origin);
        if let Poll::Ready(read) = origin.poll_read(cx, buffer) {
            return Poll::Ready(read.map_err(Arrival::Upstream));
        }
        client.poll_gone(cx).map(|()| Err(Arrival::ClientGone))
    });
    fast_timeout(limit, bytes)
        .await
        .unwrap_or_else(|_| Err(Arrival::Upstream(io::ErrorKind::TimedOut.into())))
}
