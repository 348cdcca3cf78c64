//! The header fields of a request, in whichever form the HTTP parser left them.

use http::header::{HeaderMap, HeaderValue, ValueIter};
use httparse::Header;

/// Pingora makes a map of them; our own parser leaves them where they stand in the connection's buffer.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'a> {
    Map(&'a HeaderMap),
    /// One for each line, in their order.
    Lines(&'a [Header<'a>]),
}

impl<'a> Fields<'a> {
    /// Every value of a field, in the order in which they came. `name` in lower case.
    pub fn all(self, name: &'a str) -> Values<'a> {
        match self {
            Self::Map(map) => Values::Map(map.get_all(name).iter()),
            Self::Lines(lines) => Values::Lines(lines.iter(), name),
        }
    }

    /// All fields. A map gives names in lower case, lines as they came.
    pub fn iter(self) -> All<'a> {
        match self {
            Self::Map(map) => All::Map(map.iter()),
            Self::Lines(lines) => All::Lines(lines.iter()),
        }
    }
}

/// See [`Fields::all`].
pub enum Values<'a> {
    Map(ValueIter<'a, HeaderValue>),
    Lines(std::slice::Iter<'a, Header<'a>>, &'a str),
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self {
            Self::Map(values) => values.next().map(HeaderValue::as_bytes),
            Self::Lines(lines, name) => {
                lines.find(|line| line.name.eq_ignore_ascii_case(name)).map(|line| line.value)
            }
        }
    }
}

/// See [`Fields::iter`].
pub enum All<'a> {
    Map(http::header::Iter<'a, HeaderValue>),
    Lines(std::slice::Iter<'a, Header<'a>>),
}

impl<'a> Iterator for All<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Map(fields) => fields.next().map(|(name, value)| (name.as_str(), value.as_bytes())),
            Self::Lines(lines) => lines.next().map(|line| (line.name, line.value)),
        }
    }
}

/// A value as text, if it is nothing but visible ASCII, spaces and tabs.
pub fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    is_text.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_lines_say_the_same() {
        let lines = [
            Header { name: "Accept", value: b"a" },
            Header { name: "X-Many", value: b"1" },
            Header { name: "x-MANY", value: b"2" },
        ];
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(
                line.name.to_lowercase().parse::<http::HeaderName>().unwrap(),
                HeaderValue::from_bytes(line.value).unwrap(),
            );
        }
        for fields in [Fields::Map(&map), Fields::Lines(&lines)] {
            assert_eq!(fields.all("x-many").collect::<Vec<_>>(), [b"1", b"2"]);
            assert_eq!(fields.all("accept").collect::<Vec<_>>(), [b"a"]);
            assert_eq!(fields.all("missing").count(), 0);
            assert_eq!(fields.iter().count(), 3);
        }
    }

    #[test]
    fn text_is_what_a_header_map_calls_text() {
        for value in [&b"a b\tc~"[..], b"", b"\x7f", b"\xfc", b"a\nb", b"\x00"] {
            let reference =
                HeaderValue::from_bytes(value).ok().and_then(|value| value.to_str().map(str::to_owned).ok());
            assert_eq!(text(value).map(str::to_owned), reference, "{value:?}");
        }
    }
}
