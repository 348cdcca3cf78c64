//! All that is denied in one trust domain, whoever wrote the lists.

use std::sync::Arc;

use super::index::{DenyIndex, Role};
use crate::UnixTime;
use crate::certificate::Certificate;

/// The indexes of a trust domain: nearly always none, or one.
#[derive(Clone, Default)]
pub(in crate::trust) struct Denied(Vec<Arc<DenyIndex>>);

impl Denied {
    /// One that holds nothing costs nothing.
    pub(in crate::trust) fn new(indexes: Vec<Arc<DenyIndex>>) -> Self {
        Self(indexes.into_iter().filter(|index| !index.is_empty()).collect())
    }

    pub(in crate::trust) fn indexes(&self) -> &[Arc<DenyIndex>] {
        &self.0
    }

    pub(in crate::trust) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these are the same indexes: not whether others say the same.
    pub(in crate::trust) fn is_same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// How many entries there are, in force or not.
    pub(in crate::trust) fn len(&self) -> usize {
        self.0.iter().map(|index| index.len()).sum()
    }

    /// Why the certificate is denied now, if it is.
    pub(in crate::trust) fn find(
        &self,
        certificate: &Certificate,
        role: Role,
        now: UnixTime,
    ) -> Option<String> {
        self.0.iter().find_map(|index| index.find(certificate, role, now)).map(|denial| denial.to_string())
    }

    /// Whether any entry names the certificate, in force or not: no verdict.
    pub(in crate::trust) fn names(&self, certificate: &Certificate, role: Role) -> bool {
        self.0.iter().any(|index| index.names(certificate, role))
    }

    /// When entries that name the certificate cease to mean something.
    pub(in crate::trust) fn changes(
        &self,
        certificate: &Certificate,
        role: Role,
    ) -> impl Iterator<Item = UnixTime> {
        self.0.iter().flat_map(move |index| index.changes(certificate, role))
    }
}
