//! Finds the few routes that can match, so that ten thousand cost what ten do.
//!
//! Each route is filed under the most selective exact value it demands, or, where it demands none, in the residue that
//! every request looks through. A route that demands one of several values is filed under each.

use ahash::{HashMap, RandomState};

use super::rule::{ClientMatch, ClientRule, dns, email, uri};
use super::{RequestView, Route, common_name};
use crate::certificate::AttributeKind;
use crate::pattern::Pattern;
use crate::trust::ClientIdentity;

/// Route numbers by the hash of what they demand; equal hashes only cost a comparison.
#[derive(Debug)]
pub(super) struct Index {
    filed: HashMap<u64, Vec<u32>>,
    residue: Vec<u32>,
    hasher: RandomState,
    /// The kinds of key in use: a request computes no others.
    kinds: Vec<Kind>,
}

/// What a route can be filed under, the most selective first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Fingerprint,
    KeyFingerprint,
    CommonName,
    Email,
    Uri,
    Dns,
    Attribute(AttributeKind),
    Host,
    Path,
}

impl Index {
    pub(super) fn build(routes: &[Route]) -> Self {
        let mut index = Self {
            filed: HashMap::default(),
            residue: Vec::new(),
            hasher: RandomState::new(),
            kinds: Vec::new(),
        };
        for (number, route) in routes.iter().enumerate() {
            let number = number as u32;
            match keys(route) {
                Some((kind, values)) => {
                    for value in values {
                        let bucket =
                            index.filed.entry(index.hasher.hash_one((&kind, value.as_slice()))).or_default();
                        if bucket.last() != Some(&number) {
                            bucket.push(number);
                        }
                    }
                    if !index.kinds.contains(&kind) {
                        index.kinds.push(kind);
                    }
                }
                None => index.residue.push(number),
            }
        }
        index
    }

    /// The lowest-numbered candidate for which `matches` holds.
    pub(super) fn first(
        &self,
        identity: Option<&ClientIdentity>,
        request: &RequestView<'_>,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut best = self.residue.iter().copied().find(|&number| matches(number as usize));
        let mut look = |kind: &Kind, value: &[u8]| {
            let Some(bucket) = self.filed.get(&self.hash(kind, value)) else { return };
            let before = best.unwrap_or(u32::MAX);
            let found = bucket.iter().copied().take_while(|&number| number < before);
            if let Some(number) = found.into_iter().find(|&number| matches(number as usize)) {
                best = Some(number);
            }
        };
        for kind in &self.kinds {
            each_value(kind, identity, request, |value| look(kind, value));
        }
        best.map(|number| number as usize)
    }

    fn hash(&self, kind: &Kind, value: &[u8]) -> u64 {
        self.hasher.hash_one((kind, value))
    }
}

/// Calls `look` with every value of `kind` that this request has.
fn each_value(
    kind: &Kind,
    identity: Option<&ClientIdentity>,
    request: &RequestView<'_>,
    mut look: impl FnMut(&[u8]),
) {
    match kind {
        Kind::Host => return look(request.host.as_bytes()),
        Kind::Path => return look(request.path.as_bytes()),
        _ => {}
    }
    let Some(certificate) = identity.map(ClientIdentity::certificate) else { return };
    let sans = certificate.subject_alternative_names();
    match kind {
        Kind::Fingerprint => look(&certificate.fingerprint().0),
        Kind::KeyFingerprint => look(&certificate.key_fingerprint().0),
        Kind::CommonName => common_name(certificate).into_iter().for_each(|value| look(value.as_bytes())),
        Kind::Email => sans.iter().filter_map(email).for_each(|value| look(value.as_bytes())),
        Kind::Uri => sans.iter().filter_map(uri).for_each(|value| look(value.as_bytes())),
        Kind::Dns => sans.iter().filter_map(dns).for_each(|value| look(value.as_bytes())),
        Kind::Attribute(kind) => {
            certificate.subject().values(kind.clone()).for_each(|value| look(value.as_bytes()));
        }
        Kind::Host | Kind::Path => {}
    }
}

/// The most selective thing that a route demands exactly.
fn keys(route: &Route) -> Option<(Kind, Vec<Vec<u8>>)> {
    let client = match &route.client {
        ClientRule::Verified(client) => client_keys(client),
        ClientRule::Anonymous | ClientRule::Anyone => None,
    };
    client
        .or_else(|| Some((Kind::Path, exact(&route.request.path)?)))
        .or_else(|| Some((Kind::Host, exact(&route.request.host)?)))
}

fn client_keys(client: &ClientMatch) -> Option<(Kind, Vec<Vec<u8>>)> {
    let prints = |prints: &[crate::certificate::Fingerprint]| {
        (!prints.is_empty()).then(|| prints.iter().map(|print| print.0.to_vec()).collect::<Vec<_>>())
    };
    let attribute = |kind: &AttributeKind| {
        client.subject.iter().find(|(wanted, _)| wanted == kind).and_then(|(_, patterns)| exact(patterns))
    };
    let other = || {
        client
            .subject
            .iter()
            .find_map(|(kind, patterns)| Some((Kind::Attribute(kind.clone()), exact(patterns)?)))
    };
    prints(&client.fingerprint)
        .map(|values| (Kind::Fingerprint, values))
        .or_else(|| Some((Kind::KeyFingerprint, prints(&client.key_fingerprint)?)))
        .or_else(|| Some((Kind::CommonName, attribute(&AttributeKind::CommonName)?)))
        .or_else(|| Some((Kind::Email, exact(&client.san.email)?)))
        .or_else(|| Some((Kind::Uri, exact(&client.san.uri)?)))
        .or_else(|| Some((Kind::Dns, exact(&client.san.dns)?)))
        .or_else(other)
}

/// All values, if every pattern is exact.
fn exact(patterns: &[Pattern]) -> Option<Vec<Vec<u8>>> {
    if patterns.is_empty() {
        return None;
    }
    patterns.iter().map(|pattern| pattern.exact().map(|text| text.as_bytes().to_vec())).collect()
}
