//! PEM that is decoded while it is read: a block of any length takes no memory to speak of.

use std::io::{self, BufRead, ErrorKind, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::PemError;
use super::pem::trimmed;

/// Lines are taken in pieces no longer than this: some writers put all of a block on one.
const LONGEST: u64 = 4096;

/// So many letters are decoded at a time, four to three bytes.
const BATCH: usize = 16 * 1024;

/// The content of the blocks of one type, one block after the other. Other blocks and the text around them are passed
/// over. What is wrong with the text is a [`PemError`] within the [`io::Error`].
pub struct PemReader<R> {
    source: R,
    begin: String,
    end: String,
    label: &'static str,
    /// Counts the blocks of the type.
    block: usize,
    is_inside: bool,
    /// Nothing of the block was decoded yet.
    is_empty: bool,
    piece: Vec<u8>,
    letters: Vec<u8>,
    decoded: Vec<u8>,
    /// How much of `decoded` was handed out.
    taken: usize,
}

impl<R: BufRead> PemReader<R> {
    pub fn new(source: R, label: &'static str) -> Self {
        Self {
            source,
            begin: format!("-----BEGIN {label}-----"),
            end: format!("-----END {label}-----"),
            label,
            block: 0,
            is_inside: false,
            is_empty: true,
            piece: Vec::new(),
            letters: Vec::new(),
            decoded: Vec::new(),
            taken: 0,
        }
    }

    /// Whether there is another block; its content comes next. What was left of the one before is passed over.
    pub fn next_block(&mut self) -> io::Result<bool> {
        while self.is_inside {
            self.decode_more()?;
        }
        (self.taken, self.block) = (0, self.block + 1);
        self.decoded.clear();
        self.letters.clear();
        while self.next_piece()? {
            if trimmed(&self.piece) == self.begin.as_bytes() {
                (self.is_inside, self.is_empty) = (true, true);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A line, or as much of it as is taken at once. False: there is no more.
    fn next_piece(&mut self) -> io::Result<bool> {
        self.piece.clear();
        Ok(self.source.by_ref().take(LONGEST).read_until(b'\n', &mut self.piece)? > 0)
    }

    fn decode_more(&mut self) -> io::Result<()> {
        self.decoded.clear();
        self.taken = 0;
        while self.letters.len() < BATCH {
            if !self.next_piece()? {
                return Err(self.error(|block, label| PemError::NoEnd { block, label }));
            }
            let piece = trimmed(&self.piece);
            if piece.first() != Some(&b'-') {
                self.letters.extend_from_slice(piece);
                continue;
            }
            if piece != self.end.as_bytes() {
                return Err(self.error(|block, label| PemError::NoEnd { block, label }));
            }
            self.is_inside = false;
            return self.decode(self.letters.len());
        }
        // The last four may be filled up, and only they: it is not known yet whether these are the last.
        self.decode((self.letters.len() - 1) / 4 * 4)?;
        if self.decoded.len().is_multiple_of(3) { Ok(()) } else { Err(self.not_base64()) }
    }

    fn decode(&mut self, letters: usize) -> io::Result<()> {
        let rest = self.letters.split_off(letters);
        let decoded = STANDARD.decode_vec(&self.letters, &mut self.decoded);
        self.letters = rest;
        self.is_empty &= self.decoded.is_empty();
        if decoded.is_err() || self.is_empty { Err(self.not_base64()) } else { Ok(()) }
    }

    fn not_base64(&self) -> io::Error {
        self.error(|block, label| PemError::NotBase64 { block, label })
    }

    fn error(&self, error: impl Fn(usize, String) -> PemError) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, error(self.block, self.label.to_owned()))
    }
}

/// Ends with the block.
impl<R: BufRead> Read for PemReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.decoded.len() && self.is_inside {
            self.decode_more()?;
        }
        let count = (&self.decoded[self.taken..]).read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::certificate::{pem_blocks, pem_encode};

    /// What the reader makes of a text.
    fn streamed(pem: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
        let mut reader = PemReader::new(pem, "X509 CRL");
        let mut blocks = Vec::new();
        let told = |error: io::Error| error.downcast::<PemError>().unwrap();
        while reader.next_block().map_err(told)? {
            let mut block = Vec::new();
            reader.read_to_end(&mut block).map_err(told)?;
            blocks.push(block);
        }
        Ok(blocks)
    }

    proptest! {
        #[test]
        fn blocks_come_back_as_they_went_in(blocks in vec(vec(any::<u8>(), 1..60_000), 0..3), crlf: bool) {
            let pem = blocks.iter().map(|block| pem_encode(block, "X509 CRL")).collect::<Vec<_>>().join("by hand\n");
            let pem = if crlf { pem.replace('\n', "\r\n") } else { pem };
            prop_assert_eq!(streamed(pem.as_bytes()).unwrap(), blocks);
        }

        /// Read at once or while it comes: the same blocks, and the same is wrong with it.
        #[test]
        fn it_reads_what_is_read_at_once(pieces in vec(prop_oneof![
            Just("-----BEGIN X509 CRL-----\n"), Just("-----END X509 CRL-----\n"), Just("-----BEGIN OTHER-----\n"),
            Just("QUJD\n"), Just("QUI=\n"), Just("QQ==\n"), Just("QQ9=\n"), Just("Q\n"), Just("=\n"), Just("é\n"), Just(" \r\n"), Just("text\n"), Just("\u{feff}"), Just("\u{a0}"), Just("\u{b}"),
        ], 0..9)) {
            let pem = pieces.concat();
            let (streamed, whole) = (streamed(pem.as_bytes()), pem_blocks(pem.as_bytes(), "X509 CRL"));
            prop_assert_eq!(streamed.ok(), whole.ok());
        }
    }

    #[test]
    fn a_block_on_one_line_is_read_too() {
        let block = vec![7; 50_000];
        let pem = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----", STANDARD.encode(&block));
        assert_eq!(streamed(pem.as_bytes()).unwrap(), [block]);
    }
}
