//! The whole decision about one request: who asks for what, and which pool may answer.

use super::refusal::Refusal;
use crate::listener::connection::Connection;
use crate::route::{Decision, RequestView};
use crate::runtime::Runtime;
use crate::trust::Standing;
use crate::upstream::PoolId;

/// What became of a request whose head could be read in one way only.
pub struct Decided {
    /// Number in the runtime's route table, if a route matched.
    pub route: Option<usize>,
    pub pool: Result<PoolId, Refusal>,
}

impl Decided {
    fn refused(refusal: Refusal) -> Self {
        Self { route: None, pool: Err(refusal) }
    }
}

/// In the order in which it can fail.
pub fn decide(runtime: &Runtime, connection: &Connection, request: &RequestView<'_>) -> Decided {
    let Some(listener) = runtime.listeners.get(connection.listener) else {
        return Decided::refused(Refusal::Internal);
    };
    if let Some(sni) = &connection.sni
        && !listener.contexts.same_server(sni, request.host)
    {
        return Decided::refused(Refusal::Misdirected);
    }
    match runtime.routes.decide(connection.identity.as_deref(), request) {
        Decision::Pool { route_index, pool, .. } => {
            Decided { route: Some(route_index), pool: runtime.pools.find(pool).ok_or(Refusal::Internal) }
        }
        Decision::NotInTable { route_index, .. } => {
            Decided { route: Some(route_index), pool: Err(Refusal::NotInTable) }
        }
        Decision::TwoReadings(_) => Decided::refused(Refusal::TwoReadings),
        Decision::NoRoute => {
            let standing = connection.identity.as_ref().map(|identity| identity.standing());
            let is_good = standing.is_none_or(Standing::is_good);
            Decided::refused(if is_good { Refusal::NoRoute } else { Refusal::Quarantined })
        }
    }
}
