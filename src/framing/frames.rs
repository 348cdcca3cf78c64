//! The frames of an HTTP/2 connection (RFC 9113, section 4.1), counted as they come.
//!
//! The library that speaks the protocol bounds what a client can make it remember. It does not bound how long a client can
//! keep it busy with frames that ask for nothing: pings, settings, priorities, window updates, requests taken back as
//! soon as they are made. What such frames may come to is bounded here, by what the connection is used for: requests
//! and answers earn a client the frames that go with them.

use std::time::Instant;

use super::Fault;

/// Frames that ask for nothing, in points. So many a second are free.
const POINTS: u32 = 10_000;

/// What a request earns, and each KiB of an answer.
const REQUEST: u32 = 20;
const KIB: u32 = 1;

/// Requests that a client may take back at once, beyond those of each second: a page that is left takes all of its own.
const RESETS_AT_ONCE: u32 = 400;

/// The client's preface before the first frame (RFC 9113, section 3.4).
const PREFACE: u32 = 24;

const HEAD: usize = 9;

/// What came on one connection.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD],
    /// Bytes of the next frame's head that are there.
    have: usize,
    /// Bytes before it.
    skip: u32,
    points: Budget,
    resets: Budget,
    /// Bytes of answers that did not earn anything yet.
    sent: usize,
}

impl Frames {
    /// `resets`: requests that may be taken back in a second.
    pub fn new(resets: u32, now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            skip: PREFACE,
            points: Budget::new(POINTS, POINTS, now),
            resets: Budget::new(resets, resets.saturating_add(RESETS_AT_ONCE), now),
            sent: 0,
        }
    }

    /// Watches what comes next. The clock is asked only where there seems to be too much of something.
    pub fn watch(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let skipped = (self.skip as usize).min(bytes.len());
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                self.count(&now)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, now: &impl Fn() -> Instant) -> Result<(), Fault> {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = u32::from_be_bytes([0, a, b, c]);
        self.skip = len;
        let points = match kind {
            // DATA that is empty and does not end anything.
            0 if len == 0 && flags & 1 == 0 => 10,
            0 => return Ok(()),
            // HEADERS.
            1 => {
                self.points.earn(REQUEST);
                return Ok(());
            }
            // RST_STREAM.
            3 if self.resets.spend(1, now) => return Ok(()),
            3 => return Err(Fault::Resets),
            // SETTINGS: each of them is looked at.
            4 => 10 + len / 16,
            // PING is answered.
            6 => 2,
            // WINDOW_UPDATE.
            8 => 1,
            // PRIORITY, GOAWAY, CONTINUATION, and what nobody knows.
            _ => 10,
        };
        if self.points.spend(points, now) { Ok(()) } else { Err(Fault::Flood) }
    }

    /// Notes that the client was sent so many bytes, for which it opens its windows anew.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        self.points.earn((self.sent / 1024) as u32 * KIB);
        self.sent %= 1024;
    }
}

/// So many a second, and so many at once.
#[derive(Debug)]
struct Budget {
    left: u32,
    each_second: u32,
    most: u32,
    filled: Instant,
}

impl Budget {
    fn new(each_second: u32, most: u32, now: Instant) -> Self {
        Self { left: most, each_second, most, filled: now }
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.most);
    }

    fn spend(&mut self, cost: u32, now: &impl Fn() -> Instant) -> bool {
        if self.left < cost {
            let now = now();
            let since = now.saturating_duration_since(self.filled).as_secs_f64();
            // Less than one would be lost each time.
            let more = (since * f64::from(self.each_second)).min(f64::from(self.most)) as u32;
            if more > 0 {
                self.filled = now;
                self.earn(more);
            }
        }
        let can = self.left >= cost;
        self.left -= if can { cost } else { 0 };
        can
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, len: u32) -> Vec<u8> {
        let mut frame = len.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(HEAD + len as usize, 0xff);
        frame
    }

    /// How many of `frame` pass when `second` is how long they take, each, up to 100,000.
    fn pass(frame: &[u8], each: Duration, between: impl Fn(&mut Frames)) -> usize {
        let start = Instant::now();
        let mut frames = Frames::new(100, start);
        frames.watch(&[0; PREFACE as usize], || start).unwrap();
        (0..100_000_u32)
            .take_while(|number| {
                between(&mut frames);
                frames.watch(frame, || start + each * *number).is_ok()
            })
            .count()
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn floods_end_and_what_is_slow_enough_does_not() {
        for (kind, flags, len, most) in [
            (6, 0, 8, 5000),
            (4, 0, 6, 1000),
            (2, 0, 5, 1000),
            (8, 0, 4, 10_000),
            (0, 0, 0, 1000),
            (99, 0, 3, 1000),
            (3, 0, 4, 500),
        ] {
            let frame = frame(kind, flags, len);
            let slow = if kind == 3 { Duration::from_millis(11) } else { Duration::from_millis(2) };
            assert_eq!(pass(&frame, AT_ONCE, |_| ()), most, "{kind}");
            assert_eq!(pass(&frame, slow, |_| ()), 100_000, "{kind}");
        }
        // Large settings cost more.
        assert!(pass(&frame(4, 0, 6000), AT_ONCE, |_| ()) < 30);
    }

    #[test]
    fn what_carries_something_is_free() {
        for frame in [frame(0, 0, 1), frame(0, 1, 0), frame(1, 4, 30)] {
            assert_eq!(pass(&frame, AT_ONCE, |_| ()), 100_000);
        }
    }

    #[test]
    fn answers_and_requests_earn_the_frames_that_go_with_them() {
        let update = frame(8, 0, 4);
        assert_eq!(pass(&update, AT_ONCE, |frames| frames.sent(1024)), 100_000);
        assert!(pass(&update, AT_ONCE, |frames| frames.sent(100)) < 12_000);
        let ping = frame(6, 0, 8);
        assert_eq!(pass(&[frame(1, 4, 9), ping].concat(), AT_ONCE, |_| ()), 100_000);
    }

    proptest! {
        #[test]
        fn frames_are_told_apart_wherever_they_are_cut(
            kinds in proptest::collection::vec((0_u8..12, 0_u32..300), 0..40),
            step in 1_usize..400,
        ) {
            let now = Instant::now();
            let mut bytes = vec![0; PREFACE as usize];
            for (kind, len) in &kinds {
                bytes.extend(frame(*kind, 0, *len));
            }
            let mut whole = Frames::new(100, now);
            whole.watch(&bytes, || now).unwrap();
            let mut cut = Frames::new(100, now);
            for piece in bytes.chunks(step) {
                cut.watch(piece, || now).unwrap();
            }
            prop_assert_eq!((whole.points.left, whole.resets.left, whole.skip, whole.have), (cut.points.left, cut.resets.left, 0, 0));
            let resets = kinds.iter().filter(|(kind, _)| *kind == 3).count() as u32;
            prop_assert_eq!(whole.resets.left, 500 - resets);
        }
    }
}
