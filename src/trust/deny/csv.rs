//! The CSV form of a deny list (RFC 4180): a first line that names the columns, then an entry a line.

use std::borrow::Cow;

use super::DenyEntry;
use super::draft::{self, Draft, Issuers};
use super::fault::{DenyFault, Faults, Place};
use crate::csv_line::{BadLine, CsvLines};

/// Hands over each entry that is right; `take` may refuse it. An entry is one line, also where it is quoted, so that a
/// quote that nobody closed swallows no other one.
pub(super) fn read(
    text: &str,
    faults: &mut Faults,
    take: &mut dyn FnMut(Place, DenyEntry) -> Result<(), DenyFault>,
) {
    let mut columns: Option<Vec<Column>> = None;
    let (mut lines, mut issuers) = (CsvLines::new(), Issuers::default());
    for (number, line) in (1..=u32::MAX).zip(text.lines()) {
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let place = Place::Line(number);
        match &columns {
            None => match lines.cells(line).map_err(DenyFault::from).and_then(|cells| header(&cells)) {
                Ok(read) => columns = Some(read),
                // What the lines mean cannot be told.
                Err(fault) => return faults.add(place, fault),
            },
            Some(columns) => {
                let cells = lines.cells(line).map_err(DenyFault::from);
                let draft = cells.and_then(|cells| draft(columns, cells));
                let entry = draft.and_then(|draft| draft.entry(&mut issuers));
                if let Err(fault) = entry.and_then(|entry| take(place, entry)) {
                    faults.add(place, fault);
                }
            }
        }
    }
    if columns.is_none() {
        faults.add(Place::File, DenyFault::NoHeader);
    }
}

impl From<BadLine> for DenyFault {
    fn from(bad: BadLine) -> Self {
        match bad {
            BadLine::OpenQuote => Self::OpenQuote,
            BadLine::NotUtf8 => Self::NotUtf8,
        }
    }
}

enum Column {
    Serial,
    Issuer,
    Fingerprint,
    KeyFingerprint,
    Subject,
    SubjectPart(String),
    San,
    SanPart(String),
    Trust,
    Until,
    Reason,
}

fn header(names: &[Cow<'_, str>]) -> Result<Vec<Column>, DenyFault> {
    let mut columns = Vec::new();
    for (position, name) in names.iter().enumerate() {
        if names[..position].contains(name) {
            return Err(DenyFault::KeyTwice(name.clone().into_owned()));
        }
        let column = match &**name {
            "serial" => Column::Serial,
            "issuer" => Column::Issuer,
            "fingerprint" => Column::Fingerprint,
            "key_fingerprint" => Column::KeyFingerprint,
            "subject" => Column::Subject,
            "san" => Column::San,
            "trust" => Column::Trust,
            "until" => Column::Until,
            "reason" => Column::Reason,
            _ => match name.split_once('.') {
                Some(("subject", attribute)) => {
                    draft::attribute_kind(attribute)?;
                    Column::SubjectPart(attribute.to_owned())
                }
                Some(("san", kind)) => {
                    draft::check_san_kind(kind)?;
                    Column::SanPart(kind.to_owned())
                }
                _ => return Err(DenyFault::UnknownColumn(name.clone().into_owned())),
            },
        };
        columns.push(column);
    }
    Ok(columns)
}

fn draft<'a>(columns: &'a [Column], cells: Vec<Cow<'a, str>>) -> Result<Draft<'a>, DenyFault> {
    if cells.len() != columns.len() {
        return Err(DenyFault::Columns { found: cells.len(), expected: columns.len() });
    }
    let mut draft = Draft::default();
    for (column, cell) in columns.iter().zip(cells).filter(|(_, cell)| !cell.is_empty()) {
        match column {
            Column::Serial => draft.serial = Some(cell),
            Column::Issuer => draft.issuer = Some(cell),
            Column::Fingerprint => draft.fingerprint = Some(cell),
            Column::KeyFingerprint => draft.key_fingerprint = Some(cell),
            Column::Trust => draft.trust = Some(cell),
            Column::Until => draft.until = Some(cell),
            Column::Reason => draft.reason = Some(cell),
            Column::Subject => draft.subject.get_or_insert_default().texts.push(cell),
            Column::SubjectPart(key) => {
                draft.subject.get_or_insert_default().pairs.push((key.into(), cell));
            }
            Column::San => draft.san.get_or_insert_default().texts.push(cell),
            Column::SanPart(key) => draft.san.get_or_insert_default().pairs.push((key.into(), cell)),
        }
    }
    Ok(draft)
}
