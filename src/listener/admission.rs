//! Handshakes in a storm: one step at a time, in a fair order, and never before what open connections ask.
//!
//! When a whole fleet comes back at once, thousands of handshakes are ready to be computed on one thread, each as long as
//! dozens of requests. Left to the scheduler all of them are computed before the next request is read, everybody waits
//! for everybody, and whoever gives up meanwhile has cost everything and got nothing.
//!
//! So each thread has a *desk*. A handshake whose client has sent something asks there for its next step. As long as
//! little was computed lately it gets it at once, at the price of two looks at the clock. Else it waits, and the desk
//! calls ([`queue`] says whom): a *round* of steps is half a millisecond, or one step if that is longer, and between two
//! rounds every connection that has something to read is served. A wait costs a socket and a task; the TLS library makes
//! nothing for a client before its first step. [`intake`] keeps the listener from accepting more than that bears.

mod hello;
mod intake;
mod known;
mod queue;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use rustix::net::RecvFlags;
use tokio::net::TcpStream;

use crate::panics::Vital;
use crate::runtime::ListenerRuntime;
use crate::telemetry::{HandshakeFailure, HandshakeInFlight, HandshakeWaiting, ListenerMetrics};
use known::Known;
use queue::{Id, Offer, Queue};

pub(super) use intake::{Intake, Next};
pub(super) use queue::Step;

/// What is computed for handshakes before open connections are looked at again.
const ROUND: Duration = Duration::from_micros(500);

/// So many are turned away between two rounds at most.
const LATE_AT_ONCE: usize = 32;

static KNOWN: LazyLock<Known> = LazyLock::new(|| Known::new(Instant::now()));

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

/// Of one thread.
#[derive(Default)]
struct Desk {
    /// One for each listener. They are called in turn, so that a storm on one of them does not block the others.
    lanes: Vec<Lane>,
    called_last: usize,
    /// Whoever was called and has not begun yet, or computes.
    called: Option<(usize, Id)>,
    /// What this round has computed, and when that ended.
    computed: Duration,
    ended: Option<Instant>,
    rounds: Rounds,
}

/// The task that begins rounds.
#[derive(Default)]
enum Rounds {
    #[default]
    NotStarted,
    Asleep(Waker),
    /// A round is about to begin.
    Due,
}

struct Lane {
    queue: Queue,
    seats: AHashMap<Id, Seat>,
}

/// The task of one handshake, as the desk knows it.
struct Seat {
    waker: Option<Waker>,
    call: Option<Result<(), TurnedAway>>,
    /// Counted until the handshake is over, or until it has to go.
    in_flight: Option<HandshakeInFlight>,
    waiting: Option<HandshakeWaiting>,
}

/// It has to go before its handshake is over: too many are there, or it has waited for too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnedAway(pub(super) HandshakeFailure);

impl Seat {
    fn call(&mut self, call: Result<(), TurnedAway>) {
        self.waiting = None;
        if call.is_err() {
            self.in_flight = None;
        }
        self.call = Some(call);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Desk {
    fn enter(
        &mut self,
        index: usize,
        source: u64,
        is_known: bool,
        listener: &ListenerRuntime,
        seat: Seat,
    ) -> Id {
        while self.lanes.len() <= index {
            self.lanes.push(Lane { queue: Queue::new(), seats: AHashMap::new() });
        }
        let lane = &mut self.lanes[index];
        let id = lane.queue.enter(source, is_known, listener.limits.handshake_timeout);
        lane.seats.insert(id, seat);
        // One for one: those that are on their way here count already, and make room themselves.
        if listener.metrics.handshakes_in_flight() > listener.limits.handshakes_in_flight
            && let Some(seat) = lane.queue.make_room().and_then(|id| lane.seats.get_mut(&id))
        {
            seat.call(Err(TurnedAway(HandshakeFailure::Overloaded)));
        }
        id
    }

    fn seat(&mut self, place: &Place) -> Option<&mut Seat> {
        self.lanes.get_mut(place.listener)?.seats.get_mut(&place.id)
    }

    /// Until it is called. Whoever waits for something else only wants to know whether it has to go.
    fn poll_called(&mut self, place: &Place, waker: &Waker) -> Poll<Result<(), TurnedAway>> {
        let Some(seat) = self.seat(place) else { return Poll::Pending };
        if let Some(call) = seat.call.take() {
            return Poll::Ready(call);
        }
        if !seat.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            seat.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// A step at once, if nobody is before it and little was computed lately.
    fn go(&mut self, place: &Place, now: Instant) -> Result<bool, TurnedAway> {
        if let Some(call) = self.seat(place).and_then(|seat| seat.call.take()) {
            return call.map(|()| false);
        }
        let is_idle = self.called.is_none() && self.lanes.iter().all(|lane| lane.queue.is_idle());
        if self.ended.is_none_or(|ended| now.duration_since(ended) >= ROUND) {
            self.computed = Duration::ZERO;
        }
        let goes = is_idle && self.computed < ROUND;
        if goes {
            self.lanes[place.listener].queue.go(place.id);
            self.called = Some((place.listener, place.id));
        }
        Ok(goes)
    }

    fn wait(&mut self, place: &Place, offer: Offer, is_known: bool, waiting: HandshakeWaiting) {
        if let Some(seat) = self.seat(place).filter(|seat| seat.call.is_none()) {
            seat.waiting = Some(waiting);
            self.lanes[place.listener].queue.wait(place.id, offer, is_known, Instant::now());
        }
        self.go_on();
    }

    /// A step took so long; `None`: it was the last one of its handshake.
    fn ended(&mut self, place: &Place, took: Duration, step: Option<Step>) {
        self.computed += took;
        self.ended = Some(Instant::now());
        let queue = &mut self.lanes[place.listener].queue;
        match step {
            Some(step) => queue.rest(place.id, took, step),
            None => queue.charge(place.id, took),
        }
        self.called = None;
        self.go_on();
    }

    fn leave(&mut self, place: &Place) {
        let lane = &mut self.lanes[place.listener];
        lane.queue.leave(place.id);
        lane.seats.remove(&place.id);
        if self.called == Some((place.listener, place.id)) {
            self.called = None;
            self.go_on();
        }
    }

    /// Calls the next one, or has a new round begun.
    fn go_on(&mut self) {
        if self.called.is_some() || self.lanes.iter().all(|lane| lane.queue.is_idle()) {
            return;
        }
        if self.computed < ROUND {
            return self.call();
        }
        match std::mem::replace(&mut self.rounds, Rounds::Due) {
            Rounds::NotStarted => drop(tokio::spawn(begin_rounds())),
            Rounds::Asleep(waker) => waker.wake(),
            Rounds::Due => {}
        }
    }

    fn begin_round(&mut self) {
        let now = Instant::now();
        self.computed = Duration::ZERO;
        self.ended = Some(now);
        for lane in &mut self.lanes {
            for _ in 0..LATE_AT_ONCE {
                let Some(late) = lane.queue.overdue(now) else { break };
                if let Some(seat) = lane.seats.get_mut(&late) {
                    seat.call(Err(TurnedAway(HandshakeFailure::WaitedTooLong)));
                }
            }
        }
        if self.called.is_none() {
            self.call();
        }
    }

    fn call(&mut self) {
        for offset in 1..=self.lanes.len() {
            let index = (self.called_last + offset) % self.lanes.len();
            let lane = &mut self.lanes[index];
            if let Some(id) = lane.queue.next() {
                self.called_last = index;
                self.called = Some((index, id));
                if let Some(seat) = lane.seats.get_mut(&id) {
                    seat.call(Ok(()));
                }
                return;
            }
        }
    }
}

/// Begins a round whenever one is due, behind all connections that have something to read by then.
async fn begin_rounds() {
    let _vital = Vital("the rounds of handshakes");
    loop {
        tokio::task::yield_now().await;
        DESK.with_borrow_mut(Desk::begin_round);
        poll_fn(|cx| DESK.with_borrow_mut(|desk| desk.poll_due(cx))).await;
    }
}

impl Desk {
    fn poll_due(&mut self, cx: &Context<'_>) -> Poll<()> {
        // Steps of the round that just began may have used it up already.
        let is_due = self.called.is_none() && self.lanes.iter().any(|lane| !lane.queue.is_idle());
        self.rounds = if is_due { Rounds::Due } else { Rounds::Asleep(cx.waker().clone()) };
        if is_due { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Of a connection at the desk of its thread, until its handshake is over.
pub(super) struct Place {
    listener: usize,
    id: Id,
    address: u64,
    since: Instant,
}

impl Place {
    /// Of a connection to the listener with this index, accepted at `since`. Where there are too many, somebody has to go, maybe this one.
    pub(super) fn take(
        index: usize,
        listener: &ListenerRuntime,
        address: IpAddr,
        since: Instant,
        in_flight: HandshakeInFlight,
    ) -> Self {
        let address = hash(address);
        let seat = Seat { waker: None, call: None, in_flight: Some(in_flight), waiting: None };
        let is_known = KNOWN.contains(address);
        let id = DESK.with_borrow_mut(|desk| desk.enter(index, address, is_known, listener, seat));
        Self { listener: index, id, address, since }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Waits for something that the client has to do.
    pub(super) async fn await_client<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, TurnedAway> {
        poll_fn(|cx| match DESK.with_borrow_mut(|desk| desk.poll_called(self, cx.waker())) {
            Poll::Ready(Err(away)) => Poll::Ready(Err(away)),
            _ => poll(cx).map(Ok),
        })
        .await
    }

    /// Waits until the next step may be computed. `socket` is looked into where the client has to wait for its first.
    pub(super) async fn turn<'a>(
        &'a self,
        metrics: &'a ListenerMetrics,
        socket: Option<&TcpStream>,
    ) -> Result<Turn<'a>, TurnedAway> {
        let asked = Instant::now();
        if !DESK.with_borrow_mut(|desk| desk.go(self, asked))? {
            let offer = socket.map_or(Offer::Nothing, peek);
            let is_known = socket.is_some() && KNOWN.contains(self.address);
            DESK.with_borrow_mut(|desk| desk.wait(self, offer, is_known, metrics.handshake_waits()));
            let called = poll_fn(|cx| DESK.with_borrow_mut(|desk| desk.poll_called(self, cx.waker()))).await;
            if socket.is_some() {
                metrics.handshake_waited(asked.elapsed());
            }
            called?;
        }
        Ok(Turn { place: self, metrics, since: Instant::now(), step: None })
    }

    /// The client was let in, with a certificate that was believed.
    pub(super) fn is_known(&self) {
        KNOWN.insert(self.address, Instant::now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A thread that ends drops its tasks after its desk.
        let _ = DESK.try_with(|desk| desk.borrow_mut().leave(self));
    }
}

/// While a step is computed.
pub(super) struct Turn<'a> {
    place: &'a Place,
    metrics: &'a ListenerMetrics,
    since: Instant,
    step: Option<Step>,
}

impl Turn<'_> {
    /// The step did not end the handshake.
    pub(super) fn goes_on(mut self, step: Step) {
        self.step = Some(step);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.metrics.handshake_computed(took);
        let _ = DESK.try_with(|desk| desk.borrow_mut().ended(self.place, took, self.step));
    }
}

/// What the client has sent stays where it is.
fn peek(socket: &TcpStream) -> Offer {
    let mut bytes = [0; hello::MOST];
    let read = rustix::net::recv(socket, &mut bytes[..], RecvFlags::PEEK).map_or(0, |(read, _)| read);
    hello::offer(&bytes[..read])
}

/// One source: an address, or what one site has of IPv6.
fn hash(address: IpAddr) -> u64 {
    static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    match address {
        IpAddr::V4(address) => HASH.hash_one(address.to_bits()),
        IpAddr::V6(address) => HASH.hash_one(address.to_bits() >> 64),
    }
}
