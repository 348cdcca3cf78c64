//! YAML values → the mirror, past every mistake: what does not fit is told, taken out, and the reading goes on.

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use serde_yaml::{Mapping, Value};

use super::Problem;
use super::scalar::closest;

/// `None` when anything is wrong with the shape; all of it is among the problems then.
pub(super) fn read<T: DeserializeOwned>(at: &str, value: &Value, problems: &mut Vec<Problem>) -> Option<T> {
    let mut rest = value.clone();
    let mut removed: Vec<String> = Vec::new();
    loop {
        // Each turn takes a key out, so that there is a last one.
        match serde_path_to_error::deserialize(rest.clone()) {
            Ok(read) => return removed.is_empty().then_some(read),
            Err(error) => {
                let segments: Vec<Segment> = error.path().iter().cloned().collect();
                let place = path(at, &segments);
                let text = error.into_inner().to_string();
                let missing = quoted_after(&text, "missing field `").map(|key| format!("{place}.{key}"));
                // What lacks a key that was taken out, or holds a place that is told already, is no news.
                let at = missing.as_ref().unwrap_or(&place);
                let told_already = problems.iter().any(|problem| problem.at == *at);
                if !told_already && !removed.iter().any(|told| holds(at, told) || holds(told, at)) {
                    problems.push(problem(at, &text));
                }
                if let Some(meant) = meant(&text).filter(|_| text.starts_with("unknown field")) {
                    let parent = place.rsplit_once('.').map_or(place.as_str(), |(parent, _)| parent);
                    removed.push(format!("{parent}.{meant}"));
                }
                removed.push(place);
                if !take_out(&mut rest, &segments) {
                    return None;
                }
            }
        }
    }
}

fn problem(at: &str, text: &str) -> Problem {
    let hint = meant(text).map(|near| format!("did you mean `{near}`?"));
    let found = if text.starts_with("missing field `") { "missing".to_owned() } else { in_words(text) };
    Problem { at: at.to_owned(), found, expected: None, hint }
}

/// serde names our own types, which nobody who writes a configuration has heard of.
fn in_words(text: &str) -> String {
    match text.split_once("expected struct ") {
        Some((before, name)) => {
            let rest = name.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            format!("{before}expected a mapping{rest}")
        }
        None => text.to_owned(),
    }
}

/// Whether the path `inner` is `outer` or lies within it.
fn holds(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn path(at: &str, segments: &[Segment]) -> String {
    let mut path = at.to_owned();
    for segment in segments {
        match segment {
            Segment::Seq { index } => path += &format!("[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } => path += &format!(".{key}"),
            Segment::Unknown => {}
        }
    }
    path
}

/// Takes out the innermost key on the way: an element of a list would change the numbers of those behind it.
fn take_out(value: &mut Value, segments: &[Segment]) -> bool {
    let Some(last) = segments.iter().rposition(|segment| matches!(segment, Segment::Map { .. })) else {
        return false;
    };
    let mut place = value;
    for segment in &segments[..last] {
        let next = match segment {
            Segment::Seq { index } => place.get_mut(*index),
            Segment::Map { key } => place.get_mut(key.as_str()),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        place = next;
    }
    match (&segments[last], place) {
        (Segment::Map { key }, Value::Mapping(entries)) => entries.shift_remove(key.as_str()).is_some(),
        _ => false,
    }
}

/// serde names the known keys in its message; the one that is meant is most like the one that is there.
fn meant(text: &str) -> Option<&str> {
    let unknown =
        quoted_after(text, "unknown field `").or_else(|| quoted_after(text, "unknown variant `"))?;
    let known = text.split('`').skip(3).step_by(2);
    closest(unknown, known)
}

fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.split('`').next()
}

/// A key with nothing behind it is a slip, and must not be taken for a default: `client:` would let in every verified
/// client, `tls:` would speak to an origin without TLS. The same holds for the conditions of a route that are empty.
pub(super) fn refuse_nothing(root: &Mapping, problems: &mut Vec<Problem>) {
    for (key, value) in root {
        walk(&key_text(key), value, Emptiness::Allowed, problems);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Emptiness {
    Allowed,
    /// Within the conditions of a route.
    Refused,
}

fn walk(at: &str, value: &Value, emptiness: Emptiness, problems: &mut Vec<Problem>) {
    let empty = match value {
        Value::Null => {
            problems.push(told(at, "nothing stands here", "a value, or no such key"));
            return;
        }
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        _ => false,
    };
    if empty && emptiness == Emptiness::Refused {
        problems.push(told(
            at,
            "it is empty, which would match everything",
            "at least one condition, or no such key",
        ));
    }
    match value {
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{at}[{index}]"), item, emptiness, problems);
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let key = key_text(key);
                let condition = (at.starts_with("routes[") || at.starts_with("limits["))
                    && (key == "client" || key == "request");
                let emptiness = if condition { Emptiness::Refused } else { emptiness };
                walk(&format!("{at}.{key}"), value, emptiness, problems);
            }
        }
        _ => {}
    }
}

fn told(at: &str, found: &str, expected: &str) -> Problem {
    Problem { at: at.to_owned(), found: found.to_owned(), expected: Some(expected.to_owned()), hint: None }
}

fn key_text(key: &Value) -> String {
    key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read is asked")]
    struct Outer {
        name: String,
        count: Option<u32>,
        inner: Option<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it can be read is asked")]
    struct Inner {
        weight: u32,
    }

    fn told(yaml: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let read: Option<Outer> = read("x", &serde_yaml::from_str(yaml).unwrap(), &mut problems);
        assert_eq!(read.is_some(), problems.is_empty());
        problems.into_iter().map(|problem| problem.at).collect()
    }

    #[test]
    fn every_mistake_of_one_element_is_told() {
        let yaml = "{ name: [], count: -1, inner: [{ weight: 1, a: 1 }, { weigth: 1, b: 2 }], other: 1 }";
        let paths = ["x.name", "x.count", "x.inner[0].a", "x.inner[1].weigth", "x.inner[1].b", "x.other"];
        assert_eq!(told(yaml), paths);
    }

    #[test]
    fn what_is_expected_is_told_in_the_words_of_yaml() {
        let mut problems = Vec::new();
        let value = serde_yaml::from_str("{ name: x, inner: [1] }").unwrap();
        assert!(read::<Outer>("x", &value, &mut problems).is_none());
        assert_eq!(problems[0].found, "invalid type: integer `1`, expected a mapping");
    }

    #[test]
    fn a_misspelt_key_is_not_also_told_to_be_missing() {
        assert_eq!(told("{ nmae: x }"), ["x.nmae"]);
        assert_eq!(told("{ count: 1 }"), ["x.name"]);
        assert_eq!(told("{ name: x }"), [""; 0]);
    }
}
