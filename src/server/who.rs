//! All that is known of a client: what it has open, what its certificates say, and whether it would be let in.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admin_view::{AdminState, describe, is_wanted};
use crate::UnixTime;
use crate::admin::{Selector, moment};
use crate::certificate::{Certificate, Fingerprint};
use crate::limits::Network;
use crate::listener::connection::Connection;
use crate::runtime::{ListenerRuntime, Runtime};
use crate::trust::{ClientIdentity, DenyEntry, Standing, TrustSet};

/// So many connections are shown, and so many certificates looked at.
const MOST: usize = 20;

pub(super) struct Acquaintance {
    runtime: Arc<Runtime>,
    connections: Vec<Arc<Connection>>,
    certificates: Vec<Value>,
    /// What the census knows of a certificate that is not at hand.
    seen: Option<Value>,
    /// The entry that was made for this name.
    block: Option<DenyEntry>,
}

impl Acquaintance {
    /// Walks through the open connections, and maybe verifies signatures: not for serving threads.
    pub(super) fn of(
        state: &AdminState,
        selector: &Selector,
        presented: &[Certificate],
        now: UnixTime,
    ) -> Self {
        let runtime = state.cell.load_full();
        let wanted = |connection: &Connection| is_wanted(selector, &runtime, connection);
        let (connections, _) = state.live.page(None, usize::MAX, wanted);
        let mut certificates = Vec::new();
        if let Some(leaf) = presented.first() {
            let chain: Vec<&[u8]> = presented.iter().map(Certificate::der).collect();
            certificates.push(shown(state, leaf, verdicts(&runtime, &chain, now)));
        }
        for identity in distinct(&connections, presented.first()) {
            certificates.push(shown(
                state,
                identity.certificate(),
                verdicts(&runtime, &chain(identity), now),
            ));
        }
        let unknown = selector.fingerprint.filter(|_| certificates.is_empty());
        let seen = unknown.and_then(|fingerprint| seen(state, &fingerprint));
        let block = selector.denied().ok().and_then(|wanted| {
            let entries = state.reloader.blocked().ok()?;
            entries.entries().iter().find(|entry| entry.selector == wanted.selector).cloned()
        });
        Self { runtime, connections, certificates, seen, block }
    }

    /// From how many networks its connections come.
    fn networks(&self) -> usize {
        let mut from: Vec<_> =
            self.connections.iter().map(|connection| Network::of(connection.peer.ip())).collect();
        from.sort_unstable();
        from.dedup();
        from.len()
    }

    pub(super) fn to_json(&self) -> Value {
        let first = self.connections.iter().take(MOST);
        json!({
            "open": self.connections.len(),
            "networks": self.networks(),
            "connections": first.map(|connection| describe(&self.runtime, connection)).collect::<Vec<_>>(),
            "certificates": self.certificates,
            "seen": self.seen,
            "block": self.block,
        })
    }
}

/// The clients of these connections, each certificate once, without the one that is known already.
fn distinct<'a>(connections: &'a [Arc<Connection>], known: Option<&Certificate>) -> Vec<&'a ClientIdentity> {
    let mut found: Vec<&ClientIdentity> = Vec::new();
    for identity in connections.iter().filter_map(|connection| connection.identity.as_deref()) {
        let fingerprint = identity.certificate().fingerprint();
        let is_new = found.iter().all(|other| other.certificate().fingerprint() != fingerprint)
            && known.is_none_or(|known| known.fingerprint() != fingerprint);
        if is_new {
            found.push(identity);
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

fn shown(state: &AdminState, certificate: &Certificate, listeners: Vec<Value>) -> Value {
    let names = certificate.subject_alternative_names();
    json!({
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "serial": certificate.serial().to_string(),
        "fingerprint": certificate.fingerprint().to_string(),
        "key_fingerprint": certificate.key_fingerprint().to_string(),
        "not_before": moment(certificate.not_before()),
        "not_after": moment(certificate.not_after()),
        "alternative_names": names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "seen": seen(state, certificate.fingerprint()),
        "listeners": listeners,
    })
}

fn seen(state: &AdminState, fingerprint: &Fingerprint) -> Option<Value> {
    let seen = state.census.find(fingerprint)?;
    Some(json!({
        "first": moment(seen.first_seen),
        "last": moment(seen.last_seen),
        "trust_domain": &*seen.trust_domain,
        "anchor": seen.anchor.subject,
        "not_after": seen.not_after.and_then(moment),
        "superseded": seen.is_superseded,
        "subject": seen.subject.as_deref(),
    }))
}

/// What each listener that asks for a certificate would say to this chain, leaf first.
fn verdicts(runtime: &Runtime, chain: &[&[u8]], now: UnixTime) -> Vec<Value> {
    let listeners =
        runtime.listeners.iter().filter_map(|listener| Some((listener, listener.trust.as_ref()?)));
    let verdict = |(listener, trust): (&Arc<ListenerRuntime>, &Arc<TrustSet>)| {
        let verdict = trust.verify(chain, now);
        let (identity, refusal) = (verdict.as_ref().ok(), verdict.as_ref().err());
        let quarantined = identity.and_then(|identity| match identity.standing() {
            Standing::Good => None,
            Standing::Quarantined(fault) => Some(fault.kind.as_str()),
        });
        json!({
            "listener": &*listener.name,
            "admitted": identity.is_some(),
            "quarantined": quarantined,
            "trust_domain": identity.map(|identity| &**identity.trust_domain()),
            "reason": refusal.map(|refusal| refusal.reason.as_str()),
            "detail": refusal.map(|refusal| &*refusal.detail),
        })
    };
    listeners.map(verdict).collect()
}

/// What was verified when the client came, without the anchor.
fn chain(identity: &ClientIdentity) -> Vec<&[u8]> {
    let intermediates = identity.intermediates().iter().map(Vec::as_slice);
    std::iter::once(identity.certificate().der()).chain(intermediates).collect()
}
