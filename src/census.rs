//! The census of the clients' certificates: which ones were seen lately, which of them expire soon, and on which anchors
//! they depend. So an operator knows in advance whom to renew, and when an old authority can go.
//!
//! A serving thread only leaves the client it has admitted where it files the open connection anyway
//! ([`LiveConnections`]). A thread of the census's own fetches them from there, keeps the count, and writes it to disk.

mod entry;
mod file;
mod keeper;
mod ledger;
mod report;
mod soonest;
mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use serde_json::Value;

use crate::UnixTime;
use crate::certificate::Fingerprint;
use crate::config::CensusConfig;
use crate::listener::LiveConnections;
use crate::telemetry::{AnchorGauges, Metrics};
use crate::trust::{Anchor, TrustDomain};
use ledger::{Ledger, Voucher};
use report::{Expiring, OfAnchor, Report};
use tally::{Tally, WITHIN, Window};

pub use keeper::Keeper;
pub use ledger::Seen;

/// What the configuration in force says.
type Settings = Box<dyn Fn() -> CensusConfig + Send + Sync>;

pub struct Census {
    live: Arc<LiveConnections>,
    metrics: Arc<Metrics>,
    clock: fn() -> UnixTime,
    settings: Settings,
    ledger: Mutex<Ledger>,
    /// One at a time sets the gauges and has them rendered.
    publishing: Mutex<()>,
}

impl Census {
    pub fn new(
        live: Arc<LiveConnections>,
        metrics: Arc<Metrics>,
        clock: fn() -> UnixTime,
        settings: impl Fn() -> CensusConfig + Send + Sync + 'static,
    ) -> Self {
        let settings = Box::new(settings);
        live.note_arrivals(settings().maximum > 0);
        Self { live, metrics, clock, settings, ledger: Mutex::default(), publishing: Mutex::default() }
    }

    /// What is known of a certificate.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<Seen> {
        self.receive();
        self.ledger().find(fingerprint)
    }

    /// All metrics, with the counts as they are now. Walks through the open connections: not for serving threads.
    pub fn metrics(&self, trust: &[Arc<TrustDomain>]) -> String {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let (anchors, _) = self.count(trust);
        let gauges = anchors.iter().map(|of| AnchorGauges {
            trust_domain: &of.voucher.trust_domain,
            anchor: &of.voucher.anchor.subject,
            fingerprint: of.voucher.anchor.fingerprint.to_string(),
            connections: of.connections,
            in_use: of.counts.in_use,
            expired: of.counts.expired,
            expiring: std::array::from_fn(|span| (WITHIN[span].0, of.counts.expiring[span])),
        });
        self.metrics.census.set(gauges);
        self.metrics.render()
    }

    /// What `GET /census` answers. Walks through the open connections: not for serving threads.
    pub fn report(&self, trust: &[Arc<TrustDomain>]) -> Value {
        let settings = (self.settings)();
        let (anchors, tally) = self.count(trust);
        let (since, ledger) = (tally.earliest(), self.ledger());
        let next = tally.next().into_iter().map(|entry| {
            let (fingerprint, subject) = ledger.soonest().find(&entry).unzip();
            let voucher = ledger.vouchers().get(usize::from(entry.anchor)).cloned();
            Expiring { entry, voucher, fingerprint, subject }
        });
        Report {
            window: settings.window,
            maximum: settings.maximum,
            held: ledger.len(),
            evicted: ledger.evicted(),
            missed: self.metrics.census.all_missed(),
            since,
            anchors,
            next: next.collect(),
        }
        .to_json()
    }

    /// Each anchor in force, and each other one that somebody who was seen depends on.
    fn count(&self, trust: &[Arc<TrustDomain>]) -> (Vec<OfAnchor>, Tally) {
        self.receive();
        let mut connections: AHashMap<(Arc<str>, Fingerprint), (u64, Arc<Anchor>)> = AHashMap::new();
        self.live.clients(|identity| {
            let key = (identity.trust_domain().clone(), identity.anchor().fingerprint);
            connections.entry(key).or_insert_with(|| (0, identity.anchor().clone())).0 += 1;
        });
        let ledger = self.ledger();
        let tally = ledger.tally(self.window());
        let counted = ledger.vouchers().iter().zip(tally.by_anchor());
        let counted: AHashMap<_, _> = counted
            .map(|(voucher, counts)| (key(voucher), (voucher.clone(), *counts)))
            .filter(|(_, (_, counts))| counts.in_use + counts.superseded > 0)
            .collect();
        drop(ledger);
        let in_force = trust.iter().flat_map(|domain| {
            let anchors = domain.anchors().iter();
            anchors.map(|anchor| Voucher { trust_domain: domain.name().clone(), anchor: anchor.clone() })
        });
        let mut all: Vec<OfAnchor> = in_force
            .map(|voucher| OfAnchor {
                counts: counted.get(&key(&voucher)).map(|(_, counts)| *counts).unwrap_or_default(),
                connections: connections.remove(&key(&voucher)).map_or(0, |(count, _)| count),
                is_in_force: true,
                voucher,
            })
            .collect();
        let known: ahash::AHashSet<_> = all.iter().map(|of| key(&of.voucher)).collect();
        let mut gone: Vec<OfAnchor> = counted
            .into_iter()
            .filter(|(key, _)| !known.contains(key))
            .map(|(key, (voucher, counts))| OfAnchor {
                voucher,
                counts,
                connections: connections.remove(&key).map_or(0, |(count, _)| count),
                is_in_force: false,
            })
            .collect();
        // Connections whose clients nobody has counted, because the census is off or has room for nobody.
        gone.extend(connections.into_iter().map(|((trust_domain, _), (connections, anchor))| OfAnchor {
            voucher: Voucher { trust_domain, anchor },
            counts: tally::Counts::default(),
            connections,
            is_in_force: false,
        }));
        gone.sort_by_key(|of| key(&of.voucher));
        all.extend(gone);
        (all, tally)
    }

    /// Takes over who has come since.
    fn receive(&self) {
        let settings = (self.settings)();
        self.live.note_arrivals(settings.maximum > 0);
        let arrivals = self.live.arrivals();
        self.metrics.census.missed(arrivals.missed);
        if arrivals.clients.is_empty() {
            return;
        }
        let now = (self.clock)();
        let mut ledger = self.ledger();
        let evicted = ledger.evicted();
        for (_, client) in &arrivals.clients {
            ledger.saw(client, settings.maximum, now);
        }
        self.metrics.census.evicted(ledger.evicted() - evicted);
    }

    fn window(&self) -> Window {
        let now = (self.clock)();
        let span = UnixTime::try_from((self.settings)().window.as_secs()).unwrap_or(UnixTime::MAX);
        Window { since: now.saturating_sub(span), now }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(voucher: &Voucher) -> (Arc<str>, Fingerprint) {
    (voucher.trust_domain.clone(), voucher.anchor.fingerprint)
}
