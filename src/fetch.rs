//! What is fetched from elsewhere, again and again: revocation lists, and OCSP responses about our own certificates.
//!
//! Only URLs are asked that the configuration or a certificate of ours names, never one from a certificate that a client
//! presented. Each attempt runs on a thread of its own: what hangs
//! holds up nobody. Only what was checked (signature, issuer, succession) takes the place of what was fetched before; it
//! is kept in a file, and takes effect like any other file that has changed.

mod client;
mod connector;
mod kept;
mod list;
mod schedule;
mod staple;
mod wanted;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::panics;
use crate::telemetry::{FetchResult, Metrics};

pub use kept::{Notes, replace};
pub use list::WantedList;
pub use staple::WantedStaple;
pub use wanted::Wanted;

/// Fetches on threads of its own for as long as the process lives.
pub struct Fetcher(Sender<Order>);

/// Called after each attempt that succeeded: what is kept may have changed.
pub type Notice = Arc<dyn Fn() + Send + Sync>;

enum Order {
    /// What is wanted from now on, and whom to tell when all that was never obtained has been tried once.
    Follow(Vec<Wanted>, Option<Sender<()>>),
    Notify(Notice),
    /// An attempt at what has this file has ended.
    Ended(std::path::PathBuf, Result<Obtained, FetchError>),
}

/// What an attempt came to that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Obtained {
    /// What there is now; `None`: what there was.
    what: Option<String>,
    /// When to look again.
    again: Duration,
}

/// Why an attempt failed. What was fetched before stays.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("there is no whole answer within {} ({})", Seconds(*.0), .1)]
    Timeout(Duration, &'static str),
    #[error("the server answers with status {0}")]
    Status(u16),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error("what it sends is refused: {0}")]
    Refused(String),
    #[error("it cannot be kept in `{file}`: {source}")]
    NotKept { file: String, source: std::io::Error },
    #[error("`{file}` cannot be used: {reason}")]
    Authorities { file: String, reason: String },
    #[error("the attempt broke off: this is a fault of the program")]
    Broken,
}

impl FetchError {
    fn result(&self) -> FetchResult {
        match self {
            Self::Unreachable(_) => FetchResult::Unreachable,
            Self::Timeout(..) => FetchResult::Timeout,
            Self::Status(_) => FetchResult::Status,
            Self::TooLarge(_) => FetchResult::TooLarge,
            Self::Refused(_) => FetchResult::Refused,
            Self::NotKept { .. } => FetchResult::NotKept,
            Self::Authorities { .. } | Self::Broken => FetchResult::Internal,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Timeout(..) => {
                "is the server up, and may this machine reach it (DNS, firewall, `HTTP_PROXY`)?"
            }
            Self::Status(_) => "is the URL right?",
            Self::TooLarge(_) => "raise `max_bytes` if it is really that large",
            Self::Refused(_) => "is the URL right, and does its server publish what it should?",
            Self::NotKept { .. } => {
                "is there room in `server.state_directory`, and may the gateway write there?"
            }
            Self::Authorities { .. } | Self::Broken => "see what the log said before",
        }
    }
}

struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

impl Fetcher {
    pub fn start(metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (order, orders) = channel();
        let schedule = schedule::Schedule::new(metrics, order.clone());
        panics::thread("fetch", move || schedule.run(&orders))?;
        Ok(Self(order))
    }

    /// What is wanted from now on: all of it, not only what is new.
    pub fn follow(&self, wanted: Vec<Wanted>) {
        self.send(Order::Follow(wanted, None));
    }

    /// The same, and waits until all that was never obtained has been tried, or `patience` is at its end.
    pub fn obtain(&self, wanted: Vec<Wanted>, patience: Duration) {
        let (trying, tried) = channel::<()>();
        self.send(Order::Follow(wanted, Some(trying)));
        if tried.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            log::warn!("nobody waits longer than {} for what is fetched", Seconds(patience));
        }
    }

    /// Whom to tell. Whoever it is is told once at once: something may have been obtained before.
    pub fn notify(&self, notice: Notice) {
        self.send(Order::Notify(notice));
    }

    fn send(&self, order: Order) {
        // The thread lives as long as the process.
        let _ = self.0.send(order);
    }
}
