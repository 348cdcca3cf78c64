//! One line of CSV (RFC 4180), taken apart: for files of which whatever is wrong must have a line number, and in which a
//! quote that nobody closed must not swallow other lines.

use std::borrow::Cow;

/// Why a line has no cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    OpenQuote,
    NotUtf8,
}

/// Takes lines apart, one after the other: to make one costs as much as to take a hundred lines apart.
pub struct CsvLines {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvLines {
    #[allow(clippy::new_without_default, reason = "it is not a value but a tool")]
    pub fn new() -> Self {
        Self { reader: csv_core::Reader::new(), text: Vec::new(), ends: Vec::new() }
    }

    /// The cells of a line without its end, without the spaces around them.
    pub fn cells<'a>(&mut self, line: &'a str) -> Result<Vec<Cow<'a, str>>, BadLine> {
        if !line.contains('"') {
            return Ok(line.split(',').map(|cell| cell.trim().into()).collect());
        }
        // Each quoted value has two, and each quote inside of one is written twice.
        if !line.matches('"').count().is_multiple_of(2) {
            return Err(BadLine::OpenQuote);
        }
        self.quoted(line)
    }

    /// The rare line with quotes, by the rules for them.
    fn quoted(&mut self, line: &str) -> Result<Vec<Cow<'static, str>>, BadLine> {
        self.reader.reset();
        self.text.resize(line.len(), 0);
        self.ends.resize(line.matches(',').count() + 1, 0);
        // The end of the input ends the record; what was written stays where it is.
        let (_, _, text, ends) = self.reader.read_record(line.as_bytes(), &mut self.text, &mut self.ends);
        let (_, _, more_text, more_ends) =
            self.reader.read_record(&[], &mut self.text[text..], &mut self.ends[ends..]);
        let (text, ends) = (&self.text[..text + more_text], &self.ends[..ends + more_ends]);
        let text = std::str::from_utf8(text).map_err(|_| BadLine::NotUtf8)?;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let cells = starts.zip(ends).map(|(start, end)| text.get(start..*end));
        let cells = cells.map(|cell| cell.map(|cell| cell.trim().to_owned().into()));
        cells.collect::<Option<_>>().ok_or(BadLine::NotUtf8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_told_apart_by_commas_outside_of_quotes() {
        let mut lines = CsvLines::new();
        let mut cells = |line| lines.cells(line).map(|cells| cells.join("|"));
        assert_eq!(cells(" a , b,").as_deref(), Ok("a|b|"));
        assert_eq!(cells("\"a,b\",\"c \"\"d\"\"\",e").as_deref(), Ok("a,b|c \"d\"|e"));
        assert_eq!(cells("\"\",x").as_deref(), Ok("|x"));
        assert_eq!(cells("a,\"b"), Err(BadLine::OpenQuote));
        assert_eq!(cells("").as_deref(), Ok(""));
    }

    proptest! {
        /// Whatever was written by the rules is read back, and no line spoils the next.
        #[test]
        fn what_is_written_is_read_back(rows in proptest::collection::vec(proptest::collection::vec("[a, \"ü]{0,6}", 2..5), 1..5)) {
            let mut lines = CsvLines::new();
            for row in rows {
                let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(Vec::new());
                writer.write_record(&row).unwrap();
                let written = String::from_utf8(writer.into_inner().unwrap()).unwrap();
                let read = lines.cells(written.trim_end_matches('\n')).unwrap();
                let trimmed: Vec<_> = row.iter().map(|cell| cell.trim()).collect();
                prop_assert_eq!(read, trimmed);
            }
        }

        #[test]
        fn no_line_makes_it_panic(line in "[a,\" \r\t\u{0}ü]{0,20}") {
            let _ = CsvLines::new().cells(&line);
        }
    }
}
