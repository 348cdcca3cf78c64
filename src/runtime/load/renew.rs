//! Lists that have changed take effect before anything else is read, and whatever else is wrong.
//!
//! Nobody who is revoked or denied gets in because another list is damaged, because a certificate is half-written, or
//! because a table of a million rows takes its time. What cannot be read is told, and until it can, what was in force stays
//! and what can be read is added to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{Loader, Runtime, Surroundings};
use crate::UnixTime;
use crate::config::{Config, ListPlace, ListSource, Problem, TrustConfig};
use crate::trust::{AwaitedList, TrustDomain};

/// The lists that have changed, and what came of reading them.
pub struct Renewed {
    /// `None`: no list of the configuration has changed.
    pub runtime: Option<Runtime>,
    /// Lists that cannot be used.
    pub problems: Vec<Problem>,
}

/// `changed`: the files that are not what they were when `in_force` was loaded.
pub(in crate::runtime) fn renew(
    in_force: &Runtime,
    changed: &BTreeSet<PathBuf>,
    surroundings: &Surroundings,
    now: UnixTime,
) -> Renewed {
    let mut loader = Loader::new(surroundings, Some(in_force), now);
    let config = &in_force.config;
    loader.find_own_deny_list(config);
    let pairs = config.trust.iter().zip(&in_force.trust);
    let trust: Vec<_> =
        pairs.map(|(trust, domain)| loader.renewed_domain(trust, domain, config, changed)).collect();
    let problems = std::mem::take(&mut loader.problems);
    if trust.iter().zip(&in_force.trust).all(|(new, old)| Arc::ptr_eq(new, old)) {
        return Renewed { runtime: None, problems };
    }
    super::show(&trust, surroundings);
    let runtime = Runtime {
        generation: in_force.generation + 1,
        loaded_at: SystemTime::now(),
        listeners: in_force.listeners.iter().map(|listener| listener.trusting(&trust)).collect(),
        trust,
        own_deny_list: loader.own_deny_list.or_else(|| in_force.own_deny_list.clone()),
        list_warnings: loader.list_warnings,
        ..in_force.clone()
    };
    Renewed { runtime: Some(runtime), problems }
}

impl Loader<'_> {
    fn renewed_domain(
        &mut self,
        trust: &TrustConfig,
        in_force: &Arc<TrustDomain>,
        config: &Config,
        changed: &BTreeSet<PathBuf>,
    ) -> Arc<TrustDomain> {
        let bundle = in_force.certificates().to_vec();
        let revocation_changed = trust.lists.iter().any(|source| is_among(source, changed));
        let own = config.own_deny_list();
        if !revocation_changed && !trust.deny.iter().chain(&own).any(|place| lies_in(place, changed)) {
            let of_domain = [format!("trust.{}.", trust.name), format!("trust.{}:", trust.name)];
            let same = self.previous.into_iter().flat_map(|runtime| &runtime.list_warnings);
            let same = same.filter(|warning| of_domain.iter().any(|name| warning.starts_with(&**name)));
            self.list_warnings.extend(same.cloned());
            return in_force.clone();
        }
        let (before, warned) = (self.problems.len(), self.list_warnings.len());
        let known = in_force.revocation_lists().cloned().collect::<Vec<_>>();
        let awaited_before = in_force.awaited_lists();
        let is_new = |list: &AwaitedList| awaited_before.iter().all(|known| known.origin != list.origin);
        let (lists, mut awaited) = if revocation_changed {
            self.revocation_lists(trust, &bundle)
        } else {
            (known.clone(), awaited_before.to_vec())
        };
        // One that was there is not given up.
        for lost in awaited.iter().filter(|list| is_new(list)) {
            let found = format!("there is no usable list from `{}` any more", lost.origin);
            self.problem(format!("trust.{}.revocation.lists", trust.name), found, None, None);
        }
        let denied = self.deny_lists(trust, config);
        if self.problems.len() == before
            && !self.lacks_own_deny_list
            && let Some(domain) = self.domain(
                trust,
                bundle.clone(),
                (lists.clone(), awaited.clone()),
                denied.clone(),
                Vec::new(),
            )
        {
            return domain;
        }
        // Said once, of what is put in force; and why it is not as the files have it is known already.
        self.list_warnings.truncate(warned);
        let told = self.problems.len();
        awaited.retain(|list| !is_new(list));
        let still_denied = in_force.denying_indexes();
        if still_denied.len() > MOST_INDEXES {
            let found =
                "lists were damaged too often in a row: no more is added to what is in force".to_owned();
            self.problem(format!("trust.{}.deny", trust.name), found, None, Some("mend what is told above"));
            return in_force.clone();
        }
        let all = [known, lists].concat();
        let added = self.domain(trust, bundle, (all, awaited), denied, still_denied);
        self.problems.truncate(told);
        added.unwrap_or_else(|| in_force.clone())
    }
}

/// However often lists change while one of them is damaged, no handshake looks into many more than so many.
const MOST_INDEXES: usize = 16;

fn is_among(source: &ListSource, changed: &BTreeSet<PathBuf>) -> bool {
    match source {
        ListSource::File(place) => lies_in(place, changed),
        ListSource::Fetched(list) => changed.contains(&list.kept),
    }
}

fn lies_in(place: &ListPlace, changed: &BTreeSet<PathBuf>) -> bool {
    changed.iter().any(|path| *path == place.path || path.parent() == Some(Path::new(&place.path)))
}
