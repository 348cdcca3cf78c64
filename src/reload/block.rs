//! The list of whom the gateway itself keeps out: changed, kept, and in force at once.

use std::io::ErrorKind;
use std::path::Path;

use super::Reloader;
use crate::admin::{BlockError, Blocked};
use crate::fetch;
use crate::runtime::Runtime;
use crate::tls;
use crate::trust::{DenyEntry, DenyList, DenySelector};

/// Whoever opens the file shall know whose it is.
const HEADING: &str = "# Kept by the gateway: `portcullis block` and `portcullis unblock` change it.\n";

impl Reloader {
    /// Keeps a client out from now on, also after a restart, and ends its open connections.
    pub fn block(&self, entry: DenyEntry) -> Result<Blocked, BlockError> {
        self.check_domain(entry.trust_domain.as_deref())?;
        let replaced = self.change_blocked(|list| list.insert(entry).is_some())?;
        Ok(Blocked { ended: self.doorkeeper.review_all(tls::now()), replaced })
    }

    /// `None`: there was no such entry.
    pub fn unblock(
        &self,
        selector: &DenySelector,
        domain: Option<&str>,
    ) -> Result<Option<DenyEntry>, BlockError> {
        self.check_domain(domain)?;
        self.change_blocked(|list| list.remove(selector, domain))
    }

    /// Whom the gateway itself keeps out.
    pub fn blocked(&self) -> Result<DenyList, BlockError> {
        let runtime = self.cell.load_full();
        let Some(place) = runtime.config.own_deny_list() else { return Ok(DenyList::default()) };
        read(&place.path, &runtime)
    }

    /// First what comes of it is made sure of, then it is kept, and only then it is in force.
    fn change_blocked<T>(&self, change: impl FnOnce(&mut DenyList) -> T) -> Result<T, BlockError> {
        let mut last = self.last();
        let runtime = self.cell.load_full();
        let path = runtime.config.own_deny_list().ok_or(BlockError::NoPlace)?.path;
        let before = read(&path, &runtime)?;
        let mut after = before.clone();
        let changed = change(&mut after);
        after.forget_lapsed(tls::now());
        if after == before {
            return Ok(changed);
        }
        let yaml = format!("{HEADING}{}", after.to_yaml());
        let next = runtime.blocking(&path, &yaml).map_err(|error| BlockError::Kept(error.to_string()))?;
        fetch::replace(&path, yaml.as_bytes()).map_err(|error| {
            BlockError::Kept(format!(
                "`{}` cannot be written, so nothing was changed: {error}",
                path.display()
            ))
        })?;
        last.seen.renew(&path);
        self.cell.store(next);
        Ok(changed)
    }

    fn check_domain(&self, domain: Option<&str>) -> Result<(), BlockError> {
        let Some(domain) = domain else { return Ok(()) };
        let is_known = self.cell.load().trust.iter().any(|known| &**known.name() == domain);
        if is_known { Ok(()) } else { Err(BlockError::NoSuchDomain(domain.to_owned())) }
    }
}

fn read(path: &Path, runtime: &Runtime) -> Result<DenyList, BlockError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => DenyList::from_yaml(&name, &text)
            .map_err(|error| BlockError::Kept(format!("{error}; nothing was changed"))),
        Err(error) if error.kind() == ErrorKind::NotFound && runtime.own_deny_list.is_none() => {
            Ok(DenyList::default())
        }
        // A list that went away since would bring everybody back who was on it.
        Err(error) => Err(BlockError::Kept(format!(
            "`{name}` cannot be read, so nothing was changed: {error} (hint: put it back; or write `deny: []` into it, which \
             blocks nobody)"
        ))),
    }
}
