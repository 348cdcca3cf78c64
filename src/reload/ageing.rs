//! Tells of revocation lists that nobody has replaced in time: once when most of their time has passed, once when a newer
//! one was promised, once when they may not be believed any more.

use crate::UnixTime;
use crate::runtime::Runtime;
use crate::trust::RevocationList;

pub(super) struct Ageing {
    looked: UnixTime,
}

impl Ageing {
    /// What is old already is a warning of the configuration that was loaded.
    pub(super) fn since(now: UnixTime) -> Self {
        Self { looked: now }
    }

    /// What has come of age since the last look.
    pub(super) fn look(&mut self, runtime: &Runtime, now: UnixTime) -> Vec<String> {
        let since = std::mem::replace(&mut self.looked, now);
        let mut notices = Vec::new();
        for domain in &runtime.trust {
            let when_stale = domain.policy().when_stale;
            let age = |list: &RevocationList, at| list.age(when_stale, at);
            for list in domain.revocation_lists().filter(|list| age(list, now) > age(list, since)) {
                notices.extend(
                    list.notice(when_stale, now).map(|notice| format!("trust.{}: {notice}", domain.name())),
                );
            }
        }
        notices
    }
}
