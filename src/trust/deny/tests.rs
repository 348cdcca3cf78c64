//! Deny lists as they are written.

use proptest::prelude::*;

use super::*;
use crate::certificate::{Attribute, AttributeKind, SubjectAltName};

fn read(text: &str) -> Result<DenyList, String> {
    DenyList::from_yaml("deny.yaml", text).map_err(|error| error.sentences().collect::<Vec<_>>().join("\n"))
}

const PRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn each_way_to_name_a_client_is_read() {
    let list = read(&format!(
        r#"
deny:
  - {{ serial: 0123, issuer: "CN=Fleet CA, O=Example", reason: lost }}
  - fingerprint: {PRINT}
    until: 2026-12-31T18:00:00.5+01:00
  - {{ key_fingerprint: "00:{}", trust: fleet }}
  - {{ subject: {{ cn: sensor-1, OU: sensors }} }}
  - {{ subject: {{ CN: sensor-1 }}, san: {{ dns: A.Example.com, ip: 10.0.0.1 }} }}
"#,
        &PRINT[2..]
    ))
    .unwrap();
    let [serial, print, key, subject, san] = list.entries() else { panic!("{list:?}") };
    assert_eq!(serial.selector.to_string(), "serial `0123` of `CN=Fleet CA,O=Example`");
    assert_eq!((serial.reason.as_deref(), serial.until), (Some("lost"), None));
    assert_eq!(print.selector, DenySelector::Fingerprint(PRINT.parse().unwrap()));
    assert_eq!(print.until, Some(1_798_736_401), "rounded up");
    assert_eq!(key.selector, DenySelector::KeyFingerprint(PRINT.parse().unwrap()));
    assert_eq!(key.trust_domain.as_deref(), Some("fleet"));
    assert_eq!(subject.selector.to_string(), "`CN=sensor-1` and `OU=sensors`");
    assert_eq!(san.selector.to_string(), "`CN=sensor-1` and `dns:a.example.com` and `ip:10.0.0.1`");
    assert!(print.is_in_force(1_798_736_400) && !print.is_in_force(1_798_736_401));
    assert_eq!(read("deny: []").unwrap(), DenyList::default());
}

#[test]
fn texts_that_look_like_numbers_stay_what_is_written() {
    for serial in ["12", "0012", "1e5", "0x12", "12345678901234567890123456789012"] {
        let read = read(&format!("deny: [{{ serial: {serial}, issuer: CN=a }}]"));
        match serial {
            "0x12" => assert!(read.unwrap_err().contains("`0x12` is not hexadecimal")),
            _ => assert_eq!(
                read.unwrap().entries()[0].selector,
                DenySelector::Serial { issuer: "CN=a".parse().unwrap(), serial: serial.parse().unwrap() }
            ),
        }
    }
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_do() {
    let told = read(&format!(
        r#"
deny:
  - {{}}
  - {{ fingerprnt: {PRINT} }}
  - {{ fingerprint: abc }}
  - {{ fingerprint: {PRINT}, subject: {{ CN: a }} }}
  - {{ serial: 12 }}
  - {{ issuer: CN=a }}
  - {{ serial: xyz, issuer: CN=a }}
  - {{ serial: 12, issuer: Fleet CA }}
  - {{ subject: {{}} }}
  - {{ subject: {{ CN: "" }} }}
  - {{ subject: {{ CNN: a }} }}
  - {{ subject: {{ CN: a, cn: b }} }}
  - {{ san: {{ host: a }} }}
  - {{ san: {{ ip: 10.0.0 }} }}
  - {{ subject: {{ CN: a }}, until: 2026-12-31 }}
  - {{ subject: {{ CN: a }}, reason: }}
  - {{ subject: {{ CN: a }}, reason: "a\nb" }}
  - {{ subject: {{ CN: b }} }}
  - {{ subject: {{ cn: b }}, reason: again }}
also: 1
"#
    ))
    .unwrap_err();
    let expected = r"`deny.yaml`, entry 1: it names nobody (expected: `serial` with `issuer`, `fingerprint`, `key_fingerprint`, or `subject` and `san`)
`deny.yaml`, entry 2: unknown key `fingerprnt` (expected: serial, issuer, fingerprint, key_fingerprint, subject, san, trust, until, reason)
`deny.yaml`, entry 3: fingerprint: `abc` has 3 hex digits (expected: 64, the SHA-256 digest)
`deny.yaml`, entry 4: it names a client both by `fingerprint` and by `subject` (expected: one of them; what is meant by either makes two entries)
`deny.yaml`, entry 5: `serial` stands there without `issuer` (a serial is unique within its issuer only: add `issuer`)
`deny.yaml`, entry 6: `issuer` stands there without `serial` (expected: both, or neither)
`deny.yaml`, entry 7: serial: `xyz` is not hexadecimal (expected: digits 0-9 and a-f, in pairs, with or without colons)
`deny.yaml`, entry 8: issuer: `Fleet CA` is not `TYPE=value`
`deny.yaml`, entry 9: nothing stands behind `subject` (expected: a value, or no such key)
`deny.yaml`, entry 10: nothing stands behind `subject.CN` (expected: a value, or no such key)
`deny.yaml`, entry 11: subject: no attribute is called `CNN` (expected: CN, OU, O, L, ST, C, serialNumber, UID, DC, emailAddress, or a dotted OID)
`deny.yaml`, entry 12: the key `subject.CN` stands there twice (expected: once)
`deny.yaml`, entry 13: san: no type is called `host` (expected: dns, email, uri, ip)
`deny.yaml`, entry 14: san.ip: `10.0.0` is not an IP address
`deny.yaml`, entry 15: until: `2026-12-31` is not a moment (expected: RFC 3339, such as `2026-12-31T18:00:00Z`)
`deny.yaml`, entry 16: nothing stands behind `reason` (expected: a value, or no such key)
`deny.yaml`, entry 17: reason: it contains the control character U+000A (expected: one line of text)
`deny.yaml`: unknown key `also` (expected: deny)";
    assert_eq!(told, expected, "{told}");
}

#[test]
fn what_is_no_list_is_never_taken_for_an_empty_one() {
    for text in [
        "",
        "~",
        "deny:",
        "deny: ~",
        "deny: {}",
        "deny: x",
        "[]",
        "x",
        "{}",
        "denied: []",
        "deny: [a]",
        "deny: [[]]",
        "deny: [{ fingerprint: [a] }]",
        "deny: [{ subject: a }]",
        "deny: []\ndeny: []",
        "deny: [",
        "deny: []\n---\ndeny: []",
    ] {
        let told = read(text).unwrap_err();
        assert!(told.starts_with("`deny.yaml`"), "{text:?}: {told}");
    }
}

#[test]
fn more_mistakes_than_anybody_reads_are_counted() {
    let text = format!("deny: [{}]", vec!["{}"; 50].join(","));
    assert!(read(&text).unwrap_err().ends_with("\n`deny.yaml`: 30 more such faults"));
}

#[test]
fn entries_are_put_in_replaced_taken_out_and_forgotten() {
    let entry = |name: &str, until| {
        let attribute = Attribute { kind: AttributeKind::CommonName, value: name.to_owned() };
        let names = DeniedNames::new([DeniedName::Subject(attribute)]).unwrap();
        DenyEntry { until, ..DenyEntry::new(DenySelector::Names(names)) }
    };
    let mut list = DenyList::default();
    assert_eq!(list.insert(entry("a", Some(10))), None);
    assert_eq!(list.insert(entry("b", None)), None);
    let fleet = DenyEntry { trust_domain: Some("fleet".into()), ..entry("a", None) };
    assert_eq!(list.insert(fleet.clone()), None, "another trust domain, another client");
    assert_eq!(list.insert(entry("a", Some(20))), Some(entry("a", Some(10))));
    assert_eq!(list.remove(&fleet.selector, None), Some(entry("a", Some(20))));
    assert_eq!(list.remove(&fleet.selector, None), None);
    list.insert(entry("c", Some(10)));
    list.forget_lapsed(10);
    assert_eq!(list.entries(), [entry("b", None), fleet]);
}

#[test]
fn of_several_lists_the_longest_denial_counts() {
    let list = |until: &str| read(&format!("deny: [{{ fingerprint: {PRINT}, reason: r{until} }}]")).unwrap();
    let with = |until: &str| {
        let text = list("").to_yaml().replace("reason: r", &format!("reason: r\n  until: {until}"));
        read(&text).unwrap()
    };
    let (early, late) = (with("2026-01-01T00:00:00Z"), with("2027-01-01T00:00:00Z"));
    assert_eq!(DenyList::merge([early.clone(), late.clone(), early.clone()]), late);
    assert_eq!(DenyList::merge([late, list(""), early]), list(""));
}

pub(super) fn any_text() -> impl Strategy<Value = String> {
    "[ -~äß€#]{1,12}".prop_filter("not blank", |text| !text.trim().is_empty())
}

fn any_names() -> impl Strategy<Value = DeniedNames> {
    let attributes =
        (any_text(), any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()));
    let san = proptest::option::of(any::<std::net::IpAddr>());
    (attributes, san).prop_map(|((cn, ou, uri, other), ip)| {
        let attribute = |kind, value| DeniedName::from(Attribute { kind, value });
        let mut names =
            vec![attribute(AttributeKind::CommonName, cn), attribute(AttributeKind::OrganizationalUnit, ou)];
        names.extend(uri.clone().map(|uri| SubjectAltName::Uri(uri).into()));
        names.extend(uri.map(|uri| SubjectAltName::Uri(format!("urn:{uri}")).into()));
        names.extend(other.map(|other| attribute(AttributeKind::OrganizationalUnit, other)));
        names.extend(ip.map(|ip| SubjectAltName::Ip(ip).into()));
        DeniedNames::new(names).unwrap()
    })
}

fn any_entry() -> impl Strategy<Value = DenyEntry> {
    let selector = prop_oneof![
        (any_text(), any::<[u8; 4]>()).prop_map(|(cn, serial)| {
            let attribute = Attribute { kind: AttributeKind::CommonName, value: cn };
            let issuer = crate::certificate::Name::format_rfc4514(&[vec![attribute]]);
            let serial = Serial::from_be_bytes(&serial).unwrap();
            DenySelector::Serial { issuer: issuer.parse().unwrap(), serial }
        }),
        any::<[u8; 32]>().prop_map(|digest| DenySelector::Fingerprint(Fingerprint(digest))),
        any::<[u8; 32]>().prop_map(|digest| DenySelector::KeyFingerprint(Fingerprint(digest))),
        any_names().prop_map(DenySelector::Names),
    ];
    let reason = proptest::option::of(any_text().prop_map(|text| Arc::from(text.trim())));
    let domain = proptest::option::of("[a-z0-9.-]{1,8}".prop_map(|name| Arc::from(name.as_str())));
    (selector, domain, proptest::option::of(0..4_000_000_000_i64), reason).prop_map(
        |(selector, trust_domain, until, reason)| DenyEntry { selector, trust_domain, until, reason },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(entries in proptest::collection::vec(any_entry(), 0..20)) {
        let list = DenyList::merge(entries.into_iter().map(|entry| DenyList { entries: vec![entry] }));
        let text = list.to_yaml();
        prop_assert_eq!(read(&text), Ok(list), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(deny: ?|- |\\{|\\}|\\[|\\]|serial|: |, |CN|\n| |[a-z0-9\"'&*#!~]){0,40}") {
        let _ = read(&text);
    }
}
