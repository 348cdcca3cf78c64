//! The secret that whoever asks over TCP must know.

use openssl::memcmp;
use openssl::sha::sha256;

/// A digest is kept, not the secret: two of equal length can be compared in a time that does not depend on them.
pub struct Token([u8; 32]);

/// Text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("the token has {0} characters, which could be guessed")]
    TooShort(usize),
    #[error("the token has characters that cannot stand in a header")]
    NotVisible,
}

impl Token {
    /// Characters: 128 bits where they are hexadecimal digits.
    pub const SHORTEST: usize = 32;

    /// Spaces and line ends around it do not count.
    pub fn parse(text: &[u8]) -> Result<Self, BadToken> {
        let token = text.trim_ascii();
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(BadToken::NotVisible);
        }
        if token.len() < Self::SHORTEST {
            return Err(BadToken::TooShort(token.len()));
        }
        Ok(Self(sha256(token)))
    }

    pub fn is(&self, shown: &[u8]) -> bool {
        memcmp::eq(&sha256(shown), &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_visible_and_only_itself() {
        let text = "0123456789abcdef0123456789abcdef";
        let token = Token::parse(format!("{text}\n").as_bytes()).unwrap();
        assert!(token.is(text.as_bytes()));
        for other in ["", "0123456789abcdef0123456789abcdeF", "0123456789abcdef0123456789abcdef0"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert_eq!(Token::parse(b"secret\n").err(), Some(BadToken::TooShort(6)));
        assert_eq!(Token::parse(b"").err(), Some(BadToken::TooShort(0)));
        assert_eq!(Token::parse(b"0123456789abcdef 0123456789abcdef").err(), Some(BadToken::NotVisible));
        assert_eq!(Token::parse("ä".repeat(40).as_bytes()).err(), Some(BadToken::NotVisible));
    }
}
