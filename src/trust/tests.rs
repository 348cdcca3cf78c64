//! Verdicts: each acceptance with its refusal twin.

mod denial;
mod lists;
mod quarantine;

use std::time::{Duration, Instant};

use openssl::x509::X509Ref;

use super::mint::{DAY, ListPlan, Minted, NOW, Plan, extension, new_key, raw_name, revoking, with_subject};
use super::*;
use crate::certificate::{der, utc};

fn domain_of(
    name: &str,
    anchors: &[&Minted],
    lists: Vec<Arc<RevocationList>>,
    policy: TrustPolicy,
) -> Arc<TrustDomain> {
    let anchors = anchors.iter().map(|anchor| anchor.certificate()).collect();
    Arc::new(TrustDomain::build(name, anchors, lists, policy).unwrap())
}

fn set(domains: &[&Arc<TrustDomain>]) -> TrustSet {
    TrustSet::new(domains.iter().map(|domain| Arc::clone(domain)).collect())
}

fn believing(anchors: &[&Minted]) -> TrustSet {
    set(&[&domain_of("fleet", anchors, Vec::new(), TrustPolicy::default())])
}

fn verify_at(set: &TrustSet, chain: &[&Minted], now: UnixTime) -> Result<Arc<ClientIdentity>, Rejection> {
    let chain: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.der()).collect();
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let verdict = set.verify(&chain, now);
    let decoded: Vec<X509> = chain.iter().map(|der| X509::from_der(der).unwrap()).collect();
    let decoded: Vec<&X509Ref> = decoded.iter().map(AsRef::as_ref).collect();
    assert_eq!(set.verify_x509(&decoded, now), verdict);
    assert!(
        openssl::error::ErrorStack::get().errors().is_empty(),
        "something stayed in the library's error queue"
    );
    verdict
}

fn verify(set: &TrustSet, chain: &[&Minted]) -> Result<Arc<ClientIdentity>, Rejection> {
    verify_at(set, chain, NOW)
}

fn refused(set: &TrustSet, chain: &[&Minted]) -> (RejectionReason, String) {
    let rejection = verify(set, chain).unwrap_err();
    (rejection.reason, rejection.detail)
}

fn root() -> Minted {
    Plan::ca("CN=Root").self_signed()
}

fn device() -> Plan {
    Plan::leaf("CN=device-1")
}

#[test]
fn a_leaf_of_the_anchor_is_believed() {
    let root = root();
    let leaf = device().signed_by(&root);
    let identity = verify(&believing(&[&root]), &[&leaf]).unwrap();
    assert_eq!(&**identity.trust_domain(), "fleet");
    assert_eq!(identity.anchor().subject, "CN=Root");
    assert_eq!(identity.certificate(), &leaf.certificate());
    assert!(identity.intermediates().is_empty());
    assert_eq!(identity.valid_until(), NOW + 365 * DAY);
}

#[test]
fn certificates_of_version_1_are_believed() {
    let root = Plan { version_1: true, ..Plan::ca("CN=Root") }.self_signed();
    let leaf = Plan::version_1("CN=device-1").signed_by(&root);
    assert!(verify(&believing(&[&root]), &[&leaf]).is_ok());
    // The anchor itself, shown as a client's certificate.
    assert_eq!(refused(&believing(&[&root]), &[&root]).0, RejectionReason::LeafIsCa);
}

#[test]
fn a_leaf_of_another_ca_is_refused() {
    let stranger = Plan::ca("CN=Stranger").self_signed();
    let leaf = device().signed_by(&stranger);
    let (reason, detail) = refused(&believing(&[&root()]), &[&leaf]);
    assert_eq!(reason, RejectionReason::UnknownIssuer);
    assert_eq!(
        detail,
        "the issuer `CN=Stranger` of certificate `CN=device-1` is not known to trust domain `fleet`"
    );
    // Showing the stranger too does not help.
    let (reason, detail) = refused(&believing(&[&root()]), &[&leaf, &stranger]);
    assert_eq!(reason, RejectionReason::UnknownIssuer);
    assert!(
        detail.ends_with("certificate `CN=Stranger` is self-signed and no anchor of trust domain `fleet`"),
        "{detail}"
    );
}

#[test]
fn a_leaf_of_another_ca_of_the_same_name_is_refused() {
    let impostor = root();
    let set = believing(&[&root()]);
    let (reason, detail) = refused(&set, &[&device().signed_by(&impostor)]);
    assert_eq!(reason, RejectionReason::UnknownIssuer);
    assert!(detail.ends_with("which has an anchor of that name but with another key"), "{detail}");
    // Without key identifiers only the signature tells.
    let (reason, detail) = refused(&set, &[&Plan::version_1("CN=device-1").signed_by(&impostor)]);
    assert_eq!(reason, RejectionReason::BadSignature);
    assert!(
        detail.starts_with("the signature of certificate `CN=device-1` was not made by the `CN=Root`"),
        "{detail}"
    );
    let shown = refused(&set, &[&Plan::version_1("CN=device-1").signed_by(&impostor), &impostor]);
    assert!(matches!(shown.0, RejectionReason::BadSignature | RejectionReason::UnknownIssuer), "{}", shown.1);
}

#[test]
fn an_altered_leaf_is_refused() {
    let root = root();
    let mut der = device().signed_by(&root).der();
    let at = der.windows(8).position(|window| window == b"device-1").unwrap();
    der[at + 7] = b'2';
    let rejection = believing(&[&root]).verify(&[&der], NOW).unwrap_err();
    assert_eq!(rejection.reason, RejectionReason::BadSignature);
    assert_eq!(rejection.subject.as_deref(), Some("CN=device-2"));
}

#[test]
fn a_self_signed_leaf_is_refused() {
    let set = believing(&[&root()]);
    let (reason, detail) = refused(&set, &[&device().self_signed()]);
    assert_eq!(reason, RejectionReason::UnknownIssuer);
    assert_eq!(detail, "certificate `CN=device-1` is self-signed and no anchor of trust domain `fleet`");
    // What `openssl req -x509` makes is a CA besides.
    assert_eq!(refused(&set, &[&Plan::ca("CN=device-1").self_signed()]).0, RejectionReason::UnknownIssuer);
    assert_eq!(
        refused(&set, &[&Plan::version_1("CN=device-1").self_signed()]).0,
        RejectionReason::UnknownIssuer
    );
}

#[test]
fn time_decides_to_the_second() {
    let root = root();
    let leaf = device().signed_by(&root);
    let set = believing(&[&root]);
    let (from, until) = (NOW - DAY, NOW + 365 * DAY);
    assert!(verify_at(&set, &[&leaf], from).is_ok());
    assert!(verify_at(&set, &[&leaf], until).is_ok());
    let late = verify_at(&set, &[&leaf], until + 1).unwrap_err();
    assert_eq!(
        (late.reason, &*late.detail),
        (RejectionReason::Expired, "certificate `CN=device-1` expired on 2027-01-01 00:00:00 UTC")
    );
    let early = verify_at(&set, &[&leaf], from - 1).unwrap_err();
    assert_eq!(
        (early.reason, &*early.detail),
        (
            RejectionReason::NotYetValid,
            "certificate `CN=device-1` is not valid before 2025-12-31 00:00:00 UTC"
        )
    );
}

#[test]
fn an_expired_anchor_ends_the_belief_in_its_leaves() {
    let root = Plan { days: -100..1, ..Plan::ca("CN=Root") }.self_signed();
    let leaf = device().signed_by(&root);
    let set = believing(&[&root]);
    assert_eq!(verify(&set, &[&leaf]).unwrap().valid_until(), NOW + DAY);
    let rejection = verify_at(&set, &[&leaf], NOW + 2 * DAY).unwrap_err();
    assert_eq!(rejection.reason, RejectionReason::Expired);
    assert!(
        rejection.detail.starts_with("trust anchor certificate `CN=Root` expired"),
        "{}",
        rejection.detail
    );
}

#[test]
fn a_renewed_anchor_stands_beside_the_expired_one() {
    let key = new_key();
    let plan = |days| Plan { days, key: Some(key.clone()), ..Plan::ca("CN=Root") };
    let (old, new) = (plan(-100..-1).self_signed(), plan(-10..100).self_signed());
    let leaf = device().signed_by(&old);
    assert_eq!(refused(&believing(&[&old]), &[&leaf]).0, RejectionReason::Expired);
    assert!(verify(&believing(&[&old, &new]), &[&leaf]).is_ok());
    assert!(verify(&believing(&[&new, &old]), &[&leaf]).is_ok());
}

#[test]
fn an_anchor_with_a_new_key_stands_beside_the_old_one() {
    let (old, new) = (root(), root());
    let set = believing(&[&old, &new]);
    for issuer in [&old, &new] {
        assert!(verify(&set, &[&device().signed_by(issuer)]).is_ok());
        assert!(verify(&set, &[&Plan::version_1("CN=device-1").signed_by(issuer)]).is_ok());
    }
    assert_eq!(
        refused(&set, &[&Plan::version_1("CN=device-1").signed_by(&root())]).0,
        RejectionReason::BadSignature
    );
}

#[test]
fn usage_must_allow_tls_clients() {
    let root = root();
    let with = |usage| Plan { usage, ..device() }.signed_by(&root);
    let set = believing(&[&root]);
    for good in [None, Some("clientAuth"), Some("serverAuth,clientAuth")] {
        assert!(verify(&set, &[&with(good)]).is_ok(), "{good:?}");
    }
    for bad in ["serverAuth", "emailProtection", "codeSigning"] {
        let (reason, detail) = refused(&set, &[&with(Some(bad))]);
        assert_eq!(reason, RejectionReason::WrongUsage);
        assert_eq!(
            detail,
            "certificate `CN=device-1` is not meant for TLS clients: its extendedKeyUsage lacks clientAuth"
        );
    }
    let always = TrustPolicy { client_auth_usage: Usage::Always, ..TrustPolicy::default() };
    let strict = super::tests::set(&[&domain_of("fleet", &[&root], Vec::new(), always)]);
    assert!(verify(&strict, &[&with(Some("clientAuth"))]).is_ok());
    assert_eq!(refused(&strict, &[&with(None)]).0, RejectionReason::WrongUsage);
}

#[test]
fn a_ca_is_no_client() {
    let root = root();
    let sub = Plan { usage: Some("clientAuth"), ..Plan::ca("CN=Sub") }.signed_by(&root);
    let set = believing(&[&root]);
    assert!(verify(&set, &[&device().signed_by(&root)]).is_ok());
    let (reason, detail) = refused(&set, &[&sub]);
    assert_eq!((reason, reason.as_str()), (RejectionReason::LeafIsCa, "wrong_usage"));
    assert_eq!(detail, "certificate `CN=Sub` is that of a CA, not of a client");
    assert_eq!(refused(&set, &[&root]).0, RejectionReason::LeafIsCa);
}

#[test]
fn an_intermediate_is_taken_from_the_client_or_from_the_bundle() {
    let root = root();
    let sub = Plan::ca("CN=Sub").signed_by(&root);
    let leaf = device().signed_by(&sub);
    let presented = verify(&believing(&[&root]), &[&leaf, &sub]).unwrap();
    assert_eq!(presented.intermediates(), [sub.der()]);
    assert_eq!(presented.anchor().subject, "CN=Root");
    assert!(verify(&believing(&[&root]), &[&leaf, &sub, &root]).is_ok());
    // With certificates that no path needs, in any order, the leaf repeated.
    let extra = Plan::ca("CN=Elsewhere").self_signed();
    assert!(verify(&believing(&[&root]), &[&leaf, &extra, &root, &sub, &leaf]).is_ok());
    let bundled = verify(&believing(&[&root, &sub]), &[&leaf]).unwrap();
    assert_eq!((bundled.anchor().subject.as_str(), bundled.intermediates().len()), ("CN=Sub", 0));
    assert!(verify(&believing(&[&sub]), &[&leaf]).is_ok());
    // The twin: nobody has it.
    let (reason, detail) = refused(&believing(&[&root]), &[&leaf]);
    assert_eq!(reason, RejectionReason::UnknownIssuer);
    assert_eq!(
        detail,
        "the issuer `CN=Sub` of certificate `CN=device-1` is not known to trust domain `fleet`"
    );
}

#[test]
fn a_leaf_cannot_issue() {
    let root = root();
    let not_ca = Plan::leaf("CN=device-0").signed_by(&root);
    let (reason, detail) = refused(&believing(&[&root]), &[&device().signed_by(&not_ca), &not_ca]);
    assert!(
        matches!(reason, RejectionReason::WrongUsage | RejectionReason::UnknownIssuer),
        "{reason}: {detail}"
    );
    // A certificate of version 1 cannot either: it does not say that it is a CA.
    let version_1 = Plan::version_1("CN=device-0").signed_by(&root);
    let (reason, detail) = refused(&believing(&[&root]), &[&device().signed_by(&version_1), &version_1]);
    assert!(
        matches!(reason, RejectionReason::WrongUsage | RejectionReason::UnknownIssuer),
        "{reason}: {detail}"
    );
}

#[test]
fn the_valid_one_of_two_intermediates_is_taken() {
    let root = root();
    let key = new_key();
    let sub = |days| Plan { days, key: Some(key.clone()), ..Plan::ca("CN=Sub") }.signed_by(&root);
    let (old, new) = (sub(-50..-1), sub(-5..50));
    let leaf = device().signed_by(&new);
    let set = believing(&[&root]);
    assert!(verify(&set, &[&leaf, &old, &new]).is_ok());
    assert_eq!(refused(&set, &[&leaf, &old]).0, RejectionReason::Expired);
}

/// A leaf under so many intermediates.
fn tower(root: &Minted, height: usize) -> Vec<Minted> {
    let mut chain = vec![];
    let mut issuer = root.clone();
    for level in 0..height {
        issuer = Plan::ca(&format!("CN=Sub {level}")).signed_by(&issuer);
        chain.insert(0, issuer.clone());
    }
    chain.insert(0, device().signed_by(&issuer));
    chain
}

#[test]
fn a_path_may_be_as_deep_as_allowed() {
    let root = root();
    let set = believing(&[&root]);
    let fits = tower(&root, 5);
    assert!(verify(&set, &fits.iter().collect::<Vec<_>>()).is_ok());
    let deep = tower(&root, 6);
    let (reason, detail) = refused(&set, &deep.iter().collect::<Vec<_>>());
    assert_eq!(reason, RejectionReason::ChainTooLong);
    assert_eq!(
        detail,
        "6 certificates stand between certificate `CN=device-1` and its trust anchor (allowed: 5)"
    );
}

#[test]
fn path_length_constraints_hold() {
    let root = Plan { path_length: Some(0), ..Plan::ca("CN=Root") }.self_signed();
    let set = believing(&[&root]);
    assert!(verify(&set, &[&device().signed_by(&root)]).is_ok());
    let deep = tower(&root, 1);
    assert_eq!(refused(&set, &deep.iter().collect::<Vec<_>>()).0, RejectionReason::ChainTooLong);
}

#[test]
fn more_than_a_client_may_present_is_refused_unread() {
    let root = root();
    let leaf = device().signed_by(&root);
    let set = believing(&[&root]);
    assert!(verify(&set, &[&leaf; 14]).is_ok());
    assert_eq!(refused(&set, &[&leaf; 100]).0, RejectionReason::ChainTooLong);
    let huge = vec![0; 65_537];
    let rejection = set.verify(&[&leaf.der(), &huge], NOW).unwrap_err();
    assert_eq!(
        (rejection.reason, rejection.reason.as_str()),
        (RejectionReason::ChainTooLarge, "chain_too_long")
    );
    // The stricter of two domains refuses for itself only.
    let policy = TrustPolicy { max_chain_bytes: 10, ..TrustPolicy::default() };
    let strict = domain_of("strict", &[&root], Vec::new(), policy);
    let usual = domain_of("usual", &[&root], Vec::new(), TrustPolicy::default());
    assert_eq!(&**verify(&super::tests::set(&[&strict, &usual]), &[&leaf]).unwrap().trust_domain(), "usual");
    assert_eq!(refused(&super::tests::set(&[&strict]), &[&leaf]).0, RejectionReason::ChainTooLarge);
}

#[test]
fn no_certificate_and_malformed_ones_have_their_own_reasons() {
    let root = root();
    let set = believing(&[&root]);
    assert_eq!(refused(&set, &[]).0, RejectionReason::NoCertificate);
    let nul = with_subject(&raw_name(&[0x55, 4, 3], 0x0c, b"admin\0"));
    let rejection = set.verify(&[&nul], NOW).unwrap_err();
    assert_eq!((rejection.reason, rejection.subject), (RejectionReason::Malformed, None));
    assert_eq!(set.verify(&[b"junk"], NOW).unwrap_err().reason, RejectionReason::Malformed);
    let leaf = device().signed_by(&root);
    assert_eq!(set.verify(&[&leaf.der(), b"junk"], NOW).unwrap_err().reason, RejectionReason::Malformed);
}

#[test]
fn weak_keys_and_digests_are_refused() {
    let root = root();
    let set = believing(&[&root]);
    let key = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
    let (reason, detail) = refused(&set, &[&Plan { key: Some(key), ..device() }.signed_by(&root)]);
    assert_eq!(reason, RejectionReason::NotAccepted);
    assert_eq!(detail, "certificate `CN=device-1`: its key of 1024 bits is too short");
    let sha1 = Plan { digest: openssl::hash::MessageDigest::sha1(), ..device() }.signed_by(&root);
    assert!(matches!(
        refused(&set, &[&sha1]).0,
        RejectionReason::NotAccepted | RejectionReason::BadSignature
    ));
    // An old anchor's own signature is nobody's concern.
    let old = Plan { digest: openssl::hash::MessageDigest::sha1(), ..Plan::ca("CN=Root") }.self_signed();
    assert!(verify(&believing(&[&old]), &[&device().signed_by(&old)]).is_ok());
}

#[test]
fn overlapping_domains_are_decided_by_order() {
    let root = root();
    let leaf = device().signed_by(&root);
    let (fleet, staff) = (
        domain_of("fleet", &[&root], Vec::new(), TrustPolicy::default()),
        domain_of("staff", &[&root], Vec::new(), TrustPolicy::default()),
    );
    assert_eq!(&**verify(&set(&[&fleet, &staff]), &[&leaf]).unwrap().trust_domain(), "fleet");
    assert_eq!(&**verify(&set(&[&staff, &fleet]), &[&leaf]).unwrap().trust_domain(), "staff");
    let der = leaf.der();
    let verdicts = set(&[&staff, &fleet]).explain(&[&der], NOW);
    assert!(verdicts.iter().all(|(_, verdict)| verdict.is_ok()));
    assert_eq!(verdicts.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["staff", "fleet"]);
    assert_eq!(set(&[&fleet, &staff]).anchor_certificates().len(), 1);
    assert_eq!(set(&[&fleet, &staff]).anchors().count(), 2);
}

#[test]
fn the_domain_that_knows_the_issuer_gives_the_reason() {
    let (root, other) = (root(), Plan::ca("CN=Other").self_signed());
    let fleet = domain_of("fleet", &[&root], Vec::new(), TrustPolicy::default());
    let staff = domain_of("staff", &[&other], Vec::new(), TrustPolicy::default());
    let expired = Plan { days: -5..-1, ..device() }.signed_by(&other);
    for order in [[&fleet, &staff], [&staff, &fleet]] {
        let rejection = verify(&set(&order), &[&expired]).unwrap_err();
        assert_eq!(
            (rejection.reason, rejection.trust_domain.as_deref()),
            (RejectionReason::Expired, Some("staff"))
        );
    }
    let unknown = verify(&set(&[&fleet, &staff]), &[&device().self_signed()]).unwrap_err();
    assert_eq!((unknown.reason, unknown.trust_domain), (RejectionReason::UnknownIssuer, None));
    assert!(unknown.detail.ends_with("(asked in turn: `fleet`, `staff`)"), "{}", unknown.detail);
    assert_eq!(refused(&TrustSet::new(Vec::new()), &[&expired]).0, RejectionReason::UnknownIssuer);
}

#[test]
fn a_domain_needs_anchors_and_only_anchors() {
    let build =
        |anchors: Vec<Certificate>| TrustDomain::build("fleet", anchors, Vec::new(), TrustPolicy::default());
    assert!(matches!(build(Vec::new()), Err(TrustError::NoAnchors)));
    let root = root();
    for leaf in [device().signed_by(&root), device().self_signed(), Plan::version_1("CN=a").signed_by(&root)]
    {
        assert!(matches!(
            build(vec![root.certificate(), leaf.certificate()]),
            Err(TrustError::NotAnAnchor { .. })
        ));
    }
    let twice = build(vec![root.certificate(), root.certificate()]).unwrap();
    assert_eq!(twice.anchors().len(), 1);
}

#[test]
fn a_thousand_anchors_work() {
    let key = new_key();
    let anchors: Vec<Minted> = (0..1000)
        .map(|n| Plan { key: Some(key.clone()), ..Plan::ca(&format!("CN=Root {n}")) }.self_signed())
        .collect();
    let set = believing(&anchors.iter().collect::<Vec<_>>());
    for n in [0, 500, 999] {
        let identity = verify(&set, &[&device().signed_by(&anchors[n])]).unwrap();
        assert_eq!(identity.anchor().subject, format!("CN=Root {n}"));
    }
    assert_eq!(refused(&set, &[&device().signed_by(&root())]).0, RejectionReason::UnknownIssuer);
}

// Revocation.

fn list(plan: &ListPlan, issuer: &Minted) -> Arc<RevocationList> {
    Arc::new(RevocationList::read(&plan.signed_by(issuer), &[issuer.certificate()], NOW).unwrap())
}

fn with_lists(anchors: &[&Minted], lists: Vec<Arc<RevocationList>>, when_stale: WhenStale) -> TrustSet {
    let policy = TrustPolicy { when_stale, ..TrustPolicy::default() };
    set(&[&domain_of("fleet", anchors, lists, policy)])
}

fn numbered(serial: u32) -> Plan {
    Plan { serial, ..device() }
}

#[test]
fn a_revoked_leaf_is_refused_and_others_are_not() {
    let root = root();
    let set = with_lists(&[&root], vec![list(&revoking(&[7, 0x1234_5678, 300]), &root)], WhenStale::Refuse);
    for revoked in [7, 300, 0x1234_5678] {
        let (reason, detail) = refused(&set, &[&numbered(revoked).signed_by(&root)]);
        assert_eq!(reason, RejectionReason::Revoked);
        assert_eq!(
            detail,
            "certificate `CN=device-1` was revoked on 2025-12-31 00:00:00 UTC (keyCompromise)"
        );
    }
    for good in [6, 8, 0x0700, 0x1234_5679] {
        assert!(verify(&set, &[&numbered(good).signed_by(&root)]).is_ok());
    }
}

#[test]
fn the_same_serial_of_another_ca_is_not_revoked() {
    let (root, other) = (root(), Plan::ca("CN=Other").self_signed());
    let set = with_lists(&[&root, &other], vec![list(&revoking(&[7]), &root)], WhenStale::Refuse);
    assert_eq!(refused(&set, &[&numbered(7).signed_by(&root)]).0, RejectionReason::Revoked);
    assert!(verify(&set, &[&numbered(7).signed_by(&other)]).is_ok());
    let uncovered = set.domains()[0].anchors_without_list();
    assert_eq!(uncovered.iter().map(|anchor| &*anchor.subject).collect::<Vec<_>>(), ["CN=Other"]);
}

#[test]
fn a_revoked_intermediate_takes_its_leaves_along() {
    let root = root();
    let sub = Plan { serial: 7, ..Plan::ca("CN=Sub") }.signed_by(&root);
    let leaf = device().signed_by(&sub);
    let lists = |serials: &[u32]| vec![list(&revoking(serials), &root)];
    assert!(verify(&with_lists(&[&root], lists(&[8]), WhenStale::Refuse), &[&leaf, &sub]).is_ok());
    // Presented, and as an anchor of the bundle.
    let (reason, detail) = refused(&with_lists(&[&root], lists(&[7]), WhenStale::Refuse), &[&leaf, &sub]);
    assert_eq!(reason, RejectionReason::Revoked);
    assert!(detail.starts_with("intermediate certificate `CN=Sub` was revoked"), "{detail}");
    assert_eq!(
        refused(&with_lists(&[&root, &sub], lists(&[7]), WhenStale::Refuse), &[&leaf]).0,
        RejectionReason::Revoked
    );
}

#[test]
fn a_root_shares_a_serial_with_a_revoked_leaf() {
    let root = Plan { serial: 7, ..Plan::ca("CN=Root") }.self_signed();
    let set = with_lists(&[&root], vec![list(&revoking(&[7]), &root)], WhenStale::Refuse);
    assert!(verify(&set, &[&numbered(8).signed_by(&root)]).is_ok());
    assert_eq!(refused(&set, &[&numbered(7).signed_by(&root)]).0, RejectionReason::Revoked);
}

#[test]
fn an_issuer_encoded_in_another_string_type_is_the_same_issuer() {
    let root = root();
    // The list says PrintableString where the anchor says UTF8String, in other letters.
    let name = raw_name(&[0x55, 4, 3], 0x13, b"ROOT");
    assert_ne!(name, root.certificate().subject().raw());
    let der = revoking(&[7]).signed(&name, &root.key);
    let list = Arc::new(RevocationList::read(&der, &[root.certificate()], NOW).unwrap());
    let set = with_lists(&[&root], vec![list], WhenStale::Refuse);
    assert_eq!(refused(&set, &[&numbered(7).signed_by(&root)]).0, RejectionReason::Revoked);
}

#[test]
fn a_stale_list_is_believed_as_far_as_the_policy_says() {
    let root = root();
    let stale = || vec![list(&ListPlan { days: -10..-2, ..revoking(&[7]) }, &root)];
    let (good, revoked) = (numbered(8).signed_by(&root), numbered(7).signed_by(&root));
    let hours = |hours: u64| WhenStale::BelieveFor(Duration::from_secs(hours * 3600));
    for (policy, believed) in
        [(WhenStale::Refuse, false), (WhenStale::Believe, true), (hours(48), true), (hours(47), false)]
    {
        let set = with_lists(&[&root], stale(), policy);
        assert_eq!(verify(&set, &[&good]).is_ok(), believed, "{policy:?}");
        if !believed {
            let (reason, detail) = refused(&set, &[&good]);
            assert_eq!(reason, RejectionReason::RevocationUnknown);
            assert!(
                detail.contains("the revocation list of `CN=Root` should have been replaced by 2025-12-30"),
                "{detail}"
            );
        }
        // Stale or not, who is on it is revoked.
        assert_eq!(refused(&set, &[&revoked]).0, RejectionReason::Revoked);
    }
    // A list that is fresh now goes stale while the gateway runs.
    let set = with_lists(&[&root], vec![list(&revoking(&[]), &root)], WhenStale::Refuse);
    assert!(verify_at(&set, &[&good], NOW + 7 * DAY).is_ok());
    assert_eq!(
        verify_at(&set, &[&good], NOW + 7 * DAY + 1).unwrap_err().reason,
        RejectionReason::RevocationUnknown
    );
}

#[test]
fn lists_that_cannot_be_relied_on_are_refused() {
    let root = root();
    let read = |der: &[u8]| RevocationList::read(der, &[root.certificate()], NOW).unwrap_err();
    let name = root.certificate().subject().raw().to_vec();
    assert!(matches!(read(&revoking(&[7]).signed(&name, &new_key())), RevocationError::BadSignature { .. }));
    let stranger = Plan::ca("CN=Stranger").self_signed();
    assert!(matches!(read(&revoking(&[7]).signed_by(&stranger)), RevocationError::UnknownIssuer { .. }));
    let with = |extensions| ListPlan { extensions: vec![extensions], ..revoking(&[7]) }.signed_by(&root);
    let unnumbered = ListPlan { number: None, ..delta(&[], 1, 2) };
    assert_eq!(read(&unnumbered.signed_by(&root)), RevocationError::UnnumberedDelta);
    let point = |tag, value: u8| with(extension(28, true, &der::sequence(&[&der::element(tag, &[value])])));
    assert_eq!(read(&point(0x84, 0xff)), RevocationError::Indirect);
    assert_eq!(read(&point(0x83, 0x01)), RevocationError::Partial);
    assert!(
        matches!(read(&with(extension(99, true, &[]))), RevocationError::UnknownExtension { oid } if oid == "2.5.29.99")
    );
    let certificate_issuer =
        ListPlan { entry_extensions: vec![extension(29, true, &der::sequence(&[]))], ..revoking(&[7]) };
    assert_eq!(read(&certificate_issuer.signed_by(&root)), RevocationError::Indirect);
    let future = ListPlan { days: 1..7, ..revoking(&[7]) };
    assert!(matches!(read(&future.signed_by(&root)), RevocationError::FromTheFuture(_)));
    assert!(RevocationList::read(&with(extension(99, false, &[])), &[root.certificate()], NOW).is_ok());
}

#[test]
fn damaged_lists_never_mean_that_nobody_is_revoked() {
    let root = root();
    let der = revoking(&[7, 8]).signed_by(&root);
    let read = |bytes: &[u8]| RevocationList::read_all(bytes, &[root.certificate()], NOW);
    assert!(read(&der).is_ok());
    for end in 0..der.len() {
        assert!(read(&der[..end]).is_err());
    }
    for at in 0..der.len() {
        let mut damaged = der.clone();
        damaged[at] ^= 1;
        assert!(read(&damaged).is_err(), "{at}");
    }
    assert_eq!(read(b"").unwrap_err(), RevocationError::NoList);
    assert_eq!(read(b"hello").unwrap_err(), RevocationError::NoList);
    assert_eq!(read(&root.x509.to_pem().unwrap()).unwrap_err(), RevocationError::NoList);
    let pem = crate::certificate::pem_encode(&der, "X509 CRL");
    assert!(matches!(read(&pem.as_bytes()[..150]).unwrap_err(), RevocationError::Pem(_)));
}

#[test]
fn several_lists_stand_in_one_file() {
    let (root, other) = (root(), Plan::ca("CN=Other").self_signed());
    let issuers = [root.certificate(), other.certificate()];
    let pem = |issuer, serials: &[u32]| {
        crate::certificate::pem_encode(&revoking(serials).signed_by(issuer), "X509 CRL")
    };
    let file = format!("{}{}", pem(&root, &[7]), pem(&other, &[8, 9]));
    let lists = RevocationList::read_all(file.as_bytes(), &issuers, NOW).unwrap();
    assert_eq!(lists.iter().map(RevocationList::len).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        RevocationList::read(file.as_bytes(), &issuers, NOW).unwrap_err(),
        RevocationError::SeveralLists
    );
    let error = RevocationList::read_all(file.as_bytes(), &issuers[..1], NOW).unwrap_err();
    assert!(
        error.to_string().starts_with("list 2 of the file: its issuer `CN=Other` is not among"),
        "{error}"
    );
}

#[test]
fn the_newest_list_of_an_issuer_counts_and_none_is_rolled_back() {
    let root = root();
    let numbered_list =
        |number, serials: &[u32]| list(&ListPlan { number: Some(number), ..revoking(serials) }, &root);
    let leaf = numbered(7).signed_by(&root);
    let both = || vec![numbered_list(9, &[7]), numbered_list(10, &[])];
    assert!(verify(&with_lists(&[&root], both(), WhenStale::Refuse), &[&leaf]).is_ok());
    let mut reversed = both();
    reversed.reverse();
    assert!(verify(&with_lists(&[&root], reversed, WhenStale::Refuse), &[&leaf]).is_ok());
    let domain =
        |number| domain_of("fleet", &[&root], vec![numbered_list(number, &[])], TrustPolicy::default());
    assert!(domain(10).check_succession(&domain(9)).is_ok());
    assert!(domain(9).check_succession(&domain(9)).is_ok());
    assert!(matches!(domain(9).check_succession(&domain(10)), Err(TrustError::RolledBack { .. })));
    // One that is gone says nothing, unless a list of everything has taken its place, or its issuer is gone too.
    let other = Plan::ca("CN=Other").self_signed();
    let of = |anchors: &[&Minted], lists| domain_of("fleet", anchors, lists, TrustPolicy::default());
    let of_other = || list(&revoking(&[]), &other);
    let held = of(&[&root, &other], vec![numbered_list(9, &[7]), of_other()]);
    let gone =
        |domain: Arc<TrustDomain>| matches!(domain.check_completeness(&held), Err(TrustError::Gone { .. }));
    assert!(gone(of(&[&root, &other], vec![of_other()])));
    assert!(gone(of(&[&root, &other], vec![numbered_list(9, &[7])])));
    assert!(!gone(of(&[&root, &other], vec![numbered_list(8, &[]), of_other()])));
    assert!(!gone(of(&[&other], vec![of_other()])));
    // Numbers are numbers: 0x0100 comes after 0xff.
    let longer = ListPlan {
        number: None,
        extensions: vec![extension(20, false, &der::unsigned(&[1, 0]))],
        ..revoking(&[])
    };
    let longer = domain_of("fleet", &[&root], vec![list(&longer, &root)], TrustPolicy::default());
    assert!(longer.check_succession(&domain(255)).is_ok());
}

/// Says what has changed between the lists `base` and `number`: serial and CRLReason.
fn delta(changes: &[(u32, u8)], base: u8, number: u8) -> ListPlan {
    ListPlan {
        revoked: changes.to_vec(),
        number: Some(number),
        extensions: vec![extension(27, true, &der::unsigned(&[base]))],
        ..ListPlan::default()
    }
}

const REMOVED: u8 = 8;

#[test]
fn a_delta_list_changes_the_complete_one_that_it_follows() {
    let root = root();
    let complete =
        |number, serials: &[u32]| list(&ListPlan { number: Some(number), ..revoking(serials) }, &root);
    let delta = |changes: &[(u32, u8)], base, number| list(&delta(changes, base, number), &root);
    let revoked = |lists: Vec<Arc<RevocationList>>| {
        let set = with_lists(&[&root], lists, WhenStale::Refuse);
        (1..9)
            .filter(|serial| verify(&set, &[&numbered(*serial).signed_by(&root)]).is_err())
            .collect::<Vec<_>>()
    };
    let change = || delta(&[(3, 1), (1, REMOVED), (2, 4)], 10, 12);
    assert_eq!(revoked(vec![complete(10, &[1, 2])]), [1, 2]);
    assert_eq!(revoked(vec![complete(10, &[1, 2]), change()]), [2, 3]);
    assert_eq!(revoked(vec![change(), complete(10, &[1, 2])]), [2, 3], "in whatever order they are read");
    assert_eq!(revoked(vec![complete(11, &[1, 2, 4]), change()]), [2, 3, 4]);
    // A complete list that is as new, or newer, knows all that the delta says.
    assert_eq!(revoked(vec![complete(12, &[1, 2]), change()]), [1, 2]);
    assert_eq!(revoked(vec![complete(13, &[5]), change()]), [5]);
    // Each may follow the one before; what was removed may come back.
    assert_eq!(revoked(vec![complete(10, &[1]), delta(&[(1, 1), (6, 1)], 11, 14), change()]), [1, 2, 3, 6]);
    // The number and the promise of the newest are those of the whole.
    let old = list(&ListPlan { number: Some(10), days: -30..-10, ..revoking(&[1]) }, &root);
    let domain = domain_of("fleet", &[&root], vec![old, change()], TrustPolicy::default());
    let whole = domain.revocation_lists().next().unwrap();
    assert_eq!((whole.number().unwrap().as_bytes(), whole.next_update()), (&[12][..], Some(NOW + 7 * DAY)));
    assert_eq!((whole.len(), whole.is_delta()), (2, false));
}

#[test]
fn a_delta_list_without_its_base_is_refused() {
    let (root, other) = (root(), Plan::ca("CN=Other").self_signed());
    let build = |lists| {
        let anchors = vec![root.certificate(), other.certificate()];
        TrustDomain::build("fleet", anchors, lists, TrustPolicy::default())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let complete = |number, by: &Minted| list(&ListPlan { number, ..revoking(&[1]) }, by);
    let change = || list(&delta(&[(3, 1)], 10, 12), &root);
    assert_eq!(build(vec![complete(Some(10), &root), change()]), Ok(()));
    let alone = build(vec![change()]).unwrap_err();
    assert!(alone.contains("0x0C of `CN=Root` says only what has changed since list 0x0A"), "{alone}");
    assert!(alone.contains("no complete list of this issuer"), "{alone}");
    let older = build(vec![complete(Some(9), &root), change()]).unwrap_err();
    assert!(older.contains("the newest complete list is 0x09 of 2025-12-31"), "{older}");
    assert!(build(vec![complete(None, &root), change()]).is_err());
    assert!(build(vec![complete(Some(10), &other), change()]).is_err());
    let point = extension(28, true, &der::sequence(&[&der::element(0x81, &[0xff])]));
    let for_clients = ListPlan { number: Some(10), extensions: vec![point], ..revoking(&[1]) };
    assert!(build(vec![list(&for_clients, &root), change()]).is_err(), "another scope");
}

#[test]
fn what_a_delta_list_made_is_not_rolled_back_to_what_it_was_made_of() {
    let root = root();
    let complete = || list(&ListPlan { number: Some(10), ..revoking(&[]) }, &root);
    let with = |lists| domain_of("fleet", &[&root], lists, TrustPolicy::default());
    let made = with(vec![complete(), list(&delta(&[(7, 1)], 10, 12), &root)]);
    assert!(made.check_succession(&with(vec![complete()])).is_ok());
    assert!(matches!(with(vec![complete()]).check_succession(&made), Err(TrustError::RolledBack { .. })));
}

#[test]
fn lists_for_clients_and_for_authorities_complement_each_other() {
    let root = root();
    let scoped = |tag, plan: ListPlan| {
        let point = extension(28, true, &der::sequence(&[&der::element(tag, &[0xff])]));
        list(&ListPlan { extensions: vec![point], ..plan }, &root)
    };
    let stale_for_authorities = ListPlan { days: -10..-2, ..revoking(&[]) };
    let lists = vec![scoped(0x81, revoking(&[7])), scoped(0x82, stale_for_authorities)];
    let set = with_lists(&[&root], lists, WhenStale::Refuse);
    assert!(verify(&set, &[&numbered(8).signed_by(&root)]).is_ok());
    assert_eq!(refused(&set, &[&numbered(7).signed_by(&root)]).0, RejectionReason::Revoked);
    let sub = Plan::ca("CN=Sub").signed_by(&root);
    assert_eq!(refused(&set, &[&numbered(8).signed_by(&sub), &sub]).0, RejectionReason::RevocationUnknown);
}

#[test]
fn large_lists_are_searched_and_not_scanned() {
    let root = root();
    let plan = ListPlan {
        revoked: (0..200_000).map(|n: u32| (n.wrapping_mul(2_654_435_761) | 1 << 31, 1)).collect(),
        ..ListPlan::default()
    };
    let der = plan.signed_by(&root);
    let started = Instant::now();
    let list = Arc::new(RevocationList::read(&der, &[root.certificate()], NOW).unwrap());
    assert_eq!(list.len(), 200_000);
    println!("{} bytes of DER read in {:?}", der.len(), started.elapsed());
    let set = with_lists(&[&root], vec![list], WhenStale::Refuse);
    let on_it = plan.revoked[12_345].0;
    assert_eq!(refused(&set, &[&numbered(on_it).signed_by(&root)]).0, RejectionReason::Revoked);
    let off_it = (1u32 << 31..u32::MAX)
        .find(|serial| plan.revoked.iter().all(|(revoked, _)| revoked != serial))
        .unwrap();
    assert!(verify(&set, &[&numbered(off_it).signed_by(&root)]).is_ok());
}

fn lapse(set: &TrustSet, identity: &ClientIdentity, now: UnixTime) -> Option<String> {
    set.review(now).judge(identity).err().map(|lapse| match lapse {
        Lapse::StandingRestored => "standing restored".to_owned(),
        Lapse::TrustRemoved(_) => "trust_removed".to_owned(),
        Lapse::Rejected(rejection) => rejection.reason.to_string(),
    })
}

#[test]
fn a_client_that_may_stay_is_one_that_could_come_in_again() {
    let (root, other) = (root(), Plan::ca("CN=Other").self_signed());
    let middle = Plan::ca("CN=Middle").signed_by(&root);
    let leaf = device().signed_by(&middle);
    let identity = verify(&believing(&[&root]), &[&leaf, &middle]).unwrap();
    let listed = |serials: &[u32], by: &Minted, issuers: &[&Minted]| {
        let issuers: Vec<_> = issuers.iter().map(|issuer| issuer.certificate()).collect();
        vec![Arc::new(RevocationList::read(&revoking(serials).signed_by(by), &issuers, NOW).unwrap())]
    };
    let usual = TrustPolicy::default;
    for (domain, expected) in [
        (domain_of("fleet", &[&root], Vec::new(), usual()), None),
        (domain_of("fleet", &[&other, &root], Vec::new(), usual()), None),
        (domain_of("fleet", &[&other], Vec::new(), usual()), Some("trust_removed")),
        (domain_of("staff", &[&root], Vec::new(), usual()), Some("trust_removed")),
        // The intermediate has become an anchor: a fresh handshake would know the client under another one.
        (domain_of("fleet", &[&middle], Vec::new(), usual()), Some("trust_removed")),
        (
            domain_of("fleet", &[&root], Vec::new(), TrustPolicy { max_depth: 0, ..usual() }),
            Some("chain_too_long"),
        ),
        (
            domain_of("fleet", &[&root], Vec::new(), TrustPolicy { max_chain_bytes: 9, ..usual() }),
            Some("chain_too_long"),
        ),
        (domain_of("fleet", &[&root], listed(&[0x0ca], &root, &[&root]), usual()), Some("revoked")),
        (domain_of("fleet", &[&root], listed(&[0x1000], &root, &[&root]), usual()), None),
    ] {
        let set = set(&[&domain]);
        assert_eq!(lapse(&set, &identity, NOW).as_deref(), expected, "{}", domain.name());
    }
}

#[test]
fn who_is_revoked_by_one_domain_may_not_stay_through_another() {
    let root = root();
    let leaf = device().signed_by(&root);
    let identity = verify(&believing(&[&root]), &[&leaf]).unwrap();
    let namesake = self::root();
    let listing = |by: &Minted, serial| {
        domain_of("listing", &[by], vec![list(&revoking(&[serial]), by)], TrustPolicy::default())
    };
    let bare = domain_of("fleet", &[&root], Vec::new(), TrustPolicy::default());
    for (other, expected) in [
        (listing(&root, 0x1000), Some("revoked")),
        (listing(&root, 0x1001), None),
        // Another authority of the same name has revoked the same serial.
        (listing(&namesake, 0x1000), None),
    ] {
        for set in [set(&[&bare, &other]), set(&[&other, &bare])] {
            assert_eq!(lapse(&set, &identity, NOW).as_deref(), expected);
        }
    }
}

#[test]
fn an_expired_client_may_stay_only_where_it_may_be_kept_and_never_a_revoked_one() {
    let root = root();
    let leaf = Plan { days: -1..10, ..device() }.signed_by(&root);
    let identity = verify(&believing(&[&root]), &[&leaf]).unwrap();
    let keep =
        TrustPolicy { on_expiry: OnExpiry::Keep, when_stale: WhenStale::Believe, ..TrustPolicy::default() };
    let close = TrustPolicy { on_expiry: OnExpiry::Close, ..keep.clone() };
    let at = |policy: &TrustPolicy, serials: &[u32], now| {
        let lists = vec![list(&revoking(serials), &root)];
        lapse(&set(&[&domain_of("fleet", &[&root], lists, policy.clone())]), &identity, now)
    };
    assert_eq!(at(&close, &[], NOW + 10 * DAY), None);
    assert_eq!(at(&close, &[], NOW + 10 * DAY + 1).as_deref(), Some("expired"));
    assert_eq!(at(&keep, &[], NOW + 400 * DAY), None);
    assert_eq!(at(&keep, &[0x1000], NOW + 400 * DAY).as_deref(), Some("revoked"));
}

#[test]
fn a_list_that_grows_stale_is_a_moment_of_change() {
    let root = root();
    let list = list(&revoking(&[]), &root);
    let stale = list.next_update().unwrap() + 1;
    let set = set(&[&domain_of("fleet", &[&root], vec![list], TrustPolicy::default())]);
    assert!(set.changed_between(stale - 1, stale) && set.changed_between(NOW, stale + 50));
    assert!(!set.changed_between(NOW, stale - 1) && !set.changed_between(stale, stale + 50));
    let identity = verify(&set, &[&device().signed_by(&root)]).unwrap();
    assert_eq!(lapse(&set, &identity, stale - 1), None);
    assert_eq!(lapse(&set, &identity, stale).as_deref(), Some("revocation_unknown"));
}

/// `cargo test --release -- --ignored --nocapture a_hundred_thousand`
#[test]
#[ignore = "a measurement"]
fn a_hundred_thousand_clients_are_looked_over_in_a_moment() {
    let root = root();
    let middle = Plan::ca("CN=Middle").signed_by(&root);
    let key = new_key();
    let fleet = believing(&[&root]);
    let identity = |serial| {
        let leaf = Plan { serial, key: Some(key.clone()), ..Plan::leaf(&format!("CN=device-{serial}")) };
        fleet.verify(&[&leaf.signed_by(&middle).der(), &middle.der()], NOW).unwrap()
    };
    let identities: Vec<_> = (0..100_000).map(identity).collect();
    let with = |more: &[u32]| {
        let serials: Vec<u32> = (1_000_000..2_000_000).chain(more.iter().copied()).collect();
        let lists = [&root, &middle].map(|issuer| {
            let issuers = [root.certificate(), middle.certificate()];
            Arc::new(RevocationList::read(&revoking(&serials).signed_by(issuer), &issuers, NOW).unwrap())
        });
        set(&[&domain_of("fleet", &[&root, &middle], lists.into(), TrustPolicy::default())])
    };
    let (before, after) = (with(&[]), with(&[77, 99_999]));
    let count =
        |review: &mut Review| identities.iter().filter(|identity| review.judge(identity).is_err()).count();
    for _ in 0..3 {
        let started = Instant::now();
        let out = count(&mut after.review(NOW));
        println!("everybody: {out} of {} out after {:?}", identities.len(), started.elapsed());
        assert_eq!(out, 2);
        let started = Instant::now();
        let change = after.change_since(&before, NOW);
        let compared = started.elapsed();
        let out = count(&mut after.review_after(&change, NOW));
        println!(
            "by what changed: {out} out after {:?}, {compared:?} of it to compare the lists",
            started.elapsed()
        );
        assert_eq!(out, 2);
    }
}
