//! What is wrong with a configuration, for the person who must mend it.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key path: `listeners[0].tls.certificates[0].key`.
    pub at: String,
    pub found: String,
    pub expected: Option<String>,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {}", printable(&self.at), printable(&self.found))?;
        if let Some(expected) = &self.expected {
            write!(f, "\n    expected: {}", printable(expected))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n    hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

/// Text out of a file could hold anything; a terminal must not interpret it.
fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escape).collect()
}

/// Everything that is wrong with a file and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let plural = if count == 1 { "problem" } else { "problems" };
        write!(f, "error: {} cannot be used: {count} {plural}", self.file.display())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}
