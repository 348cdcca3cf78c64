//! PEM (RFC 7468): blocks out of a file, and a block into one.

use std::fmt::Write;

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
    // A byte that is not ASCII can only be outside of a block, or an error inside of one.
    let text = String::from_utf8_lossy(pem);
    let begin = format!("{BEGIN}{label}{DASHES}");
    let end = format!("-----END {label}{DASHES}");
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line != begin {
            continue;
        }
        let block = blocks.len() + 1;
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) if !line.starts_with(BEGIN) => body.push_str(line),
                _ => return Err(PemError::NoEnd { block, label: label.to_owned() }),
            }
        }
        let der = decode(&body).ok_or_else(|| PemError::NotBase64 { block, label: label.to_owned() })?;
        blocks.push(der);
    }
    Ok(blocks)
}

fn decode(body: &str) -> Option<Vec<u8>> {
    if body.is_empty() || body.len() > i32::MAX as usize || body.contains(char::is_whitespace) {
        return None;
    }
    // The decoder counts padding as zero bytes and takes it anywhere, so it is checked here.
    let content = body.trim_end_matches('=');
    if content.contains('=') || body.len() - content.len() > 2 {
        return None;
    }
    openssl::base64::decode_block(body).ok()
}

/// One block, with lines of 64 characters.
pub fn pem_encode(der: &[u8], label: &str) -> String {
    let base64 = openssl::base64::encode_block(der);
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
