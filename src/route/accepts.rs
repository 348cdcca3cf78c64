//! Which faults of a client a route puts up with. Usually none.

use std::time::Duration;

use super::miss::{Checked, Misses};
use crate::trust::{ClientIdentity, Fault, FaultKind};

/// For how long each fault is accepted; `None`: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepts {
    pub expired_within: Option<Duration>,
    pub revocation_stale_within: Option<Duration>,
}

impl Accepts {
    pub fn span(&self, kind: FaultKind) -> Option<Duration> {
        match kind {
            FaultKind::Expired => self.expired_within,
            FaultKind::RevocationStale => self.revocation_stale_within,
        }
    }

    fn includes(&self, fault: Fault) -> bool {
        self.span(fault.kind).is_some_and(|span| fault.within <= span)
    }

    /// Comes before whatever else a route asks for, and is asked of every route: one for `anyone`, too.
    pub(super) fn check(&self, identity: Option<&ClientIdentity>, misses: &mut impl Misses) -> Checked {
        let Some(fault) = identity.and_then(|identity| identity.standing().fault()) else {
            return Checked::Continue(());
        };
        misses.require(self.includes(fault), || {
            let accepted = match self.span(fault.kind) {
                None => "which it does not accept",
                Some(_) => "for longer than it accepts",
            };
            format!("the client is quarantined: its {}, {accepted}", fault.kind.sentence())
        })
    }
}
