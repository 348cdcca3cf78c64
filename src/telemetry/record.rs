//! What is written about a connection and about a request. The serving threads fill these in; turning them into
//! text is the writer's work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Map, Value, json};

use super::HandshakeFailure;
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
    /// `None`: the handshake succeeded.
    pub outcome: Option<HandshakeFailure>,
    /// Why it failed, in words a person understands.
    pub message: String,
    /// Of a certificate that was not believed.
    pub presented_subject: Option<String>,
    pub identity: Option<Arc<ClientIdentity>>,
    pub duration: Duration,
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
            outcome: None,
            message: String::new(),
            presented_subject: None,
            identity: None,
            duration: Duration::ZERO,
        }
    }

    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        put(&mut fields, "connection_id", format!("{:016x}", self.connection_id));
        put(&mut fields, "listener", &*self.listener);
        put(&mut fields, "peer", self.peer.to_string());
        put(&mut fields, "result", if self.outcome.is_some() { "failed" } else { "ok" });
        if let Some(failure) = self.outcome {
            put(&mut fields, "reason", failure.as_str());
            put(&mut fields, "message", self.message.as_str());
        }
        put_some(&mut fields, "sni", self.sni.as_deref());
        put_some(&mut fields, "subject", self.presented_subject.as_deref());
        put_identity(&mut fields, self.identity.as_deref());
        if !self.tls_version.is_empty() {
            put(&mut fields, "tls_version", self.tls_version);
            put(&mut fields, "cipher", self.cipher);
            put(&mut fields, "alpn", self.alpn);
            put(&mut fields, "resumed", self.resumed);
        }
        put(&mut fields, "duration_seconds", seconds(self.duration));
        fields
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
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        put(&mut fields, "connection_id", format!("{:016x}", self.connection_id));
        put(&mut fields, "request_id", format!("{:016x}-{}", self.connection_id, self.request_number));
        put_some(&mut fields, "peer", self.peer.map(|peer| peer.to_string()));
        put(&mut fields, "method", self.method.as_str());
        put(&mut fields, "host", self.host.as_str());
        put(&mut fields, "path", self.path.as_str());
        put(&mut fields, "status", self.status);
        put_some(&mut fields, "route", self.route.as_deref());
        put_some(&mut fields, "pool", self.pool.as_deref());
        put_some(&mut fields, "endpoint", self.endpoint.as_deref());
        put_identity(&mut fields, self.identity.as_deref());
        put(&mut fields, "duration_seconds", seconds(self.duration));
        put_some(&mut fields, "upstream_seconds", self.upstream_duration.map(seconds));
        put(&mut fields, "bytes_in", self.bytes_in);
        put(&mut fields, "bytes_out", self.bytes_out);
        put_some(&mut fields, "refusal", self.refusal);
        put_some(&mut fields, "error", self.error.as_deref());
        fields
    }
}

fn put(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}

fn put_some(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(fields, name, value);
    }
}

fn put_identity(fields: &mut Map<String, Value>, identity: Option<&ClientIdentity>) {
    let Some(identity) = identity else { return };
    let certificate = identity.certificate();
    put(fields, "subject", certificate.subject().to_string());
    put(fields, "issuer", certificate.issuer().to_string());
    put(fields, "serial", certificate.serial().to_string());
    put(fields, "fingerprint", certificate.fingerprint().to_string());
    put(fields, "trust_domain", &**identity.trust_domain());
    put(fields, "anchor", identity.anchor().subject.as_str());
}

/// Microseconds are as exact as anybody can use.
fn seconds(duration: Duration) -> Value {
    json!((duration.as_secs_f64() * 1e6).round() / 1e6)
}
