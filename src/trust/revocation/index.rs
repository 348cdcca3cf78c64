//! The lists of a trust domain by issuer.

use std::ops::ControlFlow;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::serials::SerialTable;
use super::{AwaitedList, RevocationList, delta};
use crate::UnixTime;
use crate::certificate::{Certificate, Name, Serial, utc};
use crate::trust::change::{Change, MOST};
use crate::trust::{Finding, RejectionReason, TrustError, WhenMissing, WhenStale};

/// The lists of a trust domain by issuer.
#[derive(Debug, Clone, Default)]
pub(in crate::trust) struct RevocationIndex {
    by_issuer: AHashMap<Box<[u8]>, Vec<Arc<RevocationList>>>,
    /// From the issuer's name as the list has it to its key in `by_issuer`: certificates nearly always have it in the
    /// same bytes, and then it need not be brought into a form that can be compared.
    keys: AHashMap<Box<[u8]>, Box<[u8]>>,
    awaited: Vec<AwaitedList>,
}

impl RevocationIndex {
    /// Of several lists for the same issuer and scope the newest one counts, as the delta lists behind it change it.
    pub(in crate::trust) fn build(lists: Vec<Arc<RevocationList>>) -> Result<Self, TrustError> {
        let mut index = Self::default();
        let (mut deltas, complete): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| list.is_delta());
        for list in complete {
            index.keys.insert(list.issuer_raw.clone(), list.issuer_key.clone());
            let lists = index.by_issuer.entry(list.issuer_key.clone()).or_default();
            match lists.iter_mut().find(|other| other.scope == list.scope) {
                None => lists.push(list),
                Some(other) if list.is_newer_than(other) => *other = list,
                Some(_) => {}
            }
        }
        delta::in_sequence(&mut deltas);
        for delta in deltas {
            let lists = index.by_issuer.get_mut(&delta.issuer_key).map_or(&mut [][..], Vec::as_mut_slice);
            let base = lists.iter_mut().find(|list| list.scope == delta.scope);
            delta::apply(base, &delta)?;
        }
        Ok(index)
    }

    /// Lists that should be there too, whoever they are by.
    pub(in crate::trust) fn await_lists(&mut self, awaited: Vec<AwaitedList>) {
        self.awaited = awaited;
    }

    pub(in crate::trust) fn awaited(&self) -> &[AwaitedList] {
        &self.awaited
    }

    pub(in crate::trust) fn is_empty(&self) -> bool {
        self.by_issuer.is_empty() && self.awaited.is_empty()
    }

    /// When a list ceases to be believed.
    pub(in crate::trust) fn changes(&self, when_stale: WhenStale) -> impl Iterator<Item = UnixTime> {
        let lists = self.lists().filter_map(move |list| list.believed_until(when_stale));
        let awaited = self.awaited.iter().filter_map(move |list| list.believed_until(when_stale));
        let until = lists.chain(awaited);
        until.map(|until| until.saturating_add(1))
    }

    pub(in crate::trust) fn lists(&self) -> impl Iterator<Item = &Arc<RevocationList>> {
        self.by_issuer.values().flatten()
    }

    /// Whether there is a list by `issuer`.
    pub(in crate::trust) fn covers(&self, issuer: &Certificate) -> bool {
        self.by_issuer.contains_key(&issuer.subject().comparable())
    }

    fn lists_by(&self, issuer: &Name) -> Option<&Vec<Arc<RevocationList>>> {
        match self.keys.get(issuer.raw()) {
            Some(key) => self.by_issuer.get(key),
            None => self.by_issuer.get(&issuer.comparable()),
        }
    }

    /// Whether any list names `certificate`: cheaper than [`check`](Self::check), and no verdict.
    pub(in crate::trust) fn names(&self, certificate: &Certificate) -> bool {
        let lists = self.lists_by(certificate.issuer());
        lists.is_some_and(|lists| lists.iter().any(|list| list.find(certificate.serial()).is_some()))
    }

    /// A certificate that any list names is revoked, also when that list is stale. One whose issuer has published no
    /// list is not judged, unless a list is awaited that may be its issuer's.
    pub(in crate::trust) fn check(
        &self,
        certificate: &Certificate,
        what: &dyn Fn() -> String,
        when_stale: WhenStale,
        now: UnixTime,
    ) -> Result<(), Finding> {
        let lists = self.lists_by(certificate.issuer()).map_or(&[][..], Vec::as_slice);
        if let Some(entry) = lists.iter().find_map(|list| list.find(certificate.serial())) {
            let detail = format!("{} was revoked on {} ({})", what(), utc(entry.revoked_at), entry.reason);
            return Err((RejectionReason::Revoked, detail));
        }
        let about = lists.iter().filter(|list| list.scope.includes(certificate));
        let mut stale = about.filter_map(|list| Some((list, list.stale_since(when_stale, now)?)));
        if let Some((list, since)) = stale.next() {
            let detail = format!(
                "whether {} is revoked is unknown: the revocation list of `{}` should have been replaced by {}",
                what(),
                list.issuer,
                utc(since)
            );
            return Err((RejectionReason::RevocationUnknown, detail));
        }
        // Whoever has published a list of everything has not published parts of it elsewhere.
        if self.awaited.is_empty() || lists.iter().any(|list| list.is_whole()) {
            return Ok(());
        }
        match self.awaited.iter().find(|list| !list.may_be_missing(when_stale, now)) {
            None => Ok(()),
            Some(list) => {
                let detail = format!("whether {} is revoked is unknown: {list}", what());
                Err((RejectionReason::RevocationUnknown, detail))
            }
        }
    }

    /// Whether the policy asks for a list of the certificate's issuer that is not there.
    pub(in crate::trust) fn check_presence(
        &self,
        certificate: &Certificate,
        what: &dyn Fn() -> String,
        when_missing: WhenMissing,
    ) -> Result<(), Finding> {
        let is_there = || {
            let lists = self.lists_by(certificate.issuer()).map_or(&[][..], Vec::as_slice);
            lists.iter().any(|list| list.scope.includes(certificate))
        };
        if when_missing == WhenMissing::Believe || is_there() {
            return Ok(());
        }
        let issuer = certificate.issuer();
        let detail =
            format!("whether {} is revoked is unknown: there is no revocation list of `{issuer}`", what());
        Err((RejectionReason::RevocationUnknown, detail))
    }

    /// What has changed since `before` for certificates that were good by it.
    pub(in crate::trust) fn change_since(
        &self,
        before: &Self,
        when_stale: WhenStale,
        now: UnixTime,
    ) -> Change {
        let is_gone = |old: &Arc<RevocationList>| self.of_scope(old).is_none();
        let is_missed = |list: &AwaitedList| !list.may_be_missing(when_stale, now);
        // One that was stale may have kept clients in quarantine, which end with it.
        let is_stale = |list: &Arc<RevocationList>| list.stale_since(when_stale, now).is_some();
        if before.lists().any(|list| is_gone(list) || is_stale(list))
            || self.lists().any(is_stale)
            || self.awaited != before.awaited
            || self.awaited.iter().any(is_missed)
        {
            return Change::Anything;
        }
        let none = SerialTable::default();
        let mut added = AHashSet::new();
        for list in self.lists() {
            let old = before.of_scope(list);
            if old.is_some_and(|old| Arc::ptr_eq(old, list)) {
                continue;
            }
            let old = old.map_or(&none, |old| &old.entries);
            let seen = list.entries.added_since(old, |serial| {
                added.extend(Serial::from_be_bytes(serial));
                if added.len() > MOST { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if seen.is_break() {
                return Change::Anything;
            }
        }
        if added.is_empty() { Change::Nothing } else { Change::Revoked(added) }
    }

    /// The list of the same issuer and scope.
    fn of_scope(&self, like: &RevocationList) -> Option<&Arc<RevocationList>> {
        self.by_issuer.get(&like.issuer_key)?.iter().find(|list| list.scope == like.scope)
    }

    pub(in crate::trust) fn check_succession(&self, previous: &Self) -> Result<(), TrustError> {
        for list in self.lists() {
            let in_force = previous.of_scope(list);
            if let Some(in_force) = in_force.filter(|in_force| in_force.is_newer_than(list)) {
                return Err(TrustError::rolled_back(list, in_force));
            }
        }
        Ok(())
    }

    /// A list may go with its issuer, or once a list of everything has taken its place.
    pub(in crate::trust) fn check_completeness(
        &self,
        previous: &Self,
        is_anchor: impl Fn(&[u8]) -> bool,
    ) -> Result<(), TrustError> {
        let takes_place_of =
            |new: &RevocationList, old: &RevocationList| new.is_whole() && !old.is_newer_than(new);
        for (issuer, lists) in previous.by_issuer.iter().filter(|(issuer, _)| is_anchor(issuer)) {
            let here = self.by_issuer.get(issuer).map_or(&[][..], Vec::as_slice);
            let is_gone = |old: &&Arc<RevocationList>| {
                !here.iter().any(|new| new.scope == old.scope || takes_place_of(new, old))
            };
            if let Some(gone) = lists.iter().find(is_gone) {
                return Err(TrustError::gone(gone));
            }
        }
        Ok(())
    }
}
