//! Requests that are Pingora's, and what becomes of those that nobody should read.

use std::sync::Arc;

use http::Method;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

use super::Relay;
use super::http1::Http1;
use crate::framing::chunks::Chunks;
use crate::framing::{Fault, path};
use crate::gateway::exchange::{Exchange, Outcome};
use crate::gateway::refusal::{Page, Refusal};
use crate::listener::connection::Connection;
use crate::listener::stream::{ClientStream, Watched};

/// As much of a request as can be told of one that nobody could read.
pub(super) struct Unread {
    method: Method,
    path: Box<str>,
}

impl Unread {
    /// From the first line of the request, if it looks like one.
    fn of(inbox: &[u8]) -> Self {
        let line = inbox.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
        let mut words = line.unwrap_or_default().split(|byte| *byte == b' ');
        let method = words.next().and_then(|word| Method::from_bytes(word).ok());
        let target = words.next().unwrap_or_default();
        match method {
            Some(method) if words.next().is_some() => {
                Self { method, path: path(&String::from_utf8_lossy(target)).into() }
            }
            _ => Self::nothing(),
        }
    }

    /// Nothing at all is known of it.
    pub(super) fn nothing() -> Self {
        // A method is a token, and this is one.
        Self { method: Method::from_bytes(b"-").unwrap_or_default(), path: "".into() }
    }

    pub(super) fn connect() -> Self {
        Self { method: Method::CONNECT, path: "".into() }
    }
}

impl Relay {
    /// One request and its answer by Pingora. The connection comes back if it may be used again.
    pub(super) async fn hand_over(
        &self,
        client: Http1,
        body: Option<Chunks>,
        connection: &Arc<Connection>,
        shutdown: &ShutdownWatch,
    ) -> Option<ClientStream> {
        let idle = self.bounds(connection)?.idle;
        let (before, unread) = (connection.requests(), Unread::of(&client.inbox));
        // Until our filters see it, each end is a refusal.
        connection.set_lingers(true);
        let mut stream = client.into_stream();
        stream.watch(body.map_or(Watched::Nothing, |body| Watched::Body(Box::new(body))));
        let mut session = ServerSession::new_http1(Box::new(stream));
        session.set_keepalive(Some(idle.as_secs().max(1)));
        let served = self.proxy.process_new_http(session, shutdown).await;
        if connection.requests() == before {
            self.refused_unread(connection, &unread, Refusal::BadRequest, None);
        }
        let (stream, _) = served?.consume();
        let mut stream = stream.into_any().downcast::<ClientStream>().ok()?;
        stream.watch(Watched::Nothing);
        Some(*stream)
    }

    /// Says no to a request that nobody should read, and is done with the connection.
    pub(super) async fn refuse(&self, client: &mut Http1, fault: Fault, connection: &Arc<Connection>) {
        let unread = Unread::of(&client.inbox);
        let exchange = self.refused_unread(connection, &unread, fault.into(), Some(fault));
        if Refusal::from(fault).status() == 0 {
            return;
        }
        // Whatever it still sends must not cost it the answer.
        exchange.lingers(true);
        client.say(&Page::new(fault.into(), &exchange), &unread.method).await;
    }

    /// Counts and records a request that was refused before anybody could read it.
    pub(super) fn refused_unread(
        &self,
        connection: &Arc<Connection>,
        unread: &Unread,
        refusal: Refusal,
        fault: Option<Fault>,
    ) -> Exchange {
        let mut exchange = Exchange::new(self.cell.pin());
        exchange.begin(connection);
        exchange.refusal = Some(refusal);
        let outcome = Outcome {
            method: &unread.method,
            path: &unread.path,
            status: refusal.status(),
            bytes_in: 0,
            bytes_out: 0,
            error: fault.as_ref().map(|fault| fault as &dyn std::fmt::Display),
        };
        exchange.finish(&outcome, &self.telemetry);
        exchange
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_told_of_a_request_is_told() {
        let of = |text: &[u8]| {
            let unread = Unread::of(text);
            (unread.method.to_string(), unread.path.to_string())
        };
        assert_eq!(of(b"GET /a?b HTTP/1.1\r\nHost"), ("GET".into(), "/a".into()));
        assert_eq!(of(b"\r\nCONNECT a:1 HTTP/1.1\r\n"), ("CONNECT".into(), "a:1".into()));
        for text in [&b""[..], b"\r\n\r\n", b"\x16\x03\x01 a b", b"GET", b"GET /", b"G@T / HTTP/1.1"] {
            assert_eq!(of(text), ("-".into(), String::new()), "{text:?}");
        }
    }
}
