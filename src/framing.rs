//! The one way in which a request may be read (RFC 9110, RFC 9112).
//!
//! What somebody else could read in another way is refused, and nothing of it reaches an origin: a parser that is
//! generous here and an origin that is generous there are how requests are smuggled.

pub mod chunks;
pub mod frames;
pub mod head;
mod host;
mod target;

pub use host::normal_host;
pub use target::{check_path, check_relative, other_reading, path};

/// Why a request is refused before anybody decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the first line is not a method, a target and a version with one space between them")]
    RequestLine,
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    #[error("a line ends with something else than CR LF")]
    LineEnd,
    #[error("a line continues the one before it")]
    Folded,
    #[error("the name of a field is no token")]
    FieldName,
    #[error("the value of a field holds control characters")]
    FieldValue,
    #[error("the target is no path, no `http` or `https` URL, and no `*` of OPTIONS")]
    BadTarget,
    #[error("the target holds characters that must be encoded")]
    TargetCharacter,
    #[error(
        "the path holds dot segments, backslashes, or encoded characters that stand for themselves or separate"
    )]
    BadPath,
    #[error("the request names no host")]
    NoHost,
    #[error("the request names several hosts")]
    SeveralHosts,
    #[error("the host is not a valid name")]
    BadHost,
    #[error("the scheme is neither `http` nor `https`")]
    BadScheme,
    #[error("the length is not one number")]
    BadLength,
    #[error("the body has both a length and a transfer coding")]
    TwoFramings,
    #[error("the transfer coding is not `chunked`, once and alone")]
    BadCoding,
    #[error("a field looks like one that frames the message")]
    Lookalike,
    #[error("Connection names a field that does not belong to the connection")]
    BadConnection,
    #[error("the upgrade is not one to a WebSocket")]
    BadUpgrade,
    #[error("the size of a chunk is no hexadecimal number")]
    ChunkSize,
    #[error("a chunk's extension holds control characters or is too long")]
    ChunkExtension,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    #[error("a trailer is no field, or they are too long")]
    Trailer,
    #[error("too many requests were taken back at once")]
    Resets,
    #[error("too many frames that ask for nothing")]
    Flood,
    #[error(
        "more than the HTTP/2 library allows of broken or abandoned requests, header blocks or empty frames"
    )]
    Abuse,
    #[error("too much of what TLS sends that carries nothing, such as changes of keys")]
    Overhead,
    #[error("CONNECT asks for a tunnel, which there is none")]
    Connect,
    #[error("the expectation is not `100-continue`")]
    Expectation,
    #[error("the target is too long")]
    LongTarget,
    #[error("the head is too large or has too many fields")]
    LargeHead,
    #[error("the body is too large")]
    LargeBody,
}

/// How much of each a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the head, from the first line to the empty one.
    pub head: usize,
    pub fields: usize,
    /// Bytes.
    pub target: usize,
    /// Bytes of the body without what frames it.
    pub body: u64,
    /// Bytes after the last chunk.
    pub trailers: usize,
}

impl Limits {
    pub const DEFAULT: Self =
        Self { head: 64 * 1024, fields: 128, target: 8 * 1024, body: 1 << 30, trailers: 8 * 1024 };
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_character)
}

fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// What a field's value may hold (RFC 9110, section 5.5): no control characters but tabs.
fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// Without the spaces and tabs around it.
fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}
