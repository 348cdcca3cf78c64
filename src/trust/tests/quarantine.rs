//! Clients with one fault: let in where it is accepted, refused for whatever else is wrong.

use super::*;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn accepting(kind: FaultKind, spans: &[u64]) -> TrustPolicy {
    let mut quarantine = Quarantine::default();
    for span in spans {
        quarantine.admit(kind, days(*span));
    }
    TrustPolicy { quarantine, ..TrustPolicy::default() }
}

/// Expired so many days ago.
fn late(ago: i64) -> Plan {
    Plan { days: -300..-ago, ..device() }
}

fn expired(span: u64) -> Standing {
    Standing::Quarantined(Fault { kind: FaultKind::Expired, within: days(span) })
}

fn stale(span: u64) -> Standing {
    Standing::Quarantined(Fault { kind: FaultKind::RevocationStale, within: days(span) })
}

/// The verdict in a word.
fn word(verdict: &Result<Arc<ClientIdentity>, Rejection>) -> String {
    match verdict {
        Ok(identity) => identity.standing().to_string(),
        Err(rejection) => format!("refused: {}", rejection.reason),
    }
}

#[test]
fn an_expired_client_is_let_in_as_long_as_somebody_accepts_it_and_only_then() {
    let root = root();
    let leaf = late(10).signed_by(&root);
    let of = |policy: TrustPolicy| set(&[&domain_of("fleet", &[&root], Vec::new(), policy)]);
    assert_eq!(refused(&of(TrustPolicy::default()), &[&leaf]).0, RejectionReason::Expired);
    assert_eq!(
        refused(&of(accepting(FaultKind::RevocationStale, &[30])), &[&leaf]).0,
        RejectionReason::Expired
    );
    assert_eq!(refused(&of(accepting(FaultKind::Expired, &[9])), &[&leaf]).0, RejectionReason::Expired);
    let set = of(accepting(FaultKind::Expired, &[30]));
    let identity = verify(&set, &[&leaf]).unwrap();
    assert_eq!(identity.standing(), expired(30));
    assert_eq!(identity.valid_until(), NOW + 20 * DAY);
    // To the second, at both ends.
    for (now, verdict) in [
        (NOW - 10 * DAY, "good"),
        (NOW - 10 * DAY + 1, "expired"),
        (NOW + 20 * DAY, "expired"),
        (NOW + 20 * DAY + 1, "refused: expired"),
        (NOW - 301 * DAY, "refused: not_yet_valid"),
    ] {
        assert_eq!(word(&verify_at(&set, &[&leaf], now)), verdict, "{now}");
    }
    // One that is good is none the worse for it.
    let good = verify(&set, &[&device().signed_by(&root)]).unwrap();
    assert_eq!((good.standing(), good.valid_until()), (Standing::Good, NOW + 365 * DAY));
}

#[test]
fn whatever_else_is_wrong_with_an_expired_client_refuses_it() {
    let root = root();
    let gone = Plan { days: -300..-5, ..Plan::ca("CN=Sub") }.signed_by(&root);
    let accepting = |policy: TrustPolicy| TrustPolicy {
        quarantine: accepting(FaultKind::Expired, &[30]).quarantine,
        ..policy
    };
    let usual = || accepting(TrustPolicy::default());
    let with = |policy: TrustPolicy, lists| set(&[&domain_of("fleet", &[&root], lists, policy)]);
    let listed = |serials: &[u32], days| vec![list(&ListPlan { days, ..revoking(serials) }, &root)];
    let plain = || late(10).signed_by(&root);
    for (case, policy, lists, chain, verdict) in [
        ("nothing", usual(), vec![], vec![plain()], "expired"),
        ("another one is revoked", usual(), listed(&[7], -1..7), vec![plain()], "expired"),
        ("revoked", usual(), listed(&[0x1000], -1..7), vec![plain()], "refused: revoked"),
        (
            "revoked by a list that is stale",
            usual(),
            listed(&[0x1000], -9..-2),
            vec![plain()],
            "refused: revoked",
        ),
        ("the list is stale", usual(), listed(&[7], -9..-2), vec![plain()], "refused: expired"),
        (
            "both are accepted, each by itself",
            {
                let mut policy = usual();
                policy.quarantine.admit(FaultKind::RevocationStale, days(30));
                policy
            },
            listed(&[7], -9..-2),
            vec![plain()],
            "refused: expired",
        ),
        (
            "for servers",
            usual(),
            vec![],
            vec![Plan { usage: Some("serverAuth"), ..late(10) }.signed_by(&root)],
            "refused: wrong_usage",
        ),
        (
            "too deep",
            accepting(TrustPolicy { max_depth: 0, ..TrustPolicy::default() }),
            vec![],
            {
                let sub = Plan::ca("CN=Sub").signed_by(&root);
                vec![late(10).signed_by(&sub), sub]
            },
            "refused: chain_too_long",
        ),
        (
            "its issuer has expired",
            usual(),
            vec![],
            vec![Plan { days: -200..-10, ..device() }.signed_by(&gone), gone.clone()],
            "refused: expired",
        ),
        (
            "only its issuer has expired",
            usual(),
            vec![],
            vec![device().signed_by(&gone), gone.clone()],
            "refused: expired",
        ),
        (
            "from a stranger",
            usual(),
            vec![],
            vec![late(10).signed_by(&Plan::ca("CN=Stranger").self_signed())],
            "refused: unknown_issuer",
        ),
    ] {
        let chain: Vec<_> = chain.iter().collect();
        assert_eq!(word(&verify(&with(policy, lists), &chain)), verdict, "{case}");
    }
    let old = Plan { days: -300..-1, ..Plan::ca("CN=Root") }.self_signed();
    let set = set(&[&domain_of("fleet", &[&old], Vec::new(), usual())]);
    assert_eq!(refused(&set, &[&late(10).signed_by(&old)]).0, RejectionReason::Expired);
}

#[test]
fn a_client_of_a_stale_list_is_let_in_as_long_as_somebody_accepts_it_and_never_a_revoked_one() {
    let root = root();
    let middle = Plan { serial: 9, ..Plan::ca("CN=Middle") }.signed_by(&root);
    let [good, revoked] = [8, 7].map(|serial| Plan { serial, days: -20..365, ..device() }.signed_by(&root));
    let of = |policy: TrustPolicy, lists| set(&[&domain_of("fleet", &[&root], lists, policy)]);
    let lists = |serials: &[u32]| vec![list(&ListPlan { days: -10..-2, ..revoking(serials) }, &root)];
    let lenient = || accepting(FaultKind::RevocationStale, &[3]);
    assert_eq!(
        word(&verify(&of(TrustPolicy::default(), lists(&[7])), &[&good])),
        "refused: revocation_unknown"
    );
    let closed = of(accepting(FaultKind::Expired, &[3]), lists(&[7]));
    assert_eq!(word(&verify(&closed, &[&good])), "refused: revocation_unknown");
    let set = of(lenient(), lists(&[7]));
    assert_eq!(verify(&set, &[&good]).unwrap().standing(), stale(3));
    assert_eq!(refused(&set, &[&revoked]).0, RejectionReason::Revoked);
    for (now, verdict) in [
        (NOW - 2 * DAY, "good"),
        (NOW - 2 * DAY + 1, "revocation_stale"),
        (NOW + DAY, "revocation_stale"),
        (NOW + DAY + 1, "refused: revocation_unknown"),
    ] {
        assert_eq!(word(&verify_at(&set, &[&good], now)), verdict, "{now}");
        assert!(
            now == NOW - 2 * DAY || set.changed_between(NOW - 2 * DAY, now),
            "open connections are looked over"
        );
    }
    // Its issuer is revoked: that counts more than that nobody knows about the leaf.
    let by_middle = ListPlan { days: -10..-2, ..revoking(&[]) };
    let issuers = [root.certificate(), middle.certificate()];
    let of_middle = Arc::new(RevocationList::read(&by_middle.signed_by(&middle), &issuers, NOW).unwrap());
    let leaf = device().signed_by(&middle);
    let with_middle = of(lenient(), [lists(&[9]), vec![of_middle]].concat());
    assert_eq!(refused(&with_middle, &[&leaf, &middle]).0, RejectionReason::Revoked);
    // Where it is believed anyway, for longer, there is nothing to forgive.
    let believing = TrustPolicy { when_stale: WhenStale::BelieveFor(days(4)), ..lenient() };
    assert_eq!(verify(&of(believing, lists(&[])), &[&good]).unwrap().standing(), Standing::Good);
}

#[test]
fn of_several_spans_the_shortest_that_covers_it_counts() {
    let root = root();
    let policy = accepting(FaultKind::Expired, &[30, 10, 20]);
    let set = set(&[&domain_of("fleet", &[&root], Vec::new(), policy)]);
    for (ago, standing) in [(9, expired(10)), (10, expired(10)), (11, expired(20)), (25, expired(30))] {
        let identity = verify(&set, &[&late(ago).signed_by(&root)]).unwrap();
        assert_eq!(identity.standing(), standing, "{ago}");
        let Standing::Quarantined(fault) = identity.standing() else { panic!() };
        assert_eq!(identity.valid_until(), NOW - ago * DAY + fault.within.as_secs() as i64);
    }
}

#[test]
fn a_domain_in_whose_eyes_nothing_is_wrong_comes_first_and_one_that_revoked_is_heard() {
    let root = root();
    let leaf = numbered(8).signed_by(&root);
    let stale_list = || vec![list(&ListPlan { days: -10..-2, ..revoking(&[]) }, &root)];
    let lenient = accepting(FaultKind::RevocationStale, &[30]);
    let quarantine = domain_of("first", &[&root], stale_list(), lenient);
    let fresh = domain_of("second", &[&root], vec![list(&revoking(&[7]), &root)], TrustPolicy::default());
    for set in [set(&[&quarantine, &fresh]), set(&[&fresh, &quarantine])] {
        let identity = verify(&set, &[&leaf]).unwrap();
        assert_eq!((&**identity.trust_domain(), identity.standing()), ("second", Standing::Good));
    }
    assert_eq!(verify(&set(&[&quarantine]), &[&leaf]).unwrap().standing(), stale(30));
    // The twin: somebody has revoked it, who would not let an expired client in.
    let accepting = domain_of("first", &[&root], Vec::new(), accepting(FaultKind::Expired, &[30]));
    let (known, unknown) = (0x1000, 0x1001);
    for (serial, verdict) in [(known, "refused: revoked"), (unknown, "expired")] {
        let lists = vec![list(&revoking(&[serial]), &root)];
        let other = domain_of("second", &[&root], lists, TrustPolicy::default());
        for set in [set(&[&accepting, &other]), set(&[&other, &accepting])] {
            assert_eq!(word(&verify(&set, &[&late(10).signed_by(&root)])), verdict);
        }
    }
}

#[test]
fn an_expired_client_that_somebody_denies_is_refused() {
    let root = root();
    let late = late(10).signed_by(&root);
    let denying = |subject: &str, policy: TrustPolicy| {
        let list = format!("{{ subject: {{ CN: {subject} }} }}");
        super::denial::denying("denies", &[&root], &list, policy)
    };
    let admitting = || accepting(FaultKind::Expired, &[30]);
    let open = domain_of("open", &[&root], Vec::new(), admitting());
    for (subject, verdict) in [("device-1", "refused: denied"), ("device-2", "expired")] {
        let (own, other) = (denying(subject, admitting()), denying(subject, TrustPolicy::default()));
        for set in [set(&[&own]), set(&[&open, &other]), set(&[&other, &open])] {
            assert_eq!(word(&verify(&set, &[&late])), verdict);
        }
    }
    // Denied while it was connected.
    let quarantined = verify(&set(&[&open]), &[&late]).unwrap();
    let open_and = |subject| set(&[&open, &denying(subject, TrustPolicy::default())]);
    assert_eq!(lapse(&open_and("device-1"), &quarantined, NOW).as_deref(), Some("denied"));
    assert_eq!(lapse(&open_and("device-2"), &quarantined, NOW), None);
}

#[test]
fn a_path_by_which_it_is_revoked_refuses_a_client_in_quarantine() {
    // Two anchors of one name and key lie in two stores; the list speaks of the one that is no root.
    let (top, key) = (Plan::ca("CN=Top").self_signed(), new_key());
    let plan = |serial| Plan { serial, key: Some(key.clone()), ..Plan::ca("CN=Sub") };
    let (itself, crossed) = (plan(5).self_signed(), plan(6).signed_by(&top));
    let issuers = [top.certificate()];
    let revoked = |serial| {
        vec![Arc::new(RevocationList::read(&revoking(&[serial]).signed_by(&top), &issuers, NOW).unwrap())]
    };
    for (serial, verdict) in [(6, "refused: revoked"), (99, "expired")] {
        let bundle = [&itself, &crossed, &top];
        let domain = domain_of("fleet", &bundle, revoked(serial), accepting(FaultKind::Expired, &[30]));
        let leaf = late(10).signed_by(&itself);
        assert_eq!(word(&verify(&set(&[&domain]), &[&leaf])), verdict);
    }
}

#[test]
fn open_connections_know_in_what_standing_they_were_admitted() {
    let root = root();
    let with = |lists: Vec<Arc<RevocationList>>, policy: &TrustPolicy| {
        set(&[&domain_of("fleet", &[&root], lists, policy.clone())])
    };
    let lane = accepting(FaultKind::Expired, &[30]);
    let keeping = TrustPolicy { on_expiry: OnExpiry::Keep, ..lane.clone() };
    let none = TrustPolicy::default();
    // Admitted in good standing: it goes when it expires, and may come again.
    let leaf = late(10).signed_by(&root);
    let good = verify_at(&with(vec![], &lane), &[&leaf], NOW - 20 * DAY).unwrap();
    assert_eq!(good.standing(), Standing::Good);
    assert_eq!(lapse(&with(vec![], &lane), &good, NOW).as_deref(), Some("expired"));
    assert_eq!(lapse(&with(vec![], &keeping), &good, NOW + 99 * DAY), None);
    // Admitted expired: it stays until its span is over, `on_expiry: keep` or not.
    let quarantined = verify(&with(vec![], &lane), &[&leaf]).unwrap();
    for policy in [&lane, &keeping] {
        let set = with(vec![], policy);
        assert_eq!(lapse(&set, &quarantined, NOW + 20 * DAY), None);
        assert_eq!(lapse(&set, &quarantined, NOW + 20 * DAY + 1).as_deref(), Some("expired"));
    }
    // Nobody accepts it any more, or for less long; somebody accepts it for longer.
    assert_eq!(lapse(&with(vec![], &none), &quarantined, NOW).as_deref(), Some("expired"));
    let (less, more) = (accepting(FaultKind::Expired, &[29]), accepting(FaultKind::Expired, &[60]));
    assert_eq!(lapse(&with(vec![], &less), &quarantined, NOW).as_deref(), Some("expired"));
    assert_eq!(lapse(&with(vec![], &more), &quarantined, NOW), None);
    // Revoked meanwhile.
    let revoked = vec![list(&revoking(&[0x1000]), &root)];
    assert_eq!(lapse(&with(revoked, &lane), &quarantined, NOW).as_deref(), Some("revoked"));
    // A list that had grown stale is there again: whoever it kept in quarantine may come for everything.
    let lane = accepting(FaultKind::RevocationStale, &[30]);
    let old = || vec![list(&ListPlan { days: -10..-2, ..revoking(&[]) }, &root)];
    let waiting = verify(&with(old(), &lane), &[&device().signed_by(&root)]).unwrap();
    assert_eq!(waiting.standing(), stale(30));
    assert_eq!(lapse(&with(old(), &lane), &waiting, NOW), None);
    assert_eq!(lapse(&with(old(), &none), &waiting, NOW).as_deref(), Some("revocation_unknown"));
    let new = vec![list(&revoking(&[]), &root)];
    assert_eq!(lapse(&with(new, &lane), &waiting, NOW).as_deref(), Some("standing restored"));
    let revoked = vec![list(&revoking(&[0x1000]), &root)];
    assert_eq!(lapse(&with(revoked, &lane), &waiting, NOW).as_deref(), Some("revoked"));
}

/// Whatever a set was asked before, and when, it answers like one that was asked nothing.
#[test]
fn a_verdict_that_is_remembered_is_the_one_of_the_moment() {
    let root = root();
    let mut policy = accepting(FaultKind::Expired, &[2, 5]);
    policy.quarantine.admit(FaultKind::RevocationStale, days(3));
    let plan = ListPlan { days: -20..-1, ..revoking(&[7]) };
    let fresh = || set(&[&domain_of("fleet", &[&root], vec![list(&plan, &root)], policy.clone())]);
    let leaves: Vec<_> = [
        Plan { days: -30..-10, ..device() },
        Plan { days: -30..-3, ..device() },
        Plan { days: -30..0, ..device() },
        Plan { days: -30..9, ..device() },
        Plan { days: -30..9, serial: 7, ..device() },
    ]
    .map(|plan| plan.signed_by(&root))
    .into();
    let used = fresh();
    let mut seen = std::collections::BTreeSet::new();
    // Forth, and back, and past each moment at which something changes.
    let moments = (-31..12).flat_map(|day| [day * DAY, day * DAY + 1]);
    let moments: Vec<i64> = moments.map(|offset| NOW + offset).collect();
    for now in moments.iter().chain(moments.iter().rev()) {
        for leaf in &leaves {
            let chain = [leaf.der()];
            let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
            let (remembered, new) = (used.verify(&chain, *now), fresh().verify(&chain, *now));
            assert_eq!(remembered, new, "{}", now - NOW);
            seen.insert(word(&new));
        }
    }
    let all = [
        "expired",
        "good",
        "refused: expired",
        "refused: not_yet_valid",
        "refused: revocation_unknown",
        "refused: revoked",
        "revocation_stale",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}
