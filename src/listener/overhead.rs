//! What a client sends that carries nothing: changes of keys, warnings, padding, the frames of TLS records. The library deals
//! with it where nobody sees it, so what is left is to compare what came in with what came out.

use std::time::{Duration, Instant};

/// Bytes in a second that are nobody's need. A change of keys takes 27 and costs less than two microseconds (AWS-LC; 9 to
/// 15 with OpenSSL): so many of them are 2 % of a processor (a seventh with OpenSSL), while a key serves for gigabytes
/// (RFC 8446, section 5.5).
const MOST: u64 = 256 * 1024;
/// And so many for each byte that carries something: the frame of a record takes 22 to 29 bytes, and a record may be small.
const FOR_EACH: u64 = 8;
const WINDOW: Duration = Duration::from_secs(1);

/// Of one connection.
pub(super) struct Overhead {
    /// Bytes that had come in when the window began.
    before: u64,
    /// Bytes that carried something since then.
    carried: u64,
    since: Instant,
}

impl Overhead {
    /// `received` were read for the handshake.
    pub(super) fn new(received: u64, now: Instant) -> Self {
        Self { before: received, carried: 0, since: now }
    }

    /// So many bytes came out.
    pub(super) fn carried(&mut self, bytes: usize) {
        self.carried += bytes as u64;
    }

    /// Whether of the bytes `received` so far too many carried nothing. The clock is asked only where they are many.
    pub(super) fn is_too_much(&mut self, received: u64, now: impl FnOnce() -> Instant) -> bool {
        let all = received - self.before;
        if all <= MOST + self.carried * (FOR_EACH + 1) {
            return false;
        }
        let now = now();
        if now.duration_since(self.since) < WINDOW {
            return true;
        }
        *self = Self::new(received, now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_records_that_carry_something_are_never_too_much() {
        let start = Instant::now();
        let (mut overhead, mut received) = (Overhead::new(3000, start), 3000);
        for _ in 0..100_000 {
            // The smallest frame of HTTP/2, in a record of TLS 1.2.
            received += 9 + 29;
            overhead.carried(9);
            assert!(!overhead.is_too_much(received, || start), "{received}");
        }
    }

    #[test]
    fn so_much_in_a_second_and_no_more() {
        let start = Instant::now();
        let mut overhead = Overhead::new(7, start);
        assert!(!overhead.is_too_much(7 + MOST, || start));
        assert!(overhead.is_too_much(8 + MOST, || start));
        // What was sent over a longer time is forgiven.
        assert!(!overhead.is_too_much(8 + MOST, || start + WINDOW));
        assert!(!overhead.is_too_much(8 + 2 * MOST, || start + WINDOW));
        assert!(overhead.is_too_much(9 + 2 * MOST, || start + WINDOW));
    }
}
