//! How slow a client may be with the body it sends, and with the one it is sent.

use std::time::{Duration, Instant};

use super::carry::Failure;
use crate::config::ListenerLimits;

/// Of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For the next piece, however small.
    piece: Duration,
    bytes_per_second: u64,
    /// How long we waited until the client took what it is sent.
    waited: Duration,
}

impl Default for Pace {
    /// Nothing is to be read or written yet.
    fn default() -> Self {
        Self { piece: Duration::ZERO, bytes_per_second: 1, waited: Duration::ZERO }
    }
}

impl Pace {
    pub(super) fn new(limits: &ListenerLimits) -> Self {
        Self {
            piece: limits.body_timeout,
            bytes_per_second: limits.min_bytes_per_second,
            waited: Duration::ZERO,
        }
    }

    pub(super) fn piece(&self) -> Duration {
        self.piece
    }

    /// What so many bytes may take in all.
    fn allowed(&self, bytes: u64) -> Duration {
        self.piece + Duration::from_secs(bytes / self.bytes_per_second.max(1))
    }

    /// How long the next piece may take of a body of which `received` bytes have come since `started`.
    pub(super) fn next(&self, started: Instant, received: u64) -> Result<Duration, Failure> {
        let left = self.allowed(received).checked_sub(started.elapsed());
        left.filter(|left| !left.is_zero()).map(|left| left.min(self.piece)).ok_or(Failure::ClientSlow)
    }

    /// Notes that the client made us wait since `since`, after `sent` bytes. What the endpoint takes is not its fault.
    pub(super) fn waited(&mut self, since: Instant, sent: u64) -> Result<(), Failure> {
        self.waited += since.elapsed();
        if self.waited > self.allowed(sent) { Err(Failure::ClientDeaf) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(waited: Duration) -> Pace {
        Pace { piece: Duration::from_secs(10), bytes_per_second: 100, waited }
    }

    #[test]
    fn a_body_may_take_as_long_as_its_rate_allows() {
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let pace = pace(Duration::ZERO);
        assert_eq!(pace.next(ago(0), 10_000).unwrap(), Duration::from_secs(10));
        assert!(pace.next(ago(5), 0).unwrap() <= Duration::from_secs(5));
        assert!(pace.next(ago(11), 0).is_err());
        assert!(pace.next(ago(11), 200).is_ok());
        assert!(pace.next(ago(13), 200).is_err());
    }

    #[test]
    fn only_what_the_client_makes_us_wait_counts() {
        let now = Instant::now();
        assert!(pace(Duration::from_secs(9)).waited(now, 0).is_ok());
        assert!(pace(Duration::from_secs(11)).waited(now, 0).is_err());
        assert!(pace(Duration::from_secs(11)).waited(now, 200).is_ok());
    }
}
