//! Says what would become of a request, and why, with the code of the gateway itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Uri};
use pingora_http::RequestHeader;
use serde_json::{Value, json};

use crate::UnixTime;
use crate::certificate::{Certificate, pem_blocks};
use crate::fields::Fields;
use crate::gateway::refusal::Refusal;
use crate::gateway::request;
use crate::limits::{Mode, Rule};
use crate::route::{Decision, RequestView, RouteOutcome, RouteTrace};
use crate::runtime::{ListenerRuntime, Runtime};
use crate::trust::{ClientIdentity, Standing};

/// What is asked.
pub struct Question {
    pub certificate: Option<PathBuf>,
    pub listener: Option<String>,
    /// Where the client connects from, or a balancer says that it does.
    pub from: Option<IpAddr>,
    /// Each as `Name: value`.
    pub headers: Vec<String>,
    pub method: String,
    pub url: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("no listener is called `{0}`")]
    NoListener(String),
    #[error("`{path}` cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}` holds no certificate (expected: PEM blocks of type CERTIFICATE, leaf first)")]
    NoCertificate { path: PathBuf },
    #[error("`{0}` is not an HTTP method")]
    BadMethod(String),
    #[error("`{0}` is not a URL (expected: `https://host/path`)")]
    BadUrl(String),
    #[error("`{0}` is not a header (expected: `Name: value`)")]
    BadHeader(String),
}

/// What would happen, step by step.
pub struct Answer {
    listener: Arc<str>,
    verdicts: Vec<(Arc<str>, Result<String, String>)>,
    handshake: Result<(), String>,
    identity: Option<IdentityView>,
    request_problem: Option<String>,
    routes: Vec<RouteTrace>,
    decision: String,
    pool: Option<Arc<str>>,
    status: Option<u16>,
    limits: Vec<Limit>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A limit that such a request counts for.
struct Limit {
    name: Arc<str>,
    per: String,
    measure: String,
    is_enforced: bool,
}

struct IdentityView {
    subject: String,
    issuer: String,
    serial: String,
    fingerprint: String,
    trust_domain: Arc<str>,
    anchor: String,
    standing: Standing,
}

pub fn explain(runtime: &Runtime, question: &Question, now: UnixTime) -> Result<Answer, ExplainError> {
    let listener = listener(runtime, question)?;
    let chain = chain(question)?;
    let mut answer = judge(listener, chain.as_deref(), now);
    let (method, uri, mut request) = request(question)?;
    if let Some(address) = question.from.filter(|address| !listener.door.admits(*address)) {
        answer.1.handshake =
            Err(format!("address_denied: the lists of the listener keep `{address}` out, whoever it is"));
    }
    if answer.1.handshake.is_err() {
        return Ok(answer.1);
    }
    decide(runtime, listener, answer.0.as_deref(), &method, &uri, &mut request, &mut answer.1);
    Ok(answer.1)
}

fn listener<'a>(runtime: &'a Runtime, question: &Question) -> Result<&'a ListenerRuntime, ExplainError> {
    match &question.listener {
        None => runtime.listeners.first().map(Arc::as_ref),
        Some(name) => runtime.listeners.iter().find(|listener| *listener.name == **name).map(Arc::as_ref),
    }
    .ok_or_else(|| ExplainError::NoListener(question.listener.clone().unwrap_or_default()))
}

fn chain(question: &Question) -> Result<Option<Vec<Vec<u8>>>, ExplainError> {
    let Some(path) = &question.certificate else { return Ok(None) };
    let pem = std::fs::read(path).map_err(|source| ExplainError::Read { path: path.clone(), source })?;
    match pem_blocks(&pem, "CERTIFICATE") {
        Ok(blocks) if !blocks.is_empty() => Ok(Some(blocks)),
        _ => Err(ExplainError::NoCertificate { path: path.clone() }),
    }
}

fn request(question: &Question) -> Result<(Method, Uri, RequestHeader), ExplainError> {
    let method: Method =
        question.method.parse().map_err(|_| ExplainError::BadMethod(question.method.clone()))?;
    let bad_url = || ExplainError::BadUrl(question.url.clone());
    let uri: Uri = question.url.parse().map_err(|_| bad_url())?;
    let host = uri.authority().ok_or_else(bad_url)?.as_str().to_owned();
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let mut request = RequestHeader::build(method.clone(), target.as_bytes(), None).map_err(|_| bad_url())?;
    request.insert_header("Host", host).map_err(|_| bad_url())?;
    for header in &question.headers {
        let bad = || ExplainError::BadHeader(header.clone());
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        request.append_header(name.trim().to_owned(), value.trim()).map_err(|_| bad())?;
    }
    Ok((method, request.uri.clone(), request))
}

fn judge(
    listener: &ListenerRuntime,
    chain: Option<&[Vec<u8>]>,
    now: UnixTime,
) -> (Option<Arc<ClientIdentity>>, Answer) {
    let mut answer = Answer {
        listener: listener.name.clone(),
        verdicts: Vec::new(),
        handshake: Ok(()),
        identity: None,
        request_problem: None,
        routes: Vec::new(),
        decision: String::new(),
        pool: None,
        status: None,
        limits: Vec::new(),
        headers: Vec::new(),
    };
    let (Some(trust), Some(chain)) = (&listener.trust, chain) else {
        if listener.demands_certificate() {
            answer.handshake = Err("no_certificate: the listener demands a certificate".into());
        }
        return (None, answer);
    };
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    for (domain, verdict) in trust.explain(&chain, now) {
        let verdict = match verdict {
            Ok(identity) => Ok(match identity.standing().fault() {
                None => format!("believed, vouched for by `{}`", identity.anchor().subject),
                Some(fault) => format!(
                    "believed for routes that accept it only ({}: its {}), vouched for by `{}`",
                    fault.kind.as_str(),
                    fault.kind.sentence(),
                    identity.anchor().subject
                ),
            }),
            Err(rejection) => Err(format!("{}: {}", rejection.reason.as_str(), rejection.detail)),
        };
        answer.verdicts.push((domain, verdict));
    }
    match trust.verify(&chain, now) {
        Ok(identity) => {
            let certificate: &Certificate = identity.certificate();
            answer.identity = Some(IdentityView {
                subject: certificate.subject().to_string(),
                issuer: certificate.issuer().to_string(),
                serial: certificate.serial().to_string(),
                fingerprint: certificate.fingerprint().to_string(),
                trust_domain: identity.trust_domain().clone(),
                anchor: identity.anchor().subject.clone(),
                standing: identity.standing(),
            });
            (Some(identity), answer)
        }
        Err(rejection) => {
            answer.handshake = Err(format!("{}: {}", rejection.reason.as_str(), rejection.detail));
            (None, answer)
        }
    }
}

fn decide(
    runtime: &Runtime,
    listener: &ListenerRuntime,
    identity: Option<&ClientIdentity>,
    method: &Method,
    uri: &Uri,
    request: &mut RequestHeader,
    answer: &mut Answer,
) {
    let host = match request::check(request, &listener.limits.request) {
        Ok(host) => host,
        Err(problem) => {
            answer.request_problem = Some(problem.to_string());
            let status = Refusal::from(problem).status();
            answer.decision = format!("refused with {status}: {problem}");
            answer.status = Some(status);
            return;
        }
    };
    let view = RequestView { host: &host, path: uri.path(), method, headers: Fields::Map(&request.headers) };
    answer.routes = runtime.routes.explain(identity, &view);
    match runtime.routes.decide(identity, &view) {
        Decision::Pool { route, route_index, pool } => {
            answer.decision = format!("forwarded to pool `{pool}` by route `{}`", route.name);
            answer.pool = Some(pool.clone());
            answer.limits = limits(runtime, identity, route_index);
            answer.headers = runtime.identity_headers.render(identity);
        }
        Decision::NotInTable { route, .. } => {
            answer.decision =
                format!("refused with 403: the table of route `{}` has no such client", route.name);
            answer.status = Some(403);
        }
        Decision::TwoReadings(other) => {
            answer.decision = format!(
                "refused with 400: origins may read the path as `{other}`, which another route decides about"
            );
            answer.status = Some(400);
        }
        Decision::NoRoute => {
            answer.decision = "refused with 403: no route allows it".into();
            answer.status = Some(403);
        }
    }
}

/// Where the client connects from is not asked: it says whom an address is counted for, and not whether.
fn limits(runtime: &Runtime, identity: Option<&ClientIdentity>, route: usize) -> Vec<Limit> {
    let keys = runtime.limits.keys(runtime.generation, identity, SocketAddr::from(([0, 0, 0, 0], 0)));
    let limit = |rule: &Rule| Limit {
        name: rule.name().clone(),
        per: rule.spec().per.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        measure: rule.measure().to_string(),
        is_enforced: rule.spec().mode == Mode::Enforce,
    };
    runtime.limits.explain(&keys, route).map(limit).collect()
}

impl Answer {
    pub fn to_json(&self) -> Value {
        json!({
            "listener": &*self.listener,
            "handshake": match &self.handshake {
                Ok(()) => json!({ "accepted": true }),
                Err(reason) => json!({ "accepted": false, "reason": reason }),
            },
            "trust": self.verdicts.iter().map(|(domain, verdict)| json!({
                "domain": &**domain,
                "believed": verdict.is_ok(),
                "detail": match verdict { Ok(text) | Err(text) => text },
            })).collect::<Vec<_>>(),
            "identity": self.identity.as_ref().map(|identity| json!({
                "subject": identity.subject,
                "issuer": identity.issuer,
                "serial": identity.serial,
                "fingerprint": identity.fingerprint,
                "trust_domain": &*identity.trust_domain,
                "anchor": identity.anchor,
                "standing": identity.standing.to_string(),
            })),
            "routes": self.routes.iter().map(|trace| match &trace.outcome {
                RouteOutcome::Matched => json!({ "route": &*trace.route, "matched": true }),
                RouteOutcome::Missed(reasons) => json!({ "route": &*trace.route, "matched": false, "reasons": reasons }),
            }).collect::<Vec<_>>(),
            "decision": self.decision,
            "pool": self.pool.as_deref(),
            "status": self.status,
            "limits": self.limits.iter().map(|limit| json!({
                "limit": &*limit.name,
                "per": limit.per,
                "measure": limit.measure,
                "enforced": limit.is_enforced,
            })).collect::<Vec<_>>(),
            "headers": self.headers.iter().map(|(name, value)| json!({
                "name": name.as_str(),
                "value": String::from_utf8_lossy(value.as_bytes()),
            })).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "listener `{}`", self.listener)?;
        for (domain, verdict) in &self.verdicts {
            let (Ok(text) | Err(text)) = verdict;
            writeln!(f, "  trust domain `{domain}`: {text}")?;
        }
        if let Err(reason) = &self.handshake {
            return write!(f, "=> refused in the handshake: {reason}");
        }
        match &self.identity {
            Some(identity) => {
                writeln!(f, "client `{}`", identity.subject)?;
                writeln!(f, "  issuer      {}", identity.issuer)?;
                writeln!(f, "  serial      {}", identity.serial)?;
                writeln!(f, "  fingerprint {}", identity.fingerprint)?;
                writeln!(f, "  trusted by  `{}` through `{}`", identity.trust_domain, identity.anchor)?;
                if let Some(fault) = identity.standing.fault() {
                    writeln!(f, "  quarantined {}", fault.kind.sentence())?;
                }
            }
            None => writeln!(f, "client without a certificate")?,
        }
        for trace in &self.routes {
            match &trace.outcome {
                RouteOutcome::Matched => writeln!(f, "route `{}` matches", trace.route)?,
                RouteOutcome::Missed(reasons) => {
                    writeln!(f, "route `{}` does not match: {}", trace.route, reasons.join("; "))?;
                }
            }
        }
        for Limit { name, per, measure, is_enforced } in &self.limits {
            let shadow = if *is_enforced { "" } else { " (only counted)" };
            writeln!(f, "limit `{name}` per {per}: {measure}{shadow}")?;
        }
        write!(f, "=> {}", self.decision)?;
        for (name, value) in &self.headers {
            write!(f, "\n   {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        Ok(())
    }
}
