//! What certificates say, and what malformed ones are told.

use proptest::prelude::*;

use super::der::{self, Reader};
use super::time::{Civil, civil, unix_time};
use super::*;
use crate::trust::mint::{DAY, NOW, Plan, extension, raw_name, with_parts, with_subject};

const CN: &[u8] = &[0x55, 4, 3];
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1c;
const BMP: u8 = 0x1e;

fn common_name(tag: u8, value: &[u8]) -> Result<String, MalformedCertificate> {
    let certificate = Certificate::from_der(&with_subject(&raw_name(CN, tag, value)))?;
    Ok(certificate.subject().values(AttributeKind::CommonName).next().unwrap().to_owned())
}

fn names(kind: u8, value: &[u8]) -> Result<Certificate, MalformedCertificate> {
    let names = extension(17, false, &der::sequence(&[&der::element(0x80 | kind, value)]));
    Certificate::from_der(&with_parts(&raw_name(CN, UTF8, b"device-1"), &[names]))
}

#[test]
fn a_certificate_of_version_1_says_what_it_says() {
    let root = Plan::ca("CN=Root").self_signed();
    let minted = Plan::version_1("CN=device-1,O=Example").signed_by(&root);
    let certificate = minted.certificate();
    assert_eq!(certificate.version(), 1);
    assert_eq!(certificate.subject().to_string(), "CN=device-1,O=Example");
    assert_eq!(certificate.issuer().to_string(), "CN=Root");
    assert_eq!(certificate.serial().to_string(), "01");
    assert_eq!((certificate.not_before(), certificate.not_after()), (NOW - DAY, NOW + 365 * DAY));
    assert!(certificate.subject_alternative_names().is_empty());
    assert!(!certificate.is_ca() && !certificate.may_be_anchor() && !certificate.is_self_issued());
    assert!(root.certificate().is_ca() && root.certificate().may_be_anchor());
    let digest = minted.x509.digest(openssl::hash::MessageDigest::sha256()).unwrap();
    assert_eq!(certificate.fingerprint().0, *digest);
    let key = sha256(&minted.key.public_key_to_der().unwrap());
    assert_eq!(certificate.key_fingerprint().0, key);
}

#[test]
fn strings_of_every_type_are_read_as_text() {
    assert_eq!(common_name(UTF8, "Jürgen".as_bytes()).unwrap(), "Jürgen");
    assert_eq!(common_name(PRINTABLE, b"device-1").unwrap(), "device-1");
    // Against the letter of PrintableString, and everywhere.
    assert_eq!(common_name(PRINTABLE, b"*@example_1").unwrap(), "*@example_1");
    assert_eq!(common_name(IA5, b"a@b").unwrap(), "a@b");
    assert_eq!(common_name(T61, b"old").unwrap(), "old");
    assert_eq!(common_name(BMP, &[0, b'J', 0, 0xfc]).unwrap(), "Jü");
    assert_eq!(common_name(UNIVERSAL, &[0, 1, 0xf6, 0]).unwrap(), "\u{1f600}");
}

#[test]
fn strings_that_are_not_what_they_claim_make_the_certificate_malformed() {
    let refused: [(u8, &[u8]); 9] = [
        (UTF8, b"\xff\xfe"),
        (PRINTABLE, "ü".as_bytes()),
        (PRINTABLE, b"\xfc"),
        (IA5, "ü".as_bytes()),
        (T61, b"J\xfcrgen"),
        (BMP, &[0, b'J', 0]),
        // Half of a surrogate pair.
        (BMP, &[0xd8, 0]),
        (UNIVERSAL, &[0, 0x11, 0, 0]),
        // An INTEGER is no name.
        (der::INTEGER, &[1]),
    ];
    for (tag, value) in refused {
        let error = common_name(tag, value).unwrap_err();
        assert!(matches!(error, MalformedCertificate::Subject(_) | MalformedCertificate::NotX509), "{error}");
    }
}

#[test]
fn control_characters_in_a_name_make_the_certificate_malformed() {
    for control in ["admin\0.example.com", "a\r\nb", "a\u{7f}", "a\u{85}", "\t"] {
        let error = common_name(UTF8, control.as_bytes()).unwrap_err();
        assert!(matches!(error, MalformedCertificate::Subject(BadName::ControlCharacter(..))), "{error}");
    }
    let error = common_name(BMP, &[0, b'a', 0, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "its subject is malformed: the value of CN contains the control character U+0000"
    );
}

#[test]
fn values_that_are_no_strings_are_kept_encoded_under_unknown_types_only() {
    let unique_identifier: &[u8] = &[0x55, 4, 45];
    let certificate =
        Certificate::from_der(&with_subject(&raw_name(unique_identifier, der::BIT_STRING, &[0, 0xab])))
            .unwrap();
    assert_eq!(certificate.subject().to_string(), "2.5.4.45=#030200AB");
    assert_eq!(Name::parse_rfc4514("2.5.4.45=#030200AB").unwrap(), certificate.subject().rdns());
    // Text that would be taken for such a value.
    let error =
        Certificate::from_der(&with_subject(&raw_name(unique_identifier, UTF8, b"#030200AB"))).unwrap_err();
    assert!(matches!(error, MalformedCertificate::Subject(BadName::Ambiguous(_))));
}

#[test]
fn an_attribute_whose_type_can_be_read_in_two_ways_makes_the_certificate_malformed() {
    for oid in [&[][..], &[0x55, 4, 0x83], &[0x55, 4, 0x80, 3], &[0x55, 0x80], &[0xff; 30]] {
        let error = Certificate::from_der(&with_subject(&raw_name(oid, UTF8, b"a"))).unwrap_err();
        assert!(
            matches!(
                error,
                MalformedCertificate::Subject(BadName::WrongType) | MalformedCertificate::NotX509
            ),
            "{error}"
        );
    }
}

#[test]
fn alternative_names_are_typed() {
    let names = [
        der::element(0x82, b"*.example.com"),
        der::element(0x81, b"a@example.com"),
        der::element(0x86, b"spiffe://example.com/a"),
        der::element(0x87, &[127, 0, 0, 1]),
        der::element(0x87, &[0; 16]),
        der::element(0x88, &[0x2a, 3]),
    ];
    let names = extension(17, false, &der::sequence(&[&names.concat()]));
    let certificate = Certificate::from_der(&with_parts(&raw_name(CN, UTF8, b"a"), &[names])).unwrap();
    let expected = [
        SubjectAltName::Dns("*.example.com".into()),
        SubjectAltName::Email("a@example.com".into()),
        SubjectAltName::Uri("spiffe://example.com/a".into()),
        SubjectAltName::Ip([127, 0, 0, 1].into()),
        SubjectAltName::Ip([0; 16].into()),
        SubjectAltName::Other,
    ];
    assert_eq!(certificate.subject_alternative_names(), expected);
}

#[test]
fn malformed_alternative_names_make_the_certificate_malformed() {
    assert!(names(2, b"api.example.com").is_ok());
    let refused: [(u8, &[u8]); 6] = [
        (2, b"api.example.com\0.evil.com"),
        (2, "apí.example.com".as_bytes()),
        (1, b"a@b\r\nX: y"),
        (6, b"spiffe://a\xff"),
        (7, &[127, 0, 0]),
        (9, b"there is no type 9"),
    ];
    for (kind, value) in refused {
        let error = names(kind, value).unwrap_err();
        assert!(matches!(error, MalformedCertificate::AlternativeName(_)), "{error}");
    }
}

#[test]
fn repeated_or_damaged_extensions_make_the_certificate_malformed() {
    let subject = raw_name(CN, UTF8, b"a");
    let usage =
        extension(37, false, &der::sequence(&[&der::element(der::OID, b"\x2b\x06\x01\x05\x05\x07\x03\x02")]));
    assert_eq!(
        Certificate::from_der(&with_parts(&subject, std::slice::from_ref(&usage))).unwrap().client_use(),
        ClientUse::Named
    );
    let error = Certificate::from_der(&with_parts(&subject, &[usage.clone(), usage])).unwrap_err();
    assert_eq!(error, MalformedCertificate::RepeatedExtension("extendedKeyUsage"));
    let damaged = extension(19, true, &[0x30, 5, 1]);
    let error = Certificate::from_der(&with_parts(&subject, &[damaged])).unwrap_err();
    assert_eq!(error, MalformedCertificate::Extension("basicConstraints"));
}

#[test]
fn cut_or_extended_der_is_not_a_certificate() {
    let der = Plan::leaf("CN=a").self_signed().der();
    assert!(Certificate::from_der(&der).is_ok());
    for end in 0..der.len() {
        assert!(Certificate::from_der(&der[..end]).is_err());
    }
    let longer = [der.as_slice(), &[0]].concat();
    assert_eq!(Certificate::from_der(&longer), Err(MalformedCertificate::TrailingBytes(1)));
}

#[test]
fn bundles_name_the_block_that_is_wrong() {
    let pem = Plan::leaf("CN=a").self_signed().x509.to_pem().unwrap();
    let text = String::from_utf8(pem).unwrap();
    let bundle = format!(
        "# the fleet\r\n{}\n-----BEGIN OTHER-----\nAAAA\n-----END OTHER-----\n{text}",
        text.replace('\n', "\r\n")
    );
    assert_eq!(Certificate::from_pem_bundle(bundle.as_bytes()).unwrap().len(), 2);
    assert_eq!(Certificate::from_pem_bundle(b"nothing\xff").unwrap(), []);
    assert_eq!(Certificate::from_pem_bundle(b"").unwrap(), []);
    let cut = format!("{text}{}", &text[..200]);
    let error = Certificate::from_pem_bundle(cut.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "block 2 (CERTIFICATE) has no end: the file seems to be cut off");
    let garbled = text.replacen('M', "!", 1);
    assert!(matches!(
        Certificate::from_pem_bundle(garbled.as_bytes()),
        Err(BundleError::Pem(PemError::NotBase64 { block: 1, .. }))
    ));
    let wrong = format!("{text}{}", pem_encode(b"not a certificate", "CERTIFICATE"));
    let error = Certificate::from_pem_bundle(wrong.as_bytes()).unwrap_err();
    assert!(matches!(error, BundleError::Malformed { block: 2, reason: MalformedCertificate::NotX509 }));
}

#[test]
fn weak_keys_and_digests_are_noticed() {
    let rsa = |bits| openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(bits).unwrap()).unwrap();
    let with_key = |key| Plan { key: Some(key), ..Plan::leaf("CN=a") }.self_signed().certificate();
    assert_eq!(with_key(rsa(2048)).weakness(), None);
    assert_eq!(with_key(rsa(1024)).weakness(), Some(&Weakness::ShortKey { bits: 1024 }));
    let sha1 = Plan { digest: openssl::hash::MessageDigest::sha1(), ..Plan::leaf("CN=a") };
    assert_eq!(sha1.self_signed().certificate().weakness(), Some(&Weakness::WeakDigest));
    assert_eq!(Plan::leaf("CN=a").self_signed().certificate().weakness(), None);
}

#[test]
fn fingerprints_and_serials_are_read_in_the_forms_people_paste() {
    let plain = "AB".repeat(32);
    let colons = vec!["ab"; 32].join(":");
    assert_eq!(plain.parse::<Fingerprint>().unwrap(), colons.parse().unwrap());
    assert_eq!(plain.parse::<Fingerprint>().unwrap().to_string(), "ab".repeat(32));
    assert!(matches!("abcd".parse::<Fingerprint>(), Err(BadHex::WrongLength { found: 4, .. })));
    assert!(matches!("xy".repeat(32).parse::<Fingerprint>(), Err(BadHex::NotHex(_))));
    assert_eq!("0:1f".parse::<Serial>().unwrap().to_string(), "1F".to_owned());
    assert_eq!("00001F".parse::<Serial>().unwrap(), "1f".parse().unwrap());
    assert_eq!("0".parse::<Serial>().unwrap().to_string(), "00");
    assert!("".parse::<Serial>().is_err());
    assert!("0x1f".parse::<Serial>().is_err());
}

#[test]
fn names_match_as_openssl_matches_them() {
    let name = |tag, value: &[u8]| Certificate::from_der(&with_subject(&raw_name(CN, tag, value))).unwrap();
    let root = name(UTF8, b"Root CA");
    assert!(root.subject().matches(name(PRINTABLE, b"root  ca ").subject()));
    assert!(!root.subject().matches(name(UTF8, b"RootCA").subject()));
    assert!(!root.subject().matches(name(UTF8, b"Root CA 2").subject()));
}

#[test]
fn distinguished_names_are_read_as_people_write_them() {
    let attribute = |kind, value: &str| Attribute { kind, value: value.into() };
    let parsed = Name::parse_rfc4514(r"CN=Smith\, J. \2B co , ou = a+UID=b, O=\ x\ , 2.5.4.3=y,DC=").unwrap();
    let expected = vec![
        vec![attribute(AttributeKind::DomainComponent, "")],
        vec![attribute(AttributeKind::CommonName, "y")],
        vec![attribute(AttributeKind::Organization, " x ")],
        vec![attribute(AttributeKind::OrganizationalUnit, "a"), attribute(AttributeKind::UserId, "b")],
        vec![attribute(AttributeKind::CommonName, "Smith, J. + co")],
    ];
    assert_eq!(parsed, expected);
    assert_eq!(Name::parse_rfc4514("  ").unwrap(), Vec::<Vec<Attribute>>::new());
    assert_eq!(
        Name::parse_rfc4514("CN=#0C0161").unwrap(),
        vec![vec![attribute(AttributeKind::CommonName, "a")]]
    );
    assert_eq!(Name::parse_rfc4514(r"CN=L\C3\BC").unwrap()[0][0].value, "Lü");
    for wrong in [
        "CN",
        "CN=a,",
        "=a",
        "XX=a",
        "CN=a,,O=b",
        "CN=\"a\"",
        "CN=a\\",
        "CN=a\\zz",
        "CN=\\FF",
        "CN=#0C01",
        "CN=#",
        "CN=a<b",
        "CN=#020101",
    ] {
        assert!(Name::parse_rfc4514(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_comma_in_an_organisation_is_no_second_attribute() {
    let organisation: &[u8] = &[0x55, 4, 10];
    let certificate =
        Certificate::from_der(&with_subject(&raw_name(organisation, UTF8, b"x,CN=admin"))).unwrap();
    assert_eq!(certificate.subject().values(AttributeKind::CommonName).count(), 0);
    assert_eq!(certificate.subject().to_string(), r"O=x\,CN=admin");
}

#[test]
fn calendar_times_are_exact() {
    assert_eq!(utc(1_767_323_045).to_string(), "2026-01-02 03:04:05 UTC");
    assert_eq!(utc(-1).to_string(), "1969-12-31 23:59:59 UTC");
    assert_eq!(utc(951_782_400).to_string(), "2000-02-29 00:00:00 UTC");
    let no_day = Civil { year: 2026, month: 4, day: 31, hour: 0, minute: 0, second: 0 };
    assert_eq!(unix_time(no_day), None);
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let kind = prop_oneof![
        proptest::sample::select(vec![
            "CN",
            "OU",
            "O",
            "L",
            "ST",
            "C",
            "serialNumber",
            "UID",
            "DC",
            "emailAddress"
        ])
        .prop_map(|key| AttributeKind::from_key(key).unwrap()),
        "[0-2](\\.(0|[1-9][0-9]{0,4})){2,5}".prop_map(|oid| AttributeKind::from_oid(&oid)),
    ];
    let value = prop_oneof![any::<String>(), "[ #,+\"\\\\<>;=a\u{fc}]{0,6}"];
    (kind, value)
        .prop_filter("reads like an encoded value", |(_, value)| {
            !value.starts_with('#') || value.contains(' ')
        })
        .prop_map(|(kind, value)| Attribute { kind, value })
}

proptest! {
    #[test]
    fn a_name_survives_its_own_text(rdns in proptest::collection::vec(proptest::collection::vec(attribute(), 1..4), 0..6)) {
        let text = Name::format_rfc4514(&rdns);
        prop_assert_eq!(Name::parse_rfc4514(&text), Ok(rdns));
    }

    #[test]
    fn attributes_match_that_compare_equal(one in attribute(), value in "[aA \t]{0,4}", other in "[aA \t]{0,4}") {
        let with = |value: &str| Attribute { value: value.to_owned(), ..one.clone() };
        for (one, other) in [(with(&value), with(&other)), (one.clone(), with(&one.value.to_ascii_uppercase()))] {
            let comparable = |it: &Attribute| Name::comparable_rdns(&[vec![it.clone()]]);
            prop_assert_eq!(one.matches(&other), comparable(&one) == comparable(&other));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[ -~ü]{0,40}") {
        let _ = Name::parse_rfc4514(&text);
    }

    #[test]
    fn any_bytes_are_a_certificate_or_malformed(at in 0usize..400, byte: u8) {
        let mut der = with_subject(&raw_name(CN, UTF8, b"device-1"));
        let at = at % der.len();
        der[at] = byte;
        let _ = Certificate::from_der(&der);
    }

    #[test]
    fn calendar_and_seconds_agree(time in -62_000_000_000i64..250_000_000_000) {
        prop_assert_eq!(unix_time(civil(time)), Some(time));
    }

    #[test]
    fn der_times_are_read_back(time in -600_000_000i64..250_000_000_000) {
        prop_assert_eq!(Reader::new(&der::time(time)).time(), Ok(time));
    }

    #[test]
    fn pem_is_read_back(content in proptest::collection::vec(any::<u8>(), 1..200)) {
        prop_assert_eq!(pem_blocks(pem_encode(&content, "X").as_bytes(), "X"), Ok(vec![content]));
    }
}
