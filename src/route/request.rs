//! What a route asks of a request.

use http::{HeaderName, Method};

use super::miss::{Checked, Misses, all_of, any_of};
use crate::fields::{Fields, text};
use crate::pattern::{PathPattern, Pattern};

/// What routes look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Lower case, without port, brackets and final dot.
    pub host: &'a str,
    pub path: &'a str,
    pub method: &'a Method,
    pub headers: Fields<'a>,
}

/// Every field that is not empty must match; of its values, any.
#[derive(Debug, Clone, Default)]
pub struct RequestRule {
    pub host: Vec<Pattern>,
    pub path: Vec<PathPattern>,
    pub method: Vec<Method>,
    /// All that are named must be there. Patterns for one name are alternatives, and a header that a request has
    /// several times must match each time: nobody knows which one the origin will read.
    pub header: Vec<(HeaderName, Pattern)>,
}

impl RequestRule {
    pub(super) fn normalised(self) -> Self {
        Self {
            host: self.host.into_iter().map(Pattern::lower_case).collect(),
            path: self.path.into_iter().map(Pattern::for_paths).collect(),
            ..self
        }
    }

    pub(super) fn check(&self, request: &RequestView<'_>, misses: &mut impl Misses) -> Checked {
        misses.require(any(&self.host, request.host), || {
            format!("host is `{}`, wanted {}", request.host, any_of(&self.host))
        })?;
        misses.require(any(&self.path, request.path), || {
            format!("path is `{}`, wanted {}", request.path, any_of(&self.path))
        })?;
        let method = self.method.is_empty() || self.method.contains(request.method);
        misses.require(method, || {
            format!("method is {}, wanted {}", request.method, any_of(&self.method).replace('`', ""))
        })?;
        self.header.iter().try_for_each(|(name, _)| self.check_header(name, request.headers, misses))
    }

    fn check_header(&self, name: &HeaderName, sent: Fields<'_>, misses: &mut impl Misses) -> Checked {
        let wanted = || self.header.iter().filter(|(other, _)| other == name).map(|(_, pattern)| pattern);
        let fits = |value: &str| wanted().any(|pattern| pattern.matches(value));
        let values = || sent.all(name.as_str());
        let is_there = values().next().is_some();
        let holds = is_there && values().all(|value| text(value).is_some_and(fits));
        misses.require(holds, || {
            let texts = values().map(String::from_utf8_lossy);
            let found = if is_there { all_of(texts) } else { "missing".to_owned() };
            format!("header {name} is {found}, wanted {}", any_of(wanted()))
        })
    }
}

fn any(patterns: &[Pattern], value: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(value))
}
