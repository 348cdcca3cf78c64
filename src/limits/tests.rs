//! All limits together: who counts for what, and what becomes of it.

use std::net::SocketAddr;

use super::*;
use crate::route::sample::Sample;
use crate::route::{ClientMatch, ClientRule};

fn spec(name: &str, per: &[&str], measures: &[Measure]) -> LimitSpec {
    LimitSpec {
        name: name.into(),
        per: per.iter().map(|text| text.parse().unwrap()).collect(),
        client: ClientRule::Anyone,
        routes: None,
        mode: Mode::Enforce,
        tells: Tells::Refusals,
        keys: 1_000,
        measures: measures.to_vec(),
    }
}

fn ones(rate: &str) -> Measure {
    let rate: Rate = rate.parse().unwrap();
    Measure::Requests(Bucket::of_ones(rate, rate.amount()))
}

fn build(specs: &[LimitSpec], previous: Option<&Limits>) -> Limits {
    Limits::build(specs, &["a".into(), "b".into()], previous, Instant::now())
}

fn client(domain: &str, cn: &str, ou: &str) -> ClientIdentity {
    let sample = Sample::new().subject_all("CN", &[cn]).subject_all("OU", &[ou]);
    ClientIdentity::for_tests(domain, sample.certificate())
}

fn from(peer: &str) -> SocketAddr {
    SocketAddr::new(peer.parse().unwrap(), 1)
}

const NOW: Moment = Moment(5_000_000_000);

fn admits(limits: &Limits, identity: Option<&ClientIdentity>, peer: &str, route: usize) -> bool {
    let keys = limits.keys(1, identity, from(peer));
    limits.admit(&keys, route, NOW).refused.is_none()
}

#[test]
fn each_key_has_a_count_of_its_own() {
    let (one, two) = (client("fleet", "1", "x"), client("fleet", "2", "x"));
    let other = client("staff", "3", "x");
    for (per, same, another) in [
        (&["client"][..], (&one, "10.0.0.2", 1), (&two, "10.0.0.1", 0)),
        (&["trust_domain"], (&two, "10.0.0.2", 1), (&other, "10.0.0.1", 0)),
        (&["subject.OU"], (&two, "10.0.0.2", 1), (&other, "10.0.0.1", 0)),
        (&["address"], (&two, "10.0.0.1", 1), (&one, "10.0.0.2", 0)),
        (&["route"], (&other, "10.0.0.2", 0), (&one, "10.0.0.1", 1)),
        (&["client", "route"], (&one, "10.0.0.2", 0), (&one, "10.0.0.1", 1)),
    ] {
        let limits = build(&[spec("x", per, &[ones("1/h")])], None);
        assert!(admits(&limits, Some(&one), "10.0.0.1", 0), "{per:?}");
        assert!(!admits(&limits, Some(same.0), same.1, same.2), "{per:?}");
        assert!(admits(&limits, Some(another.0), another.1, another.2), "{per:?}");
    }
}

#[test]
fn a_client_without_a_certificate_counts_as_its_address_and_a_network_of_ipv6_as_one() {
    for per in ["client", "address", "subject.OU"] {
        let limits = build(&[spec("x", &[per], &[ones("1/h")])], None);
        assert!(admits(&limits, None, "2001:db8::1", 0));
        assert!(!admits(&limits, None, "2001:db8::ffff:1", 0), "{per}");
        assert!(admits(&limits, None, "2001:db8:0:1::1", 0));
        assert!(admits(&limits, None, "192.0.2.1", 0) && !admits(&limits, None, "192.0.2.1", 0));
        assert!(admits(&limits, None, "192.0.2.2", 0));
    }
}

#[test]
fn a_limit_concerns_only_whom_and_what_it_names() {
    let (sensor, laptop) = (client("fleet", "1", "x"), client("staff", "2", "x"));
    let rule = ClientMatch { trust: vec!["fleet".into()], ..ClientMatch::default() };
    let mut limit = spec("x", &["client"], &[ones("1/h")]);
    limit.client = ClientRule::Verified(rule);
    limit.routes = Some(vec!["b".into()]);
    let limits = build(&[limit], None);
    for _ in 0..3 {
        assert!(admits(&limits, Some(&laptop), "10.0.0.1", 1));
        assert!(admits(&limits, Some(&sensor), "10.0.0.1", 0));
        assert!(admits(&limits, None, "10.0.0.1", 1));
    }
    assert!(admits(&limits, Some(&sensor), "10.0.0.1", 1));
    assert!(!admits(&limits, Some(&sensor), "10.0.0.1", 1));
}

#[test]
fn what_one_limit_refuses_costs_nothing_elsewhere() {
    let quota = Quota::new(3, Duration::from_secs(100));
    let specs = [
        spec("wide", &["route"], &[Measure::Quota(quota), Measure::Concurrent(2), ones("2/h")]),
        spec("narrow", &["client"], &[ones("1/h")]),
    ];
    let (limits, one, two) = (build(&specs, None), client("fleet", "1", "x"), client("fleet", "2", "x"));
    let (mine, theirs) = (limits.keys(1, Some(&one), from("::1")), limits.keys(1, Some(&two), from("::1")));
    let first = limits.admit(&mine, 0, NOW);
    assert!(first.refused.is_none());
    for _ in 0..5 {
        let over = limits.admit(&mine, 0, NOW);
        assert_eq!((over.refused.unwrap().rule, over.taken), (3, Taken::default()));
    }
    assert!(limits.admit(&theirs, 0, NOW).refused.is_none());
    let refused: Vec<_> = limits.rules().iter().map(|rule| rule.meter().refused()).collect();
    assert_eq!(refused, [0, 0, 0, 5]);
}

#[test]
fn what_is_under_way_is_bounded_and_given_back() {
    let limits = build(&[spec("x", &["client"], &[Measure::Concurrent(2)])], None);
    let keys = limits.keys(1, None, from("::1"));
    let taken: Vec<_> = (0..2).map(|_| limits.admit(&keys, 0, NOW).taken).collect();
    let over = limits.admit(&keys, 0, NOW).refused.unwrap();
    assert_eq!(over.wait, Duration::from_secs(1));
    limits.settle(taken[0], &keys, 0, 10, NOW);
    assert!(limits.admit(&keys, 0, NOW).refused.is_none());
    assert!(limits.admit(&keys, 0, NOW).refused.is_some());
}

#[test]
fn bytes_are_charged_at_the_end_and_paid_off_before_the_next_request() {
    let bytes = Measure::Bytes(Bucket::of_many("1kB/s".parse().unwrap()));
    let limits = build(&[spec("x", &["client"], &[bytes])], None);
    let keys = limits.keys(1, None, from("::1"));
    let taken = limits.admit(&keys, 0, NOW).taken;
    limits.settle(taken, &keys, 0, 4_000, NOW);
    let wait = limits.admit(&keys, 0, NOW).refused.unwrap().wait;
    assert_eq!(wait.as_secs(), 3);
    assert!(limits.admit(&keys, 0, Moment(NOW.0 + wait.as_nanos() as u64)).refused.is_none());
}

#[test]
fn a_shadow_counts_what_it_would_refuse_and_refuses_nobody() {
    let mut limit = spec("x", &["client"], &[ones("2/h"), Measure::Concurrent(1)]);
    limit.mode = Mode::Shadow;
    let limits = build(&[limit], None);
    let keys = limits.keys(1, None, from("::1"));
    let all: Vec<_> = (0..5).map(|_| limits.admit(&keys, 0, NOW)).collect();
    assert!(all.iter().all(|admission| admission.refused.is_none()));
    assert_eq!(
        all.iter().map(|it| it.shadowed).collect::<Vec<_>>(),
        [None, Some(1), Some(0), Some(0), Some(0)]
    );
    let counted: Vec<_> = limits.rules().iter().map(|rule| rule.meter().shadowed()).collect();
    assert_eq!(counted, [3, 4]);
    // What was not taken is not given back either.
    for admission in all {
        limits.settle(admission.taken, &keys, 0, 0, NOW);
    }
    assert!(limits.rules()[1].meter().held().keys == 0);
}

#[test]
fn counts_go_on_after_a_reload_where_they_still_mean_the_same() {
    let one = client("fleet", "1", "x");
    let quota = |most, seconds| Measure::Quota(Quota::new(most, Duration::from_secs(seconds)));
    let goes_on = |before: Measure, after: Measure, per: &str| {
        let old = build(&[spec("x", &["client"], &[before])], None);
        assert!(admits(&old, Some(&one), "::1", 0) && !admits(&old, Some(&one), "::1", 0));
        // Other limits before it, and another route, change nothing.
        let specs = [spec("y", &["client"], &[ones("9/s")]), spec("x", &[per], &[after])];
        !admits(&build(&specs, Some(&old)), Some(&one), "::1", 0)
    };
    assert!(goes_on(ones("1/h"), ones("1/h"), "client"));
    assert!(!goes_on(ones("1/h"), ones("2/h"), "client"));
    assert!(!goes_on(ones("1/h"), ones("1/h"), "address"));
    assert!(goes_on(quota(1, 100), quota(1, 100), "client"));
    assert!(!goes_on(quota(1, 100), quota(1, 200), "client"));
    assert!(!goes_on(quota(1, 100), quota(2, 100), "client"), "two may, and one did");
    assert!(goes_on(Measure::Concurrent(1), Measure::Concurrent(1), "client"));
    // One is under way still: of two there is room for one, and of one for none.
    assert!(!goes_on(Measure::Concurrent(1), Measure::Concurrent(2), "client"));
}

#[test]
fn a_connection_that_is_refused_holds_nothing_and_one_that_ends_gives_all_back() {
    let limits = build(&[spec("x", &["client"], &[Measure::Connections(2), Measure::Networks(1)])], None);
    let keys = limits.keys(1, None, from("::1"));
    let network = |address: &str| Network::of(address.parse().unwrap());
    let (here, there) = (network("10.0.0.1"), network("10.0.1.1"));
    let first = limits.enter(&keys, here, NOW);
    assert_eq!((first.refused, first.networks, first.held.len()), (None, None, 2));
    for times in 0..5 {
        let over = limits.enter(&keys, there, NOW);
        assert_eq!((over.refused, over.networks, over.held.len()), (Some(1), Some(2), 0));
        assert_eq!(over.news, (times == 0).then_some(1));
    }
    let second = limits.enter(&keys, here, NOW);
    assert!(second.refused.is_none());
    assert_eq!(limits.enter(&keys, here, NOW).refused, Some(0));
    drop(first);
    // A reload with other numbers counts on.
    let specs = [spec("x", &["client"], &[Measure::Connections(1), Measure::Networks(3)])];
    let reloaded = build(&specs, Some(&limits));
    drop(limits);
    assert_eq!(reloaded.enter(&keys, there, NOW).refused, Some(0));
    drop(second);
    assert!(reloaded.enter(&keys, there, NOW).refused.is_none());
    assert!(reloaded.rules().iter().all(|rule| rule.meter().held().keys == 0));
}
