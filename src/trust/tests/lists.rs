//! Lists that are missing, or grow old; and clocks that jump.

use super::*;
use ListAge::{Fresh, Lapsed, Old, Stale};

fn requiring(anchors: &[&Minted], lists: Vec<Arc<RevocationList>>) -> TrustSet {
    let policy = TrustPolicy { when_missing: WhenMissing::Refuse, ..TrustPolicy::default() };
    set(&[&domain_of("fleet", anchors, lists, policy)])
}

#[test]
fn each_issuer_on_the_path_must_have_a_list_where_that_is_asked() {
    let root = root();
    let middle = Plan::ca("CN=Middle").signed_by(&root);
    let leaf = numbered(7).signed_by(&middle);
    let of_root = || list(&revoking(&[]), &root);
    let of_middle = |plan: &ListPlan| list(plan, &middle);
    let point = |tag| extension(28, true, &der::sequence(&[&der::element(tag, &[0xff])]));
    let scoped = |tag| of_middle(&ListPlan { extensions: vec![point(tag)], ..revoking(&[]) });
    let told = |set: &TrustSet| refused(set, &[&leaf, &middle]);
    for (lists, missing) in [
        (vec![], "CN=Middle"),
        (vec![of_root()], "CN=Middle"),
        (vec![of_root(), scoped(0x82)], "CN=Middle"),
        (vec![of_middle(&revoking(&[]))], "CN=Root"),
    ] {
        let (reason, detail) = told(&requiring(&[&root], lists.clone()));
        assert_eq!(reason, RejectionReason::RevocationUnknown);
        assert!(detail.ends_with(&format!("there is no revocation list of `{missing}`")), "{detail}");
        // It is believed where that is not asked.
        assert!(verify(&with_lists(&[&root], lists, WhenStale::Refuse), &[&leaf, &middle]).is_ok());
    }
    assert!(verify(&requiring(&[&root], vec![of_root(), scoped(0x81)]), &[&leaf, &middle]).is_ok());
    let both = requiring(&[&root], vec![of_root(), of_middle(&revoking(&[]))]);
    let identity = verify(&both, &[&leaf, &middle]).unwrap();
    assert_eq!(lapse(&both, &identity, NOW), None);
    // Who is in goes with the list.
    let without = requiring(&[&root], vec![of_root()]);
    assert_eq!(lapse(&without, &identity, NOW).as_deref(), Some("revocation_unknown"));
    assert_eq!(without.change_since(&both, NOW), Change::Anything);
    // Revoked says more than unknown.
    let (reason, _) = told(&requiring(&[&root], vec![of_middle(&revoking(&[7]))]));
    assert_eq!(reason, RejectionReason::Revoked);
}

#[test]
fn a_certificate_that_says_where_its_list_is_needs_that_one() {
    let root = root();
    let at = |address: &'static str| Plan { list_point: Some(address), ..numbered(7) }.signed_by(&root);
    let anywhere = numbered(7).signed_by(&root);
    let part = |address: &str, plan: ListPlan| {
        let name = der::element(0xa0, &der::element(0xa0, &der::element(0x86, address.as_bytes())));
        list(&ListPlan { extensions: vec![extension(28, true, &der::sequence(&[&name]))], ..plan }, &root)
    };
    let (one, two) = (at("http://crl.example/1"), at("http://crl.example/2"));
    let first = requiring(&[&root], vec![part("http://crl.example/1", revoking(&[]))]);
    assert!(verify(&first, &[&one]).is_ok() && verify(&first, &[&anywhere]).is_ok());
    assert_eq!(refused(&first, &[&two]).0, RejectionReason::RevocationUnknown);
    // A list of everything speaks about all of them.
    assert!(verify(&requiring(&[&root], vec![list(&revoking(&[]), &root)]), &[&two]).is_ok());
    // One part that is old holds up nobody who is on another.
    let old = ListPlan { days: -9..-1, ..revoking(&[]) };
    let both = vec![part("http://crl.example/1", old), part("http://crl.example/2", revoking(&[]))];
    let both = with_lists(&[&root], both, WhenStale::Refuse);
    assert_eq!(refused(&both, &[&one]).0, RejectionReason::RevocationUnknown);
    assert!(verify(&both, &[&two]).is_ok());
    // Whoever is on any list of its issuer is revoked, wherever it should be.
    let strange = with_lists(&[&root], vec![part("http://crl.example/1", revoking(&[7]))], WhenStale::Refuse);
    assert_eq!(refused(&strange, &[&two]).0, RejectionReason::Revoked);
}

#[test]
fn a_list_is_told_of_once_at_each_age() {
    let root = root();
    // Of eight days, one has passed.
    let list = list(&revoking(&[]), &root);
    let believe_for = WhenStale::BelieveFor(Duration::from_secs(DAY as u64));
    let ages = |when_stale| {
        [0, 5, 6, 7, 8, 9].map(|days| list.age(when_stale, NOW + days * DAY + i64::from(days > 5)))
    };
    assert_eq!(ages(believe_for), [Fresh, Fresh, Old, Stale, Lapsed, Lapsed]);
    assert_eq!(ages(WhenStale::Refuse), [Fresh, Fresh, Old, Lapsed, Lapsed, Lapsed]);
    assert_eq!(ages(WhenStale::Believe), [Fresh, Fresh, Old, Stale, Stale, Stale]);
    let notice = |when_stale, days| list.notice(when_stale, NOW + days * DAY + 1);
    assert_eq!(notice(believe_for, 0), None);
    for (when_stale, days, words) in [
        (
            believe_for,
            6,
            "`CN=Root` is to be replaced by 2026-01-08 00:00:00 UTC, and most of its time has passed",
        ),
        (
            believe_for,
            7,
            "should have been replaced by 2026-01-08 00:00:00 UTC; as `when_stale` says, it is believed until 2026-01-09",
        ),
        (WhenStale::Believe, 7, "it is believed nevertheless"),
        (believe_for, 8, "clients of this issuer are refused"),
    ] {
        let notice = notice(when_stale, days).unwrap();
        assert!(notice.contains(words), "{notice}");
    }
    // The same words on every day of an age, so that nobody reads them twice.
    assert_eq!(notice(WhenStale::Believe, 7), notice(WhenStale::Believe, 70));
}

#[test]
fn a_clock_that_jumps_opens_nothing() {
    let root = root();
    let leaf = Plan { days: -2..10, ..numbered(8) }.signed_by(&root);
    let revoked = numbered(7).signed_by(&root);
    let set = with_lists(&[&root], vec![list(&revoking(&[7]), &root)], WhenStale::Refuse);
    let verdict = |chain: &Minted, now| verify_at(&set, &[chain], now).map(|_| ()).map_err(|it| it.reason);
    let identity = verify(&set, &[&leaf]).unwrap();
    // There and back, again and again: what is remembered of one moment does not count at another.
    for now in [NOW, NOW + 8 * DAY, NOW, NOW + 11 * DAY, NOW - 3 * DAY, 0, NOW, i64::MAX, NOW] {
        let expected = match now {
            NOW => Ok(()),
            _ if now < NOW => Err(RejectionReason::NotYetValid),
            _ if now <= NOW + 10 * DAY => Err(RejectionReason::RevocationUnknown),
            _ => Err(RejectionReason::Expired),
        };
        assert_eq!(verdict(&leaf, now), expected, "{now}");
        assert_eq!(verdict(&revoked, now), Err(RejectionReason::Revoked), "{now}");
        assert_eq!(lapse(&set, &identity, now).is_none(), now == NOW, "{now}");
    }
    // A list that was right a moment ago is none by a clock that was set back.
    let issued = ListPlan { days: 0..7, ..revoking(&[7]) }.signed_by(&root);
    let read = |now| RevocationList::read(&issued, &[root.certificate()], now).map(|_| ());
    assert_eq!(read(NOW), Ok(()));
    assert_eq!(read(NOW - DAY), Err(RevocationError::FromTheFuture(NOW)));
}
