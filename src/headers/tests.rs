//! Identity headers as a whole: what is told, what is refused, and that no name breaks out of its field.

use base64::Engine;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;
use crate::certificate::Certificate;
use crate::route::sample::Sample;
use crate::trust::{Fault, FaultKind};

fn headers(preset: HeaderPreset) -> IdentityHeaders {
    IdentityHeaders::new(&[IdentityHeaderSpec::Preset(preset)]).unwrap()
}

fn named(header: &str, field: &str) -> IdentityHeaderSpec {
    IdentityHeaderSpec::Named(NamedHeader { header: header.into(), field: field.into() })
}

fn rendered(preset: HeaderPreset, identity: Option<&ClientIdentity>) -> Vec<(String, String)> {
    let headers = headers(preset).render(identity);
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

fn field(field: &str, sample: &Sample) -> Option<String> {
    let headers = IdentityHeaders::new(&[named("X-It", field)]).unwrap();
    let rendered = headers.render(Some(&sample.identity("fleet")));
    rendered.first().map(|(_, value)| value.to_str().unwrap().to_owned())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}

#[test]
fn what_is_wrong_with_a_client_is_told_whatever_is_configured_and_nobody_is_told_success() {
    let fault = |kind| Fault { kind, within: std::time::Duration::from_secs(1) };
    let sample = Sample::new().subject("CN", "a");
    for (kind, word, verify) in [
        (FaultKind::Expired, "expired", "FAILED:certificate has expired"),
        (FaultKind::RevocationStale, "revocation_stale", "FAILED:revocation list is stale"),
    ] {
        let identity = sample.identity("fleet").quarantined(fault(kind));
        for preset in [HeaderPreset::Rfc9440, HeaderPreset::Xfcc, HeaderPreset::Nginx, HeaderPreset::Plain] {
            let told = rendered(preset, Some(&identity));
            assert_eq!(value(&told, "client-cert-standing"), Some(word), "{preset:?}");
            assert!(!told.iter().any(|(_, value)| value == "SUCCESS"), "{told:?}");
        }
        assert_eq!(value(&rendered(HeaderPreset::Plain, Some(&identity)), "x-client-verify"), Some(verify));
        assert_eq!(
            value(&rendered(HeaderPreset::Nginx, Some(&identity)), "x-ssl-client-verify"),
            Some(verify)
        );
        // Under a name of one's own, or under this one, once.
        for (header, count) in [("X-Standing", 2), ("Client-Cert-Standing", 1)] {
            let headers = IdentityHeaders::new(&[named(header, "standing")]).unwrap();
            let told = headers.render(Some(&identity));
            assert!(told.len() == count && told.iter().all(|(_, value)| value == word), "{told:?}");
        }
    }
    assert_eq!(field("standing", &sample).as_deref(), Some("good"));
    assert!(
        value(&rendered(HeaderPreset::Plain, Some(&sample.identity("fleet"))), "client-cert-standing")
            .is_none()
    );
    assert!(headers(HeaderPreset::Plain).is_reserved("Client_Cert-STANDING"));
}

#[test]
fn without_an_identity_nothing_claims_one() {
    assert_eq!(rendered(HeaderPreset::Rfc9440, None), []);
    assert_eq!(rendered(HeaderPreset::Xfcc, None), []);
    assert_eq!(rendered(HeaderPreset::Nginx, None), [("x-ssl-client-verify".into(), "NONE".into())]);
    assert_eq!(rendered(HeaderPreset::Plain, None), [("x-client-verify".into(), "NONE".into())]);
}

#[test]
fn the_plain_and_nginx_presets_say_what_the_certificate_says() {
    let sample = Sample::new().subject("O", "Example, Inc.").subject("CN", "sensor-1").dns("a.example");
    let identity = sample.uri("spiffe://a/b,c").email("a@b").ip([192, 0, 2, 1]).identity("fleet");
    let certificate = identity.certificate();
    let plain = rendered(HeaderPreset::Plain, Some(&identity));
    let expected = [
        ("x-client-verify", "SUCCESS"),
        ("x-client-subject", "CN=sensor-1,O=Example\\, Inc."),
        ("x-client-cn", "sensor-1"),
        ("x-client-serial", "1F"),
        ("x-client-fingerprint", &certificate.fingerprint().to_string()),
        ("x-client-issuer", "CN=Root"),
        ("x-client-san", "DNS:a.example, URI:spiffe://a/b%2Cc, email:a@b, IP:192.0.2.1"),
        ("x-client-trust-domain", "fleet"),
    ];
    assert_eq!(plain, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let nginx = rendered(HeaderPreset::Nginx, Some(&identity));
    assert_eq!(value(&nginx, "x-ssl-client-verify"), Some("SUCCESS"));
    assert_eq!(value(&nginx, "x-ssl-client-s-dn"), value(&plain, "x-client-subject"));
    assert_eq!(value(&nginx, "x-ssl-client-i-dn"), Some("CN=Root"));
    assert_eq!(value(&nginx, "x-ssl-client-serial"), Some("1F"));
    assert_eq!(nginx.len(), 5);
}

#[test]
fn each_field_can_have_a_name_of_ones_own() {
    let sample = Sample::new().subject_all("OU", &["a,b", "c"]).subject("CN", "x").email("a@b").dns("d");
    assert_eq!(field("subject.CN", &sample).as_deref(), Some("x"));
    assert_eq!(field("subject.OU", &sample).as_deref(), Some("a%2Cb, c"));
    assert_eq!(field("subject.O", &sample), None);
    assert_eq!(field("issuer.CN", &sample).as_deref(), Some("Root"));
    assert_eq!(field("san.email", &sample).as_deref(), Some("a@b"));
    assert_eq!(field("san.uri", &sample), None);
    assert_eq!(field("anchor", &sample).as_deref(), Some("CN=Root"));
    assert_eq!(field("not_before", &sample).as_deref(), Some("1767225600"));
    assert_eq!(field("certificate_chain", &sample), None);
    let pem = decoded(&field("certificate_pem", &sample).unwrap());
    assert_eq!(Certificate::from_pem_bundle(pem.as_bytes()).unwrap(), [sample.certificate()]);
}

#[test]
fn a_certificate_with_two_common_names_has_none() {
    assert_eq!(field("subject.CN", &Sample::new().subject_all("CN", &["a", "b"])), None);
}

#[test]
fn a_header_of_the_family_is_reserved_under_every_spelling() {
    let headers = IdentityHeaders::new(&[named("X-Device", "subject.CN")]).unwrap();
    for name in [
        "Client-Cert",
        "client_cert",
        "CLIENT-CERT-CHAIN",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "X-SSL-Client-Verify",
        "x-ssl_client-anything",
        "SSL_CLIENT_S_DN",
        "ssl-client-cert",
        "X-Client-CN",
        "x.client.cn",
        "X-Client-Trust-Domain",
        "X-Device",
        "x_device",
        "X-Client-Cert",
        "x-client-cert-sha256",
        "x-tls-client-subject",
        "X-Forwarded-Tls-Client-Cert-Info",
    ] {
        assert!(headers.is_reserved(name), "{name}");
    }
    for name in [
        "",
        "x",
        "Accept",
        "X-Clientele",
        "X-Request-Id",
        "Client-Certainty",
        "X-Devices",
        "X-Devic",
        "x-client-version",
        "x-client-ip",
        "sec-ch-ua",
    ] {
        assert!(!headers.is_reserved(name), "{name}");
    }
}

#[test]
fn what_a_client_may_not_send_is_taken_away_and_the_rest_stays() {
    let headers = headers(HeaderPreset::Rfc9440);
    let mut sent = HeaderMap::new();
    for name in ["accept", "client-cert", "x_ssl_client_verify", "x-forwarded-for"] {
        sent.append(HeaderName::from_static(name), HeaderValue::from_static("x"));
        sent.append(HeaderName::from_static(name), HeaderValue::from_static("y"));
    }
    headers.strip(&mut sent);
    assert_eq!(sent.len(), 4);
    assert!(sent.contains_key("accept") && sent.contains_key("x-forwarded-for"));
    assert_eq!(headers.reserved_in(&sent).capacity(), 0);
    assert_eq!(headers.names().collect::<Vec<_>>(), ["client-cert", "client-cert-chain"]);
}

#[test]
fn headers_that_cannot_carry_an_identity_are_refused() {
    let error = |specs: &[IdentityHeaderSpec]| IdentityHeaders::new(specs).unwrap_err();
    for name in ["Host", "Transfer-Encoding", "Connection", "X-Forwarded-For", "Forwarded"] {
        assert_eq!(error(&[named(name, "subject")]), HeaderSpecError::Reserved(name.into()));
    }
    for name in ["", "X Device", "X-Device:", "X-Gerät"] {
        assert_eq!(error(&[named(name, "subject")]), HeaderSpecError::Name(name.into()));
    }
    assert_eq!(error(&[named("X", "subjct")]), HeaderSpecError::Field(FieldError("subjct".into())));
    let plain = IdentityHeaderSpec::Preset(HeaderPreset::Plain);
    assert_eq!(error(&[plain, named("X_Client-CN", "serial")]), HeaderSpecError::Twice("x_client-cn".into()));
}

/// As an origin that follows Envoy's documentation reads it.
fn parse_xfcc(text: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            let (mut value, mut chars) = (String::new(), quoted.char_indices());
            loop {
                match chars.next()? {
                    (_, '\\') => value.push(chars.next()?.1),
                    (at, '"') => break (value, &quoted[at + 1..]),
                    (_, c) => value.push(c),
                }
            }
        } else {
            let end = after.find([';', ',']).unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        fields.push((key.to_owned(), value));
        match after.strip_prefix(';') {
            Some(next) => rest = next,
            // A second element would be a second client.
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// As an origin that minds no quotes reads it: every piece between separators that looks like a field.
fn parse_xfcc_carelessly(text: &str) -> Vec<&str> {
    text.split([';', ','])
        .filter_map(|piece| piece.split_once('='))
        .map(|(key, _)| key.trim())
        .filter(|key| ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"].contains(key))
        .collect()
}

fn all<'a>(fields: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    fields.iter().filter(|(field, _)| field == key).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn xfcc_of_a_hostile_name_is_one_element() {
    let cn = "x\",By=evil;URI=spiffe://admin,Hash=00;Subject=\"CN=admin\\";
    let sample = Sample::new().subject("CN", cn).uri("spiffe://a\";DNS=admin,URI=b\\");
    let xfcc = &rendered(HeaderPreset::Xfcc, Some(&sample.identity("fleet")))[0].1;
    let fields = parse_xfcc(xfcc).unwrap();
    assert_eq!(
        fields.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["Hash", "Cert", "Subject", "URI"]
    );
    assert_eq!(decoded(all(&fields, "Subject")[0]), sample.certificate().subject().to_string());
    assert_eq!(parse_xfcc_carelessly(xfcc), ["Hash", "Cert", "Subject", "URI"]);
}

fn any_text() -> impl Strategy<Value = String> {
    let any = any::<String>().prop_map(|text| text.chars().filter(|c| !c.is_control()).collect());
    prop_oneof![any, "[ab \"\\\\;,=%:#<>+ü]{0,12}", "(;|,|\"|\\\\|=|URI|Hash|CN|%22| ){0,10}"]
}

/// What a SAN may hold.
fn any_ascii() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", "(;|,|\"|\\\\|=|URI|Hash|%22|%2C| ){0,10}"]
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let texts = || proptest::collection::vec(any_text(), 0..3);
    let names = || proptest::collection::vec(any_ascii(), 0..3);
    (texts(), texts(), any_text(), names(), names()).prop_map(|(cn, ou, issuer, dns, uri)| {
        let sample = cn.iter().fold(Sample::new(), |sample, cn| sample.subject("CN", cn));
        let sample = ou.iter().fold(sample, |sample, ou| sample.subject("OU", ou)).issuer("O", &issuer);
        let sample = dns.iter().fold(sample, |sample, name| sample.dns(name));
        uri.iter().fold(sample, |sample, name| sample.uri(name))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn values_are_visible_and_read_back_exactly(sample in any_sample()) {
        let identity = sample.identity("fleet");
        for preset in [HeaderPreset::Rfc9440, HeaderPreset::Xfcc, HeaderPreset::Nginx, HeaderPreset::Plain] {
            for (name, value) in rendered(preset, Some(&identity)) {
                prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}: {}", name, value);
                prop_assert_eq!(value.trim(), &value);
                prop_assert!(preset == HeaderPreset::Xfcc || !value.contains('"'));
            }
        }
        let certificate = identity.certificate();
        let plain = rendered(HeaderPreset::Plain, Some(&identity));
        // An empty name is an empty header.
        let subject = value(&plain, "x-client-subject").unwrap_or_default();
        prop_assert_eq!(decoded(subject), certificate.subject().to_string());
        let issuer = value(&plain, "x-client-issuer").unwrap_or_default();
        prop_assert_eq!(decoded(issuer), certificate.issuer().to_string());
        let san = value(&plain, "x-client-san").map(|san| san.split(", ").map(decoded).collect::<Vec<_>>());
        let expected: Vec<String> = certificate.subject_alternative_names().iter().map(|name| match name {
            crate::certificate::SubjectAltName::Dns(name) => format!("DNS:{name}"),
            crate::certificate::SubjectAltName::Uri(name) => format!("URI:{name}"),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(san.unwrap_or_default(), expected);
    }

    #[test]
    fn xfcc_is_read_back_exactly(sample in any_sample()) {
        let identity = sample.identity("fleet");
        let certificate = identity.certificate();
        let xfcc = &rendered(HeaderPreset::Xfcc, Some(&identity))[0].1;
        let fields = parse_xfcc(xfcc).unwrap();
        let decoded_all = |key: &str| all(&fields, key).into_iter().map(decoded).collect::<Vec<_>>();
        prop_assert_eq!(all(&fields, "Hash"), [certificate.fingerprint().to_string()]);
        prop_assert_eq!(decoded_all("Subject"), [certificate.subject().to_string()]);
        let pem = decoded_all("Cert").concat();
        prop_assert_eq!(Certificate::from_pem_bundle(pem.as_bytes()).unwrap(), std::slice::from_ref(certificate));
        let names = |uri: bool| certificate.subject_alternative_names().iter().filter_map(move |name| match name {
            crate::certificate::SubjectAltName::Uri(name) if uri => Some(name.clone()),
            crate::certificate::SubjectAltName::Dns(name) if !uri => Some(name.clone()),
            _ => None,
        }).collect::<Vec<_>>();
        prop_assert_eq!(decoded_all("URI"), names(true));
        prop_assert_eq!(decoded_all("DNS"), names(false));
        let keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
        prop_assert_eq!(parse_xfcc_carelessly(xfcc), keys);
    }

    #[test]
    fn rfc_9440_is_read_back_exactly(sample in any_sample()) {
        let identity = sample.identity("fleet");
        let headers = rendered(HeaderPreset::Rfc9440, Some(&identity));
        let inner = value(&headers, "client-cert").and_then(|value| value.strip_prefix(':')?.strip_suffix(':'));
        let der = base64::engine::general_purpose::STANDARD.decode(inner.unwrap()).unwrap();
        prop_assert_eq!(&*der, identity.certificate().der());
    }
}

#[test]
fn an_empty_name_is_none_of_a_list() {
    let sample = Sample::new().subject_all("OU", &["", "a", ""]).dns(" ").dns("").subject("O", "");
    assert_eq!(field("subject.OU", &sample).as_deref(), Some("a"));
    assert_eq!(field("san.dns", &sample).as_deref(), Some("%20"));
    assert_eq!(field("subject.O", &sample), None);
}

#[test]
fn a_chain_is_a_list_of_byte_sequences() {
    assert_eq!(encode::byte_sequences(&[vec![1, 2, 3], vec![4]]).as_deref(), Some(":AQID:, :BA==:"));
    assert_eq!(encode::byte_sequences(&[]), None);
}
