//! The admin endpoints as pure routing: a request in, an answer out. Never reachable through a public listener.

mod action;
mod block;
mod gate;
mod parameters;
mod selector;
mod token;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use action::change;
pub use action::{Action, BlockError, Blocked, Outcome};
pub use gate::Caller;
use gate::Denial;
pub use parameters::{BadParameter, Parameters};
pub use selector::{Candidate, ConnectionNumber, DistinguishedName, KnownNames, Selector};
pub use token::{BadToken, Token};

use crate::UnixTime;
use crate::certificate::Certificate;
use crate::trust::{DenyEntry, DenySelector};

/// What was asked.
pub struct AdminRequest<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// Behind the question mark.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub caller: Caller,
    pub now: UnixTime,
}

/// What the endpoints show and do.
pub trait AdminView {
    /// What must be known over TCP.
    fn token(&self) -> Option<Arc<Token>>;
    fn is_ready(&self) -> bool;
    fn metrics(&self) -> String;
    fn status(&self) -> Value;
    fn certificates(&self) -> Value;
    /// Client certificates that were seen, by anchor.
    fn census(&self) -> Value;
    /// What listeners and trust domains are called.
    fn names(&self) -> KnownNames;
    fn connections(&self, selector: &Selector, page: &Page) -> Value;
    /// The generation now in force, or why nothing changed.
    fn reload(&self) -> Result<u64, String>;
    /// Ends open connections; how many.
    fn kick(&self, selector: &Selector, grace: Duration, reason: Option<&str>) -> usize;
    /// Keeps a client out from now on.
    fn block(&self, entry: DenyEntry) -> Result<Blocked, BlockError>;
    /// Takes it back. `None`: nobody was blocked like this.
    fn unblock(&self, selector: &DenySelector, domain: Option<&str>)
    -> Result<Option<DenyEntry>, BlockError>;
    /// All that are blocked, as entries of a deny list.
    fn blocked(&self) -> Value;
    /// All that is known of a client. `presented`: its certificate, and what comes with it.
    fn who(&self, selector: &Selector, presented: &[Certificate]) -> Value;
    /// Something was changed, or somebody tried to.
    fn record(&self, action: Action);
}

/// A part of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Behind this one.
    pub after: Option<ConnectionNumber>,
    pub limit: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct AdminResponse {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
    /// A header of this status: `Allow`, `WWW-Authenticate`.
    pub header: Option<(&'static str, &'static str)>,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus text exposition format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Healthz,
    Readyz,
    Metrics,
    Status,
    Certs,
    Connections,
    Census,
    Reload,
    Kick,
    Block,
    Unblock,
    Blocked,
    Who,
}

impl Endpoint {
    const ALL: [(&'static str, Self); 13] = [
        ("/healthz", Self::Healthz),
        ("/readyz", Self::Readyz),
        ("/metrics", Self::Metrics),
        ("/status", Self::Status),
        ("/certs", Self::Certs),
        ("/connections", Self::Connections),
        ("/census", Self::Census),
        ("/who", Self::Who),
        ("/blocked", Self::Blocked),
        ("/reload", Self::Reload),
        ("/kick", Self::Kick),
        ("/block", Self::Block),
        ("/unblock", Self::Unblock),
    ];

    fn find(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == path).map(|(_, endpoint)| endpoint)
    }

    /// What the log calls it; `None` for those that only show.
    fn action(self) -> Option<&'static str> {
        match self {
            Self::Reload => Some("reload"),
            Self::Kick => Some("kick"),
            Self::Block => Some("block"),
            Self::Unblock => Some("unblock"),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        if self.action().is_some() { "POST" } else { "GET" }
    }

    /// Whether it shows who the clients are, or changes something.
    fn is_guarded(self) -> bool {
        self.action().is_some()
            || matches!(self, Self::Connections | Self::Census | Self::Who | Self::Blocked)
    }
}

pub fn respond(request: &AdminRequest<'_>, view: &impl AdminView) -> AdminResponse {
    let permitted = gate::check_origin(request.caller, request.headers);
    let Some(endpoint) = Endpoint::find(request.path) else {
        return permitted.map_or_else(|denial| denied(&denial), |()| not_found());
    };
    if request.method.as_str() != endpoint.method() {
        return permitted.map_or_else(|denial| denied(&denial), |()| wrong_method(endpoint));
    }
    let permitted = permitted.and_then(|()| {
        if endpoint.is_guarded() {
            gate::check_token(request.caller, request.headers, view.token().as_deref())
        } else {
            Ok(())
        }
    });
    match endpoint.action() {
        None => match permitted {
            Ok(()) => show(endpoint, request, view).unwrap_or_else(|error| bad(&error)),
            Err(denial) => denied(&denial),
        },
        Some(name) => {
            let outcome = Outcome::Done;
            let mut action =
                Action { name, selector: None, reason: None, until: None, connections: None, outcome };
            let response = match permitted {
                Ok(()) => change(endpoint, request, view, &mut action).unwrap_or_else(|error| bad(&error)),
                Err(denial) => denied(&denial),
            };
            action.outcome = match response.status {
                200 => Outcome::Done,
                401 | 403 => Outcome::Refused(response.body.trim_end().to_owned()),
                _ => Outcome::Failed(response.body.trim_end().to_owned()),
            };
            view.record(action);
            response
        }
    }
}

fn show(
    endpoint: Endpoint,
    request: &AdminRequest<'_>,
    view: &impl AdminView,
) -> Result<AdminResponse, BadParameter> {
    Ok(match endpoint {
        Endpoint::Readyz if view.is_ready() => text(200, "ready"),
        Endpoint::Readyz => text(503, "not ready"),
        Endpoint::Metrics => {
            AdminResponse { status: 200, content_type: METRICS, body: view.metrics(), header: None }
        }
        Endpoint::Status => json(&view.status()),
        Endpoint::Certs => json(&view.certificates()),
        Endpoint::Census => json(&view.census()),
        Endpoint::Connections => {
            let mut parameters = Parameters::parse(request.query, &[])?;
            let page = page(&mut parameters)?;
            let selector = Selector::take(&mut parameters)?;
            parameters.end(&[&["limit", "after"], &Selector::NAMES[..]].concat())?;
            selector.asks_for_what_there_is(&view.names())?;
            json(&view.connections(&selector, &page))
        }
        Endpoint::Blocked => json(&view.blocked()),
        Endpoint::Who => who(request, view)?,
        _ => text(200, "ok"),
    })
}

fn who(request: &AdminRequest<'_>, view: &impl AdminView) -> Result<AdminResponse, BadParameter> {
    let mut parameters = Parameters::parse(request.query, &[])?;
    let presented = match parameters.take("certificate") {
        Some(pem) => certificates(&pem)?,
        None => Vec::new(),
    };
    let mut selector = Selector::take(&mut parameters)?;
    parameters.end(&[&["certificate"], &Selector::NAMES[..]].concat())?;
    if let Some(leaf) = presented.first() {
        if selector.fingerprint.is_some_and(|fingerprint| fingerprint != *leaf.fingerprint()) {
            return Err(BadParameter::Incomplete("`certificate` has another fingerprint than `fingerprint`"));
        }
        selector.fingerprint = Some(*leaf.fingerprint());
    }
    selector.names_a_client()?;
    selector.asks_for_what_there_is(&view.names())?;
    Ok(json(&view.who(&selector, &presented)))
}

/// PEM, leaf first.
fn certificates(pem: &str) -> Result<Vec<Certificate>, BadParameter> {
    let wrong = |error: String| BadParameter::Wrong { name: "certificate", error };
    let bundle = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    if bundle.is_empty() {
        Err(wrong("it holds no PEM block of type CERTIFICATE".into()))
    } else {
        Ok(bundle)
    }
}

/// RFC 3339, UTC; `None` for what is on no calendar.
pub fn moment(time: UnixTime) -> Option<String> {
    jiff::Timestamp::from_second(time).ok().map(|time| time.to_string())
}

fn page(parameters: &mut Parameters) -> Result<Page, BadParameter> {
    let limit = parameters.parsed("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=LARGEST_LIMIT).contains(&limit) {
        let error = format!("{limit} is no number of connections (expected: 1 to {LARGEST_LIMIT})");
        return Err(BadParameter::Wrong { name: "limit", error });
    }
    Ok(Page { after: parameters.parsed("after")?, limit })
}

fn not_found() -> AdminResponse {
    let paths = |method| {
        let all = Endpoint::ALL.into_iter().filter(move |(_, endpoint)| endpoint.method() == method);
        all.map(|(path, _)| path).collect::<Vec<_>>().join(" ")
    };
    text(404, &format!("there are GET {} and POST {}", paths("GET"), paths("POST")))
}

fn wrong_method(endpoint: Endpoint) -> AdminResponse {
    let method = endpoint.method();
    AdminResponse { header: Some(("Allow", method)), ..text(405, &format!("this is for {method}")) }
}

fn denied(denial: &Denial) -> AdminResponse {
    let status = denial.status();
    let header = (status == 401).then_some(("WWW-Authenticate", "Bearer"));
    AdminResponse { header, ..text(status, &denial.to_string()) }
}

fn bad(error: &BadParameter) -> AdminResponse {
    text(400, &error.to_string())
}

fn text(status: u16, line: &str) -> AdminResponse {
    AdminResponse { status, content_type: TEXT, body: format!("{line}\n"), header: None }
}

fn json(value: &Value) -> AdminResponse {
    AdminResponse { status: 200, content_type: JSON, body: format!("{value:#}\n"), header: None }
}

#[cfg(test)]
mod tests;
