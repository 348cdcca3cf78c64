//! What is written about a connection and about a request. The serving threads fill these in; turning them into
//! text is the writer's work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use log::Level;

use super::line::Line;
use super::{Declined, EndCause, HandshakeFailure};
use crate::listener::connection::Connection;
use crate::trust::ClientIdentity;

/// One TLS connection, also where its handshake failed.
pub struct ConnectionRecord {
    pub time: SystemTime,
    pub connection_id: u64,
    pub listener: Arc<str>,
    pub peer: SocketAddr,
    pub sni: Option<String>,
    pub tls_version: &'static str,
    pub cipher: &'static str,
    pub alpn: &'static str,
    pub resumed: bool,
    /// Why a session that the client offered was not resumed.
    pub resumption_declined: Option<Declined>,
    /// `None`: the handshake succeeded.
    pub outcome: Option<HandshakeFailure>,
    /// Why it failed, in words a person understands.
    pub message: String,
    /// Of a certificate that was not believed.
    pub presented_subject: Option<String>,
    pub identity: Option<Arc<ClientIdentity>>,
    pub limit: LimitRecord,
    pub duration: Duration,
}

/// What limits say of a connection.
#[derive(Default)]
pub struct LimitRecord {
    /// The one that refused it.
    pub refused: Option<Arc<str>>,
    /// The one that would have refused it.
    pub shadowed: Option<Arc<str>>,
    /// Networks that its client is in, where those are more than it may.
    pub networks: Option<u32>,
}

impl ConnectionRecord {
    pub fn new(connection_id: u64, listener: Arc<str>, peer: SocketAddr) -> Self {
        Self {
            time: SystemTime::now(),
            connection_id,
            listener,
            peer,
            sni: None,
            tls_version: "",
            cipher: "",
            alpn: "",
            resumed: false,
            resumption_declined: None,
            outcome: None,
            message: String::new(),
            presented_subject: None,
            identity: None,
            limit: LimitRecord::default(),
            duration: Duration::ZERO,
        }
    }

    pub(super) fn level(&self) -> Level {
        if self.outcome.is_some() { Level::Warn } else { Level::Info }
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.shown("connection_id", format_args!("{:016x}", self.connection_id));
        line.text("listener", &self.listener);
        line.shown("peer", self.peer);
        line.text("result", if self.outcome.is_some() { "failed" } else { "ok" });
        if let Some(failure) = self.outcome {
            line.text("reason", failure.as_str());
            let exact = Some(self.message.as_str()).filter(|message| !message.is_empty());
            line.text("message", exact.unwrap_or(failure.sentence()));
        }
        line.text_if_any("sni", self.sni.as_deref());
        match &self.identity {
            Some(identity) => write_identity(identity, line),
            None => line.text_if_any("subject", self.presented_subject.as_deref()),
        }
        if !self.tls_version.is_empty() {
            line.text("tls_version", self.tls_version);
            line.text("cipher", self.cipher);
            line.text("alpn", self.alpn);
            line.plain("resumed", self.resumed);
        }
        if let Some(cause) = self.resumption_declined {
            line.text("resumption_declined", cause.as_str());
        }
        line.text_if_any("limit", self.limit.refused.as_deref());
        line.text_if_any("shadow_limit", self.limit.shadowed.as_deref());
        if let Some(networks) = self.limit.networks {
            line.plain("networks", networks);
        }
        line.seconds("duration_seconds", self.duration);
    }

    /// What waits to be written must not take more memory than we said.
    pub(super) fn bound(&mut self) {
        bound_if_any(&mut self.sni);
        bound_if_any(&mut self.presented_subject);
        bound(&mut self.message);
    }
}

/// One request and what became of it.
pub struct RequestRecord {
    pub time: SystemTime,
    pub connection_id: u64,
    /// On its connection, from 1; with the connection it makes the request id.
    pub request_number: u32,
    pub peer: Option<SocketAddr>,
    pub method: Method,
    pub host: String,
    pub path: String,
    pub status: u16,
    pub route: Option<Arc<str>>,
    /// The limit that refused it.
    pub limit: Option<Arc<str>>,
    /// The limit that would have refused it.
    pub shadow_limit: Option<Arc<str>>,
    pub pool: Option<Arc<str>>,
    pub endpoint: Option<Arc<str>>,
    pub identity: Option<Arc<ClientIdentity>>,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub refusal: Option<&'static str>,
    pub error: Option<String>,
}

impl RequestRecord {
    pub(super) fn write(&self, line: &mut Line<'_>) {
        let connection = self.connection_id;
        line.shown("connection_id", format_args!("{connection:016x}"));
        line.shown("request_id", format_args!("{connection:016x}-{}", self.request_number));
        if let Some(peer) = self.peer {
            line.shown("peer", peer);
        }
        line.text("method", self.method.as_str());
        line.text("host", &self.host);
        line.text("path", &self.path);
        line.plain("status", self.status);
        line.text_if_any("route", self.route.as_deref());
        line.text_if_any("pool", self.pool.as_deref());
        line.text_if_any("endpoint", self.endpoint.as_deref());
        if let Some(identity) = &self.identity {
            write_identity(identity, line);
        }
        line.seconds("duration_seconds", self.duration);
        if let Some(duration) = self.upstream_duration {
            line.seconds("upstream_seconds", duration);
        }
        line.plain("bytes_in", self.bytes_in);
        line.plain("bytes_out", self.bytes_out);
        line.text_if_any("refusal", self.refusal);
        line.text_if_any("limit", self.limit.as_deref());
        line.text_if_any("shadow_limit", self.shadow_limit.as_deref());
        line.text_if_any("error", self.error.as_deref());
    }

    /// What waits to be written must not take more memory than we said.
    pub(super) fn bound(&mut self) {
        bound(&mut self.host);
        bound(&mut self.path);
        bound_if_any(&mut self.error);
    }
}

/// A connection whose client may no longer be there.
pub struct EndedRecord {
    pub time: SystemTime,
    connection_id: u64,
    listener: Arc<str>,
    peer: SocketAddr,
    cause: EndCause,
    message: String,
    identity: Option<Arc<ClientIdentity>>,
    requests: u32,
    open: Duration,
}

impl EndedRecord {
    pub fn new(connection: &Connection, listener: &Arc<str>, cause: EndCause, message: &str) -> Self {
        let mut message = message.to_owned();
        bound(&mut message);
        Self {
            time: SystemTime::now(),
            connection_id: connection.id.0,
            listener: listener.clone(),
            peer: connection.peer,
            cause,
            message,
            identity: connection.identity.clone(),
            requests: connection.requests(),
            open: connection.opened.elapsed(),
        }
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.shown("connection_id", format_args!("{:016x}", self.connection_id));
        line.text("listener", &self.listener);
        line.shown("peer", self.peer);
        line.text("cause", self.cause.as_str());
        line.text("message", &self.message);
        if let Some(identity) = &self.identity {
            write_identity(identity, line);
        }
        line.plain("requests", self.requests);
        line.seconds("open_seconds", self.open);
    }
}

/// Rendered here, on the writer's thread, and not while a request waits.
fn write_identity(identity: &ClientIdentity, line: &mut Line<'_>) {
    let certificate = identity.certificate();
    line.shown("subject", certificate.subject());
    line.shown("issuer", certificate.issuer());
    line.shown("serial", certificate.serial());
    line.shown("fingerprint", certificate.fingerprint());
    line.text("trust_domain", identity.trust_domain());
    line.text("anchor", &identity.anchor().subject);
    line.text_if_any("standing", identity.standing().fault().map(|fault| fault.kind.as_str()));
}

/// Bytes of one value that a client has a hand in.
const LONGEST: usize = 4096;

pub(super) fn bound(value: &mut String) {
    if value.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| value.is_char_boundary(at));
        value.truncate(end.unwrap_or(0));
        value.push('…');
        value.shrink_to_fit();
    }
}

fn bound_if_any(value: &mut Option<String>) {
    if let Some(value) = value {
        bound(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn connection() -> ConnectionRecord {
        ConnectionRecord::new(0xab, "edge".into(), "127.0.0.1:5000".parse().unwrap())
    }

    fn json(write: impl FnOnce(&mut Line<'_>)) -> serde_json::Value {
        let mut out = Vec::new();
        let mut line = Line::begin(LogFormat::Json, SystemTime::now(), Level::Info, "test", &mut out);
        write(&mut line);
        line.end();
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_handshake_that_failed_says_who_came_and_why_not() {
        let mut record = connection();
        record.outcome = Some(HandshakeFailure::Expired);
        record.presented_subject = Some("CN=old\nCN=admin".into());
        let value = json(|line| record.write(line));
        assert_eq!(value["connection_id"], "00000000000000ab");
        assert_eq!(value["result"], "failed");
        assert_eq!(value["reason"], "expired");
        assert_eq!(value["message"], HandshakeFailure::Expired.sentence());
        assert_eq!(value["subject"], "CN=old\nCN=admin");
        assert_eq!(record.level(), Level::Warn);
    }

    #[test]
    fn every_failure_has_a_sentence_of_its_own() {
        let sentences: std::collections::BTreeSet<_> =
            HandshakeFailure::ALL.iter().map(|failure| failure.sentence()).collect();
        assert_eq!(sentences.len(), HandshakeFailure::ALL.len());
    }

    #[test]
    fn a_client_cannot_fill_the_memory_with_what_waits_to_be_written() {
        let mut record = connection();
        record.presented_subject = Some("ä".repeat(100_000));
        record.bound();
        let subject = record.presented_subject.unwrap();
        assert!(subject.len() <= LONGEST + '…'.len_utf8() && subject.ends_with('…'));
        assert!(subject.capacity() < 2 * LONGEST);
    }
}
