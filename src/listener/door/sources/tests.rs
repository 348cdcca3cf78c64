//! What is counted of each source, against a table that remembers everything.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::headers::Networks;

const SECOND: u64 = 1_000_000_000;

fn limits(connections: u32, handshakes_in_flight: u32) -> SourceLimits {
    SourceLimits { connections, handshakes_in_flight, rate: None }
}

fn rules(per_address: SourceLimits, per_network: SourceLimits) -> DoorConfig {
    DoorConfig {
        allow_from: None,
        deny_from: Networks::default(),
        exempt: Networks::default(),
        per_address,
        per_network,
        proxy_protocol: None,
    }
}

fn sources() -> Arc<Sources> {
    Arc::new(Sources::for_connections(1))
}

fn is_empty(sources: &Sources) -> bool {
    sources.cells.iter().all(|cell| cell.load(Ordering::Relaxed) == 0)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_has_its_share_its_network_another_and_strangers_elsewhere_are_not_concerned() {
    let (sources, rules) = (sources(), rules(limits(2, 9), limits(3, 9)));
    let enter = |text| sources.enter(address(text), &rules);
    let held = [enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap()];
    assert_eq!(enter("192.0.2.1").err(), Some((Of::Address, Reached::Connections)));
    let third = enter("192.0.2.2").unwrap();
    assert_eq!(enter("192.0.2.3").err(), Some((Of::Network, Reached::Connections)));
    assert!(enter("192.0.3.1").is_ok() && enter("::1").is_ok());
    drop(held);
    assert!(enter("192.0.2.1").is_ok() && enter("192.0.2.3").is_ok());
    drop(third);
    assert!(is_empty(&sources), "nothing is left of those who have gone, or were turned away");
}

#[test]
fn addresses_of_one_ipv6_host_are_one() {
    let (sources, rules) = (sources(), rules(limits(1, 9), limits(2, 9)));
    let enter = |text| sources.enter(address(text), &rules);
    let _held = enter("2001:db8:1:1::1").unwrap();
    assert_eq!(enter("2001:db8:1:1:ffff::9").err(), Some((Of::Address, Reached::Connections)));
    let _other = enter("2001:db8:1:2::1").unwrap();
    assert_eq!(enter("2001:db8:1:3::1").err(), Some((Of::Network, Reached::Connections)));
    assert!(enter("2001:db8:2::1").is_ok());
}

#[test]
fn a_handshake_counts_until_it_is_over_and_the_connection_until_it_ends() {
    let (sources, rules) = (sources(), rules(limits(3, 1), limits(9, 9)));
    let enter = || sources.enter(address("192.0.2.1"), &rules);
    let mut first = enter().unwrap();
    assert_eq!(enter().err(), Some((Of::Address, Reached::Handshakes)));
    first.is_known();
    first.is_known();
    let mut second = enter().unwrap();
    second.is_known();
    let third = enter().unwrap();
    drop(second);
    assert_eq!(enter().err(), Some((Of::Address, Reached::Handshakes)));
    drop((first, third));
    assert!(is_empty(&sources));
}

#[test]
fn whom_the_limits_do_not_concern_is_counted_and_let_in() {
    let mut rules = rules(limits(1, 1), limits(1, 1));
    let sources = sources();
    rules.exempt = [Prefix::of(address("192.0.2.0"), 24)].into_iter().collect();
    let held: Vec<_> = (0..5).map(|_| sources.enter(address("192.0.2.1"), &rules).unwrap()).collect();
    // A reload made an end of it.
    rules.exempt = Networks::default();
    assert!(sources.enter(address("192.0.2.1"), &rules).is_err());
    drop(held);
    assert!(sources.enter(address("192.0.2.1"), &rules).is_ok());
}

#[test]
fn a_bucket_gives_a_burst_then_its_rate_and_fills_up_in_a_pause() {
    let rate = Some(ConnectionRate { per_second: 10, burst: 3 });
    let of_address = SourceLimits { rate, ..limits(99, 99) };
    let (sources, rules) = (sources(), rules(of_address, limits(99, 99)));
    let enter = |at: u64| sources.enter_at(address("192.0.2.1"), &rules, || at).map(drop);
    let t = 5 * SECOND;
    assert!((0..3).all(|_| enter(t).is_ok()));
    assert_eq!(enter(t), Err((Of::Address, Reached::Rate)));
    assert_eq!(enter(t + SECOND / 10 - 1), Err((Of::Address, Reached::Rate)));
    assert!(enter(t + SECOND / 10).is_ok());
    assert!(enter(t + SECOND / 10).is_err());
    assert!((0..3).all(|_| enter(t + SECOND).is_ok()) && enter(t + SECOND).is_err());
    assert!(
        sources.enter_at(address("192.0.2.2"), &rules, || t + SECOND).is_ok(),
        "another one's is its own"
    );
}

#[test]
fn who_is_over_the_rate_of_the_network_has_nothing_taken_off_that_of_the_address() {
    let rate = |per_second, burst| SourceLimits {
        rate: Some(ConnectionRate { per_second, burst }),
        ..limits(99, 99)
    };
    let (sources, rules) = (sources(), rules(rate(1, 2), rate(1, 2)));
    let enter = |last, at| sources.enter_at(Ipv4Addr::new(192, 0, 2, last).into(), &rules, || at).map(drop);
    assert!(enter(1, 0).is_ok() && enter(1, 0).is_ok());
    assert_eq!(enter(2, 0), Err((Of::Network, Reached::Rate)));
    assert!(enter(2, 9 * SECOND).is_ok() && enter(2, 9 * SECOND).is_ok());
}

/// What a stranger with a thousand networks can do to somebody else: nothing.
#[test]
fn many_strangers_at_their_limits_do_not_hold_up_one_who_comes_from_elsewhere() {
    let (sources, rules) =
        (Arc::new(Sources::for_connections(100_000)), rules(limits(100, 100), limits(100, 100)));
    let stranger = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + (n << 8)));
    let mut held = Vec::new();
    for n in 0..1000 {
        held.extend((0..100).map(|_| sources.enter(stranger(n), &rules).unwrap()));
        assert!(sources.enter(stranger(n), &rules).is_err());
    }
    let innocent = |n: u32| IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (u128::from(n) << 80)));
    let held_up = (0..10_000).filter(|n| sources.enter(innocent(*n), &rules).is_err()).count();
    assert_eq!(held_up, 0);
    drop(held);
    assert!(is_empty(&sources));
}

#[test]
fn it_does_not_grow() {
    for (most, cells) in [(1, 4 << 12), (100_000, 4 << 16), (usize::MAX, 4 << 16)] {
        assert_eq!(Sources::for_connections(most).cells.len(), cells);
    }
    assert!(sources().paid.get().is_none(), "what nobody asked for costs nothing");
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    Known(usize),
    Leave(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Enter),
        1 => any::<prop::sample::Index>().prop_map(|at| Step::Known(at.index(64))),
        2 => any::<prop::sample::Index>().prop_map(|at| Step::Leave(at.index(64))),
        1 => (1..SECOND).prop_map(Step::Wait),
    ]
}

/// Tokens as a person would count them.
struct Plain {
    tokens: f64,
    at: u64,
}

proptest! {
    /// Two networks of three addresses: nobody gets past a limit, and (but for rounding) nobody is turned away below it.
    #[test]
    fn it_counts_like_a_table_that_remembers_everything(steps in prop::collection::vec(step(), 1..200)) {
        let rate = ConnectionRate { per_second: 5, burst: 4 };
        let of_address = SourceLimits { rate: Some(rate), ..limits(4, 2) };
        let (sources, rules) = (sources(), rules(of_address, limits(7, 4)));
        let mut now = SECOND;
        let mut here: Vec<(u8, bool, Visit)> = Vec::new();
        let mut buckets: HashMap<u8, Plain> = HashMap::new();
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Known(at) if at < here.len() => {
                    here[at].1 = false;
                    here[at].2.is_known();
                }
                Step::Leave(at) if at < here.len() => drop(here.swap_remove(at)),
                Step::Known(_) | Step::Leave(_) => {}
                Step::Enter(who) => {
                    let same = |of: u8| here.iter().filter(|(other, ..)| other / of == who / of).count() as u32;
                    let shaking =
                        |of: u8| here.iter().filter(|(other, shakes, _)| *shakes && other / of == who / of).count() as u32;
                    let bucket = buckets.entry(who).or_insert(Plain { tokens: 4.0, at: now });
                    bucket.tokens = (bucket.tokens + (now - bucket.at) as f64 * 5e-9).min(4.0);
                    bucket.at = now;
                    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2 + who / 3, who % 3));
                    let entered = sources.enter_at(address, &rules, || now);
                    let expected = if shaking(1) >= 2 {
                        Some((Of::Address, Reached::Handshakes))
                    } else if same(1) >= 4 {
                        Some((Of::Address, Reached::Connections))
                    } else if shaking(3) >= 4 {
                        Some((Of::Network, Reached::Handshakes))
                    } else if same(3) >= 7 {
                        Some((Of::Network, Reached::Connections))
                    } else if bucket.tokens < 1.0 {
                        Some((Of::Address, Reached::Rate))
                    } else {
                        None
                    };
                    let on_the_edge = (bucket.tokens - 1.0).abs() < 1e-6;
                    let found = entered.as_ref().err().copied();
                    let is_rate = |end: Option<(Of, Reached)>| end.is_none_or(|(_, reached)| reached == Reached::Rate);
                    prop_assert!(found == expected || (on_the_edge && is_rate(found) && is_rate(expected)));
                    if let Ok(visit) = entered {
                        bucket.tokens -= 1.0;
                        here.push((who, true, visit));
                    }
                }
            }
        }
        drop(here);
        prop_assert!(is_empty(&sources));
    }
}
