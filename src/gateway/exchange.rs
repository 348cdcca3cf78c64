//! One request and its answer: what Pingora calls the per-request context.

use std::sync::Arc;
use std::time::Instant;

use http::Method;

use super::ratelimit::{self, Field};
use super::refusal::Refusal;
use crate::config::ListenerLimits;
use crate::framing::Fault;
use crate::limits::{Keys, Limits, Over, Rule, Stage, Taken};
use crate::listener::connection::Connection;
use crate::runtime::Pinned;
use crate::telemetry::{RequestRecord, Telemetry, Went};
use crate::trust::ClientIdentity;
use crate::upstream::{Endpoint, EndpointId, Patience, PoolId, UpstreamPool};

/// Lives from the request's header to its log record.
pub struct Exchange {
    /// The configuration this request is decided by, however often it is reloaded meanwhile.
    pub runtime: Pinned,
    pub connection: Option<Arc<Connection>>,
    /// In the form in which hosts are compared.
    pub host: Option<Arc<str>>,
    /// Number in the runtime's route table.
    pub route: Option<usize>,
    pub pool: Option<PoolId>,
    pub tried: Vec<EndpointId>,
    pub refusal: Option<Refusal>,
    /// What was wrong with the request itself.
    pub fault: Option<Fault>,
    pub upstream_status: Option<u16>,
    /// What it took from limits, until it is over.
    taken: Taken,
    /// The limit that it is over.
    over: Option<Over>,
    /// The number of the rule that would refuse it.
    shadowed: Option<usize>,
    /// The endpoint that is at work for it.
    leased: Option<EndpointId>,
    number: u32,
    started: Instant,
    connected_at: Option<Instant>,
    answered_at: Option<Instant>,
}

/// What is known of a request when it is over.
pub struct Outcome<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    /// 0 when no answer was sent.
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub error: Option<&'a dyn std::fmt::Display>,
}

impl Exchange {
    pub fn new(runtime: Pinned) -> Self {
        Self {
            runtime,
            connection: None,
            host: None,
            route: None,
            pool: None,
            tried: Vec::new(),
            refusal: None,
            fault: None,
            upstream_status: None,
            taken: Taken::default(),
            over: None,
            shadowed: None,
            leased: None,
            number: 0,
            started: Instant::now(),
            connected_at: None,
            answered_at: None,
        }
    }

    pub fn begin(&mut self, connection: &Arc<Connection>) {
        self.number = connection.count_request();
        self.connection = Some(connection.clone());
    }

    /// Whether the client's connection, should it end now, ends with a refusal that it may not have heard.
    pub fn lingers(&self, lingers: bool) {
        if let Some(connection) = &self.connection {
            connection.set_lingers(lingers);
        }
    }

    pub fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// What its listener allows.
    pub fn limits(&self) -> Option<&ListenerLimits> {
        let listener = self.connection.as_ref()?.listener;
        self.runtime.listeners.get(listener).map(|listener| &listener.limits)
    }

    /// Notes that the request cannot be read in one way.
    pub fn refuse(&mut self, fault: Fault) -> Refusal {
        self.fault = Some(fault);
        fault.into()
    }

    /// Asks the limits, once its route is known. Where there are none, nothing is asked.
    pub fn admit(&mut self) -> Result<(), Refusal> {
        let Some((limits, keys, route)) = self.limited() else { return Ok(()) };
        let admission = limits.admit(&keys, route, limits.moment(self.started));
        self.taken = admission.taken;
        self.over = admission.refused;
        self.shadowed = admission.shadowed;
        if self.over.is_some() { Err(Refusal::Limited) } else { Ok(()) }
    }

    fn limited(&self) -> Option<(&Limits, Arc<Keys>, usize)> {
        if !self.runtime.limits.concern(Stage::Request) {
            return None;
        }
        let keys = self.connection.as_ref()?.limit_keys(&self.runtime);
        Some((&self.runtime.limits, keys, self.route?))
    }

    /// Gives back what it held of limits, and charges what it used.
    fn settle(&mut self, bytes: u64) {
        let taken = std::mem::take(&mut self.taken);
        if taken == Taken::default() {
            return;
        }
        if let Some((limits, keys, route)) = self.limited() {
            limits.settle(taken, &keys, route, bytes, limits.moment(Instant::now()));
        }
    }

    /// What a client is told that is over a limit.
    pub fn limit_fields(&self) -> Vec<Field> {
        self.over.map_or_else(Vec::new, |over| ratelimit::refused(&self.runtime.limits, over))
    }

    /// What a client is told with its answer, where a limit says so.
    pub fn told(&self) -> Vec<Field> {
        if !self.runtime.limits.tells_always() {
            return Vec::new();
        }
        self.limited().map_or_else(Vec::new, |(limits, keys, route)| {
            ratelimit::left(limits, &keys, route, limits.moment(Instant::now()))
        })
    }

    fn rule(&self, number: Option<usize>) -> Option<&Rule> {
        self.runtime.limits.rules().get(number?)
    }

    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or_default()
    }

    pub fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        self.connection.as_ref()?.identity.as_ref()
    }

    /// Joins the client's view of a refusal with our log; says nothing by itself.
    pub fn request_id(&self) -> String {
        let connection = self.connection.as_ref().map_or(0, |connection| connection.id.0);
        format!("{connection:016x}-{}", self.number)
    }

    pub fn pool(&self) -> Option<&Arc<UpstreamPool>> {
        self.runtime.pools.get(self.pool?)
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.pool()?.endpoint(self.leased?)
    }

    /// The endpoint counts as busy until another one is leased, or the request is over.
    pub fn lease(&mut self, endpoint: EndpointId) {
        self.release();
        self.tried.push(endpoint);
        self.leased = Some(endpoint);
        if let Some(endpoint) = self.endpoint() {
            endpoint.enter();
        }
    }

    fn release(&mut self) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.leave();
        }
        self.leased = None;
    }

    /// How long the next step may take; `None` when the request's time is over.
    pub fn patience(&self, is_upgrade: bool) -> Option<Patience> {
        if is_upgrade {
            return Some(Patience::Endless);
        }
        let Some(total) = self.pool().and_then(|pool| pool.total_timeout()) else {
            return Some(Patience::Usual);
        };
        let left = total.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero())?;
        Some(Patience::AtMost(left))
    }

    pub fn connected(&mut self) {
        self.connected_at = Some(Instant::now());
    }

    pub fn answered(&mut self, status: u16) {
        self.answered_at = Some(Instant::now());
        self.upstream_status = Some(status);
        self.refusal = None;
        if let Some(endpoint) = self.endpoint() {
            endpoint.report_success();
        }
    }

    /// Notes that the endpoint failed this request. Whether another one may be tried is the answer.
    pub fn failed(&mut self, refusal: Refusal) -> bool {
        self.refusal = Some(refusal);
        if let Some(endpoint) = self.endpoint() {
            endpoint.report_failure();
        }
        self.release();
        let retries = self.pool().map_or(0, |pool| pool.retries());
        self.tried.len() <= retries as usize
    }

    /// A kept-alive connection that the endpoint had closed says nothing about the endpoint: it may be tried again.
    pub fn was_stale(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
        self.tried.pop();
    }

    /// Counts and records the request. Returns when it ended.
    pub fn finish(&mut self, outcome: &Outcome<'_>, telemetry: &Telemetry) -> Instant {
        let status = outcome.status;
        let duration = self.started.elapsed();
        self.settle(outcome.bytes_in.saturating_add(outcome.bytes_out));
        let route = self.route.and_then(|index| self.runtime.route_metrics.get(index));
        if let Some(refusal) = self.refusal {
            telemetry.metrics.refused(refusal.as_str());
        }
        if let Some(fault) = self.identity().and_then(|identity| identity.standing().fault()) {
            let went =
                if self.pool.is_some() && self.over.is_none() { Went::Forwarded } else { Went::Refused };
            telemetry.metrics.quarantine.request(fault.kind, went);
        }
        match route {
            Some(route) => route.request(status, duration),
            None => telemetry.metrics.unrouted().request(status, duration),
        }
        let upstream = self.answered_at.map(|at| at - self.connected_at.unwrap_or(self.started));
        if let Some(endpoint) = self.endpoint() {
            endpoint.record(self.upstream_status, upstream.unwrap_or(duration));
        }
        if telemetry.wants_request(status, self.refusal.is_some() || outcome.error.is_some()) {
            telemetry.request(self.record(outcome, duration, upstream));
        }
        self.started + duration
    }

    fn record(
        &self,
        outcome: &Outcome<'_>,
        duration: std::time::Duration,
        upstream: Option<std::time::Duration>,
    ) -> RequestRecord {
        RequestRecord {
            time: std::time::SystemTime::now(),
            connection_id: self.connection.as_ref().map_or(0, |connection| connection.id.0),
            request_number: self.number,
            peer: self.connection.as_ref().map(|connection| connection.peer),
            method: outcome.method.clone(),
            host: self.host().to_owned(),
            path: outcome.path.to_owned(),
            status: outcome.status,
            route: self
                .route
                .and_then(|index| self.runtime.routes.routes().get(index))
                .map(|r| r.name.clone()),
            limit: self.rule(self.over.map(|over| over.rule)).map(|rule| rule.name().clone()),
            shadow_limit: self.rule(self.shadowed).map(|rule| rule.name().clone()),
            pool: self.pool().map(|pool| pool.name().clone()),
            endpoint: self.endpoint().map(|endpoint| endpoint.address().clone()),
            identity: self.identity().cloned(),
            duration,
            upstream_duration: upstream,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
            refusal: self.refusal.map(Refusal::as_str),
            error: outcome.error.map(ToString::to_string),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle(0);
        self.release();
    }
}
