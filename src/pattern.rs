//! Patterns for names, hosts and paths: exact, prefix, suffix, glob, or a regular expression.
//!
//! None of them takes more than linear time, whatever a client sends.

mod spec;

use std::fmt;

use regex::{Regex, RegexBuilder};

pub use spec::{PatternKind, PatternSpec};

/// Ready to match.
#[derive(Debug, Clone)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    /// What stands between the `*`s: always two parts or more.
    Glob(Box<[Box<str>]>),
    /// A path and all that lies below it. Held without the slash at its end.
    Subtree(Box<str>),
    /// Anchored at both ends.
    Regex(Box<Regex>),
}

/// A pattern for the path of a request. [`Pattern::for_paths`] gives `/a/*` its meaning.
pub type PathPattern = Pattern;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("an empty pattern matches nothing")]
    Empty,
    #[error("`{text}` is not a regular expression: {detail}")]
    Regex { text: String, detail: String },
}

/// A pattern for paths that no path can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` matches no path (expected: a pattern that begins with `/` or `*`)")]
pub struct NotAPath(String);

/// Of a compiled expression, in bytes; one that is larger is a mistake.
const REGEX_SIZE: usize = 1 << 20;

impl Pattern {
    pub fn parse(spec: &PatternSpec) -> Result<Self, PatternError> {
        let (PatternSpec::Text(text)
        | PatternSpec::Kind(
            PatternKind::Exact(text)
            | PatternKind::Prefix(text)
            | PatternKind::Suffix(text)
            | PatternKind::Glob(text)
            | PatternKind::Regex(text),
        )) = spec;
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        Ok(match spec {
            PatternSpec::Text(text) | PatternSpec::Kind(PatternKind::Glob(text)) => Self::glob(text),
            PatternSpec::Kind(PatternKind::Exact(text)) => Self::Exact(text.as_str().into()),
            PatternSpec::Kind(PatternKind::Prefix(text)) => Self::Prefix(text.as_str().into()),
            PatternSpec::Kind(PatternKind::Suffix(text)) => Self::Suffix(text.as_str().into()),
            PatternSpec::Kind(PatternKind::Regex(text)) => Self::regex(text)?,
        })
    }

    /// Exact where there is no `*`.
    fn glob(text: &str) -> Self {
        let parts: Box<[Box<str>]> = text.split('*').map(Box::from).collect();
        if let [only] = &*parts { Self::Exact(only.clone()) } else { Self::Glob(parts) }
    }

    /// Anchored by construction: an expression that forgets to say where it ends cannot match a longer name.
    fn regex(text: &str) -> Result<Self, PatternError> {
        // Alone first, so that an unbalanced parenthesis cannot escape the anchors.
        compile(text, text, Case::Counts)?;
        compile(text, &format!(r"\A(?:{text})\z"), Case::Counts).map(|regex| Self::Regex(Box::new(regex)))
    }

    /// For host and domain names, which are compared in lower case. The values must be in lower case too.
    #[must_use]
    pub fn lower_case(self) -> Self {
        let lower = |text: Box<str>| text.to_ascii_lowercase().into_boxed_str();
        match self {
            Self::Exact(text) => Self::Exact(lower(text)),
            Self::Prefix(text) => Self::Prefix(lower(text)),
            Self::Suffix(text) => Self::Suffix(lower(text)),
            Self::Subtree(text) => Self::Subtree(lower(text)),
            Self::Glob(parts) => Self::Glob(parts.into_vec().into_iter().map(lower).collect()),
            // Where folding makes it too large it stays as it is, and matches less.
            Self::Regex(regex) => {
                let folded = compile(regex.as_str(), regex.as_str(), Case::Folded);
                Self::Regex(folded.map_or(regex, Box::new))
            }
        }
    }

    /// For paths: `/a/*` is `/a` and everything below it, with or without a slash at the end, and `/*` is every path.
    /// `{prefix: /a/}` leaves `/a` itself out.
    #[must_use]
    pub fn for_paths(self) -> Self {
        match &self {
            Self::Glob(parts) => match &**parts {
                [root, rest] if rest.is_empty() => match root.strip_suffix('/') {
                    Some(root) => Self::Subtree(root.into()),
                    None => self,
                },
                _ => self,
            },
            _ => self,
        }
    }

    /// A pattern that no path can match is a mistake of the one who wrote it.
    pub fn check_path(&self) -> Result<(), NotAPath> {
        let start = match self {
            Self::Exact(text) if &**text == "*" => return Ok(()),
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Glob(parts) if !parts[0].is_empty() => &parts[0],
            _ => return Ok(()),
        };
        if start.starts_with('/') { Ok(()) } else { Err(NotAPath(self.to_string())) }
    }

    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *value,
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
            Self::Glob(parts) => glob_matches(parts, value),
            Self::Subtree(root) => {
                value.strip_prefix(&**root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// The one value it matches, if it is exact: what an index can be made of.
    pub fn exact(&self) -> Option<&str> {
        if let Self::Exact(text) = self { Some(text) } else { None }
    }

    /// A text that ends just before a slash, or with the value, in each value it matches: `/a` for `/a/*` and for
    /// `/a/b*`. For an index; `None` where there is none.
    pub fn root(&self) -> Option<&str> {
        let root = match self {
            Self::Subtree(root) => root,
            Self::Prefix(text) => before_last_slash(text)?,
            Self::Glob(parts) => before_last_slash(parts.first()?)?,
            Self::Exact(_) | Self::Suffix(_) | Self::Regex(_) => return None,
        };
        (!root.is_empty()).then_some(root)
    }

    /// `.example.com` for `*.example.com`: a suffix of each value it matches that begins with a dot. For an index.
    pub fn domain(&self) -> Option<&str> {
        let suffix = match self {
            Self::Suffix(text) => text,
            Self::Glob(parts) => parts.last()?,
            Self::Exact(_) | Self::Prefix(_) | Self::Subtree(_) | Self::Regex(_) => return None,
        };
        suffix.find('.').map(|dot| &suffix[dot..])
    }
}

fn before_last_slash(text: &str) -> Option<&str> {
    text.rfind('/').map(|slash| &text[..slash])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Counts,
    Folded,
}

/// `said` is what the user wrote, `expression` what is made of it.
fn compile(said: &str, expression: &str, case: Case) -> Result<Regex, PatternError> {
    let built =
        RegexBuilder::new(expression).size_limit(REGEX_SIZE).case_insensitive(case == Case::Folded).build();
    built.map_err(|error| {
        // A syntax error draws the expression first; what is wrong stands on the last line.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let detail = last.strip_prefix("error: ").unwrap_or(last).trim_end_matches('.').to_owned();
        PatternError::Regex { text: said.to_owned(), detail }
    })
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

/// For people: the forms that could be taken for another one are named.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "prefix: {text}"),
            Self::Suffix(text) => write!(f, "suffix: {text}"),
            Self::Glob(parts) => f.write_str(&parts.join("*")),
            Self::Subtree(root) => write!(f, "{root}/*"),
            Self::Regex(regex) => {
                let text = regex.as_str();
                let inner = text.strip_prefix(r"\A(?:").and_then(|text| text.strip_suffix(r")\z"));
                write!(f, "regex: {}", inner.unwrap_or(text))
            }
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

    fn kind(kind: PatternKind) -> Pattern {
        Pattern::parse(&PatternSpec::Kind(kind)).unwrap()
    }

    #[test]
    fn a_star_makes_a_glob_and_without_it_the_text_is_exact() {
        assert!(pattern("sensor-*").matches("sensor-1"));
        assert!(!pattern("sensor-*").matches("a-sensor-1"));
        assert!(pattern("*@example.com").matches("a@example.com"));
        assert!(!pattern("*@example.com").matches("a@example.com.evil"));
        assert!(pattern("a*b*c").matches("a-b-b-c") && !pattern("a*b*c").matches("a-c"));
        assert!(pattern("a*a").matches("aa") && !pattern("a*a").matches("a"));
        assert!(pattern("abc").matches("abc") && !pattern("abc").matches("abcd"));
        assert!(pattern("*").matches("") && pattern("**").matches("x"));
    }

    #[test]
    fn exact_text_may_hold_a_star() {
        let exact = kind(PatternKind::Exact("*.example.com".into()));
        assert!(exact.matches("*.example.com") && !exact.matches("api.example.com"));
    }

    #[test]
    fn prefixes_and_suffixes_are_literal() {
        let prefix = kind(PatternKind::Prefix("a*".into()));
        assert!(prefix.matches("a*b") && !prefix.matches("ab"));
        let suffix = kind(PatternKind::Suffix(".com".into()));
        assert!(suffix.matches("x.com") && !suffix.matches("x.com.evil") && !suffix.matches("xcom"));
    }

    #[test]
    fn a_regular_expression_matches_the_whole_value_only() {
        let regex = |text: &str| Pattern::parse(&PatternSpec::Kind(PatternKind::Regex(text.into())));
        assert!(regex("a|ab").unwrap().matches("ab"));
        assert!(!regex("a|ab").unwrap().matches("xab") && !regex("admin").unwrap().matches("not-admin"));
        for value in ["admin\n", "\nadmin", "x\nadmin\ny"] {
            assert!(!regex("(?m)^admin$").unwrap().matches(value));
        }
        for wrong in ["a)|(b", "(", "(?x) a # comment", "a{1000}{1000}"] {
            assert!(matches!(regex(wrong), Err(PatternError::Regex { .. })), "{wrong}");
        }
        assert_eq!(regex("(").unwrap_err().to_string(), "`(` is not a regular expression: unclosed group");
        assert_eq!(regex("a|b").unwrap().to_string(), "regex: a|b");
    }

    #[test]
    fn an_empty_pattern_is_refused() {
        for spec in [PatternSpec::Text(String::new()), PatternSpec::Kind(PatternKind::Prefix(String::new()))]
        {
            assert_eq!(Pattern::parse(&spec).unwrap_err(), PatternError::Empty);
        }
    }

    #[test]
    fn a_path_with_a_star_behind_its_slash_is_a_subtree() {
        let readings = pattern("/readings/*").for_paths();
        for path in ["/readings", "/readings/", "/readings/1", "/readings/1/2"] {
            assert!(readings.matches(path), "{path}");
        }
        for path in ["/reading", "/readings2", "/", "/x/readings"] {
            assert!(!readings.matches(path), "{path}");
        }
        assert!(pattern("/*").for_paths().matches("/") && pattern("/*").for_paths().matches("/a/b"));
        assert!(!pattern("/a").for_paths().matches("/a/") && !pattern("/a*").for_paths().matches("/"));
        assert!(!kind(PatternKind::Prefix("/a/".into())).for_paths().matches("/a"));
        assert_eq!(readings.to_string(), "/readings/*");
    }

    #[test]
    fn a_pattern_that_no_path_can_match_is_noticed() {
        assert!(pattern("readings/*").check_path().is_err());
        for text in ["/readings/*", "*.js", "/", "*"] {
            assert_eq!(pattern(text).check_path(), Ok(()));
            assert_eq!(pattern(text).for_paths().check_path(), Ok(()));
        }
    }

    #[test]
    fn hosts_are_compared_in_lower_case() {
        assert!(pattern("API.Example.com").lower_case().matches("api.example.com"));
        assert!(pattern("*.Example.com").lower_case().matches("api.example.com"));
        assert!(kind(PatternKind::Regex("[A-Z]+".into())).lower_case().matches("api"));
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

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in any::<String>(), value in any::<String>()) {
            for spec in [PatternKind::Glob, PatternKind::Regex, PatternKind::Exact] {
                if let Ok(pattern) = Pattern::parse(&PatternSpec::Kind(spec(text.clone()))) {
                    pattern.matches(&value);
                    pattern.lower_case().for_paths().matches(&value);
                }
            }
        }

        /// What the index of routes rests on.
        #[test]
        fn root_and_domain_are_part_of_every_match(glob in "[a./*]{1,8}", value in "[a./]{0,8}") {
            for pattern in [pattern(&glob), pattern(&glob).for_paths()] {
                if !pattern.matches(&value) {
                    continue;
                }
                if let Some(root) = pattern.root() {
                    let rest = value.strip_prefix(root).unwrap();
                    prop_assert!(rest.is_empty() || rest.starts_with('/'));
                }
                if let Some(domain) = pattern.domain() {
                    prop_assert!(domain.starts_with('.') && value.ends_with(domain));
                }
            }
        }
    }

    #[test]
    fn a_hostile_value_costs_no_more_than_its_length() {
        let glob = pattern(&"a*".repeat(2000));
        let value = format!("{}b", "a".repeat(100_000));
        let started = std::time::Instant::now();
        assert!(glob.matches(&value));
        assert!(!pattern(&format!("{}c", "a*".repeat(2000))).matches(&value));
        assert!(started.elapsed() < std::time::Duration::from_secs(2));
    }
}
