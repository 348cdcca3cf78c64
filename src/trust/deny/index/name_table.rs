//! Sets of names that a certificate must have, each with its mark.
//!
//! An entry is looked up by that of its names which the fewest entries have; the others are compared. So `O=Example`
//! with a million different `CN`s costs one lookup, like `CN` alone.

use std::net::IpAddr;
use std::ops::Range;

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;

use super::super::names::comparable_dns;
use super::super::{DeniedName, DeniedNames, DenyFault};
use super::Mark;
use crate::certificate::{Certificate, SubjectAltName, folded};

/// The names of all entries, encoded and in a row. Of each entry the one to look it up by comes first.
#[derive(Default)]
pub(super) struct NameTable {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// By the first name; several entries may have the same.
    table: HashTable<u32>,
}

struct Row {
    /// Where in `bytes` the names end; they begin where those of the entry before end.
    end: u32,
    mark: Mark,
}

impl NameTable {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn find(&self, hasher: &RandomState, certificate: &Certificate, found: &mut dyn FnMut(Mark)) {
        if self.rows.is_empty() {
            return;
        }
        let names = names_of(certificate);
        for name in &names {
            for row in self.table.iter_hash(hasher.hash_one(name.as_slice())) {
                let mut wanted = split(names_in(&self.bytes, &self.rows, *row));
                if wanted.next() == Some(name)
                    && wanted.all(|wanted| names.binary_search_by(|name| name.as_slice().cmp(wanted)).is_ok())
                {
                    found(self.rows[*row as usize].mark);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Row>() + self.table.allocation_size()
    }

    /// Entries that look as if they were patterns: the first ones.
    pub(super) fn with_asterisk(&self) -> impl Iterator<Item = Mark> {
        let rows = (0..self.rows.len() as u32).zip(&self.rows);
        // An address may have any bytes.
        let is_address = |name: &[u8]| name[LENGTH..].starts_with(b"ip\0");
        let has = move |row: u32| {
            split(names_in(&self.bytes, &self.rows, row))
                .any(|name| !is_address(name) && name[LENGTH..].contains(&b'*'))
        };
        rows.filter(move |(row, _)| has(*row)).map(|(_, row)| row.mark).take(MOST_TOLD)
    }

    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.rows.iter().map(|row| row.mark)
    }
}

/// All names of a certificate, encoded, in order, each once.
fn names_of(certificate: &Certificate) -> Vec<Vec<u8>> {
    let subject = certificate.subject().attributes();
    let subject = subject.map(|it| encode(&View::Subject(it.kind.oid(), &folded(&it.value))));
    let alternative = certificate.subject_alternative_names().iter();
    let alternative = alternative.filter(|name| **name != SubjectAltName::Other).map(|name| match name {
        SubjectAltName::Dns(name) => encode(&View::San(&SubjectAltName::Dns(comparable_dns(name)))),
        other => encode(&View::San(other)),
    });
    let mut names: Vec<_> = subject.chain(alternative).collect();
    names.sort_unstable();
    names.dedup();
    names
}

enum View<'a> {
    /// The kind as an OID, and the value in the form in which it is compared.
    Subject(&'a str, &'a str),
    San(&'a SubjectAltName),
}

/// A length of four bytes, the kind, a zero and the value: equal for equal names only.
fn encode(name: &View<'_>) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    let mut put = |kind: &str, value: &[u8]| {
        bytes.extend_from_slice(kind.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value);
    };
    match name {
        View::Subject(kind, value) => put(kind, value.as_bytes()),
        View::San(SubjectAltName::Dns(name)) => put("dns", name.as_bytes()),
        View::San(SubjectAltName::Email(address)) => put("email", address.as_bytes()),
        View::San(SubjectAltName::Uri(uri)) => put("uri", uri.as_bytes()),
        View::San(SubjectAltName::Ip(IpAddr::V4(address))) => put("ip", &address.octets()),
        View::San(SubjectAltName::Ip(IpAddr::V6(address))) => put("ip", &address.octets()),
        // Two of these are not the same, so nothing is like one.
        View::San(SubjectAltName::Other) => put("other", &[]),
    }
    let length = (bytes.len() - LENGTH) as u32;
    bytes[..LENGTH].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Nobody reads more warnings of one kind.
const MOST_TOLD: usize = 3;

const LENGTH: usize = 4;

/// The names in a row of encoded names, each with its length.
fn split(mut names: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(*names.first_chunk()?) as usize;
        let (name, rest) = names.split_at_checked(LENGTH + length)?;
        names = rest;
        Some(name)
    })
}

fn names_in<'a>(bytes: &'a [u8], rows: &[Row], row: u32) -> &'a [u8] {
    let row = row as usize;
    let start = row.checked_sub(1).map_or(0, |before| rows[before].end);
    &bytes[start as usize..rows[row].end as usize]
}

/// Entries with their names in order, found by all of them.
#[derive(Default)]
pub(super) struct NameTableBuilder {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    whole: HashTable<u32>,
}

impl NameTableBuilder {
    /// The mark of an entry of the same names that is there already; it is left as it is.
    pub(super) fn insert(
        &mut self,
        hasher: &RandomState,
        names: &DeniedNames,
        mark: Mark,
    ) -> Result<Option<&mut Mark>, DenyFault> {
        let mut encoded: Vec<_> = names
            .iter()
            .map(|name| match name {
                DeniedName::Subject(it) => encode(&View::Subject(it.kind.oid(), &it.value)),
                DeniedName::San(name) => encode(&View::San(name)),
            })
            .collect();
        encoded.sort_unstable();
        let encoded = encoded.concat();
        let hash = hasher.hash_one(encoded.as_slice());
        let (bytes, rows) = (&mut self.bytes, &mut self.rows);
        if let Some(&row) = self.whole.find(hash, |row| names_in(bytes, rows, *row) == encoded) {
            return Ok(Some(&mut rows[row as usize].mark));
        }
        bytes.extend_from_slice(&encoded);
        let end = u32::try_from(bytes.len()).map_err(|_| DenyFault::TooLarge)?;
        let row = rows.len() as u32;
        rows.push(Row { end, mark });
        self.whole.insert_unique(hash, row, |row| hasher.hash_one(names_in(bytes, rows, *row)));
        Ok(None)
    }

    pub(super) fn finish(self, hasher: &RandomState) -> NameTable {
        let Self { mut bytes, mut rows, whole } = self;
        drop(whole);
        bytes.shrink_to_fit();
        rows.shrink_to_fit();
        put_rarest_first(&mut bytes, &rows, hasher);
        let mut table = HashTable::with_capacity(rows.len());
        let first =
            |row: &u32| split(names_in(&bytes, &rows, *row)).next().map_or(0, |name| hasher.hash_one(name));
        for row in 0..rows.len() as u32 {
            table.insert_unique(first(&row), row, first);
        }
        NameTable { bytes, rows, table }
    }
}

/// Of each entry, the name that the fewest entries of several names have.
fn put_rarest_first(bytes: &mut [u8], rows: &[Row], hasher: &RandomState) {
    let several = |names: &[u8]| split(names).nth(1).is_some();
    let mut counts: AHashMap<u64, u32> = AHashMap::new();
    let mut start = 0;
    for row in rows {
        let names = &bytes[start..row.end as usize];
        start = row.end as usize;
        if several(names) {
            // Two names that hash alike are counted as one: the choice is worse, and nothing else.
            split(names).for_each(|name| *counts.entry(hasher.hash_one(name)).or_default() += 1);
        }
    }
    let mut start = 0;
    for row in rows {
        let names = &mut bytes[start..row.end as usize];
        start = row.end as usize;
        if !several(names) {
            continue;
        }
        let (mut at, mut best) = (0, None::<(u32, Range<usize>)>);
        for name in split(names) {
            let count = counts.get(&hasher.hash_one(name)).copied().unwrap_or_default();
            if best.as_ref().is_none_or(|(least, _)| count < *least) {
                best = Some((count, at..at + name.len()));
            }
            at += name.len();
        }
        if let Some((_, rarest)) = best {
            let length = rarest.len();
            names[..rarest.end].rotate_right(length);
        }
    }
}

/// How many entries a look-up compares.
#[cfg(test)]
pub(super) fn compared(table: &NameTable, hasher: &RandomState, certificate: &Certificate) -> usize {
    let names = names_of(certificate);
    names.iter().map(|name| table.table.iter_hash(hasher.hash_one(name.as_slice())).count()).sum()
}
