//! What is fetched from elsewhere, when a configuration is about to be put in force.

use std::time::Duration;

use super::FileStates;
use crate::config::{Config, ConfigErrors, FetchedList, ListSource, Problem};
use crate::fetch::{Fetcher, Wanted, WantedList};
use crate::runtime::{Runtime, Surroundings};
use crate::tls;
use crate::trust::WhenStale;

/// How long a start or a reload waits for lists that were never obtained.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Loads the configuration that the process starts with, with the files as they were before. Waits for what was never
/// obtained, but not for long: until lists are there, `when_stale` decides about clients.
pub fn first(
    config: Config,
    surroundings: &Surroundings,
    fetcher: &Fetcher,
) -> Result<(Runtime, FileStates), ConfigErrors> {
    let load = |config: Config| {
        let files = FileStates::of(&config);
        Ok((Runtime::load(config, None, surroundings, tls::now())?, files))
    };
    let (runtime, files) = load(config)?;
    let wanted = wanted(&runtime);
    if !wanted.iter().any(Wanted::is_missing) {
        fetcher.follow(wanted);
        return Ok((runtime, files));
    }
    fetcher.obtain(wanted, PATIENCE);
    let (runtime, files) = load(runtime.config)?;
    fetcher.follow(self::wanted(&runtime));
    Ok((runtime, files))
}

/// What `runtime` has from elsewhere, or should have.
pub(super) fn wanted(runtime: &Runtime) -> Vec<Wanted> {
    let staples = runtime.staples.iter().filter_map(|staple| staple.wanted.clone());
    lists(runtime).into_iter().map(Wanted::List).chain(staples.map(Wanted::Staple)).collect()
}

/// Whether `new` is worth waiting for what it lacks and `old` does not: lists, or the OCSP response of a renewed
/// certificate whose clients insist on one.
pub(super) fn is_worth_waiting(new: &Runtime, old: &Runtime) -> bool {
    !lost(new, old).is_empty() || lacks_staple(new, old)
}

pub(super) fn lacks_staple(new: &Runtime, old: &Runtime) -> bool {
    let lacking = |runtime: &Runtime| {
        let staples = runtime.staples.iter().filter(|it| it.is_required && it.next_update.is_none());
        staples.filter_map(|it| Some(it.wanted.as_ref()?.kept.clone())).collect::<Vec<_>>()
    };
    let lacked = lacking(old);
    lacking(new).iter().any(|kept| !lacked.contains(kept))
}

fn lists(runtime: &Runtime) -> Vec<WantedList> {
    fetched(&runtime.config)
        .map(|(domain, list)| WantedList {
            domain: domain.name.clone(),
            anchors: domain.anchors.clone(),
            list: list.clone(),
            is_missing: is_missing(runtime, &domain.name, &list.url),
        })
        .collect()
}

/// The lists that `new` lacks and `old` does not.
fn lost(new: &Runtime, old: &Runtime) -> Vec<WantedList> {
    let mut wanted = lists(new);
    wanted.retain(|list| list.is_missing && !is_missing(old, &list.domain, &list.list.url));
    wanted
}

/// A list that was there is not given up, and one that is new does not lock everybody out who is in.
pub(super) fn refuse_lost(new: Runtime, old: &Runtime) -> Result<Runtime, ConfigErrors> {
    let had = |lost: &WantedList| {
        fetched(&old.config).any(|(domain, list)| domain.name == lost.domain && list.url == lost.list.url)
    };
    let refuses = |lost: &WantedList| {
        let policy = new.config.trust.iter().find(|domain| domain.name == lost.domain);
        policy.is_none_or(|domain| domain.policy.when_stale == WhenStale::Refuse)
    };
    let problems: Vec<_> =
        lost(&new, old).iter().filter(|lost| had(lost) || refuses(lost)).map(problem).collect();
    if problems.is_empty() {
        return Ok(new);
    }
    Err(ConfigErrors { file: new.config.file, problems })
}

fn problem(lost: &WantedList) -> Problem {
    let url = &lost.list.url;
    Problem {
        at: format!("trust.{}.revocation.lists", lost.domain),
        found: format!("there is no usable list from `{url}`"),
        expected: Some("a list that can be fetched now, or was kept".into()),
        hint: Some("the log says why; a start would not wait for it, and do as `when_stale` says".into()),
    }
}

fn fetched(config: &Config) -> impl Iterator<Item = (&crate::config::TrustConfig, &FetchedList)> {
    config.trust.iter().flat_map(|domain| {
        domain.lists.iter().filter_map(move |source| match source {
            ListSource::Fetched(list) => Some((domain, list)),
            ListSource::File(_) => None,
        })
    })
}

fn is_missing(runtime: &Runtime, domain: &str, url: &str) -> bool {
    let domain = runtime.trust.iter().find(|it| &**it.name() == domain);
    domain.is_some_and(|domain| domain.awaited_lists().iter().any(|list| list.origin == *url))
}
