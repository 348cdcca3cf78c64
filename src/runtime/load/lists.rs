//! The lists of a trust domain: who is revoked, and who is denied.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Loader, fetched};
use crate::certificate::Certificate;
use crate::config::{Config, ListPlace, ListSource, Listed, TrustConfig};
use crate::trust::{
    AwaitedList, DenyForm, DenyIndex, DenyIndexBuilder, FaultKind, RevocationList, TrustDomain,
};

/// A file of a list, and where the configuration names it.
struct ListFile {
    at: String,
    path: PathBuf,
}

impl Loader<'_> {
    /// The revocation lists that are there and can be used, and those that should be there.
    pub(super) fn revocation_lists(
        &mut self,
        trust: &TrustConfig,
        issuers: &[Certificate],
    ) -> (Vec<Arc<RevocationList>>, Vec<AwaitedList>) {
        let (mut lists, mut awaited) = (Vec::new(), Vec::new());
        let known = [issuers, &self.former_anchors(trust, issuers)].concat();
        let (anchors, issuers) = (issuers, &*known);
        for (index, source) in trust.lists.iter().enumerate() {
            let at = format!("trust.{}.revocation.lists[{index}]", trust.name);
            match source {
                ListSource::File(place) => lists.extend(self.revocation_lists_at(&at, place, issuers)),
                ListSource::Fetched(list) => {
                    if let Some(ca) = &list.ca {
                        self.authorities(&format!("{at}.ca"), ca);
                    }
                    match fetched::read(list, issuers, self.now) {
                        Ok(read) => lists.extend(read.into_iter().map(Arc::new)),
                        Err((missing, reason)) => {
                            self.list_warnings.push(format!(
                                "{at}: {missing}{reason}; until it is there, `when_stale` decides about clients"
                            ));
                            awaited.push(missing);
                        }
                    }
                }
            }
        }
        lists.retain(|list: &Arc<RevocationList>| {
            let is_by_anchor = anchors.iter().any(|anchor| list.is_by(anchor));
            if !is_by_anchor {
                self.list_warnings.push(format!(
                    "trust.{}: the revocation list of `{}` says nothing any more: its issuer was taken out of the anchors (a \
                     start would refuse it: take it out too)",
                    trust.name,
                    list.issuer()
                ));
            }
            is_by_anchor
        });
        (lists, awaited)
    }

    /// Authorities that are anchors no more: that their lists are still there does not keep them in. One of the name of an
    /// anchor is not among them, so that no old key speaks for a new one.
    fn former_anchors(&self, trust: &TrustConfig, anchors: &[Certificate]) -> Vec<Certificate> {
        let names: BTreeSet<_> = anchors.iter().map(|anchor| anchor.subject().comparable()).collect();
        let previous = self.previous.into_iter().flat_map(|previous| &previous.trust);
        previous
            .filter(|domain| *domain.name() == trust.name)
            .flat_map(|domain| domain.certificates())
            .filter(|former| !names.contains(&former.subject().comparable()))
            .cloned()
            .collect()
    }

    fn revocation_lists_at(
        &mut self,
        at: &str,
        place: &ListPlace,
        issuers: &[Certificate],
    ) -> Vec<Arc<RevocationList>> {
        let before = self.problems.len();
        let files = self.files(at, place);
        // A directory that nobody has filled yet, or that somebody has emptied: it does not say that nobody is revoked.
        if files.is_empty() && self.problems.len() == before {
            let found = format!("`{}` holds no revocation list", place.path.display());
            self.problem(at, found, Some(&format!("files that end in {}", endings(place))), None);
        }
        let mut lists = Vec::new();
        for ListFile { at, path } in files {
            let Some(file) = self.open(&at, &path) else { continue };
            match RevocationList::read_from(file, issuers, self.now) {
                Ok(read) => lists.extend(read.into_iter().map(Arc::new)),
                Err(error) => {
                    self.problem(at, format!("`{}` cannot be used: {error}", path.display()), None, None);
                }
            }
        }
        lists
    }

    pub(super) fn doubt_lists_about_the_expired(&mut self, trust: &TrustConfig, domain: &TrustDomain) {
        let is_let_in = !trust.policy.quarantine.spans(FaultKind::Expired).is_empty();
        if is_let_in && domain.revocation_lists().next().is_some() {
            self.list_warnings.push(format!(
                "trust.{}: routes accept clients that have expired, and a revocation list may leave these out (RFC \
                 5280, section 3.3): make sure that the issuer keeps them as long as the routes accept them",
                trust.name
            ));
        }
    }

    /// An old list, put back by mistake or by somebody who wants a revoked client in, does not take effect; nor does it that
    /// a file is gone, unless the configuration looks elsewhere now.
    pub(super) fn refuse_older_lists(&mut self, trust: &TrustConfig, domain: &TrustDomain) -> Option<()> {
        let Some(previous) = self.previous else { return Some(()) };
        let in_force = previous.trust.iter().find(|in_force| in_force.name() == domain.name());
        let Some(in_force) = in_force else { return Some(()) };
        let is_same_place =
            previous.config.trust.iter().any(|old| old.name == trust.name && old.lists == trust.lists);
        let checked = domain.check_succession(in_force);
        let checked =
            if is_same_place { checked.and_then(|()| domain.check_completeness(in_force)) } else { checked };
        let Err(error) = checked else { return Some(()) };
        let at = format!("trust.{}.revocation.lists", domain.name());
        self.problem(at, error.to_string(), None, Some("a restart takes whatever list is there"));
        None
    }

    /// The deny lists that the domain names and that can be used, and apart from them the one that the gateway keeps
    /// itself.
    pub(super) fn deny_lists(&mut self, trust: &TrustConfig, config: &Config) -> [Arc<DenyIndex>; 2] {
        let mut named = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, source) in trust.deny.iter().enumerate() {
            let files = self.files(&format!("trust.{}.deny[{index}]", trust.name), source);
            named.extend(files.into_iter().filter(|file| seen.insert(file.path.clone())));
        }
        let own = self.own_deny_list.clone().map(|path| ListFile { at: OWN.to_owned(), path });
        let own: Vec<_> = own.into_iter().collect();
        [named, own].map(|files| Arc::new(self.deny_index(&files, trust, config)))
    }

    /// `still`: what was denied before and stays so.
    pub(super) fn deny(
        &mut self,
        domain: TrustDomain,
        [named, own]: [Arc<DenyIndex>; 2],
        still: Vec<Arc<DenyIndex>>,
    ) -> TrustDomain {
        let doubts = domain.doubts_about(&named, self.now);
        let name = domain.name().clone();
        let domain = domain.denying([vec![named], still].concat()).blocking(own);
        let anchors = domain.denied_anchors(self.now).map(|(anchor, why)| {
            format!("anchor `{}` is denied {why}: so is every client that it vouches for", anchor.subject)
        });
        self.list_warnings
            .extend(doubts.into_iter().chain(anchors).map(|doubt| format!("trust.{name}.deny: {doubt}")));
        domain
    }

    fn deny_index(&mut self, files: &[ListFile], trust: &TrustConfig, config: &Config) -> DenyIndex {
        let mut builder = DenyIndexBuilder::new(&trust.name);
        let (good, bad): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| self.read_deny_list(&mut builder, file).is_some());
        if !bad.is_empty() {
            // What it took of a list that is not whole is not a list that anybody wrote.
            builder = DenyIndexBuilder::new(&trust.name);
            for file in good {
                let _ = self.read_deny_list(&mut builder, file);
            }
        }
        for (domain, file, place) in builder.elsewhere() {
            if config.trust.iter().all(|known| known.name != *domain) {
                let warning = format!(
                    "{place} of `{file}` is for trust domain `{domain}`, which there is not: it denies nobody"
                );
                if !self.list_warnings.contains(&warning) {
                    self.list_warnings.push(warning);
                }
            }
        }
        builder.finish()
    }

    fn read_deny_list(&mut self, builder: &mut DenyIndexBuilder, file: &ListFile) -> Option<()> {
        let ListFile { at, path } = file;
        let name = path.display().to_string();
        let bytes = self.read(at, path)?;
        let Some(form) = path.extension().and_then(|ending| DenyForm::of_ending(ending.to_str()?)) else {
            let found = format!("how `{name}` is written cannot be told from its name");
            self.problem(at, found, Some("a name that ends in `.yaml`, `.yml` or `.csv`"), None);
            return None;
        };
        builder
            .read(&name, form, &bytes)
            .map_err(|error| {
                for sentence in error.sentences() {
                    self.problem(at, sentence, None, None);
                }
            })
            .ok()
    }

    /// The list that the gateway keeps itself is there once it has blocked somebody. That it went away since would bring
    /// all of them back.
    pub(super) fn find_own_deny_list(&mut self, config: &Config) {
        let Some(source) = config.own_deny_list() else { return };
        let was_there = self.previous.is_some_and(|previous| previous.own_deny_list.is_some());
        match std::fs::metadata(&source.path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                if was_there {
                    self.lacks_own_deny_list = true;
                    let found = format!("`{}` is gone, which says who is blocked", source.path.display());
                    let hint = "put it back; or write `deny: []` into it, which blocks nobody; a restart goes on without it";
                    self.problem(OWN, found, None, Some(hint));
                }
            }
            _ => self.own_deny_list = Some(source.path),
        }
    }

    fn files(&mut self, at: &str, source: &ListPlace) -> Vec<ListFile> {
        let file = |path: PathBuf| ListFile { at: at.to_owned(), path };
        match source.look() {
            Ok(Listed::File) => vec![file(source.path.clone())],
            Ok(Listed::Directory { files, passed_over }) => {
                for path in passed_over {
                    let name = name(&path);
                    let directory = source.path.display();
                    self.list_warnings.push(format!(
                        "{at}: `{name}` in `{directory}` is passed over (files that count end in {})",
                        endings(source)
                    ));
                }
                files.into_iter().map(file).collect()
            }
            Err(error) => {
                let found = format!("the directory `{}` cannot be read: {error}", source.path.display());
                self.problem(at, found, None, None);
                Vec::new()
            }
        }
    }
}

/// Where the file that the gateway keeps itself belongs to.
const OWN: &str = "server.state_directory";

fn endings(source: &ListPlace) -> String {
    source.endings.iter().map(|ending| format!("`.{ending}`")).collect::<Vec<_>>().join(", ")
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
