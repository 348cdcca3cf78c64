//! The configuration in force with another list of whom the gateway itself keeps out.

use std::path::Path;
use std::sync::Arc;

use super::Runtime;
use crate::trust::{DenyForm, DenyIndexBuilder, DenyListError, TrustDomain};

impl Runtime {
    /// Nothing is read anew but this list: no other file, whatever is wrong with it just now, stands in the way of whoever
    /// wants to shut a client out. `file` is where it is kept, and `yaml` what it says.
    pub fn blocking(&self, file: &Path, yaml: &str) -> Result<Self, DenyListError> {
        let mut trust = Vec::with_capacity(self.trust.len());
        for domain in &self.trust {
            let mut blocked = DenyIndexBuilder::new(domain.name());
            blocked.read(&file.display().to_string(), DenyForm::Yaml, yaml.as_bytes())?;
            trust.push(Arc::new(TrustDomain::clone(domain).blocking(Arc::new(blocked.finish()))));
        }
        let listeners = self.listeners.iter().map(|listener| listener.trusting(&trust)).collect();
        Ok(Self {
            generation: self.generation + 1,
            listeners,
            trust,
            own_deny_list: Some(file.to_owned()),
            ..self.clone()
        })
    }
}
