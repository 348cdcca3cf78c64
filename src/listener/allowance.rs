//! What limits say of a connection whose client is known, and what it holds of them until it is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{Entry, Hold, Keys, Limits, Network, Stage};
use crate::runtime::Runtime;
use crate::telemetry::LimitRecord;
use crate::trust::ClientIdentity;

/// Kept while the connection is open.
pub(super) struct Allowance {
    pub(super) keys: Arc<Keys>,
    _held: Vec<Hold>,
}

impl Allowance {
    /// `Ok(None)`: nothing is to be asked. `Err` says why it must not come in.
    pub(super) fn ask(
        runtime: &Runtime,
        identity: Option<&ClientIdentity>,
        peer: SocketAddr,
        record: &mut LimitRecord,
    ) -> Result<Option<Self>, String> {
        let limits = &runtime.limits;
        if !limits.concern(Stage::Connection) {
            return Ok(None);
        }
        let keys = limits.keys(runtime.generation, identity, peer);
        let entry = limits.enter(&keys, Network::of(peer.ip()), limits.moment(Instant::now()));
        let name = |number: Option<usize>| limits.rules().get(number?).map(|rule| rule.name().clone());
        record.refused = name(entry.refused);
        record.shadowed = name(entry.shadowed);
        record.networks = entry.networks;
        tell(limits, &entry, identity);
        match entry.refused.and_then(|number| limits.rules().get(number)) {
            Some(rule) => Err(format!("the client is over limit `{}` ({})", rule.name(), rule.measure())),
            None => Ok(Some(Self { keys: Arc::new(keys), _held: entry.held })),
        }
    }
}

/// Once, until it is in fewer networks again.
fn tell(limits: &Limits, entry: &Entry, identity: Option<&ClientIdentity>) {
    let rule = entry.news.and_then(|number| limits.rules().get(number));
    if let (Some(rule), Some(networks), Some(identity)) = (rule, entry.networks, identity) {
        let certificate = identity.certificate();
        log::warn!(
            "`{}` (fingerprint {}) is seen from {networks} networks at once: limit `{}` ({})",
            certificate.subject(),
            certificate.fingerprint(),
            rule.name(),
            rule.measure()
        );
    }
}
