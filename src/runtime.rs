//! Everything a request needs, loaded and ready: made whole from a `Config`, or not at all.

mod blocking;
mod cell;
mod load;
mod tickets;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::UnixTime;
use crate::admin::Token;
use crate::config::{ClientAuthMode, Config, ConfigErrors, DoorConfig, ListenAddress, ListenerLimits};
use crate::confinement::Confinement;
use crate::fetch::WantedStaple;
use crate::headers::{Forwarding, IdentityHeaders};
use crate::limits::Limits;
use crate::listener::contexts::ServerContexts;
use crate::route::RouteTable;
use crate::telemetry::{ListenerMetrics, Metrics, RouteMetrics};
use crate::trust::{TrustDomain, TrustSet};
use crate::upstream::Pools;

pub use cell::{Cell, Pinned};
pub use load::Renewed;
pub use tickets::ListenerTickets;

/// One configuration in force.
#[derive(Clone)]
pub struct Runtime {
    /// Counts the configurations of this process, from 1.
    pub generation: u64,
    pub loaded_at: SystemTime,
    pub config: Config,
    pub listeners: Vec<Arc<ListenerRuntime>>,
    pub trust: Vec<Arc<TrustDomain>>,
    pub pools: Pools,
    pub routes: Arc<RouteTable>,
    /// In the order of `routes`.
    pub route_metrics: Vec<Arc<RouteMetrics>>,
    pub limits: Arc<Limits>,
    pub identity_headers: Arc<IdentityHeaders>,
    pub forwarding: Arc<Forwarding>,
    /// What whoever asks the admin endpoints over TCP must know.
    pub admin_token: Option<Arc<Token>>,
    /// Certificates of ours and anchors, for `/certs`.
    pub certificates: Vec<CertificateSummary>,
    /// The deny list that the gateway keeps itself, if it is there.
    pub own_deny_list: Option<PathBuf>,
    pub staples: Vec<StapleSummary>,
    /// What is legal but should be looked at.
    warnings: Vec<String>,
    /// The same, of revocation lists and deny lists.
    list_warnings: Vec<String>,
}

/// A certificate whose expiry an operator must know about.
#[derive(Debug, Clone)]
pub struct CertificateSummary {
    pub kind: &'static str,
    /// Of the listener or trust domain.
    pub name: Arc<str>,
    pub subject: String,
    pub not_after: UnixTime,
}

/// An OCSP response that goes along with a certificate of ours, or should.
#[derive(Debug, Clone)]
pub struct StapleSummary {
    pub listener: Arc<str>,
    /// Of the certificate.
    pub subject: String,
    /// Until when it may be believed; `None`: there is none that can be used.
    pub next_update: Option<UnixTime>,
    /// Clients are told to insist on it.
    pub is_required: bool,
    /// Where it comes from, unless from a file.
    pub wanted: Option<WantedStaple>,
}

/// One listener, ready to shake hands.
#[derive(Clone)]
pub struct ListenerRuntime {
    pub name: Arc<str>,
    pub address: ListenAddress,
    pub mode: ClientAuthMode,
    pub limits: ListenerLimits,
    pub door: Arc<DoorConfig>,
    pub tickets: ListenerTickets,
    pub contexts: ServerContexts,
    pub trust: Option<Arc<TrustSet>>,
    pub metrics: Arc<ListenerMetrics>,
}

impl ListenerRuntime {
    /// The same listener with these in place of the trust domains of the same names.
    fn trusting(self: &Arc<Self>, trust: &[Arc<TrustDomain>]) -> Arc<Self> {
        let Some(set) = &self.trust else { return self.clone() };
        let newer = |old: &Arc<TrustDomain>| {
            trust.iter().find(|domain| domain.name() == old.name()).unwrap_or(old).clone()
        };
        let domains: Vec<_> = set.domains().iter().map(newer).collect();
        // Chains that were believed are remembered for as long as the same domains are asked.
        if domains.iter().zip(set.domains()).all(|(new, old)| Arc::ptr_eq(new, old)) {
            return self.clone();
        }
        Arc::new(Self { trust: Some(Arc::new(TrustSet::new(domains))), ..Self::clone(self) })
    }

    pub fn demands_certificate(&self) -> bool {
        self.mode == ClientAuthMode::Require
    }
}

/// What outlives any one configuration.
pub struct Surroundings {
    pub metrics: Arc<Metrics>,
    pub started: Instant,
    pub confinement: Arc<Confinement>,
}

impl Runtime {
    /// Reads every file that `config` names. Reports every problem, not the first.
    pub fn load(
        config: Config,
        previous: Option<&Self>,
        surroundings: &Surroundings,
        now: UnixTime,
    ) -> Result<Self, ConfigErrors> {
        load::load(config, previous, surroundings, now)
    }

    /// Reads only those lists anew of which a file is among `changed`.
    pub fn renew(&self, changed: &BTreeSet<PathBuf>, surroundings: &Surroundings, now: UnixTime) -> Renewed {
        load::renew(self, changed, surroundings, now)
    }

    /// What is legal but should be looked at.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        self.warnings.iter().chain(&self.list_warnings)
    }

    /// What outlives any one configuration follows this one from now on: the keys that seal session tickets.
    pub fn take_effect(&self, metrics: &Metrics) {
        for listener in &self.listeners {
            listener.tickets.take_effect(&listener.name, &listener.metrics);
        }
        metrics.show_limits(&self.limits);
    }

    /// Replaces the ticket keys whose time has come; when the next one's comes.
    pub fn rotate_ticket_keys(&self, now: Instant) -> Option<Instant> {
        let listeners = self.listeners.iter();
        listeners.filter_map(|listener| listener.tickets.rotate(now, &listener.name, &listener.metrics)).min()
    }
}
