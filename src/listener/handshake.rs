//! One TLS handshake, from the first byte to a client that is known or a reason why not.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use openssl::ssl::{NameType, Ssl, SslRef};
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use super::admission::{Place, Step, Turn, TurnedAway};
use super::allowance::Allowance;
use super::connection::ConnectionId;
use super::door::{self, Door};
use super::outlet::Outlet;
use crate::panics;
use crate::runtime::{ListenerRuntime, Runtime};
use crate::telemetry::{
    ConnectionRecord, HandshakeFailure, ListenerMetrics, Resumption, Telemetry, TlsVersion,
};
use crate::tls::{self, ClientCheck, Verdict};
use crate::trust::ClientIdentity;

/// A client that may speak HTTP now.
pub(super) struct Admitted {
    pub(super) stream: SslStream<Outlet>,
    pub(super) identity: Option<Arc<ClientIdentity>>,
    pub(super) sni: Option<String>,
    pub(super) is_h2: bool,
    pub(super) duration: Duration,
    /// What it holds of limits while it is open.
    pub(super) allowance: Option<Allowance>,
}

/// Why a handshake was no success, and what is to be written about it.
struct Refused {
    failure: HandshakeFailure,
    message: String,
    subject: Option<String>,
}

/// How a handshake ended that was no success.
enum Ended {
    Refused(Refused),
    /// Not recorded for each of them: there may be very many.
    TurnedAway(TurnedAway),
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<TurnedAway> for Ended {
    fn from(away: TurnedAway) -> Self {
        Self::TurnedAway(away)
    }
}

/// Counts and records the handshake, which began when the connection was accepted, whatever becomes of it; `None` when the connection is over.
#[expect(clippy::too_many_arguments, reason = "what is known of a connection when it is accepted")]
pub(super) async fn accept(
    runtime: &Runtime,
    listener: &ListenerRuntime,
    tcp: TcpStream,
    id: ConnectionId,
    peer: SocketAddr,
    place: Place,
    telemetry: &Telemetry,
    door: &Door,
) -> Option<Admitted> {
    let mut record = ConnectionRecord::new(id.0, listener.name.clone(), peer);
    let broken = Broken(listener);
    panics::provoke("handshake");
    let started = place.since();
    let outcome = shake_hands(listener, tcp, started, &place, &mut record).await;
    let outcome =
        outcome.and_then(|admitted| within_limits(admitted, runtime, peer, &mut record).map_err(Ended::from));
    // One that a limit keeps out shakes hands too often already, and is not to go before others.
    if outcome.as_ref().is_ok_and(|admitted| admitted.identity.is_some()) {
        place.is_known();
    }
    drop(broken);
    drop(place);
    record.duration = started.elapsed();
    if let Some(cause) = record.resumption_declined {
        listener.metrics.resumption_declined(cause);
    }
    match outcome {
        Ok(admitted) => {
            let resumption =
                if admitted.stream.ssl().session_reused() { Resumption::Resumed } else { Resumption::Full };
            let version = TlsVersion::from_name(admitted.stream.ssl().version_str());
            listener.metrics.handshake_succeeded(resumption, version, record.duration);
            let standing = admitted.identity.as_ref().and_then(|identity| identity.standing().fault());
            if let Some(fault) = standing {
                listener.metrics.handshake_quarantined(fault.kind);
            }
            telemetry.connection(record);
            Some(admitted)
        }
        Err(Ended::TurnedAway(away)) => {
            door.counts_away(peer, listener, away.0);
            None
        }
        Err(Ended::Refused(refused)) => {
            listener.metrics.handshake_failed(refused.failure);
            record.outcome = Some(refused.failure);
            record.message = refused.message;
            record.presented_subject = refused.subject;
            telemetry.connection(record);
            None
        }
    }
}

/// A handshake that a panic ends is counted as one that failed on our side: what was started adds up.
struct Broken<'a>(&'a ListenerRuntime);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.metrics.handshake_failed(HandshakeFailure::Internal);
        }
    }
}

/// Whose client is known only now: what the handshake took was taken.
fn within_limits(
    admitted: Admitted,
    runtime: &Runtime,
    peer: SocketAddr,
    record: &mut ConnectionRecord,
) -> Result<Admitted, Refused> {
    match Allowance::ask(runtime, admitted.identity.as_deref(), peer, &mut record.limit) {
        Ok(allowance) => Ok(Admitted { allowance, ..admitted }),
        Err(message) => Err(Refused { failure: HandshakeFailure::Limited, message, subject: None }),
    }
}

async fn shake_hands(
    listener: &ListenerRuntime,
    tcp: TcpStream,
    started: Instant,
    place: &Place,
    record: &mut ConnectionRecord,
) -> Result<Admitted, Ended> {
    let timeout = listener.limits.handshake_timeout;
    let turn = match fast_timeout(
        timeout.saturating_sub(started.elapsed()),
        first_turn(listener, &tcp, place),
    )
    .await
    {
        Ok(turn) => turn.inspect_err(|_| door::reset(&tcp))?,
        Err(_) => return Err(refused(HandshakeFailure::Timeout).into()),
    };
    if has_gone(&tcp) {
        return Err(refused(HandshakeFailure::Disconnected).into());
    }
    let mut stream = prepare(listener, tcp).map_err(|error| Refused {
        failure: HandshakeFailure::Internal,
        message: format!("the connection could not be prepared: {error}"),
        subject: None,
    })?;
    let steps = steps(&mut stream, place, turn, &listener.metrics);
    let finished = fast_timeout(timeout.saturating_sub(started.elapsed()), steps).await;
    describe_session(stream.ssl(), record);
    match finished {
        Err(_) => return Err(refused(HandshakeFailure::Timeout).into()),
        Ok(Err(away)) => {
            door::reset(stream.get_ref().tcp());
            return Err(away.into());
        }
        Ok(Ok(Err(error))) => {
            let rejection = tls::rejection(stream.ssl());
            let failure = tls::classify(&error, stream.ssl());
            if !matches!(failure, HandshakeFailure::Disconnected | HandshakeFailure::ClientAlert) {
                stream.get_ref().linger();
            }
            return Err(Refused {
                failure,
                message: tls::describe(&error, stream.ssl()),
                subject: rejection.and_then(|rejection| rejection.subject),
            }
            .into());
        }
        Ok(Ok(Ok(()))) => {}
    }
    let identity = identity(listener, stream.ssl())?;
    record.identity.clone_from(&identity);
    let ssl = stream.ssl();
    Ok(Admitted {
        identity,
        sni: ssl.servername(NameType::HOST_NAME).map(str::to_owned),
        is_h2: ssl.selected_alpn_protocol() == Some(b"h2"),
        duration: started.elapsed(),
        allowance: None,
        stream,
    })
}

/// Nothing is made for a client before it has said something and it is its turn.
async fn first_turn<'a>(
    listener: &'a ListenerRuntime,
    tcp: &TcpStream,
    place: &'a Place,
) -> Result<Turn<'a>, TurnedAway> {
    // Whatever is wrong with the socket, the library finds it.
    let _ = place.await_client(|cx| tcp.poll_read_ready(cx)).await?;
    place.turn(&listener.metrics, Some(tcp)).await
}

/// Whether the client has ended the connection while it waited: nothing needs to be computed for it.
fn has_gone(tcp: &TcpStream) -> bool {
    let ready = tcp.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(Ready::is_read_closed))
}

/// The handshake: as much as can be computed in one go, each time it is its turn.
async fn steps<'a>(
    stream: &mut SslStream<Outlet>,
    place: &'a Place,
    mut turn: Turn<'a>,
    metrics: &'a ListenerMetrics,
) -> Result<Result<(), openssl::ssl::Error>, TurnedAway> {
    loop {
        let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_accept(cx))).await;
        if let Poll::Ready(finished) = step {
            return Ok(finished);
        }
        let has_answered = stream.get_ref().has_answered();
        turn.goes_on(if has_answered {
            Step::Answered { resumes: stream.ssl().session_reused() }
        } else {
            Step::Unanswered
        });
        let _ = place.await_client(|cx| stream.get_ref().poll_client(cx)).await?;
        turn = place.turn(metrics, (!has_answered).then(|| stream.get_ref().tcp())).await?;
    }
}

fn prepare(
    listener: &ListenerRuntime,
    tcp: TcpStream,
) -> Result<SslStream<Outlet>, openssl::error::ErrorStack> {
    // What an earlier connection on this thread left in the library's error queue is not ours.
    let _ = openssl::error::ErrorStack::get();
    let mut ssl = Ssl::new(listener.contexts.context())?;
    tls::attach(&mut ssl, ClientCheck::new(listener.trust.clone(), listener.contexts.session_terms()))?;
    SslStream::new(ssl, Outlet::new(tcp))
}

/// Whoever the library let through is looked at once more: it fails closed should a callback ever not have run.
fn identity(listener: &ListenerRuntime, ssl: &SslRef) -> Result<Option<Arc<ClientIdentity>>, Refused> {
    match tls::verdict(ssl) {
        Some(Verdict::Ok(identity)) => Ok(Some(identity)),
        Some(Verdict::Err(rejection)) => Err(Refused {
            failure: HandshakeFailure::from(rejection.reason),
            message: rejection.detail,
            subject: rejection.subject,
        }),
        None if listener.demands_certificate() => Err(refused(HandshakeFailure::NoCertificate)),
        None => Ok(None),
    }
}

fn refused(failure: HandshakeFailure) -> Refused {
    Refused { failure, message: failure.sentence().to_owned(), subject: None }
}

fn describe_session(ssl: &SslRef, record: &mut ConnectionRecord) {
    record.sni = ssl.servername(NameType::HOST_NAME).map(str::to_owned);
    record.resumption_declined = tls::declined(ssl);
    if tls::is_established(ssl) {
        record.tls_version = ssl.version_str();
        record.cipher = ssl.current_cipher().map_or("", |cipher| cipher.name());
        record.resumed = ssl.session_reused();
        record.alpn = match ssl.selected_alpn_protocol() {
            Some(b"h2") => "h2",
            Some(b"http/1.1") => "http/1.1",
            _ => "",
        };
    }
}
