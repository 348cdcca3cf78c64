//! Shows those out who may no longer stay: after a reload, when a certificate expires, when a list grows stale.
//!
//! Never on a serving thread: whoever reloads walks through the open connections, and a thread of its own looks a few
//! times a second what has expired. A connection is told by a flag and a wake-up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::LiveConnections;
use super::connection::Connection;
use crate::UnixTime;
use crate::panics;
use crate::runtime::{Cell, ListenerRuntime, Runtime};
use crate::telemetry::{EndCause, EndedRecord, Leaving, Telemetry};
use crate::trust::{Change, Review};

/// How soon after it expired a connection ends, at the latest, and how exact `grace` is.
const TICK: Duration = Duration::from_millis(250);

/// For requests under way whose client did nothing worse than to come of age.
const GRACE: Duration = Duration::from_secs(10);

pub struct Doorkeeper {
    cell: Arc<Cell>,
    live: Arc<LiveConnections>,
    telemetry: Arc<Telemetry>,
    /// Those that are ending, and when they are cut.
    ending: Mutex<Vec<(Instant, Arc<Connection>)>>,
    /// A review broke off by a fault of the program: the next round makes it good.
    owes: AtomicBool,
}

/// Held during a review.
struct Reviewing<'a>(&'a AtomicBool);

impl Drop for Reviewing<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Release);
        }
    }
}

/// Why a client may not stay.
struct Dismissal {
    cause: EndCause,
    detail: String,
}

impl Doorkeeper {
    pub fn new(cell: Arc<Cell>, live: Arc<LiveConnections>, telemetry: Arc<Telemetry>) -> Self {
        Self { cell, live, telemetry, ending: Mutex::default(), owes: AtomicBool::new(false) }
    }

    /// Looks those open connections over whom it can concern that the configuration in force has taken the place of
    /// `before`, at `since`.
    pub fn review_after(&self, before: &Runtime, since: Instant, now: UnixTime) -> Reviewed {
        let _reviewing = Reviewing(&self.owes);
        panics::provoke("review");
        let runtime = self.cell.load_full();
        let changes = changes(before, &runtime, now);
        if changes.iter().all(|change| *change == Change::Nothing) {
            return Reviewed { ended: 0, has_changed: false };
        }
        let leaving = Leaving::since(since, self.telemetry.metrics.clone());
        let mut reviews = Reviews::new(&runtime, &changes, now);
        let mut ended = Vec::new();
        self.live.visit(|connections| ended.extend(self.review(connections, &mut reviews, Some(&leaving))));
        Reviewed { ended: self.record(&ended), has_changed: true }
    }

    /// Looks every open connection over, by the configuration in force. How many were ended.
    pub fn review_all(&self, now: UnixTime) -> usize {
        let _reviewing = Reviewing(&self.owes);
        panics::provoke("review");
        let mut ended = Vec::new();
        let runtime = self.cell.load_full();
        let everything = anything(&runtime);
        let mut reviews = Reviews::new(&runtime, &everything, now);
        self.live.visit(|connections| ended.extend(self.review(connections, &mut reviews, None)));
        self.record(&ended)
    }

    /// One that was admitted by a configuration that has been replaced meanwhile.
    pub(super) fn review_one(&self, connection: &Arc<Connection>, now: UnixTime) {
        self.review_some(vec![connection.clone()], now);
    }

    fn review_some(&self, connections: Vec<Arc<Connection>>, now: UnixTime) {
        let _reviewing = Reviewing(&self.owes);
        let runtime = self.cell.load_full();
        let everything = anything(&runtime);
        let ended = self.review(connections, &mut Reviews::new(&runtime, &everything, now), None);
        self.record(&ended);
    }

    /// Ends the connections that are `wanted` because an operator says so. Their clients may come again. How many.
    pub fn kick(&self, wanted: impl Fn(&Connection) -> bool, grace: Duration, why: &str) -> usize {
        let (mut count, mut ended) = (0, Vec::new());
        self.live.visit(|connections| {
            let wanted =
                connections.into_iter().filter(|connection| wanted(connection) && !connection.is_cut());
            for connection in wanted {
                count += 1;
                // One that has some time left to end may have less now, but is not counted twice.
                let is_first = connection.dismiss();
                self.end(&connection, grace);
                if is_first {
                    let dismissal = Dismissal { cause: EndCause::Kicked, detail: why.to_owned() };
                    ended.push((connection, dismissal));
                }
            }
        });
        self.record(&ended);
        count
    }

    /// Starts the thread that sees to what time alone changes.
    pub fn start(self: Arc<Self>, clock: fn() -> UnixTime) -> std::io::Result<()> {
        let watch = move || {
            let mut looked = clock();
            loop {
                thread::sleep(TICK);
                let now = clock();
                if panics::contain(|| self.tick(looked, now)).is_some() {
                    // A clock that was set back comes to each moment once more, and what was loaded meanwhile is looked at then.
                    looked = now;
                }
            }
        };
        panics::thread("doorkeeper", watch)
    }

    fn tick(&self, looked: UnixTime, now: UnixTime) {
        self.cut_overdue(Instant::now());
        let has_changed = |listener: &Arc<ListenerRuntime>| {
            listener.trust.as_ref().is_some_and(|it| it.changed_between(looked, now))
        };
        if self.owes.swap(false, Ordering::AcqRel) || self.cell.load().listeners.iter().any(has_changed) {
            self.review_all(now);
            return;
        }
        let expired = self.live.expired(now);
        if !expired.is_empty() {
            self.review_some(expired, now);
        }
    }

    /// Ends those that may not stay before anything is written about them.
    fn review(
        &self,
        connections: Vec<Arc<Connection>>,
        reviews: &mut Reviews<'_>,
        leaving: Option<&Arc<Leaving>>,
    ) -> Vec<(Arc<Connection>, Dismissal)> {
        let mut ended = Vec::new();
        for connection in connections {
            let Some(dismissal) = reviews.judge(&connection) else { continue };
            let grace = reviews.grace(&connection, dismissal.cause);
            if !connection.dismiss() {
                // It is leaving already, but maybe for something less.
                if grace.is_zero() {
                    connection.cut();
                }
                continue;
            }
            if let Some(leaving) = leaving {
                connection.leaves_with(leaving);
            }
            self.end(&connection, grace);
            ended.push((connection, dismissal));
        }
        ended
    }

    fn end(&self, connection: &Arc<Connection>, grace: Duration) {
        if grace.is_zero() {
            connection.cut();
        } else {
            connection.end();
            self.ending().push((Instant::now() + grace, connection.clone()));
        }
    }

    fn cut_overdue(&self, now: Instant) {
        self.ending().retain(|(until, connection)| {
            let is_over = *until <= now;
            if is_over {
                connection.cut();
            }
            // Whoever left by itself is held by nobody else.
            !is_over && Arc::strong_count(connection) > 1
        });
    }

    fn record(&self, ended: &[(Arc<Connection>, Dismissal)]) -> usize {
        let runtime = self.cell.load();
        for (connection, dismissal) in ended {
            let Some(listener) = runtime.listeners.get(connection.listener) else { continue };
            listener.metrics.connection_ended(dismissal.cause);
            self.telemetry.ended(EndedRecord::new(
                connection,
                &listener.name,
                dismissal.cause,
                &dismissal.detail,
            ));
        }
        ended.len()
    }

    fn ending(&self) -> MutexGuard<'_, Vec<(Instant, Arc<Connection>)>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a change.
pub struct Reviewed {
    /// How many connections were ended.
    pub ended: usize,
    /// Whether anything changed about who may be in.
    pub has_changed: bool,
}

/// What has changed for the clients of each listener. Listeners keep their places in a reload.
fn changes(before: &Runtime, after: &Runtime, now: UnixTime) -> Vec<Change> {
    let change = |(index, listener): (usize, &Arc<ListenerRuntime>)| {
        let Some(before) = before.listeners.get(index) else { return Change::Anything };
        match (&listener.trust, &before.trust) {
            _ if listener.mode != before.mode => Change::Anything,
            _ if !listener.door.has_lists_of(&before.door) => Change::Anything,
            (Some(trust), Some(before)) => trust.change_since(before, now),
            (None, None) => Change::Nothing,
            _ => Change::Anything,
        }
    };
    after.listeners.iter().enumerate().map(change).collect()
}

fn anything(runtime: &Runtime) -> Vec<Change> {
    vec![Change::Anything; runtime.listeners.len()]
}

/// What each listener would say now.
struct Reviews<'a> {
    listeners: Vec<(&'a ListenerRuntime, Option<Review<'a>>)>,
}

impl<'a> Reviews<'a> {
    /// `changes` have one for each listener.
    fn new(runtime: &'a Runtime, changes: &'a [Change], now: UnixTime) -> Self {
        let review = |(listener, change): (&'a Arc<ListenerRuntime>, &'a Change)| {
            (&**listener, listener.trust.as_ref().map(|trust| trust.review_after(change, now)))
        };
        Self { listeners: runtime.listeners.iter().zip(changes).map(review).collect() }
    }

    /// `None`: it may stay.
    fn judge(&mut self, connection: &Connection) -> Option<Dismissal> {
        let (listener, review) = self.listeners.get_mut(connection.listener)?;
        let dismissal = |cause, detail: &str| Some(Dismissal { cause, detail: detail.to_owned() });
        if !listener.door.admits(connection.peer.ip()) {
            return dismissal(EndCause::AddressDenied, "the listener's lists keep its address out now");
        }
        match (&connection.identity, review) {
            (None, _) if listener.demands_certificate() => {
                dismissal(EndCause::CertificateRequired, "the listener demands a certificate now")
            }
            (None, _) => None,
            (Some(_), None) => {
                dismissal(EndCause::TrustRemoved, "the listener asks for no certificate any more")
            }
            (Some(identity), Some(review)) => {
                let lapse = review.judge(identity).err()?;
                Some(Dismissal { cause: EndCause::from(&lapse), detail: lapse.to_string() })
            }
        }
    }

    fn grace(&self, connection: &Connection, cause: EndCause) -> Duration {
        let domain = connection.identity.as_ref().and_then(|identity| {
            let (listener, _) = self.listeners.get(connection.listener)?;
            let domains = listener.trust.as_ref()?.domains();
            domains.iter().find(|domain| domain.name() == identity.trust_domain())
        });
        let usual = match cause {
            EndCause::Revoked | EndCause::Denied | EndCause::AddressDenied => Duration::ZERO,
            _ => GRACE,
        };
        domain.and_then(|domain| domain.policy().grace).unwrap_or(usual)
    }
}
