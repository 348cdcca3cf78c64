//! Ticket keys as a file that several nodes share: one key a line, the first one seals.

use std::time::Instant;

use openssl::error::ErrorStack;
use zeroize::Zeroizing;

use super::keys::{KeyRing, TicketKey};
use crate::UnixTime;

/// Each ticket is looked for among them.
const MOST_KEYS: usize = 16;

/// A key that somebody typed, or copied from an example, is one that others can guess.
const FEWEST_DIFFERENT_BYTES: usize = 24;

/// Why a file holds no ticket keys. Never says what stands in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("it holds no key")]
    Empty,
    #[error("line {0} is no key")]
    NotAKey(usize),
    #[error("line {0} is not random")]
    NotRandom(usize),
    #[error("the keys of lines {0} and {1} have the same name (their first 32 digits)")]
    Repeated(usize, usize),
    #[error("it holds more than {MOST_KEYS} keys")]
    TooMany,
    #[error("the TLS library takes no key from it: {0}")]
    Library(#[from] ErrorStack),
}

impl KeyRing {
    /// What stands in a key file that was written at `made_at`. Empty lines and those that begin with `#` do not count.
    pub fn from_file(text: &[u8], made_at: UnixTime) -> Result<Self, KeyFileError> {
        let mut keys: Vec<TicketKey> = Vec::new();
        let mut numbers = Vec::new();
        for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if keys.len() == MOST_KEYS {
                return Err(KeyFileError::TooMany);
            }
            let key = decode(line).ok_or(KeyFileError::NotAKey(number))?;
            if !looks_random(&key) {
                return Err(KeyFileError::NotRandom(number));
            }
            let key = TicketKey::new(&key)?;
            if let Some(same) = keys.iter().position(|other| other.name == key.name) {
                return Err(KeyFileError::Repeated(numbers[same], number));
            }
            keys.push(key);
            numbers.push(number);
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(Self::shared(keys, Instant::now(), made_at))
    }
}

/// What `openssl rand -hex 80` prints.
fn decode(line: &[u8]) -> Option<Zeroizing<[u8; TicketKey::SIZE]>> {
    if line.len() != 2 * TicketKey::SIZE {
        return None;
    }
    let mut key = Zeroizing::new([0; TicketKey::SIZE]);
    for (byte, digits) in key.iter_mut().zip(line.chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Some(key)
}

fn looks_random(key: &[u8; TicketKey::SIZE]) -> bool {
    let mut seen = [false; 256];
    for byte in key {
        seen[usize::from(*byte)] = true;
    }
    seen.into_iter().filter(|seen| *seen).count() >= FEWEST_DIFFERENT_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(seed: u8) -> String {
        let bytes = (0..TicketKey::SIZE as u8).map(|byte| format!("{:02x}", byte.wrapping_mul(7) ^ seed));
        bytes.collect::<Vec<_>>().concat()
    }

    fn told(text: &str) -> String {
        KeyRing::from_file(text.as_bytes(), 0).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn the_first_key_seals_and_the_others_open() {
        let text = format!("# of this week\r\n{}\r\n\n  {}  \n", line(1).to_uppercase(), line(2));
        let ring = KeyRing::from_file(text.as_bytes(), 7).unwrap();
        assert_eq!((ring.len(), ring.made_at(), ring.is_generated()), (2, 7, false));
        assert_eq!(ring.sealing_name(), line(1)[..8]);
    }

    #[test]
    fn what_is_no_key_is_told_by_its_line_and_never_shown() {
        assert_eq!(told(""), "it holds no key");
        assert_eq!(told("# nothing\n"), "it holds no key");
        let good = line(1);
        assert_eq!(told(&format!("{good}\n{}", &good[1..])), "line 2 is no key");
        assert_eq!(told(&format!("{good}00")), "line 1 is no key");
        assert_eq!(told(&good.replace('0', "g")), "line 1 is no key");
        assert_eq!(told(&format!("\n{}\n", "0".repeat(160))), "line 2 is not random");
        assert_eq!(told(&format!("{}\n", "0123456789abcdef".repeat(10))), "line 1 is not random");
        assert_eq!(
            told(&format!("{good}\n\n{good}\n")),
            "the keys of lines 1 and 3 have the same name (their first 32 digits)"
        );
        let many: String = (0..=MOST_KEYS as u8).map(|seed| line(seed * 3) + "\n").collect();
        assert_eq!(told(&many), "it holds more than 16 keys");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = KeyRing::from_file(&bytes, 0);
        }
    }
}
