//! Patterns for names, hosts and paths: exact, prefix, suffix, glob, or a regular expression.

use std::fmt;

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

/// How a pattern is written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or `{ exact | prefix | suffix | glob | regex: TEXT }`")]
pub enum PatternSpec {
    /// Exact; with a `*` in it, a glob.
    Text(String),
    Kind(PatternKind),
}

/// A pattern whose kind is named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PatternKind {
    /// Nothing is special in it, not even `*`.
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// `*` stands for any run of characters, also none.
    Glob(String),
    /// Must match the whole value.
    Regex(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("an empty pattern matches nothing")]
    Empty,
    #[error("`{text}` is not a regular expression: {detail}")]
    Regex { text: String, detail: String },
}

/// Ready to match. None of them takes more than linear time, whatever a client sends.
#[derive(Debug, Clone)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// What stands between the `*`s.
    Glob(Box<[Box<str>]>),
    Regex(Box<Regex>),
}

/// Of a compiled expression; one that is larger is a mistake.
const REGEX_SIZE: usize = 1 << 20;

impl Pattern {
    pub fn parse(spec: &PatternSpec) -> Result<Self, PatternError> {
        match spec {
            PatternSpec::Text(text) if text.contains('*') => Self::glob(text),
            PatternSpec::Text(text) | PatternSpec::Kind(PatternKind::Exact(text)) => {
                Ok(Self::Exact(full(text)?))
            }
            PatternSpec::Kind(PatternKind::Prefix(text)) => Ok(Self::Prefix(full(text)?)),
            PatternSpec::Kind(PatternKind::Suffix(text)) => Ok(Self::Suffix(full(text)?)),
            PatternSpec::Kind(PatternKind::Glob(text)) => Self::glob(text),
            PatternSpec::Kind(PatternKind::Regex(text)) => Self::regex(text),
        }
    }

    fn glob(text: &str) -> Result<Self, PatternError> {
        full(text)?;
        let parts: Box<[Box<str>]> = text.split('*').map(Box::from).collect();
        Ok(match &*parts {
            [only] => Self::Exact(only.clone()),
            [prefix, last] if last.is_empty() && !prefix.is_empty() => Self::Prefix(prefix.clone()),
            [first, suffix] if first.is_empty() && !suffix.is_empty() => Self::Suffix(suffix.clone()),
            _ => Self::Glob(parts),
        })
    }

    /// Anchored by construction: an expression that forgets to say where it ends cannot match a longer name.
    fn regex(text: &str) -> Result<Self, PatternError> {
        full(text)?;
        let error =
            |error: &dyn fmt::Display| PatternError::Regex { text: text.into(), detail: error.to_string() };
        // Alone first, so that an unbalanced parenthesis cannot escape the anchors.
        Regex::new(text).map_err(|e| error(&e))?;
        let anchored = regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(REGEX_SIZE).build();
        anchored.map(|regex| Self::Regex(Box::new(regex))).map_err(|e| error(&e))
    }

    /// For hosts, which are compared in lower case.
    #[must_use]
    pub fn lower_case(self) -> Self {
        let lower = |text: Box<str>| text.to_ascii_lowercase().into_boxed_str();
        match self {
            Self::Exact(text) => Self::Exact(lower(text)),
            Self::Prefix(text) => Self::Prefix(lower(text)),
            Self::Suffix(text) => Self::Suffix(lower(text)),
            Self::Glob(parts) => Self::Glob(parts.into_vec().into_iter().map(lower).collect()),
            Self::Regex(regex) => Self::Regex(regex),
        }
    }

    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *value,
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Glob(parts) => glob_matches(parts, value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// The one value it matches, if it is exact: what an index can be made of.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(text) => Some(text),
            _ => None,
        }
    }
}

fn full(text: &str) -> Result<Box<str>, PatternError> {
    if text.is_empty() { Err(PatternError::Empty) } else { Ok(text.into()) }
}

/// The first part begins the value, the last one ends it, and those between follow each other; taking each at its
/// first occurrence is always right, so nothing is ever tried twice.
fn glob_matches(parts: &[Box<str>], value: &str) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(mut rest) = value.strip_prefix(&**first) else { return false };
    for part in middle {
        match rest.find(&**part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(&**last)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Glob(parts) => f.write_str(&parts.join("*")),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(&PatternSpec::Text(text.into())).unwrap()
    }

    #[test]
    fn a_star_makes_a_glob_and_without_it_the_text_is_exact() {
        assert!(pattern("sensor-*").matches("sensor-1"));
        assert!(!pattern("sensor-*").matches("a-sensor-1"));
        assert!(pattern("*@example.com").matches("a@example.com"));
        assert!(!pattern("*@example.com").matches("a@example.com.evil"));
        assert!(pattern("a*b*c").matches("a-b-b-c") && !pattern("a*b*c").matches("a-c"));
        assert!(pattern("abc").matches("abc") && !pattern("abc").matches("abcd"));
    }

    #[test]
    fn exact_text_may_hold_a_star() {
        let exact = Pattern::parse(&PatternSpec::Kind(PatternKind::Exact("*.example.com".into()))).unwrap();
        assert!(exact.matches("*.example.com") && !exact.matches("api.example.com"));
    }

    #[test]
    fn a_regular_expression_matches_the_whole_value_only() {
        let regex = |text: &str| Pattern::parse(&PatternSpec::Kind(PatternKind::Regex(text.into())));
        assert!(regex("a|ab").unwrap().matches("ab"));
        assert!(!regex("a|ab").unwrap().matches("xab") && !regex("admin").unwrap().matches("not-admin"));
        assert!(regex("a)|(b").is_err() && regex("(").is_err());
    }

    /// The plain definition of a glob.
    fn naive(pattern: &[u8], value: &[u8]) -> bool {
        match (pattern, value) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=value.len()).any(|at| naive(rest, &value[at..])),
            ([a, pattern @ ..], [b, value @ ..]) => a == b && naive(pattern, value),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_its_definition_says(glob in "[ab*]{1,8}", value in "[ab]{0,10}") {
            prop_assert_eq!(pattern(&glob).matches(&value), naive(glob.as_bytes(), value.as_bytes()));
        }
    }
}
