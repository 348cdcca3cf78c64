//! PEM (RFC 7468): blocks out of a file, and a block into one.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A file that looks like PEM and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("block {block} ({label}) has no end: the file seems to be cut off")]
    NoEnd { block: usize, label: String },
    #[error("block {block} ({label}) is not valid base64")]
    NotBase64 { block: usize, label: String },
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The content of all blocks of type `label`, in order. Other blocks and the text around them are passed over.
///
/// `block` in an error counts blocks of that type from 1.
pub fn pem_blocks(pem: &[u8], label: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let begin = format!("{BEGIN}{label}{DASHES}");
    let end = format!("-----END {label}{DASHES}");
    let mut blocks = Vec::new();
    let mut lines = pem.split(|byte| *byte == b'\n').map(trimmed);
    while let Some(line) = lines.next() {
        if line != begin.as_bytes() {
            continue;
        }
        let block = blocks.len() + 1;
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some(line) if line == end.as_bytes() => break,
                Some(line) if !line.starts_with(b"-") => body.extend_from_slice(line),
                _ => return Err(PemError::NoEnd { block, label: label.to_owned() }),
            }
        }
        let der = decode(&body).ok_or_else(|| PemError::NotBase64 { block, label: label.to_owned() })?;
        blocks.push(der);
    }
    Ok(blocks)
}

/// Without white space around it, also that which editors and web pages leave there and nobody sees: a block whose first line
/// is not known for one would be missing.
pub(super) fn trimmed(line: &[u8]) -> &[u8] {
    let is_space = |c: char| c.is_whitespace() || c == '\u{feff}';
    std::str::from_utf8(line).map_or(line.trim_ascii(), |text| text.trim_matches(is_space).as_bytes())
}

fn decode(body: &[u8]) -> Option<Vec<u8>> {
    // The same decoder as that of the reader: it takes one encoding of each block, and no other.
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}

/// One block, with lines of 64 characters.
pub fn pem_encode(der: &[u8], label: &str) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = String::with_capacity(base64.len() + base64.len() / 64 + 64);
    // Writing to a string cannot fail.
    let _ = writeln!(pem, "{BEGIN}{label}{DASHES}");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        let _ = writeln!(pem, "{line}");
        rest = tail;
    }
    let _ = writeln!(pem, "-----END {label}{DASHES}");
    pem
}
