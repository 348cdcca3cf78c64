//! What clients show of themselves, and what origins are told of it.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use percent_encoding::percent_decode_str;
use portcullis::certificate::{Certificate, Name, SubjectAltName};
use portcullis::headers::{HeaderPreset, IdentityHeaderSpec, IdentityHeaders, NamedHeader};
use portcullis::trust::ClientIdentity;

use crate::Target;
use crate::authority::{self, NOW, attribute, authority, certificate, public};
use crate::der::{element, extension, first, sequence};

pub const CERTIFICATE: Target = Target {
    name: "certificate",
    about: "a certificate: names, SANs, extensions; what our reader takes, the TLS library reads in the same way",
    run: |bytes| {
        let Ok(ours) = Certificate::from_der(bytes) else { return };
        read_back(ours.subject());
        read_back(ours.issuer());
        for name in ours.subject_alternative_names() {
            assert!(!name.to_string().chars().any(char::is_control), "{name:?}");
        }
        let Ok(theirs) = X509::from_der(bytes) else { return };
        let subject = theirs.subject_name().to_der().expect("it was decoded");
        assert_eq!(ours.subject().raw(), subject);
        let serial = theirs.serial_number().to_bn().expect("it is a number");
        // The library gives the size of a negative number; ours shows its bytes.
        if !serial.is_negative() {
            let ours = ours.serial().as_bytes();
            let ours = &ours[ours.iter().take_while(|byte| **byte == 0).count()..];
            assert_eq!(ours, serial.to_vec());
        }
    },
    seeds: || {
        let it = authority();
        let mut seeds: Vec<_> = [&it.certificate, &it.leaf, &it.intermediate, &it.below]
            .iter()
            .map(|it| it.der().to_vec())
            .collect();
        seeds.extend((IDENTITY.seeds)().iter().map(|parts| issued(parts)));
        seeds
    },
};

/// RFC 4514 text is for people, and for lists that they write: it must mean the name that it was made of.
fn read_back(name: &Name) {
    let text = name.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    let again = Name::parse_rfc4514(&text);
    let again = again.unwrap_or_else(|error| panic!("{text:?}: {error}"));
    // An empty set of attributes is no DER; of empty names nothing remains.
    let rdns: Vec<_> = name.rdns().iter().filter(|rdn| !rdn.is_empty()).cloned().collect();
    assert_eq!(again, rdns, "{text:?}");
}

pub const NAME_TEXT: Target = Target {
    name: "name_text",
    about: "a distinguished name as text (RFC 4514): written again, it is the same name",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(rdns) = Name::parse_rfc4514(text) else { return };
        let again = Name::format_rfc4514(&rdns);
        assert_eq!(Name::parse_rfc4514(&again), Ok(rdns), "{again:?}");
    },
    seeds: || {
        [
            "CN=sensor-1,O=Example\\, Inc.",
            "CN=a+OU=b;C=DE",
            "2.5.4.3=#0C0161",
            "1.2.3=#0500",
            " CN = \\ a\\ ,O=\\E2\\82\\AC",
            "OU=\\\"\\+\\<\\>\\#",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

pub const CHAIN: Target = Target {
    name: "chain",
    about: "a client's chain: nothing is believed but what the authority has signed",
    run: |bytes| {
        let it = authority();
        let (mut chain, mut rest) = (Vec::new(), bytes);
        // As TLS frames them: three bytes of length.
        while let [a, b, c, after @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let (der, after) = after.split_at(length.min(after.len()));
            chain.push(der);
            rest = after;
        }
        let Ok(identity) = it.trust.verify(&chain, NOW) else { return };
        let signed =
            |der: &[u8]| first(der).and_then(|(content, _)| first(content)).map(|(_, whole)| whole.to_vec());
        let believed = signed(identity.certificate().der());
        let known = [&it.leaf, &it.below, &it.certificate, &it.intermediate];
        assert!(known.iter().any(|known| signed(known.der()) == believed), "{:?}", identity.certificate());
    },
    seeds: || {
        let it = authority();
        [
            vec![&it.leaf],
            vec![&it.below, &it.intermediate],
            vec![&it.below, &it.certificate, &it.intermediate],
        ]
        .iter()
        .map(|chain| {
            let framed = |it: &&Certificate| [&(it.der().len() as u32).to_be_bytes()[1..], it.der()].concat();
            chain.iter().flat_map(framed).collect()
        })
        .collect()
    },
};

/// A client's certificate with the names that `parts` describe, properly signed: pieces between bytes 0xff, each with the
/// kind of the name in front.
fn issued(parts: &[u8]) -> Vec<u8> {
    let (mut subject, mut names) = (Vec::new(), Vec::new());
    for part in parts.split(|byte| *byte == 0xff) {
        let [kind, value @ ..] = part else { continue };
        let oid: &[u8] = match kind >> 4 & 7 {
            0 => &[0x55, 4, 3],
            1 => &[0x55, 4, 11],
            2 => &[0x55, 4, 10],
            3 => &[0x55, 4, 5],
            4 => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1],
            5 => &[0x2a, 3, 4],
            6 => &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25],
            _ => &[],
        };
        match kind & 15 {
            tag @ (1 | 2 | 6 | 7 | 8) => names.extend(element(0x80 | tag, value)),
            4 => names.extend(element(0xa4, &authority::common_name(&String::from_utf8_lossy(value)))),
            _ if oid.is_empty() => {}
            0 => subject.extend(attribute(oid, 0x0c, value)),
            3 => subject.extend(attribute(oid, 0x13, value)),
            5 => subject.extend(attribute(oid, 0x1e, value)),
            9 => subject.extend(attribute(oid, 0x16, value)),
            10 => subject.extend(attribute(oid, 0x14, value)),
            11 => subject.extend(attribute(oid, 0x1c, value)),
            _ => subject.extend(attribute(oid, 0x04, value)),
        }
    }
    let it = authority();
    let issuer = it.certificate.subject().raw();
    let mut extensions = Vec::new();
    if !names.is_empty() {
        extensions.push(extension(17, &element(0x30, &names)));
    }
    authority::sign(&certificate(5, issuer, &sequence(&[&subject]), &public(&it.key), &extensions), &it.key)
}

pub const IDENTITY: Target = Target {
    name: "identity",
    about: "names of an admitted client: every header that an origin gets is one field, and can be read back",
    run: |bytes| {
        // Anew each time: the memory of chains would fill with thousands that nobody shows again.
        let Ok(identity) = authority().trust.verify(&[&issued(bytes)], NOW) else { return };
        for (name, value) in every_header().render(Some(&identity)) {
            let text = value.to_str().unwrap_or_else(|_| panic!("{name}: {value:?}"));
            assert!(
                text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text,
                "{name}: {text:?}"
            );
        }
        let told = |name: &str| {
            let headers = every_header().render(Some(&identity));
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.to_str().unwrap_or("").to_owned())
        };
        let certificate = identity.certificate();
        let subject = told("x-client-subject").unwrap_or_default();
        assert_eq!(decoded(&subject), certificate.subject().to_string());
        let der = told("client-cert").expect("RFC 9440");
        let inner = der.strip_prefix(':').and_then(|it| it.strip_suffix(':')).expect("a byte sequence");
        assert_eq!(STANDARD.decode(inner).expect("base64"), certificate.der());
        let sans = told("x-client-san").map(|all| all.split(", ").map(decoded).collect::<Vec<_>>());
        let known = certificate.subject_alternative_names().iter().filter_map(typed).collect::<Vec<_>>();
        assert_eq!(sans.unwrap_or_default(), known);
        xfcc(&told("x-forwarded-client-cert").expect("Envoy's"), &identity);
    },
    seeds: || {
        [
            &b"\x00sensor-1\xff\x20Example, Inc.\xff\x10a\xff\x10b\xff\x02a.example\xff\x06spiffe://a/b\xff\x01a@b\xff\x07\x7f\0\0\x01"[..],
            b"\x00x\",By=evil;URI=spiffe://admin,Hash=00;Subject=\"CN=admin\\\xff\x06spiffe://a\";DNS=admin,URI=b\\",
            b"\x05\0a\0b\xff\x0b\0\0\0a\xff\x09a@b\xff\x50#0500\xff\x04dir\xff\x08*",
            b"\x00 a \xff\x00%41\xff\x02 \xff\x02%,\xff\x06,\xff\x06\x07",
            b"\x60example\xff\x60com\xff\x30 123\xff\x40a@b\xff\x0aT61\xff\x03Printable",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

fn every_header() -> &'static IdentityHeaders {
    static HEADERS: OnceLock<IdentityHeaders> = OnceLock::new();
    HEADERS.get_or_init(|| {
        let presets = [HeaderPreset::Rfc9440, HeaderPreset::Xfcc, HeaderPreset::Nginx, HeaderPreset::Plain];
        let fields = [
            "issuer",
            "subject.OU",
            "subject.DC",
            "subject.serialNumber",
            "subject.emailAddress",
            "san.dns",
            "san.email",
            "san.uri",
            "san.ip",
            "anchor",
            "not_before",
            "not_after",
            "key_fingerprint",
            "certificate_pem",
            "standing",
        ];
        let named = fields.map(|field| NamedHeader {
            header: format!("x-own-{}", field.replace(['.', '_'], "-")),
            field: field.to_owned(),
        });
        let specs: Vec<_> = presets
            .map(IdentityHeaderSpec::Preset)
            .into_iter()
            .chain(named.map(IdentityHeaderSpec::Named))
            .collect();
        IdentityHeaders::new(&specs).expect("no name is there twice")
    })
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().expect("it was UTF-8").into_owned()
}

fn typed(name: &SubjectAltName) -> Option<String> {
    Some(match name {
        SubjectAltName::Dns(name) => format!("DNS:{name}"),
        SubjectAltName::Email(name) => format!("email:{name}"),
        SubjectAltName::Uri(name) => format!("URI:{name}"),
        SubjectAltName::Ip(ip) => format!("IP:{ip}"),
        SubjectAltName::Other => return None,
    })
}

/// As an origin reads it that minds quotes, and as one reads it that does not.
fn xfcc(text: &str, identity: &ClientIdentity) {
    let certificate = identity.certificate();
    let fields: Vec<(&str, &str)> =
        text.split(';').map(|field| field.split_once('=').expect("a field")).collect();
    let values = |key: &str| {
        let of = fields.iter().filter(|(known, _)| *known == key);
        of.map(|(_, value)| {
            let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value);
            assert!(!value.contains(['"', '\\']), "{text}");
            decoded(value)
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(values("Hash"), [certificate.fingerprint().to_string()]);
    assert_eq!(values("Subject"), [certificate.subject().to_string()]);
    let sans = |wanted: fn(&SubjectAltName) -> Option<&String>| {
        certificate.subject_alternative_names().iter().filter_map(wanted).cloned().collect::<Vec<_>>()
    };
    assert_eq!(values("URI"), sans(|name| if let SubjectAltName::Uri(it) = name { Some(it) } else { None }));
    assert_eq!(values("DNS"), sans(|name| if let SubjectAltName::Dns(it) = name { Some(it) } else { None }));
    let known = ["Hash", "Cert", "Chain", "Subject", "URI", "DNS"];
    assert!(fields.iter().all(|(key, _)| known.contains(key)), "{text}");
    let outside = text.split('"').step_by(2).collect::<String>();
    assert!(!outside.contains(','), "a comma would begin a second client: {text}");
}
