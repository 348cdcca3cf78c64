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
