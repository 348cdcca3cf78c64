//! Verdicts on clients that a deny list names.

use super::*;

/// A domain whose deny list is this YAML.
pub(super) fn denying(name: &str, anchors: &[&Minted], list: &str, policy: TrustPolicy) -> Arc<TrustDomain> {
    let anchors = anchors.iter().map(|anchor| anchor.certificate()).collect();
    let mut builder = DenyIndexBuilder::new(&name.into());
    builder.read("deny.yaml", DenyForm::Yaml, format!("deny: [{list}]").as_bytes()).unwrap();
    let domain = TrustDomain::build(name, anchors, Vec::new(), policy).unwrap();
    Arc::new(domain.denying(vec![Arc::new(builder.finish())]))
}

fn print(minted: &Minted) -> String {
    format!("{{ fingerprint: {} }}", minted.certificate().fingerprint())
}

#[test]
fn whoever_is_named_in_any_way_is_denied_and_nobody_else_is() {
    let (root, key) = (root(), new_key());
    let named =
        Plan { serial: 0x0a, key: Some(key.clone()), ..Plan::leaf("CN=device-1,OU=meters") }.signed_by(&root);
    let other = Plan { serial: 0x0b, ..Plan::leaf("CN=device-2,OU=meters") }.signed_by(&root);
    // Renewed: a new certificate of the same key and name.
    let renewed =
        Plan { serial: 0x0c, key: Some(key), ..Plan::leaf("CN=device-1,OU=meters") }.signed_by(&root);
    let key = named.certificate().key_fingerprint().to_string();
    for (list, way, renewal_too) in [
        (print(&named), "fingerprint", false),
        ("{ serial: 0A, issuer: \"cn=root\" }".to_owned(), "serial", false),
        (format!("{{ key_fingerprint: {key} }}"), "key", true),
        ("{ subject: { CN: device-1 } }".to_owned(), "names", true),
        ("{ subject: { CN: Device-1 } }".to_owned(), "names", true),
        ("{ subject: \"OU=meters,CN=device-1\" }".to_owned(), "names", true),
    ] {
        let set = set(&[&denying("fleet", &[&root], &list, TrustPolicy::default())]);
        let detail = format!(
            "certificate `CN=device-1,OU=meters` is denied by its {way}: entry 1 of `deny.yaml`, for ever"
        );
        let (reason, told) = refused(&set, &[&named]);
        assert_eq!(reason, RejectionReason::Denied);
        assert_eq!(told, detail);
        assert_eq!(verify(&set, &[&renewed]).is_err(), renewal_too, "{way}");
        assert!(verify(&set, &[&other]).is_ok(), "{way}");
    }
    for nobody in [
        "{ serial: 0A, issuer: CN=Rot }",
        "{ subject: { CN: \"device-*\" } }",
        "{ subject: { CN: device-1, OU: x } }",
    ] {
        let set = set(&[&denying("fleet", &[&root], nobody, TrustPolicy::default())]);
        assert!(verify(&set, &[&named]).is_ok(), "{nobody}");
    }
}

#[test]
fn an_entry_means_nothing_from_its_end_on_also_for_those_that_were_believed() {
    let root = root();
    let leaf = device().signed_by(&root);
    let end = utc(NOW + 100).to_string().replace(' ', "T").replace("TUTC", "Z");
    let list = format!("{{ subject: {{ CN: device-1 }}, until: {end}, reason: lost }}");
    let set = set(&[&denying("fleet", &[&root], &list, TrustPolicy::default())]);
    let told = verify_at(&set, &[&leaf], NOW + 99).unwrap_err().detail;
    assert!(told.ends_with("until 2026-01-01 00:01:40 UTC (lost)"), "{told}");
    let identity = verify_at(&set, &[&leaf], NOW + 100).unwrap();
    // It is remembered now; a clock that goes back does not bring it in.
    assert!(verify_at(&set, &[&leaf], NOW + 99).is_err());
    assert!(verify_at(&set, &[&leaf], NOW + 101).is_ok());
    assert_eq!(lapse(&set, &identity, NOW + 99).as_deref(), Some("denied"));
    assert_eq!(lapse(&set, &identity, NOW + 100), None);
}

#[test]
fn a_leaked_intermediate_takes_its_leaves_along() {
    let root = root();
    let middle = Plan { serial: 0x77, ..Plan::ca("CN=Middle") }.signed_by(&root);
    let other = Plan::ca("CN=Other").signed_by(&root);
    let (leaf, sound) = (device().signed_by(&middle), device().signed_by(&other));
    let key = middle.certificate().key_fingerprint().to_string();
    for (list, is_denied) in [
        (print(&middle), true),
        (format!("{{ key_fingerprint: {key} }}"), true),
        ("{ serial: 77, issuer: CN=Root }".to_owned(), true),
        // Names are those of clients.
        ("{ subject: { CN: Middle } }".to_owned(), false),
    ] {
        // Presented by the client, or in the bundle.
        for anchors in [&[&root][..], &[&root, &middle]] {
            let set = set(&[&denying("fleet", anchors, &list, TrustPolicy::default())]);
            let verdict = verify(&set, &[&leaf, &middle]);
            assert_eq!(
                verdict.as_ref().err().map(|no| no.reason),
                is_denied.then_some(RejectionReason::Denied),
                "{list}"
            );
            assert!(verify(&set, &[&sound, &other]).is_ok(), "{list}");
            let identity = verify(&believing(anchors), &[&leaf, &middle]).unwrap();
            assert_eq!(lapse(&set, &identity, NOW).as_deref(), is_denied.then_some("denied"));
        }
    }
}

#[test]
fn an_anchor_that_is_named_takes_everybody_along_and_a_leaf_with_its_serial_only_itself() {
    let root = Plan { serial: 0x42, ..Plan::ca("CN=Root") }.self_signed();
    let (twin, other) = (Plan { serial: 0x42, ..device() }.signed_by(&root), device().signed_by(&root));
    let by_serial =
        set(&[&denying("fleet", &[&root], "{ serial: 42, issuer: CN=Root }", TrustPolicy::default())]);
    assert_eq!(refused(&by_serial, &[&twin]).0, RejectionReason::Denied);
    assert!(verify(&by_serial, &[&other]).is_ok());
    let domain = denying("fleet", &[&root], &print(&root), TrustPolicy::default());
    let told: Vec<_> =
        domain.denied_anchors(NOW).map(|(anchor, why)| (anchor.subject.clone(), why)).collect();
    assert_eq!(
        told,
        [("CN=Root".to_owned(), "by its fingerprint: entry 1 of `deny.yaml`, for ever".to_owned())]
    );
    let (reason, told) = refused(&set(&[&domain]), &[&other]);
    assert_eq!(reason, RejectionReason::Denied);
    assert!(told.starts_with("trust anchor certificate `CN=Root` is denied"), "{told}");
}

#[test]
fn whoever_is_denied_by_one_domain_is_believed_by_none_in_whatever_order_they_stand() {
    let root = root();
    let middle = Plan::ca("CN=Middle").signed_by(&root);
    let leaf = Plan { usage: None, ..device() }.signed_by(&middle);
    let good = Plan { serial: 0x99, ..Plan::leaf("CN=device-2") }.signed_by(&middle);
    let open = domain_of("open", &[&root], Vec::new(), TrustPolicy::default());
    let identity = verify(&set(&[&open]), &[&leaf, &middle]).unwrap();
    let stays = verify(&set(&[&open]), &[&good, &middle]).unwrap();
    let strict = TrustPolicy { client_auth_usage: Usage::Always, ..TrustPolicy::default() };
    for list in [print(&leaf), "{ subject: { CN: device-1 } }".to_owned()] {
        // The second one would not have believed the client in any case.
        for policy in [TrustPolicy::default(), strict.clone()] {
            let denies = denying("fleet", &[&root], &list, policy);
            for set in [set(&[&open, &denies]), set(&[&denies, &open])] {
                assert_eq!(refused(&set, &[&leaf, &middle]).0, RejectionReason::Denied, "{list}");
                assert_eq!(lapse(&set, &identity, NOW).as_deref(), Some("denied"), "{list}");
                assert!(verify(&set, &[&good, &middle]).is_ok());
                assert_eq!(lapse(&set, &stays, NOW), None);
            }
        }
    }
    // An anchor of the other domain that is on the client's path there.
    let denies = denying("fleet", &[&middle], &print(&middle), TrustPolicy::default());
    assert_eq!(refused(&set(&[&open, &denies]), &[&leaf, &middle]).0, RejectionReason::Denied);
    assert_eq!(lapse(&set(&[&open, &denies]), &identity, NOW).as_deref(), Some("denied"));
    // A namesake whom the other domain would never have believed.
    let stranger = Plan::ca("CN=Stranger").self_signed();
    let denies = denying("staff", &[&stranger], "{ subject: { CN: device-1 } }", TrustPolicy::default());
    let set = set(&[&open, &denies]);
    assert!(verify(&set, &[&leaf, &middle]).is_ok());
    assert_eq!(lapse(&set, &identity, NOW), None);
}

#[test]
fn denied_says_more_than_anything_else_that_is_wrong() {
    let root = root();
    let leaf = Plan { days: -10..-1, ..device() }.signed_by(&root);
    let set = set(&[&denying("fleet", &[&root], "{ subject: { CN: device-1 } }", TrustPolicy::default())]);
    assert_eq!(refused(&set, &[&leaf]).0, RejectionReason::Denied);
    assert_eq!(refused(&believing(&[&root]), &[&leaf]).0, RejectionReason::Expired);
}

#[test]
fn no_quarantine_lets_in_whoever_is_denied() {
    let root = root();
    let leaf = Plan { days: -10..-1, ..device() }.signed_by(&root);
    let mut policy = TrustPolicy::default();
    policy.quarantine.admit(FaultKind::Expired, Duration::from_secs(30 * 86_400));
    let open = domain_of("open", &[&root], Vec::new(), policy.clone());
    let identity = verify(&set(&[&open]), &[&leaf]).unwrap();
    assert!(!identity.standing().is_good());
    let own = denying("open", &[&root], "{ subject: { CN: device-1 } }", policy.clone());
    let other = denying("other", &[&root], "{ subject: { CN: device-1 } }", TrustPolicy::default());
    let namesake = denying("other", &[&root], "{ subject: { CN: device-2 } }", TrustPolicy::default());
    for set in [set(&[&own]), set(&[&open, &other]), set(&[&other, &open])] {
        assert_eq!(refused(&set, &[&leaf]).0, RejectionReason::Denied);
        assert_eq!(lapse(&set, &identity, NOW).as_deref(), Some("denied"));
    }
    assert!(verify(&set(&[&open, &namesake]), &[&leaf]).is_ok());
}
