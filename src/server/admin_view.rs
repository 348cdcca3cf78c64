//! What the admin endpoints show and do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::supervisor::Readiness;
use super::who::Acquaintance;
use crate::admin::{
    Action, AdminView, BlockError, Blocked, Caller, Candidate, KnownNames, Page, Selector, Token, moment,
};
use crate::census::Census;
use crate::certificate::Certificate;
use crate::config::Protocol;
use crate::limits::Mode;
use crate::listener::connection::{Connection, ConnectionId, Progress};
use crate::listener::{Doorkeeper, LiveConnections};
use crate::reload::Reloader;
use crate::runtime::{Cell, Runtime};
use crate::telemetry::{ActionRecord, Telemetry};
use crate::tls;
use crate::trust::{DenyEntry, DenyList, DenySelector};

/// What they look at.
pub struct AdminState {
    pub cell: Arc<Cell>,
    pub reloader: Arc<Reloader>,
    pub telemetry: Arc<Telemetry>,
    pub readiness: Arc<Readiness>,
    pub live: Arc<LiveConnections>,
    pub doorkeeper: Arc<Doorkeeper>,
    pub census: Arc<Census>,
}

/// The endpoints as one caller has them. Everything may take a while: never on a serving thread.
pub struct Admin<'a> {
    pub state: &'a AdminState,
    pub caller: Caller,
}

impl AdminView for Admin<'_> {
    fn token(&self) -> Option<Arc<Token>> {
        self.state.cell.load().admin_token.clone()
    }

    fn is_ready(&self) -> bool {
        self.state.readiness.is_ready()
    }

    fn metrics(&self) -> String {
        self.state.census.metrics(&self.state.cell.load().trust)
    }

    fn status(&self) -> Value {
        let runtime = self.state.cell.load();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self.is_ready(),
            "uptime_seconds": self.state.reloader.surroundings().started.elapsed().as_secs(),
            "configuration": {
                "file": runtime.config.file.display().to_string(),
                "generation": runtime.generation,
                "loaded_at": jiff::Timestamp::try_from(runtime.loaded_at).map(|time| format!("{time:.3}")).ok(),
                "stale_because": self.state.reloader.last_error(),
                "warnings": runtime.warnings().collect::<Vec<_>>(),
            },
            "sandbox": self.state.reloader.surroundings().confinement.to_json(),
            "listeners": runtime.listeners.iter().map(|listener| {
                let (full, resumed, failed) = listener.metrics.handshakes();
                json!({
                    "name": &*listener.name,
                    "address": listener.address.to_string(),
                    "demands_certificate": listener.demands_certificate(),
                    "open_connections": listener.metrics.open_connections(),
                    "handshakes": { "full": full, "resumed": resumed, "failed": failed },
                })
            }).collect::<Vec<_>>(),
            "trust": runtime.trust.iter().map(|domain| json!({
                "name": &**domain.name(),
                "anchors": domain.anchors().len(),
                "revoked": domain.revoked(),
                "denied": domain.denied(),
                "revocation_lists": domain.revocation_lists().map(|list| json!({
                    "issuer": list.issuer(),
                    "scope": list.scope(),
                    "number": list.number().map(ToString::to_string),
                    "revoked": list.len(),
                    "this_update": moment(list.this_update()),
                    "next_update": list.next_update().map(moment),
                    "is_stale": list.next_update().is_some_and(|next| next < tls::now()),
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "pools": runtime.pools.iter().map(|pool| json!({
                "name": &**pool.name(),
                "endpoints": pool.endpoints().iter().map(|endpoint| json!({
                    "address": &**endpoint.address(),
                    "available": endpoint.is_available(),
                    "in_flight": endpoint.in_flight(),
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "routes": runtime.routes.routes().len(),
            "limits": runtime.limits.rules().iter().map(|rule| json!({
                "name": &**rule.name(),
                "allows": rule.measure().to_string(),
                "enforced": rule.spec().mode == Mode::Enforce,
                "keys": rule.meter().held().keys,
                "refused": rule.meter().refused(),
                "shadowed": rule.meter().shadowed(),
            })).collect::<Vec<_>>(),
        })
    }

    fn certificates(&self) -> Value {
        let runtime = self.state.cell.load();
        runtime
            .certificates
            .iter()
            .map(|certificate| {
                json!({
                    "kind": certificate.kind,
                    "name": &*certificate.name,
                    "subject": certificate.subject,
                    "not_after": moment(certificate.not_after),
                })
            })
            .collect()
    }

    fn census(&self) -> Value {
        self.state.census.report(&self.state.cell.load().trust)
    }

    fn names(&self) -> KnownNames {
        let runtime = self.state.cell.load();
        KnownNames {
            listeners: runtime.listeners.iter().map(|listener| listener.name.to_string()).collect(),
            trust_domains: runtime.trust.iter().map(|domain| domain.name().to_string()).collect(),
        }
    }

    fn connections(&self, selector: &Selector, page: &Page) -> Value {
        let runtime = self.state.cell.load_full();
        let after = page.after.map(|number| ConnectionId(number.0));
        let wanted = |connection: &Connection| is_wanted(selector, &runtime, connection);
        let (connections, has_more) = self.state.live.page(after, page.limit, wanted);
        let last = connections.last().filter(|_| has_more);
        json!({
            "connections": connections.iter().map(|it| describe(&runtime, it)).collect::<Vec<_>>(),
            "next": last.map(|connection| format!("{:016x}", connection.id.0)),
            "open": self.state.live.count(),
        })
    }

    fn reload(&self) -> Result<u64, String> {
        self.state.reloader.reload()
    }

    fn kick(&self, selector: &Selector, grace: Duration, reason: Option<&str>) -> usize {
        let runtime = self.state.cell.load_full();
        let wanted = |connection: &Connection| is_wanted(selector, &runtime, connection);
        let why = format!("an operator ended it: {}", reason.unwrap_or("no reason was given"));
        self.state.doorkeeper.kick(wanted, grace, &why)
    }

    fn block(&self, entry: DenyEntry) -> Result<Blocked, BlockError> {
        self.state.reloader.block(entry)
    }

    fn unblock(
        &self,
        selector: &DenySelector,
        domain: Option<&str>,
    ) -> Result<Option<DenyEntry>, BlockError> {
        self.state.reloader.unblock(selector, domain)
    }

    fn blocked(&self) -> Value {
        let place = self.state.cell.load().config.own_deny_list();
        let kept = self.state.reloader.blocked();
        json!({
            "file": place.map(|place| place.path.display().to_string()),
            "blocked": kept.as_ref().map(DenyList::entries).unwrap_or_default(),
            "error": kept.as_ref().err().map(ToString::to_string),
        })
    }

    fn who(&self, selector: &Selector, presented: &[Certificate]) -> Value {
        Acquaintance::of(self.state, selector, presented, tls::now()).to_json()
    }

    fn record(&self, action: Action) {
        self.state.telemetry.action(ActionRecord::new(self.caller, action));
    }
}

pub(super) fn is_wanted(selector: &Selector, runtime: &Runtime, connection: &Connection) -> bool {
    let listener = runtime.listeners.get(connection.listener);
    selector.matches(&Candidate {
        connection: connection.id.0,
        listener: listener.map_or("", |listener| &*listener.name),
        address: connection.peer.ip(),
        identity: connection.identity.as_deref(),
    })
}

pub(super) fn describe(runtime: &Runtime, connection: &Connection) -> Value {
    let listener = runtime.listeners.get(connection.listener);
    let identity = connection.identity.as_deref().map(|identity| {
        let certificate = identity.certificate();
        json!({
            "subject": certificate.subject().to_string(),
            "issuer": certificate.issuer().to_string(),
            "serial": certificate.serial().to_string(),
            "fingerprint": certificate.fingerprint().to_string(),
            "key_fingerprint": certificate.key_fingerprint().to_string(),
            "not_after": moment(certificate.not_after()),
            "trust_domain": &**identity.trust_domain(),
            "anchor": identity.anchor().subject,
            "valid_until": moment(identity.valid_until()),
            "standing": identity.standing().to_string(),
        })
    });
    json!({
        "id": format!("{:016x}", connection.id.0),
        "listener": listener.map(|listener| &*listener.name),
        "peer": connection.peer.to_string(),
        "sni": connection.sni.as_deref(),
        "since": since(connection.opened),
        "tls_version": connection.tls_version,
        "protocol": match connection.protocol {
            Protocol::H2 => "h2",
            Protocol::Http1 => "http/1.1",
        },
        "requests": connection.requests(),
        "ending": connection.progress() > Progress::Open,
        "client": identity,
    })
}

fn since(opened: Instant) -> Option<String> {
    let opened = SystemTime::now().checked_sub(opened.elapsed())?;
    jiff::Timestamp::try_from(opened).ok().map(|time| format!("{time:.3}"))
}
