//! How much the listener accepts while others wait already.
//!
//! Whoever is accepted in vain costs too: a socket, a task, a look at the hello, an end. So while many wait, accepting
//! may cost a sixteenth of what is computed for handshakes. Whoever is not accepted stays in the queue of the kernel, and
//! when that is full its packets are dropped, unanswered: TCP asks again after a second, then after two, and so on. This
//! costs us nothing, but the kernel knows neither sources nor classes; hence not before we must.

use std::time::Duration;

/// While no more than these wait, everybody is accepted: so much a thread computes before the listener looks again.
const FEW: usize = 64;

/// What one costs that is accepted in vain, about.
const COST: Duration = Duration::from_micros(25);

/// Of the time that is computed for handshakes, this part may go to accepting.
const SHARE: u32 = 16;

/// No more than this is saved up.
const MOST: Duration = Duration::from_micros(500);

/// So many are accepted at once while anybody waits: open connections are looked at between them.
const AT_ONCE: u32 = 16;

/// For so long nothing is accepted then: the shortest sleep there is.
const PAUSE: Duration = Duration::from_millis(1);

/// Of one listener.
#[derive(Default)]
pub(in super::super) struct Intake {
    /// What had been computed when we last looked.
    seen: Duration,
    credit: Duration,
    at_once: u32,
}

/// When the next one may be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Next {
    AtOnce,
    AfterOthers,
    Later,
}

impl Next {
    pub(in super::super) async fn wait(self) {
        match self {
            Self::AtOnce => {}
            Self::AfterOthers => tokio::task::yield_now().await,
            Self::Later => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl Intake {
    /// One more was accepted. `computed`: for handshakes of this listener, since ever.
    pub(in super::super) fn next(&mut self, waiting: usize, computed: impl FnOnce() -> Duration) -> Next {
        if waiting == 0 {
            return Next::AtOnce;
        }
        self.at_once = (self.at_once + 1) % AT_ONCE;
        let next = if self.at_once == 0 { Next::AfterOthers } else { Next::AtOnce };
        if waiting <= FEW {
            return next;
        }
        let computed = computed();
        let more = computed.saturating_sub(self.seen) / SHARE;
        self.seen = computed;
        self.credit = (self.credit + more).min(MOST);
        match self.credit.checked_sub(COST) {
            Some(left) => {
                self.credit = left;
                next
            }
            None => Next::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_accepted_while_few_wait() {
        let mut intake = Intake::default();
        assert!((0..10_000).all(|_| intake.next(FEW, || unreachable!()) != Next::Later));
        assert!((0..10_000).all(|_| intake.next(0, || unreachable!()) == Next::AtOnce));
        // But not all at once.
        let others = (0..1600).filter(|_| intake.next(1, || unreachable!()) == Next::AfterOthers).count();
        assert_eq!(others, 100);
    }

    #[test]
    fn a_storm_is_accepted_for_a_sixteenth_of_the_time_of_its_handshakes() {
        let mut intake = Intake::default();
        let (mut accepted, mut computed) = (0, Duration::ZERO);
        for _ in 0..10_000 {
            // A millisecond of handshakes in each millisecond.
            computed += PAUSE;
            while intake.next(FEW + 1, || computed) != Next::Later {
                accepted += 1;
            }
        }
        assert_eq!(accepted, 10_000 * 1000 / 16 / 25);
    }

    #[test]
    fn what_was_saved_up_in_quiet_times_is_little() {
        let mut intake = Intake::default();
        let computed = Duration::from_secs(3600);
        let accepted =
            (0..1_000_000).take_while(|_| intake.next(FEW + 1, || computed) != Next::Later).count();
        assert_eq!(accepted, 20);
    }
}
