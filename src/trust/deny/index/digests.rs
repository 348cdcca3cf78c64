//! SHA-256 digests, each with its mark.

use ahash::RandomState;
use hashbrown::HashTable;

use super::Mark;
use crate::certificate::Fingerprint;

#[derive(Default)]
pub(super) struct DigestTable {
    rows: Vec<Row>,
    table: HashTable<u32>,
}

struct Row {
    digest: Fingerprint,
    mark: Mark,
}

impl DigestTable {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The mark of a digest that is there already; it is left as it is.
    pub(super) fn insert(
        &mut self,
        hasher: &RandomState,
        digest: Fingerprint,
        mark: Mark,
    ) -> Option<&mut Mark> {
        let hash = hasher.hash_one(digest);
        let rows = &mut self.rows;
        if let Some(&row) = self.table.find(hash, |row| rows[*row as usize].digest == digest) {
            return Some(&mut rows[row as usize].mark);
        }
        // A file has fewer lines than that.
        let row = rows.len() as u32;
        rows.push(Row { digest, mark });
        self.table.insert_unique(hash, row, |row| hasher.hash_one(rows[*row as usize].digest));
        None
    }

    pub(super) fn find(&self, hasher: &RandomState, digest: &Fingerprint) -> Option<Mark> {
        if self.rows.is_empty() {
            return None;
        }
        let is_it = |row: &u32| self.rows[*row as usize].digest == *digest;
        self.table.find(hasher.hash_one(digest), is_it).map(|row| self.rows[*row as usize].mark)
    }

    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.rows.iter().map(|row| row.mark)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.table.allocation_size()
    }

    pub(super) fn shrink(&mut self) {
        self.rows.shrink_to_fit();
    }
}
