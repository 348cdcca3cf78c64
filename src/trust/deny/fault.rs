//! What is wrong with a deny list, for the person who must mend it.

use std::fmt;

use crate::certificate::{AttributeKind, BadHex, DistinguishedNameError};

/// One mistake. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyFault {
    #[error("it is not a deny list in YAML: {0}")]
    Yaml(String),
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error(
        "it is empty (expected: a first line that names the columns, such as `fingerprint,until,reason`; with nothing \
         behind it, nobody is denied)"
    )]
    NoHeader,
    #[error(
        "no column is called `{0}` (expected in the first line: serial, issuer, fingerprint, key_fingerprint, subject, \
         subject.CN and so on, san, san.dns and so on, trust, until, reason)"
    )]
    UnknownColumn(String),
    #[error("it has {found} columns (expected: {expected}, as in the first line)")]
    Columns { found: usize, expected: usize },
    #[error(
        "a quote is left open (expected: a quoted value ends on its line; a quote within one is written twice)"
    )]
    OpenQuote,
    #[error("the lists up to here are larger than can be held (expected: fewer entries)")]
    TooLarge,
    #[error("it has no key `deny` (expected: `deny:` with a list of entries; `deny: []` denies nobody)")]
    NoList,
    #[error("unknown key `{key}` (expected: {expected})")]
    UnknownKey { key: String, expected: &'static str },
    #[error("the key `{0}` stands there twice (expected: once)")]
    KeyTwice(String),
    #[error("nothing stands behind `{0}` (expected: a value, or no such key)")]
    Nothing(String),
    #[error(
        "it names nobody (expected: `serial` with `issuer`, `fingerprint`, `key_fingerprint`, or `subject` and `san`)"
    )]
    NobodyNamed,
    #[error(
        "it names a client both by `{0}` and by `{1}` (expected: one of them; what is meant by either makes two entries)"
    )]
    NamedTwice(&'static str, &'static str),
    #[error(
        "`serial` stands there without `issuer` (a serial is unique within its issuer only: add `issuer`)"
    )]
    NoIssuer,
    #[error("`issuer` stands there without `serial` (expected: both, or neither)")]
    NoSerial,
    #[error("{key}: {reason}")]
    Hex { key: &'static str, reason: BadHex },
    #[error("issuer: {0}")]
    Issuer(DistinguishedNameError),
    #[error(
        "subject: no attribute is called `{0}` (expected: {expected}, or a dotted OID)",
        expected = AttributeKind::KEYS.join(", ")
    )]
    UnknownAttribute(String),
    #[error("san: no type is called `{0}` (expected: dns, email, uri, ip)")]
    UnknownSan(String),
    #[error("subject: {0}")]
    Subject(DistinguishedNameError),
    #[error("san: `{0}` has no type (expected: such as `dns:device-1.example.com`)")]
    NotASan(String),
    #[error("san.ip: `{0}` is not an IP address")]
    NotAnAddress(String),
    #[error("until: `{0}` is not a moment (expected: RFC 3339, such as `2026-12-31T18:00:00Z`)")]
    NotAMoment(String),
    #[error("{key}: it contains the control character U+{code:04X} (expected: one line of text)", code = *.character as u32)]
    ControlCharacter { key: &'static str, character: char },
    #[error("reason: it is {0} bytes long (expected: at most {MOST_REASON})")]
    LongReason(usize),
}

/// Longer ones belong into a ticket, not into every line of a log.
pub(super) const MOST_REASON: usize = 1024;

/// Where in a deny list something stands, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The whole of it.
    File,
    /// Of the YAML form.
    Entry(u32),
    /// Of the CSV form.
    Line(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::Line(number) => write!(f, "line {number}"),
        }
    }
}

/// Why a file is not taken for a deny list: everything that is wrong with it, up to a number that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyListError {
    pub file: String,
    /// At least one.
    pub faults: Vec<(Place, DenyFault)>,
    /// Those beyond the ones that are told.
    pub more: usize,
}

/// Nobody mends more at once.
const MOST_TOLD: usize = 20;

impl DenyListError {
    /// Each fault as a sentence of its own, with file and place.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let sentence = |(place, fault): &(Place, DenyFault)| match place {
            Place::File => format!("`{}`: {fault}", self.file),
            place => format!("`{}`, {place}: {fault}", self.file),
        };
        let rest = (self.more > 0).then(|| format!("`{}`: {} more such faults", self.file, self.more));
        self.faults.iter().map(sentence).chain(rest)
    }
}

impl std::error::Error for DenyListError {}

impl fmt::Display for DenyListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().collect::<Vec<_>>().join("; "))
    }
}

/// Gathers what is found on the way.
pub(super) struct Faults(DenyListError);

impl Faults {
    pub(super) fn new(file: &str) -> Self {
        Self(DenyListError { file: file.to_owned(), faults: Vec::new(), more: 0 })
    }

    pub(super) fn add(&mut self, place: Place, fault: DenyFault) {
        if self.0.faults.len() < MOST_TOLD {
            self.0.faults.push((place, fault));
        } else {
            self.0.more += 1;
        }
    }

    /// What was read counts only if nothing is wrong.
    pub(super) fn finish<T>(self, read: T) -> Result<T, DenyListError> {
        if self.0.faults.is_empty() { Ok(read) } else { Err(self.0) }
    }
}
