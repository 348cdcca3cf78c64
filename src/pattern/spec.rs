//! How a pattern is written in the configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A text, in which `*` stands for any run of characters, or a text whose kind is named.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(untagged)]
pub enum PatternSpec {
    /// Exact; with a `*` in it, a glob.
    Text(String),
    Kind(PatternKind),
}

/// A pattern whose kind is named.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
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

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Exact,
    Prefix,
    Suffix,
    Glob,
    Regex,
}

/// By hand: what serde says about an untagged enum helps nobody.
impl<'de> Deserialize<'de> for PatternSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = PatternSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or `{ exact | prefix | suffix | glob | regex: TEXT }`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PatternSpec, E> {
        Ok(PatternSpec::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PatternSpec, A::Error> {
        let Some(key) = map.next_key::<Key>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let text = map.next_value::<String>()?;
        if map.next_key::<Key>()?.is_some() {
            return Err(A::Error::custom("a pattern is of one kind only"));
        }
        Ok(PatternSpec::Kind(match key {
            Key::Exact => PatternKind::Exact(text),
            Key::Prefix => PatternKind::Prefix(text),
            Key::Suffix => PatternKind::Suffix(text),
            Key::Glob => PatternKind::Glob(text),
            Key::Regex => PatternKind::Regex(text),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<PatternSpec, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pattern_is_a_text_or_a_kind_with_a_text() {
        assert_eq!(read("sensor-*"), Ok(PatternSpec::Text("sensor-*".into())));
        assert_eq!(read("{regex: 'a|b'}"), Ok(PatternSpec::Kind(PatternKind::Regex("a|b".into()))));
        assert_eq!(read("{exact: '*'}"), Ok(PatternSpec::Kind(PatternKind::Exact("*".into()))));
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let error = |yaml: &str| read(yaml).unwrap_err();
        assert!(error("{prefx: a}").contains("expected one of `exact`, `prefix`"), "{}", error("{prefx: a}"));
        assert!(error("{prefix: a, suffix: b}").contains("one kind only"));
        assert!(error("{}").contains("expected a text, or `{ exact"));
        assert!(error("12").contains("invalid type: integer `12`, expected a text"));
    }
}
