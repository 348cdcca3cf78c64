//! How far a list is through its time, and what an operator should hear of it.

use super::RevocationList;
use crate::UnixTime;
use crate::certificate::utc;
use crate::trust::WhenStale;

/// In the order in which a list goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListAge {
    Fresh,
    /// Three quarters of its time have passed: a newer one should be there before long.
    Old,
    /// A newer one was promised by now.
    Stale,
    /// It may not be believed any more, that is to say: it is not known who is revoked.
    Lapsed,
}

impl RevocationList {
    pub fn age(&self, when_stale: WhenStale, now: UnixTime) -> ListAge {
        let Some(next_update) = self.next_update else { return ListAge::Fresh };
        let lifetime = next_update.saturating_sub(self.this_update);
        if self.stale_since(when_stale, now).is_some() {
            ListAge::Lapsed
        } else if now > next_update {
            ListAge::Stale
        } else if now > self.this_update.saturating_add(lifetime / 4 * 3) {
            ListAge::Old
        } else {
            ListAge::Fresh
        }
    }

    /// What should be known of a list of this age. The same words for as long as it has it.
    pub fn notice(&self, when_stale: WhenStale, now: UnixTime) -> Option<String> {
        let next_update = utc(self.next_update?);
        let (issuer, scope) = (&self.issuer, self.scope());
        let scope = if scope.is_empty() { scope } else { format!(" ({scope})") };
        Some(match self.age(when_stale, now) {
            ListAge::Fresh => return None,
            ListAge::Old => format!(
                "the revocation list of `{issuer}`{scope} is to be replaced by {next_update}, and most of its time has \
                 passed (hint: see whether what brings new lists still works)"
            ),
            ListAge::Stale => {
                let until = self.believed_until(when_stale).map(utc);
                let until = until.map_or_else(|| "nevertheless".to_owned(), |until| format!("until {until}"));
                format!(
                    "the revocation list of `{issuer}`{scope} should have been replaced by {next_update}; as \
                     `when_stale` says, it is believed {until}"
                )
            }
            ListAge::Lapsed => format!(
                "the revocation list of `{issuer}`{scope} should have been replaced by {next_update}; as `when_stale` \
                 says, clients of this issuer are refused (hint: put a newer list there)"
            ),
        })
    }
}
