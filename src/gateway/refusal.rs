//! Every way we say no to a request. The client gets the status and an opaque request id, never the reason.

use bytes::Bytes;
use http::Method;
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::exchange::Exchange;
use super::ratelimit::Field;
use crate::framing::Fault;

/// Why a request is not forwarded, or what failed when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Can be read in more than one way.
    BadRequest,
    /// Its path leads to another route where origins read it in another way.
    TwoReadings,
    /// Asks for a tunnel.
    Connect,
    /// Expects what we do not know.
    Expectation,
    TargetTooLong,
    HeadTooLarge,
    BodyTooLarge,
    /// Its body does not come.
    TooSlow,
    /// No request, but the end of an HTTP/2 connection.
    Flood,
    /// No route allows it.
    NoRoute,
    /// Something is wrong with the client, and no route that accepts it matches.
    Quarantined,
    /// The route's identity table does not have this client.
    NotInTable,
    /// The host of the request is not the server the TLS session was made with.
    Misdirected,
    /// The client does more than a limit allows.
    Limited,
    /// Every endpoint of the pool is down.
    NoEndpoint,
    ConnectFailed,
    ConnectTimeout,
    UpstreamTimeout,
    UpstreamFailed,
    Internal,
}

impl Refusal {
    /// The label of `portcullis_refusals_total` and the word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TwoReadings => "two_readings",
            Self::Connect => "connect",
            Self::Expectation => "expectation",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::TooSlow => "too_slow",
            Self::Flood => "flood",
            Self::NoRoute => "no_route",
            Self::Quarantined => "quarantined",
            Self::NotInTable => "not_in_table",
            Self::Misdirected => "misdirected",
            Self::Limited => "limited",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "upstream_connect_failed",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamFailed => "upstream_failed",
            Self::Internal => "internal",
        }
    }

    pub fn status(self) -> u16 {
        match self {
            // There is no stream to answer on.
            Self::Flood => 0,
            Self::BadRequest | Self::TwoReadings => 400,
            Self::Connect => 405,
            Self::TooSlow => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::NoRoute | Self::Quarantined | Self::NotInTable => 403,
            Self::Misdirected => 421,
            Self::Limited => 429,
            Self::NoEndpoint => 503,
            Self::ConnectFailed | Self::UpstreamFailed => 502,
            Self::ConnectTimeout | Self::UpstreamTimeout => 504,
            Self::Internal => 500,
        }
    }

    /// After an ambiguous request nothing that follows on the connection can be believed to be a request.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::TwoReadings
                | Self::Connect
                | Self::Expectation
                | Self::TargetTooLong
                | Self::HeadTooLarge
                | Self::BodyTooLarge
                | Self::TooSlow
                | Self::Flood
                | Self::Internal
        )
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Connect => Self::Connect,
            Fault::Expectation => Self::Expectation,
            Fault::LongTarget => Self::TargetTooLong,
            Fault::LargeHead => Self::HeadTooLarge,
            Fault::LargeBody => Self::BodyTooLarge,
            Fault::Resets | Fault::Flood | Fault::Abuse | Fault::Overhead => Self::Flood,
            _ => Self::BadRequest,
        }
    }
}

/// An answer in our name: status, request id, and when to come back.
pub struct Page {
    pub status: u16,
    pub body: Bytes,
    length: String,
    request_id: String,
    more: Vec<Field>,
}

impl Page {
    pub fn new(refusal: Refusal, exchange: &Exchange) -> Self {
        let request_id = exchange.request_id();
        let body = Bytes::from(format!("request {request_id}\n"));
        let length = body.len().to_string();
        let more = if refusal == Refusal::Limited { exchange.limit_fields() } else { Vec::new() };
        Self { status: refusal.status(), body, length, request_id, more }
    }

    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let always = [
            ("content-type", "text/plain"),
            ("content-length", &self.length),
            ("cache-control", "no-store"),
            ("x-request-id", &self.request_id),
        ];
        always.into_iter().chain(self.more.iter().map(|(name, value)| (*name, value.as_str())))
    }
}

/// Answers in our name.
pub async fn respond(session: &mut Session, refusal: Refusal, exchange: &Exchange) -> Result<()> {
    let page = Page::new(refusal, exchange);
    let mut response = ResponseHeader::build(page.status, Some(4))?;
    for (name, value) in page.fields() {
        response.insert_header(name, value)?;
    }
    if refusal.ends_connection() {
        session.set_keepalive(None);
    }
    let has_body = session.req_header().method != Method::HEAD;
    session.write_response_header(Box::new(response), !has_body).await?;
    if has_body { session.write_response_body(Some(page.body), true).await } else { Ok(()) }
}
