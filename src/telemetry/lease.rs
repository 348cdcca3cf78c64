//! How long a labelled series is shown: as long as a configuration in force, or a connection, still counts with it.
//!
//! Without this an endpoint that a reload removed would be shown as unhealthy for ever, and a reload that was
//! refused would leave the names it had introduced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{MetricVec, MetricVecBuilder};

/// How many leases there are on what.
#[derive(Clone, Default)]
pub(super) struct Users(Arc<Mutex<HashMap<String, usize>>>);

impl Users {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds the series of one listener, route or endpoint; the last lease on it takes them out of the registry.
pub(super) struct Lease {
    users: Users,
    key: String,
    forget: Vec<Box<dyn Fn() + Send + Sync>>,
}

impl Lease {
    /// `key` tells apart what is held; two leases on the same key hold the same series.
    pub(super) fn new(users: &Users, key: String) -> Self {
        // Counted before any series is looked up, so that a lease ending meanwhile leaves them alone.
        *users.lock().entry(key.clone()).or_default() += 1;
        Self { users: users.clone(), key, forget: Vec::new() }
    }

    /// The series of `family` with these label values, there at 0 from now on.
    pub(super) fn series<B>(&mut self, family: &MetricVec<B>, labels: &[&str]) -> B::M
    where
        B: MetricVecBuilder + 'static,
    {
        let owned: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let held = family.clone();
        self.forget.push(Box::new(move || {
            // It can only be missing if somebody had removed it already.
            let _ = held.remove_label_values(&owned);
        }));
        family.with_label_values(labels)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        let Some(count) = users.get_mut(&self.key) else { return };
        *count -= 1;
        if *count == 0 {
            users.remove(&self.key);
            // Under the lock: nobody can begin to use the series between the count and its removal.
            for forget in &self.forget {
                forget();
            }
        }
    }
}
