//! What a handshake looks at: all entries of a trust domain, each found by one lookup in a table of its kind.
//!
//! Only tables that hold something are asked. An entry costs its selector and some twenty bytes.

mod digests;
mod name_table;
mod serials;

use std::fmt;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use super::csv;
use super::fault::Faults;
use super::{DenyEntry, DenyFault, DenyListError, DenySelector, Place, lasts_longer, yaml};
use crate::UnixTime;
use crate::certificate::{Certificate, utc};
use digests::DigestTable;
use name_table::{NameTable, NameTableBuilder};
use serials::SerialTable;

/// The entries of any number of lists, as far as they mean something in one trust domain.
#[derive(Default)]
pub struct DenyIndex {
    fingerprints: DigestTable,
    keys: DigestTable,
    serials: SerialTable,
    names: NameTable,
    notes: Vec<Note>,
    /// Of each file with entries that mean the same, how many are too many, and the first of them.
    repeated: Vec<(Arc<str>, usize, Place)>,
    hasher: RandomState,
}

/// What many entries have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Note {
    file: Arc<str>,
    form: DenyForm,
    /// Whether the entry names the trust domain.
    domain: Named,
    until: Option<UnixTime>,
    reason: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Named {
    Yes,
    No,
}

/// How a deny list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyForm {
    Yaml,
    Csv,
}

impl DenyForm {
    /// The endings of files that are deny lists.
    pub const ENDINGS: &'static [&'static str] = &["yaml", "yml", "csv"];

    /// By the ending of a file's name, without the dot.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "yaml" | "yml" => Some(Self::Yaml),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// An entry in a table: what it shares with others, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    note: u32,
    place: u32,
}

/// Which selectors speak about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::trust) enum Role {
    /// The client itself.
    Leaf,
    /// Whoever stands between the client and the anchor. Its names are its own, not those of a client.
    Authority,
    /// A certificate that signed itself: its serial is its own issuer's, so that a leaf may have the same.
    Root,
}

/// The entry that keeps a certificate out.
pub(super) struct Denial<'a> {
    note: &'a Note,
    place: Place,
    way: Way,
}

/// By what a certificate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Fingerprint,
    Key,
    Serial,
    Names,
}

impl DenyIndex {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries there are, in force or not.
    pub fn len(&self) -> usize {
        self.fingerprints.len() + self.keys.len() + self.serials.len() + self.names.len()
    }

    /// The entry in force that lasts longest.
    pub(super) fn find(&self, certificate: &Certificate, role: Role, now: UnixTime) -> Option<Denial<'_>> {
        let mut found: Option<Denial<'_>> = None;
        self.visit(certificate, role, &mut |way, mark| {
            let note = self.note(mark);
            let is_better = found.as_ref().is_none_or(|found| lasts_longer(note.until, found.note.until));
            if note.is_in_force(now) && is_better {
                found = Some(Denial { note, place: note.place(mark), way });
            }
        });
        found
    }

    /// Whether any entry names the certificate, in force or not.
    pub(super) fn names(&self, certificate: &Certificate, role: Role) -> bool {
        let mut found = false;
        self.visit(certificate, role, &mut |_, _| found = true);
        found
    }

    /// When entries that name the certificate cease to mean something.
    pub(super) fn changes(&self, certificate: &Certificate, role: Role) -> Vec<UnixTime> {
        let mut changes = Vec::new();
        self.visit(certificate, role, &mut |_, mark| changes.extend(self.note(mark).until));
        changes
    }

    fn visit(&self, certificate: &Certificate, role: Role, found: &mut dyn FnMut(Way, Mark)) {
        if let Some(mark) = self.fingerprints.find(&self.hasher, certificate.fingerprint()) {
            found(Way::Fingerprint, mark);
        }
        if let Some(mark) = self.keys.find(&self.hasher, certificate.key_fingerprint()) {
            found(Way::Key, mark);
        }
        if role != Role::Root
            && let Some(mark) = self.serials.find(&self.hasher, certificate)
        {
            found(Way::Serial, mark);
        }
        if role == Role::Leaf {
            self.names.find(&self.hasher, certificate, &mut |mark| found(Way::Names, mark));
        }
    }

    fn note(&self, mark: Mark) -> &Note {
        &self.notes[mark.note as usize]
    }

    /// What is legal but should be looked at: entries that mean nobody. `knows` tells whether the trust domain has
    /// an anchor of that name, in the form of [`Name::comparable`](crate::certificate::Name).
    pub(in crate::trust) fn doubts(&self, now: UnixTime, knows: impl Fn(&[u8]) -> bool) -> Vec<String> {
        let mut lapsed: Vec<(&Arc<str>, usize, Place)> = Vec::new();
        for mark in self.marks() {
            let note = self.note(mark);
            if note.is_in_force(now) {
                continue;
            }
            match lapsed.iter_mut().find(|(file, ..)| **file == note.file) {
                Some((_, count, _)) => *count += 1,
                None => lapsed.push((&note.file, 1, note.place(mark))),
            }
        }
        let lapsed = lapsed.into_iter().map(|(file, count, first)| match count {
            1 => format!("{first} of `{file}` has lapsed: it denies nobody any more"),
            _ => format!(
                "{count} entries of `{file}` have lapsed ({first} is the first): they deny nobody any more"
            ),
        });
        let unknown = self.serials.issuers().filter(|(issuer, _)| !knows(issuer.comparable()));
        let unknown = unknown.map(|(issuer, mark)| {
            let note = self.note(mark);
            format!(
                "{} of `{}` names the issuer `{issuer}`, which is no anchor: it denies nobody, unless clients present an \
                 intermediate certificate of that name",
                note.place(mark),
                note.file
            )
        });
        let repeated = self.repeated.iter().map(|(file, count, first)| {
            format!(
                "{count} of the entries of `{file}` ({first} is the first) name clients that others of its entries name too: \
                 the one that lasts longest counts"
            )
        });
        let literal = self.names.with_asterisk().map(|mark| {
            let note = self.note(mark);
            format!(
                "{} of `{}` has a `*` in a name, which stands for itself: it denies nobody but a client with that very name",
                note.place(mark),
                note.file
            )
        });
        lapsed.chain(unknown).chain(repeated).chain(literal).collect()
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        let digests = self.fingerprints.marks().chain(self.keys.marks());
        digests.chain(self.serials.marks()).chain(self.names.marks())
    }
}

impl Note {
    fn is_in_force(&self, now: UnixTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn place(&self, mark: Mark) -> Place {
        match self.form {
            DenyForm::Yaml => Place::Entry(mark.place),
            DenyForm::Csv => Place::Line(mark.place),
        }
    }
}

impl fmt::Display for Denial<'_> {
    /// What stands behind "the certificate is denied".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            Way::Fingerprint => "fingerprint",
            Way::Key => "key",
            Way::Serial => "serial",
            Way::Names => "names",
        };
        write!(f, "by its {way}: {} of `{}`", self.place, self.note.file)?;
        match self.note.until {
            Some(until) => write!(f, ", until {}", utc(until))?,
            None => f.write_str(", for ever")?,
        }
        match &self.note.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// Makes an index of lists, one file after the other.
pub struct DenyIndexBuilder {
    domain: Arc<str>,
    index: DenyIndex,
    names: NameTableBuilder,
    notes: AHashMap<Note, u32>,
    /// Of entries that are for other trust domains, the names of those.
    elsewhere: AHashMap<Arc<str>, (Arc<str>, Place)>,
}

impl DenyIndexBuilder {
    /// For the trust domain of this name.
    pub fn new(domain: &Arc<str>) -> Self {
        Self {
            domain: domain.clone(),
            index: DenyIndex::default(),
            names: NameTableBuilder::default(),
            notes: AHashMap::new(),
            elsewhere: AHashMap::new(),
        }
    }

    /// Reads a file, which messages call `file`. After an error the builder is good for nothing but more errors.
    pub fn read(&mut self, file: &str, form: DenyForm, bytes: &[u8]) -> Result<(), DenyListError> {
        let mut faults = Faults::new(file);
        let file: Arc<str> = file.into();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut take = |place, entry| self.add(&file, form, place, entry);
        match (form, std::str::from_utf8(bytes)) {
            (_, Err(_)) => faults.add(Place::File, DenyFault::NotUtf8),
            (DenyForm::Yaml, Ok(text)) => yaml::read(text, &mut faults, &mut take),
            (DenyForm::Csv, Ok(text)) => csv::read(text, &mut faults, &mut take),
        }
        faults.finish(())
    }

    fn add(
        &mut self,
        file: &Arc<str>,
        form: DenyForm,
        place: Place,
        entry: DenyEntry,
    ) -> Result<(), DenyFault> {
        let domain = match entry.trust_domain {
            None => Named::No,
            Some(domain) if domain == self.domain => Named::Yes,
            Some(domain) => {
                self.elsewhere.entry(domain).or_insert_with(|| (file.clone(), place));
                return Ok(());
            }
        };
        let note = Note { file: file.clone(), form, domain, until: entry.until, reason: entry.reason };
        let mark = self.mark(note, place)?;
        let index = &mut self.index;
        let known = match entry.selector {
            DenySelector::Fingerprint(digest) => index.fingerprints.insert(&index.hasher, digest, mark),
            DenySelector::KeyFingerprint(digest) => index.keys.insert(&index.hasher, digest, mark),
            DenySelector::Serial { issuer, serial } => {
                index.serials.insert(&index.hasher, issuer, &serial, mark)?
            }
            DenySelector::Names(names) => self.names.insert(&index.hasher, &names, mark)?,
        };
        let Some(known) = known else { return Ok(()) };
        let (before, after) = (&index.notes[known.note as usize], &index.notes[mark.note as usize]);
        if before.file == after.file && before.domain == after.domain {
            match index.repeated.last_mut().filter(|(file, ..)| *file == after.file) {
                Some((_, count, _)) => *count += 1,
                None => index.repeated.push((after.file.clone(), 1, place)),
            }
        }
        if lasts_longer(after.until, before.until) {
            *known = mark;
        }
        Ok(())
    }

    fn mark(&mut self, note: Note, place: Place) -> Result<Mark, DenyFault> {
        let (Place::Entry(place) | Place::Line(place)) = place else { return Err(DenyFault::TooLarge) };
        let notes = &mut self.index.notes;
        let next = u32::try_from(notes.len()).map_err(|_| DenyFault::TooLarge)?;
        // Nearly always that of the entry before.
        if notes.last() == Some(&note) {
            return Ok(Mark { note: next - 1, place });
        }
        let note = *self.notes.entry(note).or_insert_with_key(|note| {
            notes.push(note.clone());
            next
        });
        Ok(Mark { note, place })
    }

    /// Trust domains that entries name besides this one, each with the first entry that does.
    pub fn elsewhere(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Place)> {
        self.elsewhere.iter().map(|(domain, (file, place))| (domain, file, *place))
    }

    pub fn finish(mut self) -> DenyIndex {
        self.index.fingerprints.shrink();
        self.index.keys.shrink();
        self.index.serials.shrink();
        self.index.notes.shrink_to_fit();
        self.index.names = self.names.finish(&self.index.hasher);
        self.index
    }
}

#[cfg(test)]
mod tests;
