//! Who is kept out: revocation lists as authorities publish them, and deny lists.

use std::io::BufReader;
use std::sync::Arc;

use openssl::x509::X509Crl;
use portcullis::certificate::{Serial, pem_encode};
use portcullis::trust::{DenyForm, DenyIndexBuilder, DenyList, RevocationError, RevocationList};

use crate::Target;
use crate::authority::{ALGORITHM, NOW, authority, sign};
use crate::der::{element, extension, sequence};

pub const FILE: Target = Target {
    name: "revocation_file",
    about: "a file of revocation lists: read at once or in pieces it says the same, and never `nobody` by mistake",
    run: |bytes| {
        let issuers = std::slice::from_ref(&authority().certificate);
        let whole = RevocationList::read_all(bytes, issuers, NOW);
        let pieces = RevocationList::read_from(BufReader::with_capacity(7, bytes), issuers, NOW);
        assert_eq!(said(&whole), said(&pieces));
        if let Ok(lists) = whole {
            assert!(!lists.is_empty());
            // Whatever was signed stands in it as it was: nothing that it revokes can be missing.
            for list in lists {
                assert!(list.is_by(&authority().certificate));
                assert!([0, 3].contains(&list.len()), "{list:?}");
            }
        }
    },
    seeds: || {
        let (some, none) = (signed_list(&body(true)), signed_list(&body(false)));
        let pem = pem_encode(&some, "X509 CRL");
        let two = format!("by hand\r\n{pem}{}", pem_encode(&none, "X509 CRL"));
        vec![some, none, pem.into_bytes(), two.into_bytes()]
    },
};

pub const SIGNED: Target = Target {
    name: "revocation_list",
    about: "what of a revocation list is signed, whatever it says: the TLS library's reader revokes nobody whom ours does not",
    run: |bytes| {
        let der = signed_list(bytes);
        let issuers = std::slice::from_ref(&authority().certificate);
        let Ok(list) = RevocationList::read(&der, issuers, NOW) else { return };
        let Ok(theirs) = X509Crl::from_der(&der) else { return };
        let Some(revoked) = theirs.get_revoked() else { return };
        for entry in revoked {
            let Ok(number) = entry.serial_number().to_bn() else { continue };
            if number.is_negative() || number.num_bytes() == 0 {
                continue;
            }
            let Some(serial) = Serial::from_be_bytes(&number.to_vec()) else { continue };
            // The last word on a serial counts; a delta list may take one off.
            assert!(list.find(&serial).is_some() || list.is_delta(), "{serial} is not revoked");
        }
    },
    seeds: || vec![body(true), body(false)],
};

/// What can be told of lists, or why there are none.
fn said(lists: &Result<Vec<RevocationList>, RevocationError>) -> Result<Vec<String>, &RevocationError> {
    let said = |list: &RevocationList| {
        let (until, number) = (list.next_update(), list.number());
        format!(
            "{} {} {} {until:?} {number:?} {}",
            list.issuer(),
            list.scope(),
            list.this_update(),
            list.len()
        )
    };
    lists.as_ref().map(|lists| lists.iter().map(said).collect())
}

fn signed_list(body: &[u8]) -> Vec<u8> {
    sign(&sequence(&[body]), &authority().key)
}

/// The content of a TBSCertList.
fn body(revokes: bool) -> Vec<u8> {
    let time = |text: &str| element(0x17, text.as_bytes());
    let reason = |code| extension(21, &[0x0a, 1, code]);
    let entry = |serial: &[u8], extensions: &[u8]| {
        let extensions = if extensions.is_empty() { Vec::new() } else { sequence(&[extensions]) };
        sequence(&[&element(2, serial), &time("260501000000Z"), &extensions])
    };
    let entries = sequence(&[
        &entry(&[0x10], &reason(1)),
        &entry(&[0, 0xff, 1, 2, 3], &[]),
        &entry(&[0x7f; 20], &[reason(6), extension(24, &element(0x18, b"20260401000000Z"))].concat()),
    ]);
    let point =
        sequence(&[&element(0xa0, &element(0xa0, &element(0x86, b"http://a/crl"))), &[0x81, 1, 0xff]]);
    let extensions = [
        extension(20, &[2, 1, 5]),
        extension(28, &point),
        extension(35, &sequence(&[&element(0x80, b"id")])),
    ];
    [
        &[2, 1, 1][..],
        ALGORITHM,
        authority().certificate.subject().raw(),
        &time("260501000000Z"),
        &time("260701000000Z"),
        if revokes { &entries } else { &[] },
        &element(0xa0, &sequence(&[&extensions.concat()])),
    ]
    .concat()
}

pub const DENY: Target = Target {
    name: "deny_list",
    about: "a deny list, YAML or (first byte `c`) CSV: what is read survives being written again",
    run: |bytes| {
        let Some((form, text)) = bytes.split_first() else { return };
        let form = if *form == b'c' { DenyForm::Csv } else { DenyForm::Yaml };
        let mut index = DenyIndexBuilder::new(&Arc::from("fleet"));
        match index.read("list", form, text) {
            Ok(()) => drop(index.finish()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let (DenyForm::Yaml, Ok(text)) = (form, std::str::from_utf8(text)) else { return };
        let Ok(list) = DenyList::from_yaml("list", text) else { return };
        let again = list.to_yaml();
        match DenyList::from_yaml("list", &again) {
            Ok(written) => assert_eq!(written, list, "{again}"),
            Err(error) => panic!("{error}\n{again}"),
        }
    },
    seeds: || {
        let digest = "ab".repeat(32);
        [
            format!("ydeny:\n- fingerprint: {digest}\n  reason: 'it''s: lost'\n  until: 2027-01-01T00:00:00Z\n- serial: \"0A:ff\"\n  issuer: CN=Root\\, Inc.\n  trust: fleet\n"),
            "ydeny:\n- subject: { CN: device-1, OU: a }\n- san: [\"dns:a.example\", \"ip:::1\"]\n- subject: CN=x,O=y\n  san: { uri: 'spiffe://a' }\n".to_owned(),
            format!("cserial,issuer,fingerprint,reason,until\n0A,CN=Root,,lost,\n,,{digest},\"a,\"\"b\",2027-01-01T00:00:00Z\n# c\n"),
            "csubject,san,trust\nCN=a,,fleet\n,dns:b,\n".to_owned(),
            "ydeny: []\n".to_owned(),
        ]
        .map(String::into_bytes)
        .to_vec()
    },
};
