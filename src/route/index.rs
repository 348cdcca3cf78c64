//! Finds the routes that can match a request, so that ten thousand of them cost like ten.
//!
//! A route that asks for exact values can match only where one of these values occurs. Each such route is filed under
//! the values of the one field that fewest other routes ask for; the rest is always tried. Whatever is found is
//! checked in full afterwards, so the index can be wrong in one way only: by leaving a route out.

mod key;
mod merge;

use ahash::{AHashMap, RandomState};

use super::{RequestView, Route};
use crate::trust::ClientIdentity;
use key::{Key, Kind};

pub(super) use merge::Candidates;

/// Numbers of routes, in ascending order, by the hash of a key. Two keys with one hash cost a check in vain, no more.
#[derive(Debug)]
pub(super) struct Index {
    hasher: RandomState,
    buckets: AHashMap<u64, Vec<u32>>,
    /// Routes without a single exact value.
    always: Vec<u32>,
    /// The kinds of keys that are in use at all: what nobody asks for is not looked up.
    kinds: Vec<Kind>,
    /// The longest root of a subtree: a path is not looked up piece by piece beyond it.
    longest_root: usize,
}

impl Index {
    pub(super) fn build(routes: &[Route]) -> Self {
        let mut index = Self {
            hasher: RandomState::new(),
            buckets: AHashMap::new(),
            always: Vec::new(),
            kinds: Vec::new(),
            longest_root: 0,
        };
        let fields: Vec<Vec<Vec<Key<'_>>>> = routes.iter().map(key::fields).collect();
        // How many routes ask for a value. One that fewer of them share, on average, is a better place to look for them.
        let mut asked: AHashMap<Key<'_>, u64> = AHashMap::new();
        for key in fields.iter().flatten().flatten() {
            *asked.entry(*key).or_default() += 1;
        }
        for (number, fields) in fields.iter().enumerate() {
            let crowd = |field: &Vec<Key<'_>>| -> u64 {
                let sum: u64 = field.iter().filter_map(|key| asked.get(key)).sum();
                sum * 1024 / field.len() as u64
            };
            match fields.iter().min_by_key(|field| crowd(field)) {
                Some(field) => field.iter().for_each(|key| index.file(key, number as u32)),
                None => index.always.push(number as u32),
            }
        }
        index
    }

    fn file(&mut self, key: &Key<'_>, number: u32) {
        if !self.kinds.contains(&key.kind) {
            self.kinds.push(key.kind);
        }
        if key.kind.is_root() {
            self.longest_root = self.longest_root.max(key.value.len());
        }
        let bucket = self.buckets.entry(self.hasher.hash_one(key)).or_default();
        // A rule may name a value twice.
        if bucket.last() != Some(&number) {
            bucket.push(number);
        }
    }

    /// The routes that can match, in ascending order.
    pub(super) fn candidates(
        &self,
        identity: Option<&ClientIdentity>,
        request: &RequestView<'_>,
    ) -> Candidates<'_> {
        let mut candidates = Candidates::new(&self.always);
        if self.buckets.is_empty() {
            return candidates;
        }
        for kind in &self.kinds {
            key::found(*kind, self.longest_root, identity, request, |key| {
                if let Some(bucket) = self.buckets.get(&self.hasher.hash_one(key)) {
                    candidates.add(bucket);
                }
            });
        }
        candidates
    }
}
