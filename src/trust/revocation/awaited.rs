//! A list that was never obtained.

use std::fmt;

use super::WhenStale;
use crate::UnixTime;

/// A list that a trust domain should have and has not obtained yet. Whom it would name is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedList {
    /// Where it would come from.
    pub origin: String,
    pub since: UnixTime,
}

impl AwaitedList {
    /// Until when clients may be believed without it, that moment included.
    pub(super) fn believed_until(&self, when_stale: WhenStale) -> Option<UnixTime> {
        match when_stale {
            WhenStale::Believe | WhenStale::Refuse => None,
            WhenStale::BelieveFor(grace) => {
                let grace = UnixTime::try_from(grace.as_secs()).unwrap_or(UnixTime::MAX);
                Some(self.since.saturating_add(grace))
            }
        }
    }

    pub(super) fn may_be_missing(&self, when_stale: WhenStale, now: UnixTime) -> bool {
        match self.believed_until(when_stale) {
            Some(until) => now <= until,
            None => when_stale == WhenStale::Believe,
        }
    }
}

impl fmt::Display for AwaitedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the revocation list from `{}` has never been obtained", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn without_a_list_clients_are_believed_only_as_the_policy_says() {
        let list = AwaitedList { origin: "http://crl.test/".into(), since: 1000 };
        let for_a_minute = WhenStale::BelieveFor(Duration::from_secs(60));
        for (when_stale, now, may) in [
            (WhenStale::Refuse, 1000, false),
            (WhenStale::Believe, UnixTime::MAX, true),
            (for_a_minute, 1000, true),
            (for_a_minute, 1060, true),
            (for_a_minute, 1061, false),
        ] {
            assert_eq!(list.may_be_missing(when_stale, now), may, "{when_stale:?} at {now}");
        }
    }
}
