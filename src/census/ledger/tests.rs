//! The ledger against a naive one, and what a renewal does.

use proptest::prelude::*;

use super::*;
use crate::trust::mint::{DAY, Minted, NOW, Plan};
use crate::trust::{TrustDomain, TrustPolicy, TrustSet};

/// What a client did.
#[derive(Debug, Clone)]
enum Event {
    Seen { certificate: u8, after: u32 },
    ForgetBefore(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let seen = (0..24_u8, 0..3_u32).prop_map(|(certificate, after)| Event::Seen { certificate, after });
    let forget = (0..30_u32).prop_map(Event::ForgetBefore);
    proptest::collection::vec(prop_oneof![8 => seen, 1 => forget], 0..120)
}

/// Three certificates for each name, one later than the other.
fn entry(certificate: u8, now: u32) -> Entry {
    Entry {
        fingerprint: [certificate; PREFIX],
        name: u64::from(certificate / 3),
        not_after: Moment(1000 + u32::from(certificate % 3)),
        first_seen: Moment(now),
        last_seen: Moment(now),
        anchor: 0,
        standing: Use::InUse,
    }
}

fn see(ledger: &mut Ledger, certificate: u8, now: u32, most: usize) {
    let entry = entry(certificate, now);
    ledger.note(entry, most, || entry.name);
}

proptest! {
    /// Whoever is remembered is found, with when it was seen; nobody who went was seen later than somebody who stayed.
    #[test]
    fn the_ledger_is_a_list_that_forgets_the_oldest(events in events(), most in 1..12_usize) {
        let mut ledger = Ledger::default();
        let mut model: Vec<(u8, u32, u32)> = Vec::new();
        let mut now = 0;
        for event in events {
            let before = model.clone();
            match event {
                Event::Seen { certificate, after } => {
                    now += after;
                    see(&mut ledger, certificate, now, most);
                    match model.iter_mut().find(|(known, ..)| *known == certificate) {
                        Some((_, _, last)) => *last = now,
                        None => model.push((certificate, now, now)),
                    }
                }
                Event::ForgetBefore(since) => {
                    ledger.forget_before(since.into());
                    model.retain(|(_, _, last)| *last >= since);
                }
            }
            let found = |certificate: u8| ledger.number(&[certificate; PREFIX]);
            let stayed = |(certificate, ..): &(u8, u32, u32)| found(*certificate).is_some();
            let oldest = model.iter().filter(|it| stayed(it)).map(|(_, _, last)| *last).min();
            for gone in model.iter().filter(|it| !stayed(it)) {
                prop_assert!(before.len() >= most, "nobody goes while there is room");
                prop_assert!(oldest.is_none_or(|oldest| gone.2 <= oldest));
            }
            model.retain(|it| stayed(it));
            prop_assert_eq!(ledger.len(), model.len());
            prop_assert!(ledger.len() <= most);
            prop_assert_eq!(ledger.by_fingerprint.len(), model.len());
            for (certificate, first, last) in &model {
                let entry = ledger.entries.at(found(*certificate).unwrap());
                prop_assert_eq!((entry.first_seen.0, entry.last_seen.0), (*first, *last));
            }
            for number in &ledger.by_name {
                prop_assert!((*number as usize) < ledger.len());
            }
            let names: std::collections::BTreeSet<_> =
                ledger.by_name.iter().map(|number| ledger.entries.at(*number).name).collect();
            prop_assert_eq!(names.len(), ledger.by_name.len(), "one for each name");
        }
    }
}

fn standing(ledger: &Ledger, certificate: u8) -> Use {
    ledger.entries.at(ledger.number(&[certificate; PREFIX]).unwrap()).standing
}

#[test]
fn a_certificate_is_superseded_by_one_of_its_name_that_comes_later_until_it_is_seen_again() {
    let mut ledger = Ledger::default();
    see(&mut ledger, 0, 1, 9);
    see(&mut ledger, 1, 2, 9);
    assert_eq!((standing(&ledger, 0), standing(&ledger, 1)), (Use::Superseded, Use::InUse));
    see(&mut ledger, 0, 3, 9);
    assert_eq!((standing(&ledger, 0), standing(&ledger, 1)), (Use::InUse, Use::InUse));
    // What the certificates say of their time makes no difference: the new one may be the shorter-lived.
    let mut ledger = Ledger::default();
    see(&mut ledger, 2, 1, 9);
    see(&mut ledger, 0, 2, 9);
    assert_eq!((standing(&ledger, 2), standing(&ledger, 0)), (Use::Superseded, Use::InUse));
    // Both in one second: the one before will come again if it is still in use.
    let mut ledger = Ledger::default();
    see(&mut ledger, 0, 1, 9);
    see(&mut ledger, 1, 1, 9);
    see(&mut ledger, 0, 1, 9);
    assert_eq!((standing(&ledger, 0), standing(&ledger, 1)), (Use::Superseded, Use::InUse));
    see(&mut ledger, 0, 2, 9);
    assert_eq!((standing(&ledger, 0), standing(&ledger, 1)), (Use::InUse, Use::InUse));
    // Another name's is nobody's business.
    let mut ledger = Ledger::default();
    see(&mut ledger, 0, 1, 9);
    see(&mut ledger, 4, 3, 9);
    assert_eq!((standing(&ledger, 0), standing(&ledger, 4)), (Use::InUse, Use::InUse));
}

#[test]
fn what_two_processes_have_seen_is_put_together_in_either_order() {
    let (mut old, mut new) = (Ledger::default(), Ledger::default());
    let domain: Arc<str> = "fleet".into();
    let anchors = ["a", "b"].map(|subject| {
        let fingerprint = Fingerprint([subject.as_bytes()[0]; 32]);
        Arc::new(Anchor { subject: subject.to_owned(), fingerprint, not_after: 5 })
    });
    old.voucher(&domain, &anchors[0]);
    new.voucher(&domain, &anchors[1]);
    new.voucher(&domain, &anchors[0]);
    see(&mut old, 0, 1, 9);
    see(&mut old, 3, 1, 9);
    // Renewed after the upgrade, and one that came to both.
    see(&mut new, 1, 2, 9);
    see(&mut new, 3, 2, 9);
    let copy = |ledger: &Ledger| {
        let mut copy = Ledger::default();
        copy.merge(ledger, 9);
        copy
    };
    see(&mut new, 6, 2, 9);
    for (one, other) in [(&old, &new), (&new, &old)] {
        let mut both = copy(one);
        both.evicted = 7;
        both.unite(copy(other), 9);
        assert_eq!(both.len(), 4);
        assert_eq!(both.evicted(), 7, "what this process had to let go");
        assert_eq!((standing(&both, 0), standing(&both, 1)), (Use::Superseded, Use::InUse));
        let entry = both.entries.at(both.number(&[3; PREFIX]).unwrap());
        assert_eq!((entry.first_seen.0, entry.last_seen.0), (1, 2));
        assert_eq!(both.vouchers()[usize::from(entry.anchor)].anchor.subject, "b");
    }
}

#[test]
fn a_full_ledger_that_is_frozen_takes_in_nobody_new() {
    let mut ledger = Ledger::default();
    see(&mut ledger, 0, 1, 2);
    see(&mut ledger, 3, 2, 2);
    ledger.set_frozen(true);
    see(&mut ledger, 6, 3, 2);
    assert_eq!((ledger.len(), ledger.evicted()), (2, 1));
    ledger.set_frozen(false);
    see(&mut ledger, 6, 4, 2);
    assert_eq!((ledger.len(), ledger.evicted()), (2, 2));
    assert!(ledger.number(&[0; PREFIX]).is_none(), "the oldest went");
    ledger.add(entry(9, 5), 0);
    assert_eq!(ledger.len(), 2, "no census, nobody is added");
}

fn identity(ca: &Minted, subject: &str, days: std::ops::Range<i64>, now: UnixTime) -> Arc<ClientIdentity> {
    let leaf = Plan { days, ..Plan::leaf(subject) }.signed_by(ca);
    let domain = TrustDomain::build("fleet", vec![ca.certificate()], Vec::new(), TrustPolicy::default());
    TrustSet::new(vec![Arc::new(domain.unwrap())]).verify(&[&leaf.der()], now).unwrap()
}

#[test]
fn clients_are_counted_by_when_their_certificates_expire_and_named_in_that_order() {
    let ca = Plan::ca("CN=Root").self_signed();
    let mut ledger = Ledger::default();
    for (subject, days) in [("CN=d", 200), ("CN=b", 20), ("CN=c", 60), ("CN=a", 5)] {
        ledger.saw(&identity(&ca, subject, -1..days, NOW), 9, NOW);
    }
    // Seen long ago, and one that has expired since.
    ledger.saw(&identity(&ca, "CN=gone", -300..300, NOW - 40 * DAY), 9, NOW - 40 * DAY);
    ledger.saw(&identity(&ca, "CN=late", -300..-2, NOW - 10 * DAY), 9, NOW - 10 * DAY);
    let tally = ledger.tally(Window { since: NOW - 30 * DAY, now: NOW });
    let counts = tally.by_anchor()[0];
    assert_eq!((counts.in_use, counts.expired, counts.expiring), (5, 1, [1, 2, 3]));
    assert_eq!(counts.last_seen, NOW);
    let names: Vec<_> =
        tally.next().iter().map(|entry| ledger.soonest().find(entry).unwrap().1.to_string()).collect();
    assert_eq!(names, ["CN=a", "CN=b", "CN=c", "CN=d"]);
    // The client that expires first renews, and is urgent no more.
    let renewed = identity(&ca, "CN=a", -1..365, NOW);
    ledger.saw(&renewed, 9, NOW + 1);
    let tally = ledger.tally(Window { since: NOW - 30 * DAY, now: NOW });
    let counts = tally.by_anchor()[0];
    assert_eq!((counts.in_use, counts.superseded, counts.expiring), (5, 1, [0, 1, 2]));
    let seen = ledger.find(renewed.certificate().fingerprint()).unwrap();
    assert_eq!(seen.subject.as_deref(), Some("CN=a"));
    assert_eq!((seen.first_seen, seen.last_seen, seen.is_superseded), (NOW + 1, NOW + 1, false));
    assert_eq!(seen.anchor.subject, "CN=Root");
}

#[test]
fn the_name_of_a_client_survives_its_renewal_and_tells_it_from_others() {
    let ca = Plan::ca("CN=Root").self_signed();
    let of = |domain: &str, subject: &str| name(domain, identity(&ca, subject, -1..9, NOW).certificate());
    assert_eq!(of("fleet", "CN=a"), of("fleet", "CN=a"));
    assert_ne!(of("fleet", "CN=a"), of("fleet", "CN=b"));
    assert_ne!(of("fleet", "CN=a"), of("staff", "CN=a"));
}

#[test]
fn a_million_certificates_take_64_mb() {
    const COUNT: usize = 1_000_000;
    // Tables double, so that it makes no difference whether they grow to this size or begin with it.
    let table: HashTable<u32> = HashTable::with_capacity(COUNT);
    let bytes = 2 * table.allocation_size() + COUNT * size_of::<Entry>();
    assert!(bytes < 64_000_000, "{bytes}");
}
