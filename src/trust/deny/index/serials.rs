//! Serial numbers with their issuers, each with its mark.
//!
//! They are looked up by the serial alone: the issuer's name, which is costly to bring into a form that can be
//! compared, is looked at only where a serial fits.

use ahash::{AHashMap, RandomState};
use hashbrown::HashTable;

use super::super::{DenyFault, IssuerName};
use super::Mark;
use crate::certificate::{Certificate, Serial};

#[derive(Default)]
pub(super) struct SerialTable {
    /// All serials in a row.
    bytes: Vec<u8>,
    rows: Vec<Row>,
    table: HashTable<u32>,
    /// Each with the first entry that names it.
    issuers: Vec<(IssuerName, Mark)>,
    positions: AHashMap<IssuerName, u32>,
}

struct Row {
    /// Where in `bytes` the serial ends; it begins where the one before it ends.
    end: u32,
    issuer: u32,
    mark: Mark,
}

impl SerialTable {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The mark of a serial that is there already; it is left as it is.
    pub(super) fn insert(
        &mut self,
        hasher: &RandomState,
        issuer: IssuerName,
        serial: &Serial,
        mark: Mark,
    ) -> Result<Option<&mut Mark>, DenyFault> {
        let issuer = self.issuer(issuer, mark);
        let hash = hasher.hash_one(serial.as_bytes());
        let is_it =
            |row: &u32| self.rows[*row as usize].issuer == issuer && self.serial(*row) == serial.as_bytes();
        if let Some(&row) = self.table.find(hash, is_it) {
            return Ok(Some(&mut self.rows[row as usize].mark));
        }
        self.bytes.extend_from_slice(serial.as_bytes());
        let end = u32::try_from(self.bytes.len()).map_err(|_| DenyFault::TooLarge)?;
        let row = self.rows.len() as u32;
        self.rows.push(Row { end, issuer, mark });
        let (bytes, rows) = (&self.bytes, &self.rows);
        self.table.insert_unique(hash, row, |row| hasher.hash_one(serial_of(bytes, rows, *row)));
        Ok(None)
    }

    fn issuer(&mut self, issuer: IssuerName, mark: Mark) -> u32 {
        if let Some(position) = self.positions.get(&issuer) {
            return *position;
        }
        let position = self.issuers.len() as u32;
        self.issuers.push((issuer.clone(), mark));
        self.positions.insert(issuer, position);
        position
    }

    pub(super) fn find(&self, hasher: &RandomState, certificate: &Certificate) -> Option<Mark> {
        if self.rows.is_empty() {
            return None;
        }
        let serial = certificate.serial().as_bytes();
        let mut issuer = None;
        let rows = self.table.iter_hash(hasher.hash_one(serial));
        let row = rows.filter(|row| self.serial(**row) == serial).find(|row| {
            let issuer = issuer.get_or_insert_with(|| certificate.issuer().comparable());
            self.issuers[self.rows[**row as usize].issuer as usize].0.comparable() == &**issuer
        })?;
        Some(self.rows[*row as usize].mark)
    }

    fn serial(&self, row: u32) -> &[u8] {
        serial_of(&self.bytes, &self.rows, row)
    }

    pub(super) fn issuers(&self) -> impl Iterator<Item = (&IssuerName, Mark)> {
        self.issuers.iter().map(|(issuer, mark)| (issuer, *mark))
    }

    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.rows.iter().map(|row| row.mark)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<Row>() + self.table.allocation_size()
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.rows.shrink_to_fit();
        self.positions = AHashMap::new();
    }
}

fn serial_of<'a>(bytes: &'a [u8], rows: &[Row], row: u32) -> &'a [u8] {
    let row = row as usize;
    let start = row.checked_sub(1).map_or(0, |before| rows[before].end);
    &bytes[start as usize..rows[row].end as usize]
}
