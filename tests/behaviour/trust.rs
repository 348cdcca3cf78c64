//! Chains, intermediates, and domains that overlap.

use crate::support::{Origin, Site, run};

/// `leaf.crt` is issued by `intermediate.crt`, which is issued by `ca.crt`; `chained.crt` is leaf and intermediate.
const COMMANDS: &str = r#"
openssl ecparam -name prime256v1 -genkey -noout -out intermediate.key
openssl req -new -key intermediate.key -subj "/CN=Intermediate" -out intermediate.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' > ca.ext
openssl x509 -req -days 30 -in intermediate.csr -CA ca.crt -CAkey ca.key -set_serial 77 -extfile ca.ext -out intermediate.crt
openssl ecparam -name prime256v1 -genkey -noout -out leaf.key
openssl req -new -key leaf.key -subj "/OU=sensors/CN=leaf" -out leaf.csr
openssl x509 -req -days 30 -in leaf.csr -CA intermediate.crt -CAkey intermediate.key -set_serial 78 -out leaf.crt
cat leaf.crt intermediate.crt > chained.crt
cp leaf.key chained.key
"#;

fn site() -> Site {
    let site = Site::new();
    run(site.path(), "sh", &["-e", "-c", COMMANDS]);
    site
}

#[test]
fn a_presented_intermediate_leads_to_the_anchor_and_a_missing_one_does_not() {
    let (site, origin) = (site(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let reply = site.curl(Some("chained"), &[], "/");
    assert_eq!((reply.status, reply.header("X-Client-CN")), (200, Some("leaf")));
    assert!(reply.header("Client-Cert-Chain").is_some_and(|chain| chain.starts_with(":MII")), "{reply:?}");
    assert_eq!(site.curl(Some("leaf"), &[], "/").status, 0);
    gateway.logged(&["unknown_issuer", "`CN=leaf,OU=sensors`", "`CN=Intermediate`"]);
}

#[test]
fn an_intermediate_in_the_bundle_is_an_anchor() {
    let (site, origin) = (site(), Origin::start());
    site.configure(&origin.address, &[("trust", "{ fleet: { anchors: intermediate.crt } }")]);
    let _gateway = site.start();
    assert_eq!(site.curl(Some("leaf"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 0, "its issuer is not in the bundle");
}

#[test]
fn a_chain_longer_or_larger_than_allowed_is_refused() {
    let (site, origin) = (site(), Origin::start());
    site.configure(&origin.address, &[("trust", "{ fleet: { anchors: ca.crt, max_depth: 0 } }")]);
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("chained"), &[], "/").status, 0);
    gateway.logged(&["chain_too_long"]);
    site.configure(&origin.address, &[("trust", "{ fleet: { anchors: ca.crt, max_chain_bytes: 600 } }")]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(site.curl(Some("chained"), &[], "/").status, 0);
    gateway.logged(&["bytes of certificates (allowed: 600)"]);
}

#[test]
fn a_revoked_intermediate_takes_its_clients_with_it() {
    let (site, origin) = (site(), Origin::start());
    site.pki(&["revoke", "intermediate.crt"]);
    site.pki(&["crl"]);
    site.configure(
        &origin.address,
        &[("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }")],
    );
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("chained"), &[], "/").status, 0);
    gateway.logged(&["\"revoked\"", "`CN=Intermediate`"]);
}

#[test]
fn a_resumed_session_still_knows_the_intermediates() {
    let (site, origin) = (site(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for flag in ["-tls1_2", "-tls1_3"] {
        let client = ["-cert", "leaf.crt", "-key", "leaf.key", "-cert_chain", "intermediate.crt", flag];
        let first = site.s_client(&[&client[..], &["-sess_out", flag]].concat(), request);
        let second = site.s_client(&[&client[..], &["-sess_in", flag]].concat(), request);
        let chain = |output: &str| {
            output.lines().find(|line| line.starts_with("client-cert-chain: ")).map(str::to_owned)
        };
        assert!(second.contains("Reused, TLS"), "{flag}\n{second}");
        assert!(chain(&first).is_some() && chain(&first) == chain(&second), "{flag}\n{second}");
    }
}

#[test]
fn where_domains_overlap_the_order_of_the_listener_decides() {
    let (site, origin) = (site(), Origin::start());
    let trust = "{ all: { anchors: ca.crt }, some: { anchors: intermediate.crt } }";
    for (order, expected) in [("[all, some]", "all"), ("[some, all]", "some")] {
        let listeners = format!(
            "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
             client_auth: {{ mode: require, trust: {order} }} }}]"
        );
        site.configure(
            &origin.address,
            &[("listeners", &listeners), ("trust", trust), ("routes", "[{ pool: main }]")],
        );
        let _gateway = site.start();
        assert_eq!(site.curl(Some("chained"), &[], "/").header("X-Client-Trust-Domain"), Some(expected));
    }
}

#[test]
fn the_same_name_from_another_trusted_authority_is_another_client() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki_in("staff", &["init", "--common-name", "Staff CA"]);
    site.pki_in("staff", &["issue", "impostor", "--subject", "CN=sensor-1,OU=sensors"]);
    let trust = "{ fleet: { anchors: ca.crt }, staff: { anchors: staff/ca.crt } }";
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { mode: require, trust: [fleet, staff] } }]";
    site.configure(&origin.address, &[("listeners", listeners), ("trust", trust)]);
    let _gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("staff/impostor"), &[], "/").status, 403, "the route names the fleet");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_client_that_one_domain_revoked_does_not_get_in_through_another_in_either_order() {
    let (site, origin) = (site(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["revoke", "sensor-2.crt"]);
    site.pki(&["crl"]);
    let trust = "{ listed: { anchors: ca.crt, revocation: { lists: [ca.crl] } }, bare: { anchors: ca.crt } }";
    for order in ["[listed, bare]", "[bare, listed]"] {
        let listeners = format!(
            "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
             client_auth: {{ mode: require, trust: {order} }} }}]"
        );
        site.configure(
            &origin.address,
            &[("listeners", &listeners), ("trust", trust), ("routes", "[{ pool: main }]")],
        );
        let gateway = site.start();
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "{order}");
        assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 0, "{order}");
        gateway.logged(&["\"revoked\"", "CN=sensor-2"]);
    }
}

#[test]
fn clients_with_every_usual_kind_of_key_are_let_in_and_one_with_a_short_key_is_not() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("routes", "[{ pool: main }]")]);
    let _gateway = site.start();
    for (name, key) in [
        ("p256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("p384", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["ed25519"]),
        ("rsa2048", &["rsa:2048"]),
        ("rsa1024", &["rsa:1024"]),
    ] {
        let command = format!(
            "openssl req -new -nodes -newkey {} -keyout {name}.key -out {name}.csr -subj /CN={name} && openssl x509 -req \
             -in {name}.csr -CA ca.crt -CAkey ca.key -set_serial 7 -days 3 -out {name}.crt",
            key.join(" ")
        );
        run(site.path(), "sh", &["-c", &command]);
        for version in ["1.2", "1.3"] {
            // curl's own library would not show a short key at its usual level of security.
            let arguments = ["--tls-max", version, "--ciphers", "DEFAULT:@SECLEVEL=0"];
            let status = site.curl(Some(name), &arguments, "/").status;
            assert_eq!(status, if name == "rsa1024" { 0 } else { 200 }, "{name} in TLS {version}");
        }
    }
}

#[test]
fn a_client_that_comes_again_is_told_and_recorded_like_the_first_time_and_refused_once_revoked() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["crl"]);
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }";
    site.configure(&origin.address, &[("trust", trust)]);
    let gateway = site.start();
    for _ in 0..3 {
        assert_eq!(site.curl(Some("sensor-1"), &["--http1.1"], "/").status, 200);
    }
    let seen = origin.requests();
    assert!(seen.len() == 3 && seen.iter().all(|request| *request == seen[0]), "{seen:?}");
    gateway.logged(&["\"request\"", "\"path\":\"/\""]);
    let told = |line: &str| {
        let from = line.find("\"listener\"")?;
        let (peer, rest) = line[from..].split_once("\"result\"")?;
        let _ = peer;
        Some(rest.split_once("\"duration_seconds\"")?.0.to_owned())
    };
    let log = crate::support::eventually("three are recorded", || {
        let log = gateway.log();
        (log.matches("\"kind\":\"connection\"").count() >= 3).then_some(log)
    });
    let records: Vec<_> =
        log.lines().filter(|line| line.contains("\"kind\":\"connection\"")).map(told).collect();
    assert!(records[0].is_some() && records.iter().all(|record| *record == records[0]), "{records:?}");
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(site.curl(Some("sensor-1"), &["--http1.1"], "/").status, 0);
    gateway.logged(&["\"kind\":\"connection\"", "revoked", "sensor-1"]);
}
