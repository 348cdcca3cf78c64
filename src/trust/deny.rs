//! Who is denied by the operator: a stolen device, a leaked intermediate, whoever must not wait for a revocation list.
//!
//! A [`DenyList`] is a file of entries, each of which names a certificate in one way and may have an end. What the
//! gateway looks at in a handshake is an index of such lists, not the lists.

mod csv;
mod denied;
mod draft;
mod fault;
mod index;
mod names;
mod yaml;

use std::collections::hash_map::Entry as Slot;
use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;

use crate::UnixTime;
use crate::certificate::{Fingerprint, Serial};
use fault::Faults;

pub(super) use denied::Denied;
pub use fault::{DenyFault, DenyListError, Place};
pub(super) use index::Role;
pub use index::{DenyForm, DenyIndex, DenyIndexBuilder};
pub use names::{DeniedName, DeniedNames, IssuerName};

/// The entries of one file, no certificate named twice in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenyList {
    entries: Vec<DenyEntry>,
}

/// One reason not to let somebody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyEntry {
    pub selector: DenySelector,
    /// Only where this trust domain is asked; `None`: wherever the list is.
    pub trust_domain: Option<Arc<str>>,
    /// From then on the entry means nothing; `None`: for ever.
    pub until: Option<UnixTime>,
    /// For the log and for `explain`; never told to the client.
    pub reason: Option<Arc<str>>,
}

/// Whom an entry means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DenySelector {
    /// A serial number, which is unique within its issuer only.
    Serial { issuer: IssuerName, serial: Serial },
    /// The certificate with this SHA-256 digest.
    Fingerprint(Fingerprint),
    /// Every certificate with this key: the SHA-256 digest of its SubjectPublicKeyInfo.
    KeyFingerprint(Fingerprint),
    /// Every client whose certificate has all of these names.
    Names(DeniedNames),
}

impl DenyEntry {
    pub fn new(selector: DenySelector) -> Self {
        Self { selector, trust_domain: None, until: None, reason: None }
    }

    pub fn is_in_force(&self, now: UnixTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for DenySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { issuer, serial } => write!(f, "serial `{serial}` of `{issuer}`"),
            Self::Fingerprint(fingerprint) => write!(f, "fingerprint `{fingerprint}`"),
            Self::KeyFingerprint(fingerprint) => write!(f, "key fingerprint `{fingerprint}`"),
            Self::Names(names) => names.fmt(f),
        }
    }
}

impl DenyList {
    /// Reads the YAML form: a mapping with the one key `deny`, a list of entries. All that is wrong is told, not only
    /// the first. Of several entries that mean the same the one that lasts longest counts. `file` is what messages call it.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, DenyListError> {
        let mut read = Self::default();
        let mut faults = Faults::new(file);
        yaml::read(text, &mut faults, &mut |_, entry| {
            read.entries.push(entry);
            Ok(())
        });
        faults.finish(Self::merge([read]))
    }

    /// The YAML form, which [`from_yaml`](Self::from_yaml) reads.
    pub fn to_yaml(&self) -> String {
        yaml::write(&self.entries)
    }

    pub fn entries(&self) -> &[DenyEntry] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts an entry in; one that names the same client in the same trust domain is replaced, and returned.
    pub fn insert(&mut self, entry: DenyEntry) -> Option<DenyEntry> {
        if let Some(known) = self.entries.iter_mut().find(|known| known.means_the_same(&entry)) {
            return Some(std::mem::replace(known, entry));
        }
        self.entries.push(entry);
        None
    }

    /// Takes out the entry that names `selector` in this trust domain.
    pub fn remove(&mut self, selector: &DenySelector, trust_domain: Option<&str>) -> Option<DenyEntry> {
        let is_meant =
            |known: &DenyEntry| known.selector == *selector && known.trust_domain.as_deref() == trust_domain;
        self.entries.iter().position(is_meant).map(|position| self.entries.remove(position))
    }

    /// Takes out what means nothing any more.
    pub fn forget_lapsed(&mut self, now: UnixTime) {
        self.entries.retain(|entry| entry.is_in_force(now));
    }

    /// One list of all: of several entries that mean the same the one that lasts longest.
    pub fn merge(lists: impl IntoIterator<Item = Self>) -> Self {
        let mut merged = Self::default();
        let mut positions = AHashMap::new();
        for entry in lists.into_iter().flat_map(|list| list.entries) {
            match positions.entry((entry.selector.clone(), entry.trust_domain.clone())) {
                Slot::Vacant(slot) => {
                    slot.insert(merged.entries.len());
                    merged.entries.push(entry);
                }
                Slot::Occupied(slot) => {
                    let known: &mut DenyEntry = &mut merged.entries[*slot.get()];
                    if lasts_longer(entry.until, known.until) {
                        *known = entry;
                    }
                }
            }
        }
        merged
    }
}

impl DenyEntry {
    fn means_the_same(&self, other: &Self) -> bool {
        self.selector == other.selector && self.trust_domain == other.trust_domain
    }
}

fn lasts_longer(until: Option<UnixTime>, than: Option<UnixTime>) -> bool {
    until.unwrap_or(UnixTime::MAX) > than.unwrap_or(UnixTime::MAX)
}

#[cfg(test)]
mod tests;
