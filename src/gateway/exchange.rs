//! One request and its answer: what Pingora calls the per-request context.

use std::sync::Arc;
use std::time::Instant;

use pingora_core::Error;
use pingora_proxy::Session;

use super::refusal::Refusal;
use crate::listener::connection::Connection;
use crate::runtime::Runtime;
use crate::telemetry::{RequestRecord, Telemetry};
use crate::trust::ClientIdentity;
use crate::upstream::{EndpointId, Lease, Patience, UpstreamPool};

/// Lives from the request's header to its log record.
pub struct Exchange {
    /// The configuration this request is decided by, however often it is reloaded meanwhile.
    pub runtime: Arc<Runtime>,
    pub connection: Option<Arc<Connection>>,
    pub host: String,
    /// Number in the runtime's route table.
    pub route: Option<usize>,
    pub pool: Option<Arc<UpstreamPool>>,
    pub tried: Vec<EndpointId>,
    pub refusal: Option<Refusal>,
    pub upstream_status: Option<u16>,
    lease: Option<Lease>,
    number: u32,
    started: Instant,
    connected_at: Option<Instant>,
    answered_at: Option<Instant>,
}

impl Exchange {
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self {
            runtime,
            connection: None,
            host: String::new(),
            route: None,
            pool: None,
            tried: Vec::new(),
            refusal: None,
            upstream_status: None,
            lease: None,
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

    pub fn identity(&self) -> Option<&Arc<ClientIdentity>> {
        self.connection.as_ref()?.identity.as_ref()
    }

    /// Joins the client's view of a refusal with our log; says nothing by itself.
    pub fn request_id(&self) -> String {
        let connection = self.connection.as_ref().map_or(0, |connection| connection.id.0);
        format!("{connection:016x}-{}", self.number)
    }

    pub fn leased(&mut self, lease: Lease) {
        self.tried.push(lease.id());
        self.lease = Some(lease);
    }

    /// How long the next step may take; `None` when the request's time is over.
    pub fn patience(&self, is_upgrade: bool) -> Option<Patience> {
        if is_upgrade {
            return Some(Patience::Endless);
        }
        let Some(total) = self.pool.as_ref().and_then(|pool| pool.total_timeout()) else {
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
        if let Some(lease) = &self.lease {
            lease.endpoint().report_success();
        }
    }

    /// Notes that the endpoint failed this request. Whether another one may be tried is the answer.
    pub fn failed(&mut self, refusal: Refusal) -> bool {
        self.refusal = Some(refusal);
        if let Some(lease) = self.lease.take() {
            lease.endpoint().report_failure();
        }
        let retries = self.pool.as_ref().map_or(0, |pool| pool.retries());
        self.tried.len() <= retries as usize
    }

    /// Counts and records the request.
    pub fn finish(&mut self, session: &Session, error: Option<&Error>, telemetry: &Telemetry) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let duration = self.started.elapsed();
        let route = self.route.and_then(|index| self.runtime.route_metrics.get(index));
        if let Some(refusal) = self.refusal {
            telemetry.metrics.refused(refusal.as_str());
        }
        match route {
            Some(route) => route.request(status, duration),
            None => telemetry.metrics.unrouted().request(status, duration),
        }
        let upstream = self.answered_at.map(|at| at - self.connected_at.unwrap_or(self.started));
        if let Some(lease) = &self.lease {
            lease.endpoint().record(self.upstream_status, upstream.unwrap_or(duration));
        }
        if telemetry.wants_request(status, self.refusal.is_some() || error.is_some()) {
            telemetry.request(self.record(session, error, status, duration, upstream));
        }
    }

    fn record(
        &self,
        session: &Session,
        error: Option<&Error>,
        status: u16,
        duration: std::time::Duration,
        upstream: Option<std::time::Duration>,
    ) -> RequestRecord {
        let request = session.req_header();
        RequestRecord {
            time: std::time::SystemTime::now(),
            connection_id: self.connection.as_ref().map_or(0, |connection| connection.id.0),
            request_number: self.number,
            peer: self.connection.as_ref().map(|connection| connection.peer),
            method: request.method.clone(),
            host: self.host.clone(),
            path: request.uri.path().to_owned(),
            status,
            route: self
                .route
                .and_then(|index| self.runtime.routes.routes().get(index))
                .map(|r| r.name.clone()),
            pool: self.pool.as_ref().map(|pool| pool.name().clone()),
            endpoint: self.lease.as_ref().map(|lease| lease.endpoint().address().clone()),
            identity: self.identity().cloned(),
            duration,
            upstream_duration: upstream,
            bytes_in: session.body_bytes_read() as u64,
            bytes_out: session.body_bytes_sent() as u64,
            refusal: self.refusal.map(Refusal::as_str),
            error: error.map(ToString::to_string),
        }
    }
}
