//! A table from identities to pools: a CSV file of up to millions of rows, looked up in constant time.

mod rows;

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};

use super::IdentityKey;
use rows::Rows;

/// Key to pool. All keys lie in one text, so that a row costs its key and some twenty bytes.
pub struct IdentityTable {
    pools: Vec<Arc<str>>,
    keys: String,
    rows: Vec<Row>,
    /// Open addressing: the number of a row plus one, or zero. Never more than half full; the length is a power of 2.
    slots: Vec<u32>,
    hasher: RandomState,
}

struct Row {
    start: u32,
    length: u16,
    pool: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("line {line}: {detail}")]
    Malformed { line: u64, detail: String },
    #[error("line {line}: the row needs two columns, `key,pool`, and has {columns}")]
    Columns { line: u64, columns: usize },
    #[error("line {line}: no pool is called `{pool}`")]
    UnknownPool { line: u64, pool: String },
    #[error("line {line}: the key `{key}` stands in the table twice")]
    Duplicate { line: u64, key: String },
    #[error("line {line}: the key is empty")]
    EmptyKey { line: u64 },
    #[error("line {line}: the key is longer than 65535 bytes")]
    LongKey { line: u64 },
    #[error("line {line}: the keys up to here are larger than 4 GiB")]
    TooLarge { line: u64 },
    #[error("the table has no rows")]
    Empty,
}

impl IdentityTable {
    /// A first row whose second column is `pool` is a heading, unless a pool is called so. Lines that begin with `#`
    /// are comments; white space around a column does not count; a row is one line, also where it is quoted.
    pub fn parse(csv: impl Read, pools: &[Arc<str>]) -> Result<Self, TableError> {
        Self::read(None, csv, pools)
    }

    /// Like [`parse`](Self::parse), for keys of a known kind: fingerprints and serials may be written in any case and
    /// with colons, and what is none is an error.
    pub fn parse_for(key: &IdentityKey, csv: impl Read, pools: &[Arc<str>]) -> Result<Self, TableError> {
        Self::read(Some(key), csv, pools)
    }

    fn read(kind: Option<&IdentityKey>, csv: impl Read, pools: &[Arc<str>]) -> Result<Self, TableError> {
        // More pools than that are in no configuration; their rows would be refused as unknown.
        let known: AHashMap<&str, u16> =
            pools.iter().zip(0..=u16::MAX).map(|(pool, number)| (&**pool, number)).collect();
        let mut table = Self::empty(pools);
        let mut rows = Rows::new(csv);
        let mut first = true;
        while let Some(row) = rows.next()? {
            let line = row.line;
            let may_be_heading = std::mem::take(&mut first);
            match known.get(&*row.pool) {
                Some(&pool) => table.insert(kind, &row.key, pool, line)?,
                None if may_be_heading && row.pool.eq_ignore_ascii_case("pool") => {}
                None => return Err(TableError::UnknownPool { line, pool: row.pool.into_owned() }),
            }
        }
        table.keys.shrink_to_fit();
        table.rows.shrink_to_fit();
        if table.rows.is_empty() { Err(TableError::Empty) } else { Ok(table) }
    }

    fn empty(pools: &[Arc<str>]) -> Self {
        Self {
            pools: pools.to_vec(),
            keys: String::new(),
            rows: Vec::new(),
            slots: vec![0; 16],
            hasher: RandomState::new(),
        }
    }

    fn insert(
        &mut self,
        kind: Option<&IdentityKey>,
        key: &str,
        pool: u16,
        line: u64,
    ) -> Result<(), TableError> {
        let key = match kind {
            None => key.into(),
            Some(kind) => kind
                .normalise(key)
                .map_err(|error| TableError::Malformed { line, detail: error.to_string() })?,
        };
        let length = u16::try_from(key.len()).map_err(|_| TableError::LongKey { line })?;
        let start = u32::try_from(self.keys.len()).map_err(|_| TableError::TooLarge { line })?;
        if (self.rows.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let slot = self.slot(&key);
        if self.slots[slot] != 0 {
            return Err(TableError::Duplicate { line, key: key.into_owned() });
        }
        self.keys.push_str(&key);
        self.rows.push(Row { start, length, pool });
        // Fewer rows than bytes of keys: it fits.
        self.slots[slot] = self.rows.len() as u32;
        Ok(())
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        for (number, row) in self.rows.iter().enumerate() {
            let slot = self.slot(self.key(row));
            self.slots[slot] = number as u32 + 1;
        }
    }

    /// Where the key stands, or the free slot where it would.
    fn slot(&self, key: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(key) as usize & mask;
        while let Some(row) = self.row(slot) {
            if self.key(row) == key {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn row(&self, slot: usize) -> Option<&Row> {
        (self.slots[slot] as usize).checked_sub(1).and_then(|number| self.rows.get(number))
    }

    fn key(&self, row: &Row) -> &str {
        &self.keys[row.start as usize..][..usize::from(row.length)]
    }

    pub fn find(&self, key: &str) -> Option<&Arc<str>> {
        let row = self.row(self.slot(key))?;
        self.pools.get(usize::from(row.pool))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Debug for IdentityTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityTable({} rows)", self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<IdentityTable, TableError> {
        IdentityTable::parse(text.as_bytes(), &["a".into(), "b".into()])
    }

    #[test]
    fn rows_are_found_with_and_without_a_heading() {
        let texts = [
            "key,pool\nx,a\ny,b\n",
            "x,a\n# note\ny , b",
            "\u{feff}subject.CN,Pool\r\nx,a\r\n\r\n\"y\",b\r\n\"a \"\",b\",\"a\"",
        ];
        for text in texts {
            let table = parse(text).unwrap();
            assert_eq!(table.find("x").map(|pool| &**pool), Some("a"));
            assert_eq!(table.find("y").map(|pool| &**pool), Some("b"));
            assert_eq!(table.find("z"), None);
            assert_eq!(table.find(""), None);
        }
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        assert_eq!(parse("x,a\ny\n").unwrap_err(), TableError::Columns { line: 2, columns: 1 });
        assert_eq!(parse("x,a\ny,a,b\n").unwrap_err(), TableError::Columns { line: 2, columns: 3 });
        assert_eq!(parse("x,a\n\ny,c\n").unwrap_err(), TableError::UnknownPool { line: 3, pool: "c".into() });
        assert_eq!(parse("x,a\nx,b\n").unwrap_err(), TableError::Duplicate { line: 2, key: "x".into() });
        assert_eq!(parse("x,a\n,b\n").unwrap_err(), TableError::EmptyKey { line: 2 });
        assert_eq!(
            parse("x,a\nkey,pool\n").unwrap_err(),
            TableError::UnknownPool { line: 2, pool: "pool".into() }
        );
        for empty in ["", "key,pool\n", "# nothing\n"] {
            assert_eq!(parse(empty).unwrap_err(), TableError::Empty);
        }
        let long = format!("{},a", "x".repeat(65_536));
        assert_eq!(parse(&long).unwrap_err(), TableError::LongKey { line: 1 });
        for text in ["x,a\n\"y,b\n", "x,a\n\"y\nz\",b\n"] {
            assert!(matches!(parse(text), Err(TableError::Malformed { line: 2, .. })), "{text}");
        }
        let error = IdentityTable::parse(&b"x,a\n\xff,b\n"[..], &["a".into()]).unwrap_err();
        assert_eq!(error.to_string(), "line 2: the row is not UTF-8");
    }

    #[test]
    fn what_is_no_fingerprint_is_not_taken_for_one() {
        let error = IdentityTable::parse_for(&IdentityKey::Fingerprint, &b"device-1,a"[..], &["a".into()]);
        assert!(matches!(error, Err(TableError::Malformed { line: 1, .. })));
    }

    #[test]
    fn a_million_rows_stay_small() {
        let rows: Vec<String> = (0..1_000_000).map(|n| format!("device-{n:08},a\n")).collect();
        let text = rows.concat();
        let table = parse(&text).unwrap();
        assert_eq!(table.len(), 1_000_000);
        let bytes = table.keys.capacity() + table.rows.capacity() * size_of::<Row>() + table.slots.len() * 4;
        assert!(bytes < 40_000_000, "{bytes}");
        assert!(table.find("device-00999999").is_some() && table.find("device-01000000").is_none());
    }

    proptest! {
        #[test]
        fn the_table_finds_what_a_map_finds(
            rows in proptest::collection::btree_map("[a-z]{1,3}", 0usize..2, 1..200),
            asked in proptest::collection::vec("[a-z]{0,3}", 0..50),
        ) {
            let lines: Vec<String> = rows.iter().map(|(key, pool)| format!("{key},{}\n", ["a", "b"][*pool])).collect();
            let table = parse(&lines.concat()).unwrap();
            let naive: BTreeMap<&str, &str> = rows.iter().map(|(key, pool)| (key.as_str(), ["a", "b"][*pool])).collect();
            for key in asked.iter().chain(rows.keys()) {
                prop_assert_eq!(table.find(key).map(|pool| &**pool), naive.get(key.as_str()).copied());
            }
        }
    }
}
