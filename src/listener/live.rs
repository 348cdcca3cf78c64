//! Connections that are open, found again when they must end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ahash::AHashMap;

use super::connection::{Connection, ConnectionId};
use super::linger;
use crate::UnixTime;
use crate::shard::Level;
use crate::trust::ClientIdentity;

/// So many locks, lest two threads wait for the same one.
const SHARDS: usize = 64;

/// All open connections, of all listeners. The drain waits until there is none.
pub struct LiveConnections {
    /// Also those that still shake hands.
    count: Level,
    /// Nobody new is accepted, and who is there is asked to go.
    is_retiring: AtomicBool,
    admitted: Box<[Shard]>,
    /// Whether somebody wants to know who comes.
    notes_arrivals: AtomicBool,
}

/// Clients that were admitted since somebody last asked, each as often as it was.
#[derive(Default)]
pub struct Arrivals {
    /// Each with the time at which its handshake was over.
    pub clients: Vec<(Instant, Arc<ClientIdentity>)>,
    /// That there was no room for.
    pub missed: u64,
}

/// Of one shard; all together some 60,000 in a second, if they are fetched four times in it.
const MOST_ARRIVALS: usize = 256;

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<Open>);

struct Open {
    connections: AHashMap<ConnectionId, Arc<Connection>>,
    /// No certificate on the path of one of these clients expires earlier.
    earliest: UnixTime,
    arrivals: Arrivals,
}

impl Default for Open {
    fn default() -> Self {
        Self { connections: AHashMap::new(), earliest: UnixTime::MAX, arrivals: Arrivals::default() }
    }
}

impl Default for LiveConnections {
    fn default() -> Self {
        Self {
            count: Level::default(),
            is_retiring: AtomicBool::new(false),
            admitted: (0..SHARDS).map(|_| Shard::default()).collect(),
            notes_arrivals: AtomicBool::new(false),
        }
    }
}

impl Arrivals {
    /// Bounded: nobody waits until they are fetched.
    fn note(&mut self, at: Instant, identity: &Arc<ClientIdentity>) {
        if self.clients.len() < MOST_ARRIVALS {
            self.clients.push((at, identity.clone()));
        } else {
            self.missed += 1;
        }
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

    /// Asks every connection to end with its next answer, also those that still shake hands. Nobody is accepted any more.
    pub fn retire_all(&self) {
        self.is_retiring.store(true, Ordering::Release);
        for shard in &self.admitted {
            for connection in shard.lock().connections.values() {
                connection.retire();
            }
        }
    }

    /// Whether all have gone, and nobody can come any more.
    pub fn are_gone(&self) -> bool {
        self.is_retiring.load(Ordering::Acquire) && self.count() == 0 && linger::count() == 0
    }

    /// Shows all connections to `visit`, some at a time. No lock is held meanwhile.
    pub(super) fn visit(&self, mut visit: impl FnMut(Vec<Arc<Connection>>)) {
        for shard in &self.admitted {
            let connections = shard.lock().connections.values().cloned().collect();
            visit(connections);
        }
    }

    /// Shows the clients of all open connections to `visit`, each as often as it has connections.
    pub fn clients(&self, mut visit: impl FnMut(&Arc<ClientIdentity>)) {
        self.visit(|connections| {
            connections.iter().filter_map(|connection| connection.identity.as_ref()).for_each(&mut visit);
        });
    }

    /// From now on who is admitted is noted, or not.
    pub fn note_arrivals(&self, wanted: bool) {
        self.notes_arrivals.store(wanted, Ordering::Relaxed);
    }

    /// Who was admitted since this was last asked, in that order.
    pub fn arrivals(&self) -> Arrivals {
        let mut all = Arrivals::default();
        for shard in &self.admitted {
            let mut arrivals = std::mem::take(&mut shard.lock().arrivals);
            all.clients.append(&mut arrivals.clients);
            all.missed += arrivals.missed;
        }
        all.clients.sort_by_key(|(at, _)| *at);
        all
    }

    /// Up to `most` connections that are `wanted`, behind `after` in an order that does not change: whoever asks page by
    /// page sees each connection once that is open all the while. The second value is true if there are more.
    pub fn page(
        &self,
        after: Option<ConnectionId>,
        most: usize,
        wanted: impl Fn(&Connection) -> bool,
    ) -> (Vec<Arc<Connection>>, bool) {
        let mut page = Vec::new();
        // By shard, then by number: what lies before is not even looked at.
        for shard in &self.admitted[after.map_or(0, shard_of)..] {
            let is_behind = |id: ConnectionId| {
                after.is_none_or(|after| (shard_of(id), id.0) > (shard_of(after), after.0))
            };
            let open = shard.lock();
            let behind = open.connections.iter().filter(|(id, _)| is_behind(**id));
            let mut found: Vec<_> = behind.map(|(_, connection)| connection.clone()).collect();
            drop(open);
            found.retain(|connection| wanted(connection));
            found.sort_unstable_by_key(|connection| connection.id.0);
            let room = most - page.len();
            let is_full = found.len() > room;
            page.extend(found.into_iter().take(room));
            if is_full {
                return (page, true);
            }
        }
        (page, false)
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
            let Open { connections, earliest, .. } = &mut *open;
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
        &self.admitted[shard_of(id)]
    }
}

/// The numbers are spread evenly: see `ConnectionId::next`.
fn shard_of(id: ConnectionId) -> usize {
    id.0 as usize >> 16 & (SHARDS - 1)
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
        if let Some(identity) = &connection.identity
            && self.0.notes_arrivals.load(Ordering::Relaxed)
        {
            open.arrivals.note(connection.opened, identity);
        }
        drop(open);
        // Whoever asked all others to go looked through them before or after this, but is seen to have begun.
        if self.0.is_retiring.load(Ordering::Acquire) {
            connection.retire();
        }
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
        let gone = self.live.shard(self.id).lock().connections.remove(&self.id);
        // It was admitted before it was served, so its socket is closed by now.
        if let Some(connection) = gone {
            connection.closed();
        }
    }
}
