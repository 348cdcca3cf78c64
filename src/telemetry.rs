//! What the gateway shows of itself: metrics, one record per connection, one per request.

mod failure;
mod log;
mod metrics;
mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config::{AccessLog, LoggingConfig};
use crate::listener::connection::Connection;

pub use failure::HandshakeFailure;
pub use log::LogWriter;
pub use metrics::{
    EndpointMetrics, HandshakeInFlight, ListenerMetrics, Metrics, OpenConnection, Resumption, RouteMetrics,
    TlsVersion,
};
pub use record::{ConnectionRecord, RequestRecord};

/// Where the serving threads report to. Nothing here blocks or waits.
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    log: LogWriter,
    access: AccessLog,
    sampled: AtomicU32,
}

const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

impl Telemetry {
    pub fn new(metrics: Arc<Metrics>, log: LogWriter, logging: &LoggingConfig) -> Self {
        Self { metrics, log, access: logging.access.clone(), sampled: AtomicU32::new(0) }
    }

    /// The record of a handshake, successful or not.
    pub fn connection(&self, record: ConnectionRecord) {
        if self.access.connections {
            self.log.connection(record);
        }
    }

    /// A connection that had been admitted is over.
    pub fn connection_ended(&self, connection: &Connection) {
        self.metrics.requests_per_connection(connection.requests());
    }

    /// Whether this request's record is to be written: refusals and errors always, of the others one in N.
    pub fn wants_request(&self, status: u16, refused: bool) -> bool {
        if !self.access.requests {
            return false;
        }
        if refused || status >= 500 || status == 0 || self.access.sample <= 1 {
            return true;
        }
        self.sampled.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.access.sample)
    }

    pub fn request(&self, record: RequestRecord) {
        self.log.request(record);
    }

    /// Waits, for a bounded time, until what was recorded so far is written.
    pub fn flush(&self) {
        self.log.flush(FLUSH_TIMEOUT);
    }
}
