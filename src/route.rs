//! Routes: identity and request to decision. The first route that matches wins; no match is a refusal.

mod accepts;
mod client;
mod identity_key;
mod identity_table;
mod index;
mod miss;
mod request;
#[cfg(test)]
pub(crate) mod sample;

use std::sync::Arc;

use crate::framing::other_reading;
use crate::trust::ClientIdentity;
use index::Index;
use miss::{Misses, StopAtFirst};

pub use accepts::Accepts;
pub use client::{ClientMatch, ClientRule, SanMatch, SerialMatch};
pub use identity_key::{IdentityKey, KeyError};
pub use identity_table::{IdentityTable, TableError};
pub use request::{RequestRule, RequestView};

/// Who may ask for what, and where it goes.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// What may be wrong with a client.
    pub accepts: Accepts,
    pub client: ClientRule,
    pub request: RequestRule,
    pub target: Target,
}

/// Where the requests of a route go.
#[derive(Debug, Clone)]
pub enum Target {
    Pool(Arc<str>),
    /// The client's row in a table says; without a row the fallback, without a fallback nobody gets in.
    Table {
        key: IdentityKey,
        table: Arc<IdentityTable>,
        fallback: Option<Arc<str>>,
    },
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision<'a> {
    Pool {
        route: &'a Route,
        route_index: usize,
        pool: &'a Arc<str>,
    },
    /// A route matched, but its table does not have this client.
    NotInTable {
        route: &'a Route,
        route_index: usize,
    },
    NoRoute,
    /// An origin may read the path as this one, which another route decides about.
    TwoReadings(String),
}

impl Decision<'_> {
    fn route_index(&self) -> Option<usize> {
        match self {
            Self::Pool { route_index, .. } | Self::NotInTable { route_index, .. } => Some(*route_index),
            Self::NoRoute | Self::TwoReadings(_) => None,
        }
    }
}

/// One route, and why it did or did not match.
#[derive(Debug)]
pub struct RouteTrace {
    pub route: Arc<str>,
    pub outcome: RouteOutcome,
}

#[derive(Debug, PartialEq, Eq)]
pub enum RouteOutcome {
    Matched,
    /// Every reason, in words.
    Missed(Vec<String>),
}

/// All routes in their order, with an index that finds the few that can match.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    index: Index,
}

impl RouteTable {
    /// Brings the patterns for hosts, domain names and paths into the form in which they are compared.
    pub fn build(routes: Vec<Route>) -> Self {
        let routes: Vec<Route> = routes.into_iter().map(Route::normalised).collect();
        Self { index: Index::build(&routes), routes }
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A path is matched as it was sent, and sent on as it was matched. Where origins may read it in another way, that one
    /// must lead to the same route.
    pub fn decide(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Decision<'_> {
        let decision = self.decide_as_sent(identity, request);
        let Some(other) = other_reading(request.path) else { return decision };
        let read = self.decide_as_sent(identity, &RequestView { path: &other, ..*request });
        if read.route_index() == decision.route_index() { decision } else { Decision::TwoReadings(other) }
    }

    fn decide_as_sent(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Decision<'_> {
        let matches = |route_index: usize| self.routes[route_index].matches(identity, request);
        match self.index.candidates(identity, request).find(|&route_index| matches(route_index)) {
            Some(route_index) => self.follow(route_index, identity),
            None => Decision::NoRoute,
        }
    }

    fn follow(&self, route_index: usize, identity: Option<&ClientIdentity>) -> Decision<'_> {
        let route = &self.routes[route_index];
        let pool = match &route.target {
            Target::Pool(pool) => Some(pool),
            Target::Table { key, table, fallback } => {
                let row = identity.and_then(|identity| key.find_in(table, identity.certificate()));
                row.or(fallback.as_ref())
            }
        };
        match pool {
            Some(pool) => Decision::Pool { route, route_index, pool },
            None => Decision::NotInTable { route, route_index },
        }
    }

    /// Every route up to the one that decides, with its reasons.
    pub fn explain(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Vec<RouteTrace> {
        let mut traces = Vec::new();
        for route in &self.routes {
            let outcome = route.explain(identity, request);
            let decides = outcome == RouteOutcome::Matched;
            traces.push(RouteTrace { route: route.name.clone(), outcome });
            if decides {
                break;
            }
        }
        traces
    }
}

impl Route {
    fn normalised(self) -> Self {
        Self { client: self.client.normalised(), request: self.request.normalised(), ..self }
    }

    fn matches(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> bool {
        self.check(identity, request, &mut StopAtFirst).is_continue()
    }

    fn explain(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> RouteOutcome {
        let mut reasons = Vec::new();
        // Reasons are gathered to the end: it never breaks off.
        let _ = self.check(identity, request, &mut reasons);
        if reasons.is_empty() { RouteOutcome::Matched } else { RouteOutcome::Missed(reasons) }
    }

    /// The one place where a route is held against a request: deciding and explaining cannot disagree.
    fn check(
        &self,
        identity: Option<&ClientIdentity>,
        request: &RequestView<'_>,
        misses: &mut impl Misses,
    ) -> miss::Checked {
        self.accepts.check(identity, misses)?;
        self.client.check(identity, misses)?;
        self.request.check(request, misses)
    }
}

#[cfg(test)]
mod tests;
