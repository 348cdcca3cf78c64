//! The one mutable cell, and how a request holds on to what was in it.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};

use super::Runtime;
use crate::shard::Sharded;

/// The configuration in force: a request pins one snapshot, a reload swaps the whole.
pub struct Cell(ArcSwap<InForce>);

struct InForce {
    runtime: Arc<Runtime>,
    /// From which each thread takes its pins.
    mine: Sharded<OnceLock<Arc<Held>>>,
}

impl InForce {
    fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime, mine: Sharded::default() }
    }
}

/// Keeps a configuration until it is dropped. To pin one writes to nothing that another thread writes to: a plain `Arc`
/// is one counter for all.
#[derive(Clone)]
pub struct Pinned(Arc<Held>);

/// Counted by one thread's pins; it counts once itself.
struct Held(Arc<Runtime>);

impl Deref for Pinned {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.0.0
    }
}

/// A short look at what is in force.
pub struct Look(Guard<Arc<InForce>>);

impl Deref for Look {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        &self.0.runtime
    }
}

impl Cell {
    pub fn new(runtime: Runtime) -> Self {
        Self(ArcSwap::from_pointee(InForce::new(Arc::new(runtime))))
    }

    /// Not across an `await`.
    pub fn load(&self) -> Look {
        Look(self.0.load())
    }

    pub fn load_full(&self) -> Arc<Runtime> {
        self.0.load().runtime.clone()
    }

    /// For as long as a request or a handshake takes.
    pub fn pin(&self) -> Pinned {
        let in_force = self.0.load();
        Pinned(in_force.mine.mine().get_or_init(|| Arc::new(Held(in_force.runtime.clone()))).clone())
    }

    pub fn store(&self, runtime: Runtime) {
        self.0.store(Arc::new(InForce::new(Arc::new(runtime))));
    }
}
