//! What a request is about: `name=value` behind the question mark, or as a form in the body.

use std::fmt::Display;
use std::str::FromStr;

/// Each name once.
pub struct Parameters(Vec<(String, String)>);

/// What is wrong with one of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadParameter {
    #[error("`{0}` is there twice")]
    Repeated(String),
    #[error("`{0}` is empty")]
    Empty(String),
    #[error("{name}: {error}")]
    Wrong { name: &'static str, error: String },
    #[error("nothing is called `{name}` here (expected: {expected})")]
    Unknown { name: String, expected: String },
    #[error("{0}")]
    Incomplete(&'static str),
}

impl Parameters {
    pub fn parse(query: &str, form: &[u8]) -> Result<Self, BadParameter> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(form)) {
            if all.iter().any(|(known, _)| *known == name) {
                return Err(BadParameter::Repeated(name.into_owned()));
            }
            // Nothing is never taken for everything.
            if value.is_empty() {
                return Err(BadParameter::Empty(name.into_owned()));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, BadParameter> {
        let wrong = |error: T::Err| BadParameter::Wrong { name, error: error.to_string() };
        self.take(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// What nobody has taken is misspelt, and would have narrowed what was asked for.
    pub fn end(self, known: &[&str]) -> Result<(), BadParameter> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => Err(BadParameter::Unknown { name, expected: known.join(", ") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn query_and_form_are_one() {
        let mut parameters = Parameters::parse("a=1&b=x%20y", b"c=CN%3Dd+e").unwrap();
        assert_eq!(parameters.parsed::<u32>("a"), Ok(Some(1)));
        assert_eq!(parameters.take("b").as_deref(), Some("x y"));
        assert_eq!(parameters.take("c").as_deref(), Some("CN=d e"));
        assert_eq!(parameters.take("d"), None);
        assert_eq!(parameters.end(&[]), Ok(()));
    }

    #[test]
    fn what_could_be_a_mistake_is_one() {
        let repeated = Parameters::parse("a=1", b"a=1").err();
        assert_eq!(repeated, Some(BadParameter::Repeated("a".into())));
        for query in ["a=", "a", "=&a="] {
            assert!(matches!(Parameters::parse(query, b"").err(), Some(BadParameter::Empty(_))), "{query}");
        }
        let mut wrong = Parameters::parse("a=x&subjct=y", b"").unwrap();
        assert!(matches!(wrong.parsed::<u32>("a"), Err(BadParameter::Wrong { name: "a", .. })));
        let told = wrong.end(&["a", "subject"]).unwrap_err().to_string();
        assert_eq!(told, "nothing is called `subjct` here (expected: a, subject)");
    }

    proptest! {
        #[test]
        fn anything_can_be_read_and_what_was_written_comes_back(query in ".*", form in any::<Vec<u8>>(), value in ".+") {
            let _ = Parameters::parse(&query, &form);
            let written = form_urlencoded::Serializer::new(String::new()).append_pair("subject", &value).finish();
            let mut read = Parameters::parse(&written, b"").unwrap();
            prop_assert_eq!(read.take("subject"), Some(value));
        }
    }
}
