//! What operators write, and what others give them to put in place.

use std::path::Path;
use std::sync::Arc;

use portcullis::admin::{Parameters, Selector};
use portcullis::certificate::{PemReader, pem_blocks};
use portcullis::config::Config;
use portcullis::route::IdentityTable;

use crate::Target;

pub const PEM: Target = Target {
    name: "pem",
    about: "PEM blocks: read at once or while they come, they are the same",
    run: |bytes| {
        let whole = pem_blocks(bytes, "X509 CRL");
        let mut reader = PemReader::new(std::io::BufReader::with_capacity(5, bytes), "X509 CRL");
        let mut blocks = Ok(Vec::new());
        while let Ok(known) = &mut blocks {
            let mut block = Vec::new();
            match reader.next_block() {
                Ok(true) => match std::io::Read::read_to_end(&mut reader, &mut block) {
                    Ok(_) => known.push(block),
                    Err(error) => blocks = Err(error),
                },
                Ok(false) => break,
                Err(error) => blocks = Err(error),
            }
        }
        assert_eq!(whole.ok(), blocks.ok());
    },
    seeds: || {
        [
            "-----BEGIN X509 CRL-----\nQUJD\nQQ==\n-----END X509 CRL-----\n",
            "text\r\n-----BEGIN OTHER-----\r\nQUI=\r\n-----END OTHER-----\r\n-----BEGIN X509 CRL-----\r\nQUJDREVG\r\n-----END X509 CRL-----",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

pub const CONFIGURATION: Target = Target {
    name: "configuration",
    about: "the configuration: whatever is wrong with it is said, at a place",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Err(errors) = Config::parse(Path::new("conf/x.yaml"), text) {
            assert!(!errors.problems.is_empty() && !errors.to_string().is_empty());
        }
    },
    seeds: || {
        [include_str!("../../conf/company.yaml"), SMALL, "version: 1\nlisteners: &a [*a]\n"]
            .map(Vec::from)
            .to_vec()
    },
};

const SMALL: &str = r#"
version: 1
listeners:
  - address: "127.0.0.1:8443"
    tls: { certificates: [{ chain: a.crt, key: a.key }], minimum_version: "1.2" }
    client_auth: { trust: [fleet] }
trust: { fleet: { anchors: ca.crt } }
pools: { main: { endpoints: ["127.0.0.1:9000"], retries: 2, balance: { hash: client } } }
routes: [{ client: { trust: fleet, subject: { CN: { prefix: a } } }, request: { path: { regex: "/a.*" } }, pool: main }]
identity_headers: [rfc9440, { header: X-Device, field: subject.CN }]
trusted_proxies: ["192.0.2.0/24"]
"#;

pub const TABLE: Target = Target {
    name: "identity_table",
    about: "a table from identities to pools (CSV): every row is found, or its line is named",
    run: |bytes| {
        let pools: [Arc<str>; 2] = ["a".into(), "b".into()];
        match IdentityTable::parse(bytes, &pools) {
            Ok(table) => assert!(!table.is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    },
    seeds: || {
        ["key,pool\nsensor-1,a\n\"sensor,2\",b\n# c\n", " x , a \r\n\"y\"\"z\",b"].map(Vec::from).to_vec()
    },
};

pub const PARAMETERS: Target = Target {
    name: "parameters",
    about: "what an admin endpoint is asked: which clients are meant",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let (query, form) = text.split_once('\n').unwrap_or((text, ""));
        let Ok(mut parameters) = Parameters::parse(query, form.as_bytes()) else { return };
        let Ok(selector) = Selector::take(&mut parameters) else { return };
        if parameters.end(&Selector::NAMES).is_err() {
            return;
        }
        // What is told of the condition means the same condition.
        let pairs = selector.pairs();
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let again: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let mut parameters = Parameters::parse(&again.join("&"), b"").expect("each name once");
        let read = Selector::take(&mut parameters).unwrap_or_else(|error| panic!("{again:?}: {error}"));
        assert_eq!(read.pairs(), pairs);
    },
    seeds: || {
        [
            "subject=CN%3Da%2CO%3Db&address=127.0.0.1",
            "serial=0A&issuer=CN%3DRoot\nconnection=c-12",
            "fingerprint=00&listener=a+b&trust_domain=%C3%A9",
        ]
        .map(Vec::from)
        .to_vec()
    },
};
