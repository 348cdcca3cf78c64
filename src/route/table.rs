//! A table from identities to pools: a CSV file of up to millions of rows, looked up in constant time.

use std::fmt;
use std::io::Read;
use std::str::FromStr;
use std::sync::Arc;

use ahash::HashMap;

use super::rule::{dns, email, uri};
use super::single;
use crate::certificate::{AttributeKind, Certificate};

/// What a table is keyed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityKey {
    SubjectAttribute(AttributeKind),
    SanDns,
    SanEmail,
    SanUri,
    Fingerprint,
    KeyFingerprint,
    Serial,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key of an identity table")]
pub struct KeyError(String);

impl FromStr for IdentityKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(match text {
            "san.dns" => Self::SanDns,
            "san.email" => Self::SanEmail,
            "san.uri" => Self::SanUri,
            "fingerprint" => Self::Fingerprint,
            "key_fingerprint" => Self::KeyFingerprint,
            "serial" => Self::Serial,
            _ => {
                let kind = text.strip_prefix("subject.").and_then(AttributeKind::from_key);
                Self::SubjectAttribute(kind.ok_or_else(|| KeyError(text.to_owned()))?)
            }
        })
    }
}

impl IdentityKey {
    /// The pool of this client. A certificate that says the key more than once is in no table.
    pub(super) fn find_in<'a>(
        &self,
        table: &'a IdentityTable,
        certificate: &Certificate,
    ) -> Option<&'a Arc<str>> {
        let sans = certificate.subject_alternative_names();
        match self {
            Self::SubjectAttribute(kind) => table.find(single(certificate.subject().values(kind.clone()))?),
            Self::SanDns => table.find(single(sans.iter().filter_map(dns))?),
            Self::SanEmail => table.find(single(sans.iter().filter_map(email))?),
            Self::SanUri => table.find(single(sans.iter().filter_map(uri))?),
            Self::Fingerprint => table.find(&certificate.fingerprint().to_string()),
            Self::KeyFingerprint => table.find(&certificate.key_fingerprint().to_string()),
            Self::Serial => table.find(&certificate.serial().to_string()),
        }
    }
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
    #[error("the table has no rows")]
    Empty,
}

/// Key to pool.
pub struct IdentityTable {
    rows: HashMap<Box<str>, u32>,
    pools: Vec<Arc<str>>,
}

impl IdentityTable {
    /// A first row of `key,pool` is a heading. Lines that begin with `#` are comments.
    pub fn parse(csv: impl Read, pools: &[Arc<str>]) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .from_reader(csv);
        let mut rows = HashMap::default();
        let mut record = csv::StringRecord::new();
        let mut first = true;
        loop {
            let read = reader.read_record(&mut record);
            let line = record.position().map_or(0, csv::Position::line);
            match read {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let line = error.position().map_or(line, csv::Position::line);
                    return Err(TableError::Malformed { line, detail: error.to_string() });
                }
            }
            let is_heading = std::mem::take(&mut first) && &record == ["key", "pool"].as_slice();
            if is_heading {
                continue;
            }
            let (key, pool) = row(&record, line, pools)?;
            if rows.insert(Box::from(key), pool).is_some() {
                return Err(TableError::Duplicate { line, key: key.to_owned() });
            }
        }
        if rows.is_empty() {
            return Err(TableError::Empty);
        }
        rows.shrink_to_fit();
        Ok(Self { rows, pools: pools.to_vec() })
    }

    pub fn find(&self, key: &str) -> Option<&Arc<str>> {
        self.rows.get(key).and_then(|&pool| self.pools.get(pool as usize))
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

fn row<'a>(
    record: &'a csv::StringRecord,
    line: u64,
    pools: &[Arc<str>],
) -> Result<(&'a str, u32), TableError> {
    let (Some(key), Some(pool), 2) = (record.get(0), record.get(1), record.len()) else {
        return Err(TableError::Columns { line, columns: record.len() });
    };
    if key.is_empty() {
        return Err(TableError::EmptyKey { line });
    }
    let index = pools.iter().position(|known| **known == *pool);
    let index = index.ok_or_else(|| TableError::UnknownPool { line, pool: pool.to_owned() })?;
    Ok((key, index as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<IdentityTable, TableError> {
        IdentityTable::parse(text.as_bytes(), &["a".into(), "b".into()])
    }

    #[test]
    fn rows_are_found_with_and_without_a_heading() {
        for text in ["key,pool\nx,a\ny,b\n", "x,a\n# note\ny , b"] {
            let table = parse(text).unwrap();
            assert_eq!(table.find("x").map(|pool| &**pool), Some("a"));
            assert_eq!(table.find("y").map(|pool| &**pool), Some("b"));
            assert_eq!(table.find("z"), None);
        }
    }

    #[test]
    fn a_malformed_row_is_named_by_its_line() {
        assert_eq!(parse("x,a\ny\n").unwrap_err(), TableError::Columns { line: 2, columns: 1 });
        assert_eq!(parse("x,a\ny,c\n").unwrap_err(), TableError::UnknownPool { line: 2, pool: "c".into() });
        assert_eq!(parse("x,a\nx,b\n").unwrap_err(), TableError::Duplicate { line: 2, key: "x".into() });
        assert_eq!(parse("x,a\n,b\n").unwrap_err(), TableError::EmptyKey { line: 2 });
        assert_eq!(parse("key,pool\n").unwrap_err(), TableError::Empty);
        assert!(IdentityTable::parse(&b"x,a\n\xff,b\n"[..], &["a".into()]).is_err());
    }
}
