//! Certificates for tests, put together byte by byte: any name, no key behind it.

use crate::certificate::{AttributeKind, Certificate};
use crate::trust::ClientIdentity;

/// What the certificate says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    subject: Vec<(AttributeKind, String)>,
    issuer: Vec<(AttributeKind, String)>,
    serial: u8,
    names: Vec<(u8, Vec<u8>)>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self { issuer: vec![(AttributeKind::CommonName, "Root".into())], serial: 0x1f, ..Self::default() }
    }

    pub(crate) fn subject(mut self, key: &str, value: &str) -> Self {
        self.subject.push((AttributeKind::from_key(key).unwrap(), value.to_owned()));
        self
    }

    pub(crate) fn subject_all(self, key: &str, values: &[&str]) -> Self {
        values.iter().fold(self, |sample, value| sample.subject(key, value))
    }

    pub(crate) fn issuer(mut self, key: &str, value: &str) -> Self {
        self.issuer = vec![(AttributeKind::from_key(key).unwrap(), value.to_owned())];
        self
    }

    /// At most 127.
    pub(crate) fn serial(mut self, serial: u8) -> Self {
        self.serial = serial;
        self
    }

    pub(crate) fn email(self, address: &str) -> Self {
        self.name(0x81, address.as_bytes())
    }

    pub(crate) fn dns(self, name: &str) -> Self {
        self.name(0x82, name.as_bytes())
    }

    pub(crate) fn uri(self, uri: &str) -> Self {
        self.name(0x86, uri.as_bytes())
    }

    pub(crate) fn ip(self, address: [u8; 4]) -> Self {
        self.name(0x87, &address)
    }

    fn name(mut self, tag: u8, value: &[u8]) -> Self {
        self.names.push((tag, value.to_vec()));
        self
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_der(&self.der()).unwrap()
    }

    pub(crate) fn identity(&self, trust_domain: &str) -> ClientIdentity {
        ClientIdentity::for_tests(trust_domain, self.certificate())
    }

    fn der(&self) -> Vec<u8> {
        // ecPublicKey on prime256v1, and ecdsa-with-SHA256.
        let curve = sequence(&[oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")]);
        let algorithm = sequence(&[oid("1.2.840.10045.4.3.2")]);
        let validity = sequence(&[element(0x17, b"260101000000Z"), element(0x17, b"270101000000Z")]);
        let mut parts = vec![
            element(0xa0, &element(2, &[2])),
            element(2, &[self.serial]),
            algorithm.clone(),
            distinguished_name(&self.issuer),
            validity,
            distinguished_name(&self.subject),
            sequence(&[curve, element(3, &[&[0u8, 4][..], &[7; 64]].concat())]),
        ];
        if !self.names.is_empty() {
            let names: Vec<_> = self.names.iter().map(|(tag, value)| element(*tag, value)).collect();
            let extension = sequence(&[oid("2.5.29.17"), element(4, &sequence(&names))]);
            parts.push(element(0xa3, &sequence(&[extension])));
        }
        sequence(&[sequence(&parts), algorithm, element(3, &[0, 1])])
    }
}

fn distinguished_name(attributes: &[(AttributeKind, String)]) -> Vec<u8> {
    let rdn = |(kind, value): &(AttributeKind, String)| {
        element(0x31, &sequence(&[oid(kind.oid()), element(12, value.as_bytes())]))
    };
    sequence(&attributes.iter().map(rdn).collect::<Vec<_>>())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..128 => vec![tag, length as u8],
        128..65_536 => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        _ => panic!("too long for a test"),
    };
    // From 128 to 255 one byte would do, and DER wants the shortest.
    let header = if (128..256).contains(&length) { vec![tag, 0x81, length as u8] } else { header };
    [header, content.to_vec()].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn oid(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u32> = dotted.split('.').map(|arc| arc.parse().unwrap()).collect();
    let mut content = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for arc in &arcs[2..] {
        let groups = (0..5).rev().map(|group| (arc >> (7 * group) & 0x7f) as u8);
        let mut groups: Vec<u8> = groups.skip_while(|group| *group == 0).collect();
        let last = groups.pop().unwrap_or(0);
        content.extend(groups.iter().map(|group| group | 0x80));
        content.push(last);
    }
    element(6, &content)
}
