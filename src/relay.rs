//! Ordinary requests, carried to plain HTTP/1.1 endpoints without Pingora's general machinery.
//!
//! Pingora's proxy can do far more than most requests need, and pays for it with each one: two tasks' worth of
//! channels, filters, header maps. What is ordinary ([`head`]) is decided by the same [`decide`] as everything else,
//! counted and recorded by the same [`Exchange`], and carried here, in a quarter of the time. Whatever is not ordinary
//! goes to Pingora with the bytes as they came, once it is clear that they can be read in one way only
//! ([`crate::framing`]): upgrades, large or chunked bodies, endpoints with TLS or HTTP/2, and refusals.

mod carry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handover;
mod head;
mod http1;
mod http2;
mod pace;
mod request;
mod response;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use pingora_timeout::fast_timeout::fast_timeout;

use crate::config::ListenerLimits;
use crate::fields::Fields;
use crate::framing::chunks::Chunks;
use crate::framing::head::Body;
use crate::framing::{self, Fault, Limits};
use crate::gateway::Gateway;
use crate::gateway::decision::decide;
use crate::gateway::exchange::Exchange;
use crate::listener::connection::{Connection, Progress};
use crate::listener::stream::ClientStream;
use crate::panics;
use crate::route::RequestView;
use crate::runtime::Cell;
use crate::telemetry::Telemetry;
use crate::upstream::HashInput;
use carry::{Carried, Failure};
use head::{Head, Parsed};
use http1::Http1;
use pace::Pace;
use request::Asked;

/// A gateway that stops leaves a connection open until nothing was asked on it for so long: who asks often has the next
/// request under way already, and would lose it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// And one on which nothing was asked yet for so long: in TLS 1.2 a client far away takes a whole round trip until it can.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// Serves admitted connections: ordinary requests itself, all others through Pingora.
pub struct Relay {
    cell: Arc<Cell>,
    telemetry: Arc<Telemetry>,
    proxy: Arc<HttpProxy<Gateway>>,
}

/// What a client may, as its listener says now.
#[derive(Clone, Copy)]
struct Bounds {
    /// How long its connection may be idle.
    idle: Duration,
    limits: ListenerLimits,
}

/// What to do with what a client sent.
enum Next {
    Carry(Box<Carried>),
    /// It is Pingora's. A body in chunks is watched while Pingora reads it.
    HandOver(Option<Chunks>),
    /// It can be read in more than one way, or not at all.
    Refuse(Fault),
    /// Nothing more comes, or nothing more is wanted.
    End,
}

impl Relay {
    pub fn new(cell: Arc<Cell>, telemetry: Arc<Telemetry>, proxy: Arc<HttpProxy<Gateway>>) -> Self {
        Self { cell, telemetry, proxy }
    }

    /// One HTTP/1.1 connection, to its end.
    pub async fn serve_http1(
        &self,
        stream: ClientStream,
        connection: &Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) {
        let mut client = Http1::new(stream, connection.opened);
        loop {
            match self.next(&mut client, connection).await {
                Next::Carry(mut carried) => {
                    client.is_last |= carried.is_last || connection.progress() > Progress::Open;
                    if self.carry_http1(&mut client, &mut carried).await.is_err() || client.is_last {
                        break;
                    }
                }
                Next::HandOver(body) => match self.hand_over(client, body, connection, shutdown).await {
                    Some(stream) => client = Http1::new(stream, Instant::now()),
                    None => return,
                },
                Next::Refuse(fault) => {
                    self.refuse(&mut client, fault, connection).await;
                    break;
                }
                Next::End => break,
            }
        }
        client.close().await;
    }

    /// Waits for the next request, and looks at it as soon as its head is there.
    async fn next(&self, client: &mut Http1, connection: &Arc<Connection>) -> Next {
        let Some(Bounds { idle, limits }) = self.bounds(connection) else { return Next::End };
        client.pace = Pace::new(&limits);
        let mut head_until = None;
        // Bytes in which there is no end of a head.
        let mut looked = 0;
        loop {
            let progress = connection.progress();
            let limit = if client.inbox.is_empty() {
                match progress {
                    Progress::Open => idle,
                    Progress::Retiring => {
                        let word = if connection.requests() == 0 { FIRST_WORD } else { LAST_WORD };
                        idle.min(word.saturating_sub(client.quiet_since.elapsed()))
                    }
                    Progress::Ending | Progress::Cut => return Next::End,
                }
            } else {
                let inbox = &client.inbox;
                // A head that comes byte by byte is not parsed as often.
                let may_end = looked == 0
                    || inbox.len() >= limits.request.head
                    || memchr::memchr(b'\n', &inbox[looked..]).is_some();
                looked = inbox.len();
                if may_end && let Some(next) = self.look(inbox, &limits.request, connection) {
                    return next;
                }
                let until = *head_until.get_or_insert_with(|| Instant::now() + limits.request_header_timeout);
                until.saturating_duration_since(Instant::now())
            };
            match fast_timeout(limit, client.fill(connection, progress)).await {
                Ok(Ok(true)) => {}
                // The client left, or was too slow, or the gateway stops.
                _ => return connection.fault().map_or(Next::End, Next::Refuse),
            }
        }
    }

    /// `None`: a reload took its listener away.
    fn bounds(&self, connection: &Connection) -> Option<Bounds> {
        let runtime = self.cell.load();
        let limits = runtime.listeners.get(connection.listener)?.limits;
        let idle =
            if connection.requests() == 0 { limits.request_header_timeout } else { limits.keepalive_timeout };
        Some(Bounds { idle, limits })
    }

    /// `None`: it is not all there.
    fn look(&self, inbox: &[u8], limits: &Limits, connection: &Arc<Connection>) -> Option<Next> {
        let mut room = head::room();
        match head::parse(inbox, &mut room) {
            Parsed::Partial => None,
            Parsed::Ordinary(head) if head.fits(limits) => Some(
                self.prepare_http1(&head, inbox, connection)
                    .map_or(Next::HandOver(None), |carried| Next::Carry(Box::new(carried))),
            ),
            Parsed::Other | Parsed::Ordinary(_) => {
                look_closely(inbox, limits).unwrap_or_else(|fault| Some(Next::Refuse(fault)))
            }
        }
    }

    fn prepare_http1(&self, head: &Head<'_>, inbox: &[u8], connection: &Arc<Connection>) -> Option<Carried> {
        let asked = Asked {
            method: &head.method,
            target: head.target,
            host: head.host,
            fields: Fields::Lines(head.fields),
        };
        let mut carried = self.prepare(&asked, connection)?;
        let end = inbox.len().min(head.len + head.body);
        carried.request.extend_from_slice(&inbox[head.len..end]);
        carried.missing = head.len + head.body - end;
        carried.taken = end;
        carried.body = head.body;
        carried.is_last = head.is_last;
        Some(carried)
    }

    /// Decides about a request, and renders it for an endpoint. `None`: it is refused, or its pool is not ours to
    /// serve. Nothing has been counted yet, so Pingora's way begins anew.
    fn prepare(&self, asked: &Asked<'_>, connection: &Arc<Connection>) -> Option<Carried> {
        let runtime = self.cell.pin();
        let told = connection.told(&runtime, asked.host).ok()?;
        let path = crate::framing::path(asked.target);
        let view = RequestView { host: &told.host, path, method: asked.method, headers: asked.fields };
        let decided = decide(&runtime, connection, &view);
        let id = decided.pool.ok()?;
        let pool = runtime.pools.get(id).filter(|pool| pool.is_plain())?;
        let client = connection.identity.as_deref().map(|identity| identity.certificate().fingerprint());
        let hash = pool.hash(&HashInput { client, path, headers: asked.fields });
        let mut exchange = Exchange::new(runtime.clone());
        exchange.begin(connection);
        exchange.host = Some(told.host.clone());
        exchange.route = decided.route;
        exchange.pool = Some(id);
        // One that is over a limit goes nowhere; nothing may come between this and the request's end.
        exchange.refusal = exchange.admit().err();
        let request = match exchange.refusal {
            Some(_) => Vec::new(),
            None => request::render(asked, &told, pool.host_header(), &runtime, connection),
        };
        Some(Carried::new(exchange, asked, request, hash))
    }

    async fn carry_http1(&self, client: &mut Http1, carried: &mut Carried) -> Result<(), Failure> {
        panics::provoke("http1");
        let result = match (client.take_body(carried).await, carried.exchange.refusal) {
            (Ok(()), Some(refusal)) => client.decline(refusal, carried).await,
            (Ok(()), None) => carry::carry(client, carried).await,
            (Err(failure), _) => Err(failure),
        };
        if let Err(failure) = &result {
            client.refuse(failure, carried).await;
            // What the client still sends must not cost it the answer.
            let is_sending = carried.missing > 0 || !client.inbox.is_empty();
            carried
                .exchange
                .lingers(is_sending && !matches!(failure, Failure::ClientGone | Failure::ClientDeaf));
        }
        let ended = carried.finish(client.status, client.sent, result.as_ref().err(), &self.telemetry);
        client.end_of_answer(ended);
        result
    }
}

/// What is not ordinary must still have one reading only. `None`: its head is not all there.
fn look_closely(inbox: &[u8], limits: &Limits) -> Result<Option<Next>, Fault> {
    let Some(head) = framing::head::check(inbox, limits)? else { return Ok(None) };
    if head.body != Body::Chunked {
        return Ok(Some(Next::HandOver(None)));
    }
    let mut body = Chunks::new(limits);
    body.watch(&inbox[head.len..])?;
    Ok(Some(Next::HandOver(Some(body))))
}
