//! Connections that are open, found again when they must end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;

use super::connection::{Connection, ConnectionId};
use crate::UnixTime;
use crate::shard::Level;

/// So many locks, lest two threads wait for the same one.
const SHARDS: usize = 64;

/// All open connections, of all listeners. The drain waits until there is none.
pub struct LiveConnections {
    /// Also those that still shake hands.
    count: Level,
    admitted: Box<[Shard]>,
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Open>);

struct Open {
    connections: AHashMap<ConnectionId, Arc<Connection>>,
    /// No certificate on the path of one of these clients expires earlier.
    earliest: UnixTime,
}

impl Default for Open {
    fn default() -> Self {
        Self { connections: AHashMap::new(), earliest: UnixTime::MAX }
    }
}

impl Default for LiveConnections {
    fn default() -> Self {
        Self { count: Level::default(), admitted: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveConnections {
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// A connection was accepted; it counts until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        self.count.up();
        Entered(self.clone())
    }

    /// Asks every connection to end as soon as it has nothing to do.
    pub fn end_all(&self) {
        for shard in &self.admitted {
            for connection in shard.lock().connections.values() {
                connection.end();
            }
        }
    }

    /// Shows all connections to `visit`, some at a time. No lock is held meanwhile.
    pub(super) fn visit(&self, mut visit: impl FnMut(Vec<Arc<Connection>>)) {
        for shard in &self.admitted {
            let connections = shard.lock().connections.values().cloned().collect();
            visit(connections);
        }
    }

    /// Connections whose clients' certificates have expired. Each shard knows when the next one will, so that looking
    /// costs next to nothing while none does.
    pub(super) fn expired(&self, now: UnixTime) -> Vec<Arc<Connection>> {
        let mut expired = Vec::new();
        for shard in &self.admitted {
            let mut open = shard.lock();
            if open.earliest >= now {
                continue;
            }
            open.earliest = UnixTime::MAX;
            let Open { connections, earliest } = &mut *open;
            for connection in connections.values() {
                match valid_until(connection) {
                    until if until < now => expired.push(connection.clone()),
                    until => *earliest = until.min(*earliest),
                }
            }
        }
        expired
    }

    fn shard(&self, id: ConnectionId) -> &Shard {
        // The numbers are spread evenly: see `ConnectionId::next`.
        &self.admitted[id.0 as usize >> 16 & (SHARDS - 1)]
    }
}

/// The last moment at which the client would be let in.
fn valid_until(connection: &Connection) -> UnixTime {
    connection.identity.as_ref().map_or(UnixTime::MAX, |identity| identity.valid_until())
}

/// Counts as open until dropped.
pub(super) struct Entered(Arc<LiveConnections>);

impl Entered {
    /// Its client is known now; it can be found until the guard is dropped.
    pub(super) fn admit(&self, connection: &Arc<Connection>) -> Admitted<'_> {
        let mut open = self.0.shard(connection.id).lock();
        open.earliest = open.earliest.min(valid_until(connection));
        open.connections.insert(connection.id, connection.clone());
        drop(open);
        Admitted { live: &self.0, id: connection.id }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.count.down();
    }
}

pub(super) struct Admitted<'a> {
    live: &'a LiveConnections,
    id: ConnectionId,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.live.shard(self.id).lock().connections.remove(&self.id);
    }
}
