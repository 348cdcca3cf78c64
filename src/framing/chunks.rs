//! A body in chunks (RFC 9112, section 7.1), watched as it comes.
//!
//! Whoever serves the request takes the chunks apart; this only says when they are not what the grammar wants. It keeps no
//! bytes, and looks at none of the data.

use super::{Fault, Limits, is_token_character, is_value};

/// Bytes of the line before a chunk: a size, and an extension that nobody reads.
const LONGEST_LINE: usize = 256;

/// Hexadecimal digits of a size.
const MOST_DIGITS: usize = 15;

/// How far a chunked body has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    state: State,
    /// Bytes of data so far, with those that were announced.
    data: u64,
    most_data: u64,
    most_trailers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: usize,
    },
    /// After the semicolon.
    Extension {
        size: u64,
        len: usize,
    },
    /// The CR of that line was there.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    TrailerStart {
        used: usize,
    },
    TrailerName {
        used: usize,
    },
    TrailerValue {
        used: usize,
    },
    TrailerEnd {
        used: usize,
    },
    /// The CR of the empty line was there.
    End,
    Done,
}

impl Chunks {
    pub fn new(limits: &Limits) -> Self {
        let state = State::Size { size: 0, digits: 0 };
        Self { state, data: 0, most_data: limits.body, most_trailers: limits.trailers }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Watches what comes next. What follows the body is of no concern.
    pub fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some((byte, rest)) = bytes.split_first() {
            match &mut self.state {
                State::Done => return Ok(()),
                State::Data { left } => {
                    let taken = (bytes.len() as u64).min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    bytes = &bytes[taken as usize..];
                    continue;
                }
                state => *state = state.after(*byte, self.most_trailers)?,
            }
            if let State::Data { left } = self.state {
                self.data = self.data.saturating_add(left);
                if self.data > self.most_data {
                    return Err(Fault::LargeBody);
                }
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl State {
    /// Of data, nobody asks.
    fn after(self, byte: u8, most_trailers: usize) -> Result<Self, Fault> {
        Ok(match (self, byte) {
            (Self::Size { size, digits: 1.. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension { size, len: 0 },
            (Self::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16).filter(|_| digits < MOST_DIGITS);
                Self::Size { size: size << 4 | u64::from(digit.ok_or(Fault::ChunkSize)?), digits: digits + 1 }
            }
            (Self::Extension { size, len }, _) if len < LONGEST_LINE && is_value(&[byte]) => {
                Self::Extension { size, len: len + 1 }
            }
            (Self::Extension { .. }, _) => return Err(Fault::ChunkExtension),
            (Self::SizeEnd { size: 0 }, b'\n') => Self::TrailerStart { used: 0 },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::SizeEnd { .. }, _) => return Err(Fault::ChunkSize),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::DataCr | Self::DataLf, _) => return Err(Fault::ChunkEnd),
            (Self::TrailerStart { .. }, b'\r') => Self::End,
            (Self::TrailerStart { used } | Self::TrailerName { used }, _) if used >= most_trailers => {
                return Err(Fault::Trailer);
            }
            (Self::TrailerStart { used } | Self::TrailerName { used }, _) if is_token_character(byte) => {
                Self::TrailerName { used: used + 1 }
            }
            (Self::TrailerName { used }, b':') => Self::TrailerValue { used: used + 1 },
            (Self::TrailerValue { used }, b'\r') => Self::TrailerEnd { used },
            (Self::TrailerValue { used }, _) if used < most_trailers && is_value(&[byte]) => {
                Self::TrailerValue { used: used + 1 }
            }
            (Self::TrailerEnd { used }, b'\n') => Self::TrailerStart { used },
            (Self::End, b'\n') | (Self::Done, _) => Self::Done,
            (Self::Data { .. }, _) => self,
            (
                Self::TrailerStart { .. }
                | Self::TrailerName { .. }
                | Self::TrailerValue { .. }
                | Self::TrailerEnd { .. }
                | Self::End,
                _,
            ) => return Err(Fault::Trailer),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether the body is done when all of it has come in pieces of `step`.
    fn watch(bytes: &[u8], step: usize) -> Result<bool, Fault> {
        let mut chunks = Chunks::new(&Limits { body: 100, trailers: 20, ..Limits::DEFAULT });
        for piece in bytes.chunks(step) {
            chunks.watch(piece)?;
        }
        Ok(chunks.is_done())
    }

    #[test]
    fn what_the_grammar_wants_passes_wherever_it_is_cut() {
        for text in [
            "0\r\n\r\n",
            "000\r\n\r\n",
            "4\r\nabcd\r\n0\r\n\r\n",
            "4;a=b\r\nabcd\r\n0;c=\"d\"\r\n\r\n",
            "A\r\n0123\r\n6789\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n",
            "4\r\nabcd\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\0",
        ] {
            for step in 1..=text.len() {
                assert_eq!(watch(text.as_bytes(), step), Ok(true), "{text:?} {step}");
            }
        }
        assert_eq!(watch(b"4\r\nabcd\r\n0\r\n\r", 1), Ok(false));
    }

    #[test]
    fn what_somebody_could_read_in_another_way_does_not() {
        for (text, fault) in [
            ("\r\n", Fault::ChunkSize),
            (";a\r\n", Fault::ChunkSize),
            ("x\r\n", Fault::ChunkSize),
            ("-1\r\n", Fault::ChunkSize),
            ("+1\r\n", Fault::ChunkSize),
            ("0x1\r\n", Fault::ChunkSize),
            (" 1\r\n", Fault::ChunkSize),
            ("1 \r\n", Fault::ChunkSize),
            ("1 ;a\r\n", Fault::ChunkSize),
            ("1_0\r\n", Fault::ChunkSize),
            ("1\n", Fault::ChunkSize),
            ("1\rX", Fault::ChunkSize),
            ("1000000000000000\r\n", Fault::ChunkSize),
            ("0000000000000001\r\n", Fault::ChunkSize),
            ("1;a\n", Fault::ChunkExtension),
            ("1;\0\r\n", Fault::ChunkExtension),
            ("2\r\nab0\r\n", Fault::ChunkEnd),
            ("2\r\nab\n", Fault::ChunkEnd),
            ("2\r\nab\rX", Fault::ChunkEnd),
            ("2\r\nabc\r\n", Fault::ChunkEnd),
            ("0\r\n\n", Fault::Trailer),
            ("0\r\n\rX", Fault::Trailer),
            ("0\r\nX-A : b\r\n", Fault::Trailer),
            ("0\r\n X-A: b\r\n", Fault::Trailer),
            ("0\r\nX-A\r\n", Fault::Trailer),
            ("0\r\n: b\r\n", Fault::Trailer),
            ("0\r\nX-A: b\n", Fault::Trailer),
            ("0\r\nX-A: \0\r\n", Fault::Trailer),
            ("0\r\nX-A: 0123456789012345678\r\n", Fault::Trailer),
            ("65\r\n", Fault::LargeBody),
        ] {
            assert_eq!(watch(text.as_bytes(), 1), Err(fault), "{text:?}");
            assert_eq!(watch(text.as_bytes(), 100), Err(fault), "{text:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(300));
        assert_eq!(watch(long.as_bytes(), 7), Err(Fault::ChunkExtension));
    }

    proptest! {
        /// Whatever passes, the parser that serves the request reads in the same way.
        #[test]
        fn what_passes_is_what_the_servers_parser_reads(
            text in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'1'), Just(b'a'), Just(b';'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40),
        ) {
            let mut chunks = Chunks::new(&Limits::DEFAULT);
            let passes = chunks.watch(&text);
            if let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(&text) {
                let mut first = Chunks::new(&Limits::DEFAULT);
                if passes.is_ok() {
                    first.watch(&text[..at]).unwrap();
                    let expected = if size == 0 { State::TrailerStart { used: 0 } } else { State::Data { left: size } };
                    prop_assert_eq!(first.state, expected);
                }
            } else if text.contains(&b'\n') {
                prop_assert!(passes.is_err());
            }
        }
    }
}
