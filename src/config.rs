//! The configuration: a dumb mirror of the YAML (`ConfigFile`), checked and typed (`Config`) along one path.
//!
//! `check`, start-up and reload all come through here, so what `check` accepts is what runs.

mod build;
mod file;
mod problem;
mod scalar;
mod types;

use std::path::Path;

pub use problem::{ConfigErrors, Problem};
pub use types::*;

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) => Err(ConfigErrors {
                file: path.to_owned(),
                problems: vec![Problem {
                    at: "file".into(),
                    found: format!("it cannot be read: {error}"),
                    expected: None,
                    hint: None,
                }],
            }),
        }
    }

    /// `path` is what relative paths in the text are relative to, and what messages name.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        build::build(path, text)
    }
}

/// The JSON Schema of the YAML, for editors.
pub fn schema() -> serde_json::Value {
    serde_json::to_value(schemars::schema_for!(file::ConfigFile)).unwrap_or_default()
}
