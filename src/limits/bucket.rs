//! A token bucket in one number: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! The number is the moment at which the bucket will be full again. What is taken out moves it forward by as long as that
//! takes to flow in; a bucket is empty when it lies as far ahead as a whole burst takes. So a key that was idle long
//! enough need not be remembered at all.

use std::time::Duration;

use super::Moment;
use super::rate::Rate;

/// How fast, and how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    rate: Rate,
    /// What a full bucket took to fill, in nanoseconds.
    capacity: u64,
}

impl Bucket {
    /// Of things that are counted one by one. `burst`: how many there may be at once.
    pub fn of_ones(rate: Rate, burst: u64) -> Self {
        // Rounded up for each of them: never more than the rate, and yet the whole burst.
        Self { rate, capacity: rate.time_for(1).saturating_mul(burst.max(1)) }
    }

    /// Of things that come in large numbers. What may be there at once is the number in which the rate is written.
    pub fn of_many(rate: Rate) -> Self {
        Self { rate, capacity: rate.time_for(rate.amount()) }
    }

    /// Takes one out. `Err`: there is none, and one will be there after so long.
    pub fn take(&self, state: &mut u64, now: Moment) -> Result<(), Duration> {
        let next = (*state).max(now.0).saturating_add(self.rate.time_for(1));
        let ahead = next - now.0;
        if ahead > self.capacity {
            return Err(Duration::from_nanos(ahead - self.capacity));
        }
        *state = next;
        Ok(())
    }

    /// Puts one back that was taken and not used.
    pub fn give_back(&self, state: &mut u64) {
        *state = state.saturating_sub(self.rate.time_for(1));
    }

    /// Whether anything is left. `Err`: something will be after so long.
    pub fn look(&self, state: u64, now: Moment) -> Result<(), Duration> {
        match state.saturating_sub(now.0).checked_sub(self.capacity) {
            None => Ok(()),
            Some(debt) => Err(Duration::from_nanos(debt.saturating_add(1))),
        }
    }

    /// Takes out what was used already, even if there is not as much: the debt is paid off before anything is left again.
    pub fn charge(&self, state: &mut u64, amount: u64, now: Moment) {
        *state = (*state).max(now.0).saturating_add(self.rate.time_for(amount));
    }

    /// How much is left.
    pub fn left(&self, state: u64, now: Moment) -> u64 {
        self.rate.amount_in(self.capacity.saturating_sub(state.saturating_sub(now.0)))
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// How much there is when nothing was taken.
    pub fn burst(&self) -> u64 {
        self.rate.amount_in(self.capacity)
    }

    /// How long an empty one takes to fill.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.capacity)
    }

    /// A full bucket is as good as none.
    pub fn is_full(state: u64, now: Moment) -> bool {
        state <= now.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_as_many_as_the_rate_says() {
        let bucket = Bucket::of_ones(rate("10/s"), 3);
        let (mut state, start) = (0, Moment(1_000_000_000));
        for _ in 0..3 {
            assert_eq!(bucket.take(&mut state, start), Ok(()));
        }
        let wait = bucket.take(&mut state, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(bucket.take(&mut state, Moment(start.0 + 99_999_999)).is_err());
        assert!(bucket.take(&mut state, Moment(start.0 + 100_000_000)).is_ok());
        assert!(bucket.take(&mut state, Moment(start.0 + 100_000_000)).is_err());
        assert_eq!(bucket.left(state, Moment(start.0 + 60_000_000_000)), 3);
    }

    #[test]
    fn what_is_given_back_is_there_again_and_no_more() {
        let bucket = Bucket::of_ones(rate("1/h"), 1);
        let (mut state, now) = (0, Moment(5));
        bucket.take(&mut state, now).unwrap();
        bucket.give_back(&mut state);
        bucket.take(&mut state, now).unwrap();
        assert!(bucket.take(&mut state, now).is_err());
    }

    #[test]
    fn a_debt_is_paid_off_before_anything_is_left() {
        let bucket = Bucket::of_many(rate("100/s"));
        let (mut state, now) = (0, Moment(7));
        assert!(bucket.look(state, now).is_ok());
        bucket.charge(&mut state, 1_100, now);
        let wait = bucket.look(state, now).unwrap_err();
        assert_eq!(wait, Duration::from_secs(10) + Duration::from_nanos(1));
        assert_eq!(bucket.left(state, now), 0);
        assert!(bucket.look(state, Moment(now.0 + wait.as_nanos() as u64)).is_ok());
        assert!(bucket.look(state, Moment(now.0 + wait.as_nanos() as u64 - 1)).is_err());
    }

    #[test]
    fn extreme_values_neither_overflow_nor_open_the_bucket() {
        for text in ["1/36500d", "1000000/s", "1/s", "4294967295/36500d"] {
            for burst in [1, 2, u64::from(u32::MAX), u64::MAX] {
                let bucket = Bucket::of_ones(rate(text), burst);
                for now in [0, 1, u64::MAX / 2, u64::MAX] {
                    let mut state = u64::MAX;
                    let _ = bucket.take(&mut state, Moment(now));
                    bucket.charge(&mut state, u64::MAX, Moment(now));
                    assert_eq!(state, u64::MAX);
                    let _ = (bucket.look(state, Moment(now)), bucket.left(state, Moment(now)));
                    bucket.give_back(&mut state);
                    bucket.give_back(&mut 0);
                }
            }
        }
    }

    proptest! {
        /// However they come, within any stretch of time no more pass than a burst and what flows in meanwhile.
        #[test]
        fn no_window_admits_more_than_burst_and_rate(
            amount in 1_u64..2_000,
            seconds in 1_u64..100,
            burst in 1_u64..50,
            steps in proptest::collection::vec(0_u64..3_000_000_000, 1..300),
            scale in 1_u64..1_000,
        ) {
            let bucket = Bucket::of_ones(Rate::new(amount, Duration::from_secs(seconds)).unwrap(), burst);
            let (mut state, mut now, mut admitted) = (0, 1_u64, Vec::new());
            for step in steps {
                now += step / scale;
                match bucket.take(&mut state, Moment(now)) {
                    Ok(()) => admitted.push(now),
                    Err(wait) => {
                        // As long as was said, and no shorter.
                        let (mut early, mut late) = (state, state);
                        let wait = wait.as_nanos() as u64;
                        prop_assert!(bucket.take(&mut early, Moment(now + wait - 1)).is_err());
                        prop_assert!(bucket.take(&mut late, Moment(now + wait)).is_ok());
                    }
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let flowed = u128::from(to - from) * u128::from(amount) / (u128::from(seconds) * 1_000_000_000);
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + flowed);
                }
            }
        }

        /// A clock that another thread read a little earlier takes nothing away from the limit.
        #[test]
        fn an_older_moment_admits_no_more(late in 0_u64..5_000_000_000, back in 0_u64..5_000_000_000) {
            let bucket = Bucket::of_ones(rate("5/s"), 5);
            let (mut state, now) = (0, 10_000_000_000 + late);
            while bucket.take(&mut state, Moment(now)).is_ok() {}
            prop_assert!(bucket.take(&mut state, Moment(now - back)).is_err());
        }
    }
}
