//! What the gateway shows of itself: metrics, one record per connection, one per request.

mod action;
mod admission;
mod census;
mod declined;
mod ending;
mod failure;
mod fetch;
mod handles;
mod lease;
mod leaving;
mod limits;
mod line;
mod log;
mod metrics;
mod panicked;
#[cfg(target_os = "linux")]
mod process;
mod quarantine;
mod record;
mod revocation;
mod shown;
mod tally;
mod turned_away;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::config::{AccessLog, LoggingConfig};
use crate::listener::connection::Connection;

pub use action::ActionRecord;
pub use admission::HandshakeWaiting;
pub use census::{AnchorGauges, Written};
pub use declined::Declined;
pub use ending::EndCause;
pub use failure::HandshakeFailure;
pub use fetch::{FetchMetrics, FetchResult};
pub use handles::{
    EndpointMetrics, HandshakeInFlight, ListenerMetrics, OpenConnection, Resumption, RouteMetrics, TlsVersion,
};
pub use leaving::Leaving;
pub use log::LogWriter;
pub use metrics::Metrics;
pub use quarantine::Went;
pub use record::{ConnectionRecord, EndedRecord, LimitRecord, RequestRecord};
pub use revocation::{ListStatus, RevocationMetrics};
pub use turned_away::TurnedAwayRecord;

/// Where the serving threads report to. Nothing here blocks or waits.
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    log: LogWriter,
    recorded: Recorded,
    sampled: AtomicU32,
}

/// What `logging.access` asks for. A reload may change it while requests are served.
struct Recorded {
    requests: AtomicBool,
    connections: AtomicBool,
    sample: AtomicU32,
}

impl Recorded {
    fn new(access: &AccessLog) -> Self {
        Self {
            requests: access.requests.into(),
            connections: access.connections.into(),
            sample: access.sample.into(),
        }
    }
}

const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

impl Telemetry {
    pub fn new(metrics: Arc<Metrics>, log: LogWriter, logging: &LoggingConfig) -> Self {
        Self { metrics, log, recorded: Recorded::new(&logging.access), sampled: AtomicU32::new(0) }
    }

    /// What a reload changes: the level, and what is recorded. The format stays that of the start.
    pub fn follow(&self, logging: &LoggingConfig) {
        let access = &logging.access;
        self.recorded.requests.store(access.requests, Ordering::Relaxed);
        self.recorded.connections.store(access.connections, Ordering::Relaxed);
        self.recorded.sample.store(access.sample, Ordering::Relaxed);
        ::log::set_max_level(logging.level);
    }

    /// The record of a handshake, successful or not.
    pub fn connection(&self, record: ConnectionRecord) {
        if self.recorded.connections.load(Ordering::Relaxed) {
            self.log.connection(record);
        }
    }

    /// A connection that had been admitted is over.
    pub fn connection_ended(&self, connection: &Connection) {
        self.metrics.requests_per_connection(connection.requests());
    }

    /// The record of a connection whose client may no longer be there. Always written: it says who was shown out.
    pub fn ended(&self, record: EndedRecord) {
        self.log.ended(record);
    }

    /// The record of what an operator did, or of what somebody tried to do. Always written.
    pub fn action(&self, record: ActionRecord) {
        self.log.action(record);
    }

    /// The record of connections that were not even shaken hands with. Always written: there are few of them, however many
    /// connections they are about.
    pub fn turned_away(&self, record: TurnedAwayRecord) {
        self.log.turned_away(record);
    }

    /// Whether this request's record is to be written: refusals and errors always, of the others one in N.
    pub fn wants_request(&self, status: u16, refused: bool) -> bool {
        if !self.recorded.requests.load(Ordering::Relaxed) {
            return false;
        }
        let sample = self.recorded.sample.load(Ordering::Relaxed);
        if refused || status >= 500 || status == 0 || sample <= 1 {
            return true;
        }
        self.sampled.fetch_add(1, Ordering::Relaxed).is_multiple_of(sample)
    }

    pub fn request(&self, record: RequestRecord) {
        self.log.request(record);
    }

    /// Waits, for a bounded time, until what was recorded so far is written.
    pub fn flush(&self) {
        self.log.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Telemetry {
    /// A start that fails has something to say as well.
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(sample: u32) -> Telemetry {
        let metrics = Arc::new(Metrics::new());
        let access = AccessLog { requests: true, connections: true, sample };
        Telemetry {
            metrics: metrics.clone(),
            log: LogWriter::to_nobody(metrics),
            recorded: Recorded::new(&access),
            sampled: AtomicU32::new(0),
        }
    }

    #[test]
    fn one_in_n_requests_that_went_well_is_recorded() {
        let telemetry = telemetry(10);
        assert_eq!((0..100).filter(|_| telemetry.wants_request(200, false)).count(), 10);
    }

    #[test]
    fn refusals_and_errors_are_always_recorded() {
        let telemetry = telemetry(1_000_000);
        telemetry.wants_request(200, false);
        assert!((0..10).all(|_| telemetry.wants_request(403, true)));
        assert!((0..10).all(|_| telemetry.wants_request(502, false)));
        assert!((0..10).all(|_| telemetry.wants_request(0, false)));
        assert!(!telemetry.wants_request(200, false));
    }
}
