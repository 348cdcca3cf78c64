//! Who shakes hands next, and who is turned away: the decision, without sockets and without a clock.
//!
//! A handshake is a few *steps*, each as long as the library computes without waiting for the client. One step is taken
//! at a time. Whoever wants one while others do waits in a line, and the lines are served like this:
//!
//! 1. Those whose handshake we have answered come first: leaving them would waste what was spent on them.
//! 2. Then the classes, each with twice the time of the one below it. Nobody has to be believed to be served: a lie about
//!    one's class gains a factor, and never all of the time.
//! 3. Within a class sources take turns by the time that was spent on them (start-time fair queueing): whoever asks
//!    seldom is served before whoever asks always.
//!
//! Whoever has waited for too long is turned away before anything was computed for it. A burst may wait for half of the
//! handshake timeout. Where the lines have not been empty for that long, a wait would only make everybody wait: then
//! patience is a twentieth of the timeout, until they are empty again (CoDel, RFC 8289, as it is used for requests).

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ahash::AHashMap;

/// Sources are told apart by so many places of a hash; those that share one share its time (as in RFC 8290).
const SOURCES: usize = 1024;

/// A source that was let in lately gives way as if it had so many powers of two less: an eighth.
const KNOWN_RANKS: i32 = 3;

/// A client that was answered may be silent for so many times as long as one that said nothing yet.
const PATIENCE: u64 = 4;

/// Virtual time: nanoseconds of handshakes.
type Nanos = u64;

/// Of one connection, never used twice.
pub type Id = u64;

/// What is known of a client before its handshake. The first is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// It offers a session, and comes from an address that was let in lately.
    KnownReturning,
    /// It offers a session.
    Returning,
    /// It comes from an address that was let in lately.
    Known,
    Stranger,
}

impl Class {
    const COUNT: usize = 4;

    pub(super) fn new(offer: Offer, is_known: bool) -> Self {
        match (offer, is_known) {
            (Offer::Session, true) => Self::KnownReturning,
            (Offer::Session, false) => Self::Returning,
            (Offer::Nothing, true) => Self::Known,
            (Offer::Nothing, false) => Self::Stranger,
        }
    }
}

/// Whether a client says that it has a session to resume. Anybody can say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Session,
    Nothing,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Too little had come to answer it.
    Unanswered,
    /// The handshake goes on; whether it resumes a session.
    Answered { resumes: bool },
}

/// The connections of one listener that shake hands on one thread.
pub(super) struct Queue {
    next: Id,
    places: AHashMap<Id, Place>,
    /// Those that we wait for: that have not been answered yet, and that have. The one that gives way first is the last.
    silent: BTreeSet<Awaited>,
    answered: BTreeSet<Awaited>,
    /// How often we began to wait for a client: the measure of how long one has been silent.
    moment: u64,
    /// Those that were answered and wait for their next step.
    begun: BTreeSet<(Nanos, Id)>,
    lines: [Line; Class::COUNT],
    /// Those in the lines, by the time since when.
    waiting: BTreeSet<(Instant, Id)>,
    /// Since when the lines have not been empty.
    standing: Option<Instant>,
    sources: Box<[Source; SOURCES]>,
    /// The virtual time: whoever comes now is served as if it had been served until then.
    clock: Nanos,
    /// No source is served beyond it.
    latest: Nanos,
    /// What a handshake costs.
    mean: Nanos,
}

/// Rank, since which moment, who.
type Awaited = (i32, Reverse<u64>, Id);

/// One class: those that wait, in the order in which they are served.
#[derive(Default)]
struct Line {
    waiting: BTreeSet<(Nanos, Id)>,
    /// The time it had, as if it had the share of the first class.
    pass: Nanos,
}

#[derive(Clone, Copy, Default)]
struct Source {
    /// Its connections that are here.
    places: u32,
    /// Until when it has been served.
    served: Nanos,
    /// It offered a session that was none.
    lies: bool,
}

struct Place {
    source: usize,
    /// How many its source had when it came, as a power of two; less for one that was let in lately.
    rank: i32,
    /// Since when we wait for its client.
    since: u64,
    timeout: Duration,
    offer: Offer,
    is_begun: bool,
    /// What was charged in advance.
    estimate: Nanos,
    spent: Nanos,
    class: Class,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Awaited,
    Waiting { tag: Nanos, since: Instant },
    Begun { tag: Nanos },
    Turn,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            places: AHashMap::new(),
            silent: BTreeSet::new(),
            answered: BTreeSet::new(),
            moment: 0,
            begun: BTreeSet::new(),
            lines: Default::default(),
            waiting: BTreeSet::new(),
            standing: None,
            sources: Box::new([Source::default(); SOURCES]),
            clock: 0,
            latest: 0,
            mean: 300_000,
        }
    }

    /// A connection from a source (its hash) is there; we wait for its client.
    pub(super) fn enter(&mut self, source: u64, is_known: bool, timeout: Duration) -> Id {
        let id = self.next;
        self.next += 1;
        let source = (source % SOURCES as u64) as usize;
        self.sources[source].places += 1;
        let rank = self.sources[source].places.ilog2() as i32 - if is_known { KNOWN_RANKS } else { 0 };
        let place = Place {
            source,
            rank,
            since: 0,
            timeout,
            offer: Offer::Nothing,
            is_begun: false,
            estimate: 0,
            spent: 0,
            class: Class::Stranger,
            state: State::Awaited,
        };
        self.places.insert(id, place);
        self.begin_to_await(id);
        id
    }

    fn begin_to_await(&mut self, id: Id) {
        let Some(place) = self.places.get_mut(&id) else { return };
        self.moment += 1;
        (place.since, place.state) = (self.moment, State::Awaited);
        let those = if place.is_begun { &mut self.answered } else { &mut self.silent };
        those.insert(place.awaited(id));
    }

    fn end_to_await(&mut self, id: Id) {
        let Some(place) = self.places.get(&id) else { return };
        let those = if place.is_begun { &mut self.answered } else { &mut self.silent };
        those.remove(&place.awaited(id));
    }

    /// Whether nobody waits for a step.
    pub(super) fn is_idle(&self) -> bool {
        self.begun.is_empty() && self.waiting.is_empty()
    }

    /// Takes a step at once: nobody is before it.
    pub(super) fn go(&mut self, id: Id) {
        self.end_to_await(id);
        if let Some(place) = self.places.get_mut(&id) {
            place.state = State::Turn;
        }
    }

    /// Its client has sent something, and others are before it.
    pub(super) fn wait(&mut self, id: Id, offer: Offer, is_known: bool, now: Instant) {
        if self.places.get(&id).is_none_or(|place| place.state != State::Awaited) {
            return;
        }
        self.end_to_await(id);
        let Some(place) = self.places.get_mut(&id) else { return };
        let source = &mut self.sources[place.source];
        let tag = source.served.max(self.clock);
        if place.is_begun {
            place.state = State::Begun { tag };
            self.begun.insert((tag, id));
            return;
        }
        place.offer = offer;
        place.class = Class::new(if source.lies { Offer::Nothing } else { offer }, is_known);
        place.state = State::Waiting { tag, since: now };
        place.estimate = self.mean;
        source.served = tag + self.mean;
        self.latest = self.latest.max(source.served);
        let busy = self.lines.iter().filter(|line| !line.waiting.is_empty()).map(|line| line.pass).min();
        let line = &mut self.lines[place.class as usize];
        if line.waiting.is_empty() {
            // Time that a class did not want is not owed to it.
            line.pass = line.pass.max(busy.unwrap_or(0));
        }
        line.waiting.insert((tag, id));
        self.waiting.insert((now, id));
        self.standing.get_or_insert(now);
    }

    /// The one whose turn it is. It ends with [`rest`](Self::rest) or [`leave`](Self::leave).
    pub(super) fn next(&mut self) -> Option<Id> {
        let id = if let Some(&(_, id)) = self.begun.first() {
            id
        } else {
            let lines = self.lines.iter().filter(|line| !line.waiting.is_empty());
            let &(tag, id) = lines.min_by_key(|line| line.pass)?.waiting.first()?;
            self.clock = self.clock.max(tag);
            id
        };
        self.withdraw(id);
        if let Some(place) = self.places.get_mut(&id) {
            place.state = State::Turn;
        }
        Some(id)
    }

    /// Its step is over and took so long; now we wait for its client again.
    pub(super) fn rest(&mut self, id: Id, took: Duration, step: Step) {
        self.charge(id, took);
        let Some(place) = self.places.get_mut(&id) else { return };
        if let Step::Answered { resumes } = step {
            place.is_begun = true;
            if place.offer == Offer::Session {
                self.sources[place.source].lies = !resumes;
            }
        }
        self.begin_to_await(id);
    }

    /// What its step cost. Where nobody waits nothing is owed to anybody.
    pub(super) fn charge(&mut self, id: Id, took: Duration) {
        let is_idle = self.is_idle();
        let Some(place) = self.places.get_mut(&id) else { return };
        let cost = took.as_nanos() as Nanos;
        place.spent += cost;
        if is_idle {
            return;
        }
        let source = &mut self.sources[place.source];
        source.served = source.served.max(self.clock) + cost.saturating_sub(place.estimate);
        place.estimate = place.estimate.saturating_sub(cost);
        self.latest = self.latest.max(source.served);
        self.lines[place.class as usize].pass += cost << place.class as usize;
    }

    /// It is gone, whatever became of it.
    pub(super) fn leave(&mut self, id: Id) {
        self.withdraw(id);
        self.end_to_await(id);
        let Some(place) = self.places.remove(&id) else { return };
        let source = &mut self.sources[place.source];
        source.places -= 1;
        source.served -= place.estimate.min(source.served);
        if place.is_begun && place.spent > 0 {
            self.mean = (self.mean * 15 + place.spent) / 16;
        }
    }

    /// There are more than there is room for: the one that gives way. It has left when this returns.
    ///
    /// Half of the room is for those that we wait for, half for those that wait for us; which of them have more give way. Of
    /// the first it is one of the source that has most (by powers of two, a source that was let in lately counting as much
    /// smaller), and of its connections the one that has been silent for longest; for one that was answered already, with
    /// patience. A newcomer never gives way to one that has had its time. Of the others it is one of the lowest class, the
    /// last to be served.
    pub(super) fn make_room(&mut self) -> Option<Id> {
        let silence = |since: u64, weight: u64| (self.moment - since) * weight;
        let silent =
            self.silent.last().map(|&(rank, Reverse(since), id)| (rank, silence(since, PATIENCE), id));
        let answered = self.answered.last().map(|&(rank, Reverse(since), id)| (rank, silence(since, 1), id));
        let awaited = silent.max(answered).map(|(_, _, id)| id);
        let waiting = self.lines.iter().rev().find_map(|line| line.waiting.last()).map(|&(_, id)| id);
        let is_more = self.silent.len() + self.answered.len() >= self.waiting.len();
        let id = if is_more { awaited.or(waiting) } else { waiting }?;
        self.leave(id);
        Some(id)
    }

    /// One that has waited for too long. It has left when this returns.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Id> {
        let &(since, id) = self.waiting.first()?;
        let timeout = self.places.get(&id)?.timeout;
        let stands = self.standing.is_some_and(|since| now.duration_since(since) > timeout / 2);
        let patience = if stands { timeout / 20 } else { timeout / 2 };
        (now.duration_since(since) > patience).then(|| {
            self.leave(id);
            id
        })
    }

    /// It waits no longer.
    fn withdraw(&mut self, id: Id) {
        let Some(place) = self.places.get(&id) else { return };
        match place.state {
            State::Begun { tag } => drop(self.begun.remove(&(tag, id))),
            State::Waiting { tag, since } => {
                self.lines[place.class as usize].waiting.remove(&(tag, id));
                self.waiting.remove(&(since, id));
            }
            State::Awaited | State::Turn => {}
        }
        if self.waiting.is_empty() {
            self.standing = None;
        }
        if self.is_idle() {
            // Nobody had to wait for anybody: all begin anew.
            self.clock = self.latest;
        }
    }
}

impl Place {
    /// Where it stands among those that we wait for.
    fn awaited(&self, id: Id) -> Awaited {
        (self.rank, Reverse(self.since), id)
    }
}

#[cfg(test)]
mod tests;
