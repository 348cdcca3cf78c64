//! What the introduction of the module says, one sentence after the other.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_micros(300);

impl Queue {
    /// One that waits for its first step.
    fn comes(&mut self, source: u64, offer: Offer, is_known: bool, now: Instant) -> Id {
        let id = self.enter(source, is_known, TIMEOUT);
        self.wait(id, offer, is_known, now);
        id
    }

    fn stranger(&mut self, source: u64, now: Instant) -> Id {
        self.comes(source, Offer::Nothing, false, now)
    }

    /// The next handshake, computed in one step.
    fn serve(&mut self) -> Option<Id> {
        let id = self.next()?;
        self.charge(id, STEP);
        self.leave(id);
        Some(id)
    }

    fn all_waiting(&self) -> usize {
        self.begun.len() + self.waiting.len()
    }

    fn is_empty(&self) -> bool {
        let sources = self.sources.iter().all(|source| source.places == 0);
        let lines = self.lines.iter().all(|line| line.waiting.is_empty());
        self.places.is_empty()
            && self.silent.is_empty()
            && self.answered.is_empty()
            && self.is_idle()
            && lines
            && sources
    }
}

#[test]
fn better_classes_come_first_and_the_others_get_their_share() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let mut classes = BTreeMap::new();
    for source in 0..400 {
        for (offer, is_known) in
            [(Offer::Nothing, false), (Offer::Nothing, true), (Offer::Session, false), (Offer::Session, true)]
        {
            classes.insert(queue.comes(source, offer, is_known, now), Class::new(offer, is_known));
        }
    }
    let served: Vec<_> = (0..300).map(|_| classes[&queue.serve().unwrap()]).collect();
    assert_eq!(served[0], Class::KnownReturning);
    for (class, share) in
        [(Class::KnownReturning, 160), (Class::Returning, 80), (Class::Known, 40), (Class::Stranger, 20)]
    {
        let count = served.iter().filter(|served| **served == class).count();
        assert!(count.abs_diff(share) <= 2, "{class:?}: {count}");
    }
}

#[test]
fn whoever_was_answered_comes_before_everybody_else() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let first = queue.stranger(1, now);
    queue.comes(2, Offer::Session, true, now);
    queue.comes(2, Offer::Session, true, now);
    queue.leave(queue.places.keys().copied().find(|id| *id == 1).unwrap());
    assert_eq!(queue.next(), Some(2));
    queue.leave(2);
    assert_eq!(queue.next(), Some(first));
    queue.rest(first, STEP, Step::Answered { resumes: false });
    let other = queue.comes(2, Offer::Session, true, now);
    queue.wait(first, Offer::Nothing, false, now);
    assert!(queue.places[&first].is_begun && !queue.places[&other].is_begun);
    assert_eq!(queue.next(), Some(first));
    // One that was not answered has no such right: it may have sent a single byte.
    queue.rest(first, STEP, Step::Unanswered);
    queue.leave(first);
    let dribbles = queue.enter(3, false, TIMEOUT);
    queue.go(dribbles);
    queue.rest(dribbles, STEP, Step::Unanswered);
    queue.wait(dribbles, Offer::Nothing, false, now);
    assert_eq!(queue.next(), Some(other));
}

#[test]
fn a_source_that_offers_sessions_that_are_none_is_not_believed_until_it_speaks_the_truth() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let lies = queue.comes(1, Offer::Session, false, now);
    assert_eq!(queue.next(), Some(lies));
    queue.rest(lies, STEP, Step::Answered { resumes: false });
    let again = queue.comes(1, Offer::Session, false, now);
    let honest = queue.comes(2, Offer::Session, false, now);
    assert_eq!(queue.next(), Some(honest));
    queue.rest(honest, STEP, Step::Answered { resumes: true });
    assert_eq!(queue.next(), Some(again));
    queue.rest(again, STEP, Step::Answered { resumes: true });
    queue.comes(3, Offer::Session, false, now);
    let believed = queue.comes(1, Offer::Session, false, now);
    assert_eq!(queue.places[&believed].class, Class::Returning);
}

#[test]
fn a_burst_may_wait_and_a_line_that_stands_may_not() {
    let (mut queue, start) = (Queue::new(), Instant::now());
    let at = |seconds| start + Duration::from_secs_f64(seconds);
    let first = queue.stranger(0, start);
    let second = queue.stranger(1, at(1.0));
    assert_eq!(queue.overdue(at(2.4)), None);
    let late = queue.stranger(2, at(2.4));
    assert_eq!(queue.overdue(at(2.51)), Some(first));
    // The line has stood for half of the timeout, so a quarter of a second is too long by now.
    assert_eq!(queue.overdue(at(2.51)), Some(second));
    assert_eq!(queue.overdue(at(2.51)), None);
    assert_eq!(queue.overdue(at(2.66)), Some(late));
    assert!(queue.is_empty());
    // Empty: a burst may wait again.
    let next = queue.stranger(3, at(2.7));
    assert_eq!(queue.overdue(at(5.1)), None);
    assert_eq!(queue.overdue(at(5.3)), Some(next));
    assert!(queue.is_empty());
}

#[test]
fn where_nobody_waits_nobody_owes_anything() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    for _ in 0..10_000 {
        let id = queue.enter(1, false, TIMEOUT);
        queue.go(id);
        queue.charge(id, STEP);
        queue.leave(id);
    }
    let (busy, other) = (queue.stranger(1, now), queue.stranger(2, now));
    assert_eq!((queue.next(), queue.next()), (Some(busy), Some(other)));
}

#[test]
fn the_source_that_holds_most_gives_way_and_of_its_places_the_one_that_is_silent_for_longest() {
    let (mut queue, now) = (Queue::new(), Instant::now());
    let lonely = queue.enter(1, false, TIMEOUT);
    let flood: Vec<_> = (0..100).map(|_| queue.enter(2, false, TIMEOUT)).collect();
    // The rank of the 64th is the highest power of two that there is.
    assert_eq!(queue.make_room(), Some(flood[63]));
    for _ in 0..99 {
        assert_ne!(queue.make_room(), Some(lonely));
        queue.enter(2, false, TIMEOUT);
    }
    // Those that wait for us give way when they have more than half: the last one of the lowest class first.
    let mut queue = Queue::new();
    let known = queue.comes(1, Offer::Nothing, true, now);
    let other = queue.stranger(3, now);
    let crowd: Vec<_> = (0..10).map(|_| queue.stranger(2, now)).collect();
    let silent = queue.enter(4, false, TIMEOUT);
    for id in crowd.iter().rev().take(9) {
        assert_eq!(queue.make_room(), Some(*id));
    }
    // The first of the crowd and `other` would be served next, the one after the other.
    assert_eq!(queue.make_room(), Some(crowd[0]));
    assert_eq!(queue.make_room(), Some(other));
    assert_eq!(queue.make_room(), Some(silent));
    assert_eq!(queue.make_room(), Some(known));
    assert_eq!(queue.make_room(), None);
    assert!(queue.is_empty());
}

#[test]
fn a_newcomer_does_not_give_way_to_those_that_were_answered_and_are_silent() {
    let mut queue = Queue::new();
    let greets = |queue: &mut Queue, source| {
        let id = queue.enter(source, false, TIMEOUT);
        queue.go(id);
        queue.rest(id, STEP, Step::Answered { resumes: false });
        id
    };
    let crowd: Vec<_> = (0..64).map(|source| greets(&mut queue, source)).collect();
    for (round, silent) in crowd.iter().enumerate() {
        let newcomer = queue.enter(100 + round as u64, false, TIMEOUT);
        assert_eq!(queue.make_room(), Some(*silent), "the one that has been silent for longest");
        // Answered in its turn, it outlives many others that come.
        queue.go(newcomer);
        queue.rest(newcomer, STEP, Step::Answered { resumes: false });
        queue.leave(newcomer);
        greets(&mut queue, 200 + round as u64);
    }
    // Clients that were let in lately stay while any stranger is there that has as little.
    let known = queue.enter(500, true, TIMEOUT);
    for source in 600..664 {
        greets(&mut queue, source);
        assert_ne!(queue.make_room(), Some(known));
    }
}

#[test]
fn one_that_was_answered_has_patience_before_those_that_say_nothing() {
    let mut queue = Queue::new();
    let answered = queue.enter(1, false, TIMEOUT);
    queue.go(answered);
    queue.rest(answered, STEP, Step::Answered { resumes: false });
    let silent: Vec<_> = (0..16).map(|source| queue.enter(100 + source, false, TIMEOUT)).collect();
    assert_eq!(queue.make_room(), Some(silent[0]));
    for source in 0..200 {
        queue.enter(200 + source, false, TIMEOUT);
        if queue.make_room() == Some(answered) {
            assert!(source > 2, "{source}");
            return;
        }
    }
    panic!("one that is silent for ever stays for ever");
}

#[derive(Debug, Clone)]
enum Event {
    Enter(u64),
    /// The client of one of those that we wait for says something.
    Speak(prop::sample::Index, bool, bool),
    /// One goes straight through.
    Go(prop::sample::Index),
    Next,
    /// A step is over.
    Rest(prop::sample::Index, u16, bool, bool),
    Finish(prop::sample::Index, u16),
    Leave(prop::sample::Index),
    MakeRoom,
    Pass(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let one = any::<prop::sample::Index>;
    prop_oneof![
        4 => (0_u64..6).prop_map(Event::Enter),
        4 => (one(), any::<bool>(), any::<bool>()).prop_map(|(one, session, known)| Event::Speak(one, session, known)),
        1 => one().prop_map(Event::Go),
        3 => Just(Event::Next),
        2 => (one(), any::<u16>(), any::<bool>(), any::<bool>())
            .prop_map(|(one, took, answered, resumes)| Event::Rest(one, took, answered, resumes)),
        1 => (one(), any::<u16>()).prop_map(|(one, took)| Event::Finish(one, took)),
        1 => one().prop_map(Event::Leave),
        1 => Just(Event::MakeRoom),
        1 => (0_u16..2000).prop_map(Event::Pass),
    ]
}

/// What a reader of the module's introduction would expect of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Awaited,
    Waits,
    Turn,
}

proptest! {
    #[test]
    fn each_one_is_called_or_sent_away_once_and_nothing_of_it_stays(
        events in prop::collection::vec(event(), 0..400)
    ) {
        let mut queue = Queue::new();
        let mut now = Instant::now();
        let mut here = BTreeMap::<Id, Expected>::new();
        let pick = |here: &BTreeMap<Id, Expected>, index: prop::sample::Index, wanted: Expected| {
            let those: Vec<_> = here.iter().filter(|(_, is)| **is == wanted).map(|(id, _)| *id).collect();
            (!those.is_empty()).then(|| *index.get(&those))
        };
        for event in events {
            match event {
                Event::Enter(source) => {
                    prop_assert!(here.insert(queue.enter(source, false, TIMEOUT), Expected::Awaited).is_none());
                }
                Event::Speak(index, session, known) => {
                    let Some(id) = pick(&here, index, Expected::Awaited) else { continue };
                    queue.wait(id, if session { Offer::Session } else { Offer::Nothing }, known, now);
                    here.insert(id, Expected::Waits);
                }
                Event::Go(index) => {
                    let Some(id) = pick(&here, index, Expected::Awaited) else { continue };
                    queue.go(id);
                    here.insert(id, Expected::Turn);
                }
                Event::Next => {
                    let any = here.values().any(|is| *is == Expected::Waits);
                    let next = queue.next();
                    prop_assert_eq!(next.is_some(), any, "somebody is called if anybody waits");
                    if let Some(id) = next {
                        prop_assert_eq!(here.insert(id, Expected::Turn), Some(Expected::Waits));
                    }
                }
                Event::Rest(index, took, answered, resumes) => {
                    let Some(id) = pick(&here, index, Expected::Turn) else { continue };
                    let step = if answered { Step::Answered { resumes } } else { Step::Unanswered };
                    queue.rest(id, Duration::from_micros(took.into()), step);
                    here.insert(id, Expected::Awaited);
                }
                Event::Finish(index, took) => {
                    let Some(id) = pick(&here, index, Expected::Turn) else { continue };
                    queue.charge(id, Duration::from_micros(took.into()));
                    queue.leave(id);
                    here.remove(&id);
                }
                Event::Leave(index) => {
                    let ids: Vec<_> = here.keys().copied().collect();
                    if let Some(id) = (!ids.is_empty()).then(|| *index.get(&ids)) {
                        queue.leave(id);
                        here.remove(&id);
                    }
                }
                Event::MakeRoom => {
                    if let Some(id) = queue.make_room() {
                        let was = here.remove(&id);
                        prop_assert!(matches!(was, Some(Expected::Awaited | Expected::Waits)), "{:?}", was);
                    }
                }
                Event::Pass(milliseconds) => {
                    now += Duration::from_millis(milliseconds.into());
                    while let Some(id) = queue.overdue(now) {
                        prop_assert_eq!(here.remove(&id), Some(Expected::Waits));
                    }
                }
            }
            let count = |wanted| here.values().filter(|is| **is == wanted).count();
            prop_assert_eq!(queue.places.len(), here.len());
            prop_assert_eq!(queue.silent.len() + queue.answered.len(), count(Expected::Awaited));
            prop_assert_eq!(queue.all_waiting(), count(Expected::Waits));
            prop_assert_eq!(queue.standing.is_some(), !queue.waiting.is_empty());
        }
        for id in here.keys() {
            queue.leave(*id);
        }
        prop_assert!(queue.is_empty());
    }

    /// However much others have, of whatever class, and whatever they come with.
    #[test]
    fn whoever_comes_alone_has_its_turn_after_one_of_each_source_and_the_shares_of_better_classes(
        sources in 1_u64..20, each in 1_usize..50, offers: bool, are_known: bool, already in 0_usize..200,
    ) {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let offer = if offers { Offer::Session } else { Offer::Nothing };
        for _ in 0..each {
            for source in 0..sources {
                queue.comes(source, offer, are_known, now);
            }
        }
        for _ in 0..already.min(each * sources as usize - 1) {
            let id = queue.serve().unwrap();
            // Whoever was served comes again at once.
            queue.comes(id % sources, offer, are_known, now);
        }
        let alone = queue.stranger(999, now);
        let turns = 1 + std::iter::from_fn(|| queue.serve()).position(|id| id == alone).unwrap();
        let worse = Class::Stranger as u32 - Class::new(offer, are_known) as u32;
        let most = if worse == 0 { 2 * sources as usize + 2 } else { (1 << worse) + 1 };
        prop_assert!(turns <= most, "{turns} turns instead of {most}");
    }

    /// Time is what is fair, not turns: who makes dear handshakes gets fewer of them.
    #[test]
    fn two_sources_get_the_same_time_whatever_their_handshakes_cost(dear in 2_u32..20) {
        let (mut queue, now) = (Queue::new(), Instant::now());
        let mut spent = [Duration::ZERO; 2];
        let mut of = BTreeMap::new();
        for source in [0, 1].repeat(8) {
            of.insert(queue.stranger(source, now), source as usize);
        }
        for _ in 0..2_000 {
            let id = queue.next().unwrap();
            let source = of[&id];
            let took = if source == 0 { STEP * dear } else { STEP };
            spent[source] += took;
            queue.rest(id, took, Step::Answered { resumes: false });
            queue.leave(id);
            of.insert(queue.stranger(source as u64, now), source);
        }
        let ratio = spent[0].as_secs_f64() / spent[1].as_secs_f64();
        prop_assert!((0.75..1.34).contains(&ratio), "{ratio}");
    }
}
