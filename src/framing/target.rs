//! The target of a request (RFC 9112, section 3.2): what it may be made of, and which paths have one reading only.

use super::Fault;

/// Whether the target is one of the forms that a request with `method` for `host` may have.
pub(super) fn check_target(method: &str, target: &str, host: &[u8]) -> Result<(), Fault> {
    match absolute(target) {
        Some((authority, _)) if authority.as_bytes() != host => Err(Fault::SeveralHosts),
        // It asks for the root.
        Some((_, "")) => Ok(()),
        Some((_, query)) if query.starts_with('?') => check_query(query),
        Some((_, rest)) => check_relative(method, rest),
        None => check_relative(method, target),
    }
}

/// A path and maybe a query, or the `*` of OPTIONS.
pub fn check_relative(method: &str, target: &str) -> Result<(), Fault> {
    if target == "*" {
        return if method == "OPTIONS" { Ok(()) } else { Err(Fault::BadTarget) };
    }
    let path = path(target);
    if !path.starts_with('/') {
        return Err(Fault::BadTarget);
    }
    if !path.bytes().all(is_path_character) {
        return Err(Fault::TargetCharacter);
    }
    check_query(&target[path.len()..])?;
    check_path(path)
}

fn check_query(query: &str) -> Result<(), Fault> {
    if query.bytes().all(is_query_character) { Ok(()) } else { Err(Fault::TargetCharacter) }
}

/// The authority of a target in absolute form, and what follows it.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    is_http.then(|| rest.split_at(end))
}

/// The target without its query.
pub fn path(target: &str) -> &str {
    memchr::memchr(b'?', target.as_bytes()).map_or(target, |at| &target[..at])
}

/// What RFC 3986 gives a path, and what clients send in it besides that is read in one way. A `#` would end it for some.
fn is_path_character(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'`')
}

/// Browsers leave more as it is in a query.
fn is_query_character(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>')
}

/// Refuses paths that an origin may read in another way than our routes do: `/readings/../admin` is one request for
/// us and another for an origin that resolves it.
pub fn check_path(path: &str) -> Result<(), Fault> {
    if path.starts_with('/') || path == "*" {
        let suspicious = path.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'.') || byte < b' ');
        if !suspicious || is_plain(path) { Ok(()) } else { Err(Fault::BadPath) }
    } else {
        Err(Fault::BadPath)
    }
}

fn is_plain(path: &str) -> bool {
    let ambiguous_octet = path
        .as_bytes()
        .windows(3)
        .any(|window| window[0] == b'%' && octet(window[1], window[2]).is_none_or(is_read_in_two_ways));
    // A `%` so close to the end that no two digits can follow.
    let cut_off = path.as_bytes().iter().rev().take(2).any(|byte| *byte == b'%');
    let bad_byte = path.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control());
    let dots = path.split('/').any(|segment| matches!(without_parameters(segment), "." | ".."));
    !ambiguous_octet && !cut_off && !bad_byte && !dots
}

/// Separators and what ends a string, for which origins differ in whether they decode before they split; and characters
/// that need no encoding (RFC 3986, section 2.3), with which `/%61dmin` would miss the route of `/admin` and still
/// reach it at the origin.
fn is_read_in_two_ways(octet: u8) -> bool {
    matches!(octet, b'/' | b'\\' | b'%' | b'-' | b'.' | b'_' | b'~')
        || octet.is_ascii_control()
        || octet.is_ascii_alphanumeric()
}

/// Some origins cut a segment at its first semicolon, and then resolve `..;`.
fn without_parameters(segment: &str) -> &str {
    let plain = segment.find(';').unwrap_or(segment.len());
    let encoded = segment.as_bytes().windows(3).position(|octet| octet.eq_ignore_ascii_case(b"%3B"));
    &segment[..encoded.map_or(plain, |encoded| plain.min(encoded))]
}

/// A path that passed [`check_path`], as an origin that is generous may read it: slashes in a row as one, segments without
/// what follows a semicolon, characters decoded that may stand in a path as they are, and the digits of the other octets in
/// upper case (RFC 3986, sections 2.2, 3.3 and 6.2.2.1). `None`: it has no other reading.
pub fn other_reading(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    if memchr::memchr2(b'%', b';', bytes).is_none() && !bytes.windows(2).any(|pair| pair == b"//") {
        return None;
    }
    let mut other = String::with_capacity(path.len());
    for segment in path.split('/').map(without_parameters).filter(|segment| !segment.is_empty()) {
        other.push('/');
        decode(segment, &mut other);
    }
    if path.ends_with('/') || other.is_empty() {
        other.push('/');
    }
    (other != path).then_some(other)
}

fn decode(segment: &str, out: &mut String) {
    let mut rest = segment;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let digits = after.get(..2).unwrap_or(after);
        match digits.as_bytes() {
            [high, low] if octet(*high, *low).is_some_and(may_stand_as_it_is) => {
                out.extend(octet(*high, *low).map(char::from));
            }
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &after[digits.len()..];
    }
    out.push_str(rest);
}

/// A semicolon was looked for before.
fn may_stand_as_it_is(octet: u8) -> bool {
    matches!(octet, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
        || matches!(octet, b'[' | b']' | b'{' | b'}' | b'|' | b'^')
}

fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_an_origin_may_read_differently_are_refused() {
        for path in [
            "/a/../b",
            "/..",
            "/a/./b",
            "/%2e%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/%252e",
            "/%61dmin",
            "/a%7e",
            "/a%0d",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a/..;/b",
            "/a/.;x=y",
            "/a/..%3B/b",
            "/a/..%3bx/b",
        ] {
            assert_eq!(check_path(path), Err(Fault::BadPath), "{path}");
        }
        for path in ["/", "/a.b/c..d", "/.well-known/x", "/caf%C3%A9", "/a%20b", "/a%3Fb", "/a//b"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn what_origins_may_read_in_another_way_has_another_reading() {
        for (path, other) in [
            ("//admin", "/admin"),
            ("/a//b///c", "/a/b/c"),
            ("/a//", "/a/"),
            ("//", "/"),
            ("/;a/b", "/b"),
            ("/;a", "/"),
            ("/a;b=c/d", "/a/d"),
            ("/a%3Bb/d", "/a/d"),
            ("/a%3ab%40", "/a:b@"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b//c", "/a%20b/c"),
        ] {
            assert_eq!(other_reading(path).as_deref(), Some(other), "{path}");
        }
        for path in ["/", "/a", "/a/", "/a:b@", "/a%20b", "/caf%C3%A9", "/a%3F"] {
            assert_eq!(other_reading(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn another_reading_is_a_path_and_has_no_other_reading(path in "(/[a-b.:;%/]{0,3}(%[2-7cC][0-9a-fA-F])?){1,4}") {
            if check_path(&path).is_ok() && let Some(other) = other_reading(&path) {
                proptest::prop_assert_eq!(check_path(&other), Ok(()));
                proptest::prop_assert_eq!(other_reading(&other), None, "{}", other);
            }
        }
    }

    #[test]
    fn a_target_has_one_of_four_forms() {
        let check = |method: &str, target: &str| check_target(method, target, b"a:1");
        for target in [
            "/",
            "/a?b=c",
            "/a?",
            "/a??b/../c",
            "/a|b[c]{d}^e",
            "/a?[b]|{c}`\\",
            "http://a:1/b",
            "HTTPS://a:1",
            "http://a:1?b",
        ] {
            assert_eq!(check("GET", target), Ok(()), "{target}");
        }
        assert_eq!(check("OPTIONS", "*"), Ok(()));
        for (method, target, fault) in [
            ("GET", "*", Fault::BadTarget),
            ("GET", "", Fault::BadTarget),
            ("GET", "a", Fault::BadTarget),
            ("GET", "?a", Fault::BadTarget),
            ("GET", "a:1", Fault::BadTarget),
            ("GET", "ftp://a:1/", Fault::BadTarget),
            ("OPTIONS", "*a", Fault::BadTarget),
            ("GET", "http://a/b", Fault::SeveralHosts),
            ("GET", "http://b:1/b", Fault::SeveralHosts),
            ("GET", "http://x@a:1/b", Fault::SeveralHosts),
            ("GET", "http:///b", Fault::SeveralHosts),
            ("GET", "/a#b", Fault::TargetCharacter),
            ("GET", "/a?b#c", Fault::TargetCharacter),
            ("GET", "/\u{e9}", Fault::TargetCharacter),
            ("GET", "/?\u{e9}", Fault::TargetCharacter),
            ("GET", "/a\\b", Fault::TargetCharacter),
            ("GET", "/a<b>", Fault::TargetCharacter),
            ("GET", "/a\tb", Fault::TargetCharacter),
            ("GET", "http://a:1/../b", Fault::BadPath),
            ("GET", "/../b", Fault::BadPath),
        ] {
            assert_eq!(check(method, target), Err(fault), "{method} {target}");
        }
    }
}
