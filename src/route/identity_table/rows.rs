//! The rows of a CSV file (RFC 4180), one line each, so that whatever is wrong has a line number.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use super::TableError;
use crate::csv_line::{BadLine, CsvLines};

pub(super) struct Rows<R> {
    input: BufReader<R>,
    line: u64,
    bytes: Vec<u8>,
    lines: CsvLines,
}

pub(super) struct Row<'a> {
    pub line: u64,
    pub key: Cow<'a, str>,
    pub pool: Cow<'a, str>,
}

impl<R: Read> Rows<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, input),
            line: 0,
            bytes: Vec::new(),
            lines: CsvLines::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>, TableError> {
        loop {
            self.bytes.clear();
            self.line += 1;
            let line = self.line;
            let read = self.input.read_until(b'\n', &mut self.bytes);
            if read.map_err(|error| malformed(line, &error.to_string()))? == 0 {
                return Ok(None);
            }
            if line == 1 && self.bytes.starts_with("\u{feff}".as_bytes()) {
                self.bytes.drain(..3);
            }
            let blank = self.bytes.iter().all(u8::is_ascii_whitespace);
            if !blank && self.bytes.first() != Some(&b'#') {
                break;
            }
        }
        let text =
            std::str::from_utf8(&self.bytes).map_err(|_| malformed(self.line, "the row is not UTF-8"))?;
        row(text, self.line, &mut self.lines).map(Some)
    }
}

fn row<'a>(text: &'a str, line: u64, lines: &mut CsvLines) -> Result<Row<'a>, TableError> {
    let (key, pool): (Cow<'_, str>, Cow<'_, str>) = if text.contains('"') {
        let cells = lines.cells(text.trim_end_matches(['\r', '\n'])).map_err(|bad| match bad {
            BadLine::OpenQuote => malformed(line, "a quoted value does not end on its line"),
            BadLine::NotUtf8 => malformed(line, "the row is not UTF-8"),
        })?;
        let cells = <[_; 2]>::try_from(cells);
        cells.map_err(|cells| TableError::Columns { line, columns: cells.len() })?.into()
    } else {
        let columns = text.split(',').count();
        match text.split_once(',') {
            Some((key, pool)) if columns == 2 => (key.trim().into(), pool.trim().into()),
            _ => return Err(TableError::Columns { line, columns }),
        }
    };
    if key.is_empty() { Err(TableError::EmptyKey { line }) } else { Ok(Row { line, key, pool }) }
}

fn malformed(line: u64, detail: &str) -> TableError {
    TableError::Malformed { line, detail: detail.to_owned() }
}
