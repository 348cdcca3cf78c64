//! Sections, lists and mappings of the YAML, and what is common to their elements.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::super::shape;
use super::{Builder, is_name};

impl Builder {
    /// Reads a value. Everything that is wrong with its shape is told, not the first thing only.
    pub(super) fn read<T: DeserializeOwned>(&mut self, at: &str, value: &Value) -> Option<T> {
        shape::read(at, value, &mut self.problems)
    }

    pub(super) fn section<T: DeserializeOwned>(&mut self, root: &Mapping, name: &str) -> Option<T> {
        let value = root.get(name)?;
        self.read(name, value)
    }

    /// The elements of a list that can be read, with their numbers and paths.
    pub(super) fn items<T: DeserializeOwned>(
        &mut self,
        root: &Mapping,
        name: &str,
        needed: Needed,
    ) -> Vec<(usize, String, T)> {
        let items = match root.get(name) {
            Some(Value::Sequence(items)) if !items.is_empty() => items.as_slice(),
            None | Some(Value::Null | Value::Sequence(_)) => {
                if matches!(needed, Needed::Yes) {
                    self.problem(name, "there are none", Some("a list with at least one element"), None);
                }
                return Vec::new();
            }
            Some(_) => {
                self.problem(name, "it is not a list", Some("a list"), None);
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{name}[{index}]");
            if let Some(item) = self.read(&at, item) {
                read.push((index, at, item));
            }
        }
        read
    }

    /// The entries of a mapping that can be read, with their names and paths.
    pub(super) fn entries<T: DeserializeOwned>(
        &mut self,
        root: &Mapping,
        name: &str,
    ) -> Vec<(String, String, T)> {
        let entries = match root.get(name) {
            Some(Value::Mapping(entries)) => entries,
            None | Some(Value::Null) => return Vec::new(),
            Some(_) => {
                self.problem(name, "it is not a mapping", Some("a mapping of names"), None);
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (key, value) in entries {
            let Some(key) = key.as_str().filter(|key| is_name(key)) else {
                let found = format!("{key:?} is not a name");
                self.problem(name, found, Some("letters, digits, `-`, `_` and `.`"), None);
                continue;
            };
            let at = format!("{name}.{key}");
            if let Some(value) = self.read(&at, value) {
                read.push((key.to_owned(), at, value));
            }
        }
        read
    }

    /// Names are compared as the file has them: what cannot be read otherwise still has its name and its number.
    pub(super) fn unique(&mut self, root: &Mapping, section: &str, key: &str) {
        let mut seen = HashMap::new();
        let items = root.get(section).and_then(Value::as_sequence);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let Some(name) = item.get(key).and_then(Value::as_str) else { continue };
            let first = *seen.entry(name).or_insert(index);
            if first != index {
                let at = format!("{section}[{index}].{key}");
                self.problem(at, format!("`{name}` is what `{section}[{first}]` has already"), None, None);
            }
        }
    }

    /// A name that is given may be the one that another element has by its number. Not asked while an element cannot be
    /// read: its place would be another one's.
    pub(super) fn check_numbered<'a>(&mut self, section: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashMap::new();
        for (index, name) in names.enumerate() {
            let first = *seen.entry(name).or_insert(index);
            let at = format!("{section}[{index}].name");
            if first != index && self.problems.iter().all(|problem| problem.at != at) {
                self.problem(at, format!("`{name}` is the name of `{section}[{first}]`"), None, None);
            }
        }
    }
}

pub(super) enum Needed {
    Yes,
    No,
}

pub(super) fn names(section: Option<&Value>) -> Vec<String> {
    let entries = section.and_then(Value::as_mapping);
    entries.into_iter().flat_map(|m| m.keys().filter_map(Value::as_str)).map(str::to_owned).collect()
}
