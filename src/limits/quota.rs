//! So many in a window of time that begins with the first of them.
//!
//! A window of a key's own, not one for all: else everybody who ran out would come back at the same moment.

use std::time::Duration;

use super::Moment;

/// In one number: the second in which the window began, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    most: u32,
    /// Seconds.
    window: u32,
}

impl Quota {
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most, window: u32::try_from(window.as_secs()).unwrap_or(u32::MAX).max(1) }
    }

    /// `Err`: there were as many as may be, and a new window begins after so long.
    pub fn take(self, state: &mut u64, now: Moment) -> Result<(), Duration> {
        let (began, used) = self.current(*state, now);
        if used >= self.most {
            return Err(self.ends_in(began, now));
        }
        *state = u64::from(began) << 32 | u64::from(used + 1);
        Ok(())
    }

    pub fn give_back(state: &mut u64) {
        if used(*state) > 0 {
            *state -= 1;
        }
    }

    pub fn left(self, state: u64, now: Moment) -> u64 {
        self.most.saturating_sub(self.current(state, now).1).into()
    }

    /// How long until a new window begins.
    pub fn remaining(self, state: u64, now: Moment) -> Duration {
        self.ends_in(self.current(state, now).0, now)
    }

    pub fn most(self) -> u32 {
        self.most
    }

    pub fn window(self) -> Duration {
        Duration::from_secs(self.window.into())
    }

    /// Whether its window is over, or nothing was used of it.
    pub fn is_over(self, state: u64, now: Moment) -> bool {
        used(state) == 0 || now.seconds().saturating_sub(began(state)) >= self.window
    }

    fn current(self, state: u64, now: Moment) -> (u32, u32) {
        if self.is_over(state, now) { (now.seconds(), 0) } else { (began(state), used(state)) }
    }

    fn ends_in(self, began: u32, now: Moment) -> Duration {
        let end = Duration::from_secs(u64::from(began) + u64::from(self.window));
        end.saturating_sub(Duration::from_nanos(now.0))
    }
}

fn began(state: u64) -> u32 {
    (state >> 32) as u32
}

fn used(state: u64) -> u32 {
    state as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    #[test]
    fn a_window_begins_with_the_first_and_admits_so_many() {
        let quota = Quota::new(2, Duration::from_secs(100));
        let mut state = 0;
        assert_eq!(quota.take(&mut state, at(50)), Ok(()));
        assert_eq!(quota.left(state, at(50)), 1);
        assert_eq!(quota.take(&mut state, at(149)), Ok(()));
        assert_eq!(quota.take(&mut state, at(149)), Err(Duration::from_secs(1)));
        assert!(!quota.is_over(state, at(149)) && quota.is_over(state, at(150)));
        assert_eq!(quota.take(&mut state, at(150)), Ok(()));
        assert_eq!(quota.remaining(state, at(150)), Duration::from_secs(100));
        Quota::give_back(&mut state);
        assert_eq!(quota.left(state, at(150)), 2);
        Quota::give_back(&mut 0);
    }

    #[test]
    fn a_clock_that_was_read_earlier_opens_no_new_window() {
        let quota = Quota::new(1, Duration::from_secs(10));
        let mut state = 0;
        quota.take(&mut state, at(50)).unwrap();
        assert!(quota.take(&mut state, at(49)).is_err());
        assert!(Quota::new(u32::MAX, Duration::MAX).take(&mut state, at(u64::from(u32::MAX))).is_ok());
    }
}
