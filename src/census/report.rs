//! The census for people and programs, as JSON.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::entry::Entry;
use super::ledger::Voucher;
use super::tally::{Counts, WITHIN};
use crate::UnixTime;
use crate::certificate::Fingerprint;

pub(super) struct Report {
    pub window: Duration,
    pub maximum: usize,
    pub held: usize,
    pub evicted: u64,
    pub missed: u64,
    /// Since when clients are known to have been seen, within the window.
    pub since: Option<UnixTime>,
    /// The anchors of one domain in a row, those in force first.
    pub anchors: Vec<OfAnchor>,
    /// With the whole fingerprint and the subject of those that are known by more than a number.
    pub next: Vec<Expiring>,
}

/// A certificate that expires next, as far as it is known.
pub(super) struct Expiring {
    pub entry: Entry,
    pub voucher: Option<Voucher>,
    pub fingerprint: Option<Fingerprint>,
    pub subject: Option<Arc<str>>,
}

/// What depends on an anchor.
pub(super) struct OfAnchor {
    pub voucher: Voucher,
    pub counts: Counts,
    /// Open now.
    pub connections: u64,
    pub is_in_force: bool,
}

impl Report {
    pub(super) fn to_json(&self) -> Value {
        let mut domains: Vec<&Arc<str>> = Vec::new();
        for anchor in &self.anchors {
            if !domains.contains(&&anchor.voucher.trust_domain) {
                domains.push(&anchor.voucher.trust_domain);
            }
        }
        json!({
            "window_seconds": self.window.as_secs(),
            "maximum": self.maximum,
            "held": self.held,
            "evicted": self.evicted,
            "missed": self.missed,
            "since": time(self.since),
            "trust": domains.into_iter().map(|domain| self.domain(domain)).collect::<Vec<_>>(),
            "expiring_next": self.next.iter().map(Expiring::to_json).collect::<Vec<_>>(),
        })
    }

    fn domain(&self, name: &Arc<str>) -> Value {
        let anchors = || self.anchors.iter().filter(|of| of.voucher.trust_domain == *name);
        let counts = anchors().fold(Counts::default(), |sum, of| sum.plus(&of.counts));
        let mut domain = counts_json(&counts);
        domain.insert("domain".into(), json!(**name));
        domain.insert("connections".into(), json!(anchors().map(|of| of.connections).sum::<u64>()));
        domain.insert("anchors".into(), anchors().map(OfAnchor::to_json).collect());
        Value::Object(domain)
    }
}

impl OfAnchor {
    fn to_json(&self) -> Value {
        let mut json = counts_json(&self.counts);
        let anchor = &self.voucher.anchor;
        json.insert("subject".into(), json!(anchor.subject));
        json.insert("fingerprint".into(), json!(anchor.fingerprint.to_string()));
        json.insert("not_after".into(), time(Some(anchor.not_after)));
        json.insert("in_force".into(), json!(self.is_in_force));
        json.insert("connections".into(), json!(self.connections));
        Value::Object(json)
    }
}

fn counts_json(counts: &Counts) -> Map<String, Value> {
    let within = WITHIN.iter().zip(counts.expiring);
    let mut json = Map::new();
    json.insert("certificates".into(), json!(counts.in_use));
    json.insert("superseded".into(), json!(counts.superseded));
    json.insert("expired".into(), json!(counts.expired));
    json.insert(
        "expiring".into(),
        within.map(|((span, _), count)| ((*span).to_owned(), json!(count))).collect(),
    );
    json.insert("last_seen".into(), time(Some(counts.last_seen).filter(|seen| *seen > 0)));
    json
}

impl Expiring {
    fn to_json(&self) -> Value {
        let entry = &self.entry;
        let mut whole = [0; 32];
        whole[..entry.fingerprint.len()].copy_from_slice(&entry.fingerprint);
        let digits = Fingerprint(whole).to_string();
        let voucher = self.voucher.as_ref();
        json!({
            "subject": self.subject.as_deref(),
            "fingerprint": self.fingerprint.map(|whole| whole.to_string()),
            "fingerprint_begins": &digits[..2 * entry.fingerprint.len()],
            "trust_domain": voucher.map(|voucher| &*voucher.trust_domain),
            "anchor": voucher.map(|voucher| &voucher.anchor.subject),
            "not_after": time(entry.not_after.time()),
            "first_seen": time(entry.first_seen.time()),
            "last_seen": time(entry.last_seen.time()),
        })
    }
}

fn time(time: Option<UnixTime>) -> Value {
    time.and_then(|time| jiff::Timestamp::from_second(time).ok())
        .map_or(Value::Null, |time| Value::String(time.to_string()))
}
