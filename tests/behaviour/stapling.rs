//! OCSP responses about the gateway's own certificates: stapled while they may be believed, and never otherwise.

use std::process::Command;

use crate::support::ocsp::{Response, Status};
use crate::support::publisher::{Manner, Publisher};
use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

/// A site whose certificates are `certificates`, in the YAML of the configuration.
fn configure(site: &Site, origin: &Origin, certificates: &str) {
    let listeners = format!(
        "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{certificates}] }}, \
         client_auth: {{ trust: [fleet] }} }}]"
    );
    let server = if certificates.contains("localhost:") || certificates.contains("from_certificate") {
        "{ threads: 1, drain_timeout: 1s, state_directory: state }"
    } else {
        "{ threads: 1, drain_timeout: 1s }"
    };
    site.configure(&origin.address, &[("listeners", &listeners), ("server", server)]);
}

/// The certificate `name`, whose responder is `responder`.
fn with_responder(site: &Site, origin: &Origin, name: &str, responder: &str) {
    let ocsp = format!("{{ responder: \"{responder}\", issuer: ca.crt, timeout: 1s }}");
    configure(site, origin, &format!("{{ chain: {name}.crt, key: {name}.key, ocsp: {ocsp} }}"));
}

fn fetches(gateway: &Gateway, result: &str) -> f64 {
    let labels = format!("{{listener=\"edge\",result=\"{result}\",subject=\"CN=localhost\"}}");
    gateway.metric(&format!("portcullis_ocsp_fetches_total{labels}"))
}

fn with_response(site: &Site, origin: &Origin) {
    configure(
        site,
        origin,
        "{ chain: server.crt, key: server.key, ocsp: { file: server.ocsp, issuer: ca.crt } }",
    );
}

/// What a client that asks for a staple is given.
fn stapled(site: &Site, arguments: &[&str]) -> String {
    let told = site.s_client(
        &[&["-status"], arguments].concat(),
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(told.contains("HTTP/1.1 "), "{told}");
    told
}

fn none(site: &Site) -> bool {
    stapled(site, &[]).contains("OCSP response: no response sent")
}

fn serial(site: &Site, name: &str) -> String {
    let file = format!("{name}.crt");
    let told = run(site.path(), "openssl", &["x509", "-in", &file, "-noout", "-serial"]).stdout;
    String::from_utf8(told).unwrap().trim().replace("serial=", "Serial Number: ")
}

fn next_update(gateway: &Gateway) -> f64 {
    gateway.metric(
        "portcullis_ocsp_staple_next_update_timestamp_seconds{listener=\"edge\",subject=\"CN=localhost\"}",
    )
}

#[test]
fn each_certificate_has_its_own_staple_in_each_version_of_tls() {
    let (site, origin) = (Site::new(), Origin::start());
    for name in ["second", "third"] {
        site.pki(&["issue", name, "--kind", "server", "--dns", &format!("{name}.test")]);
        run(site.path(), "sh", &["-c", &format!("cat {name}.crt ca.crt > {name}.pem")]);
    }
    for name in ["server", "second"] {
        Response::good(name).write(site.path(), &format!("{name}.ocsp"));
    }
    configure(
        &site,
        &origin,
        "{ chain: server.crt, key: server.key, ocsp: { file: server.ocsp, issuer: ca.crt } }, \
         { chain: second.pem, key: second.key, ocsp: { file: second.ocsp } }, { chain: third.pem, key: third.key }",
    );
    let gateway = site.start();
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, sni) in [("server", "localhost"), ("second", "second.test")] {
            let told = stapled(&site, &[version, "-servername", sni]);
            for part in ["OCSP Response Status: successful", "Cert Status: good", &serial(&site, name)] {
                assert!(told.contains(part), "{version} {name} {part}: {told}");
            }
        }
        let told = stapled(&site, &[version, "-servername", "third.test"]);
        assert!(told.contains("OCSP response: no response sent"), "{version}: {told}");
        let told = stapled(&site, &[version, "-noservername"]);
        assert!(told.contains(&serial(&site, "server")), "{version}: {told}");
    }
    assert!(next_update(&gateway) > 1e9);
    // A client that insists: curl needs the issuer in the chain to check it.
    let insist = |host: &str| {
        let resolve = format!("{host}:{}:127.0.0.1", site.port);
        let url = format!("https://{host}:{}/", site.port);
        site.curl_at(Some("sensor-1"), &["--cert-status", "--resolve", &resolve], &url).status
    };
    assert_eq!((insist("second.test"), insist("third.test")), (200, 0));
}

#[test]
fn a_response_is_given_no_longer_than_it_may_be_believed() {
    let (site, origin) = (Site::new(), Origin::start());
    Response { next_update: Some(6), ..Response::good("server") }.write(site.path(), "server.ocsp");
    with_response(&site, &origin);
    let gateway = site.start();
    assert!(stapled(&site, &[]).contains("Cert Status: good"));
    eventually("it is given no more", || none(&site).then_some(()));
    assert!(gateway.metric("portcullis_reloads_total{result=\"ok\"}") < 0.5, "without a reload");
    Response::good("server").write(site.path(), "server.ocsp");
    eventually("the next one is given", || stapled(&site, &[]).contains("Cert Status: good").then_some(()));
    std::fs::write(site.path().join("server.ocsp"), "damaged").unwrap();
    gateway.logged(&["reload refused", "certificates[0].ocsp.file: `server.ocsp` cannot be used"]);
    assert!(stapled(&site, &[]).contains("Cert Status: good"), "what was in force stays");
}

#[test]
fn what_is_of_no_use_to_clients_is_not_given_to_them() {
    let (site, origin) = (Site::new(), Origin::start());
    with_response(&site, &origin);
    let good = Response::good("server");
    for (response, told) in [
        (Response { status: Status::Revoked, ..good.clone() }, "it says that the certificate was revoked"),
        (Response { status: Status::Unknown, ..good.clone() }, "it says that the certificate is not known"),
        (
            Response { this_update: -7200, next_update: Some(-3600), ..good.clone() },
            "it could be believed until",
        ),
    ] {
        response.write(site.path(), "server.ocsp");
        let gateway = site.start();
        gateway.logged(&["certificates[0].ocsp.file: `server.ocsp` is not stapled", told]);
        assert!(none(&site), "{told}");
        assert!(next_update(&gateway) < 0.5, "{told}");
    }
}

#[test]
fn what_is_no_response_about_the_certificate_is_refused() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["issue", "other", "--kind", "server", "--dns", "other.test"]);
    site.pki_in("foreign", &["init", "--common-name", "Test CA"]);
    for file in ["ca.crt", "ca.key"] {
        let to = site.path().join(file.replace("ca", "foreign"));
        std::fs::copy(site.path().join("foreign").join(file), to).unwrap();
    }
    // May a server or a client sign? Neither; whom the authority made for it may.
    run(site.path(), "sh", &["-c", RESPONDER]);
    with_response(&site, &origin);
    let good = Response::good("server");
    let refused = |bytes: &[u8]| {
        std::fs::write(site.path().join("server.ocsp"), bytes).unwrap();
        let output = Command::new(BINARY)
            .args(["check", "-c", "gateway.yaml"])
            .current_dir(site.path())
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code() == Some(1)).then_some(text)
    };
    let whole = good.encode(site.path());
    assert_eq!(refused(&whole), None);
    let mut forged = whole.clone();
    *forged.last_mut().unwrap() ^= 1;
    let signed_by = |signer| Response { signer, shows_signer: true, ..good.clone() }.encode(site.path());
    for (bytes, told) in [
        (b"<html>".to_vec(), "it is not an OCSP response"),
        (whole[..whole.len() / 2].to_vec(), "it is not an OCSP response"),
        (Vec::new(), "is empty"),
        (vec![0x30, 3, 0x0a, 1, 3], "it asks to try later"),
        (vec![0x30, 3, 0x0a, 1, 6], "it knows nothing of this certificate"),
        (forged, "it is signed neither by the certificate's issuer nor"),
        (signed_by("foreign"), "it is signed neither by the certificate's issuer nor"),
        (signed_by("other"), "it is signed neither by the certificate's issuer nor"),
        (Response::good("other").encode(site.path()), "it is about another certificate"),
        (Response { next_update: None, ..good.clone() }.encode(site.path()), "it has no nextUpdate"),
        (
            Response { this_update: 3600, next_update: Some(7200), ..good.clone() }.encode(site.path()),
            "from the future",
        ),
    ] {
        let text = refused(&bytes).unwrap_or_else(|| panic!("{told}: it is accepted"));
        assert!(text.contains("certificates[0].ocsp.file: ") && text.contains(told), "{told}: {text}");
    }
    assert_eq!(refused(&signed_by("responder")), None, "whom the issuer made for it may sign");
    for (ocsp, told) in [
        ("{ file: server.ocsp }", "ocsp.issuer: the chain does not have the certificate"),
        ("{ file: server.ocsp, issuer: foreign.crt }", "ocsp.issuer: this is not the certificate"),
        ("{ file: missing.ocsp, issuer: ca.crt }", "ocsp.file: "),
        ("{ issuer: ca.crt }", "ocsp: one thing must say where the response comes from"),
        ("{ file: server.ocsp, responder: \"http://a.test\" }", "ocsp: one thing must say where"),
        ("{ responder: \"ftp://a.test\", issuer: ca.crt }", "ocsp.responder: `ftp://a.test` is not a URL"),
        ("{ responder: \"http://a.test\", issuer: ca.crt }", "hint: set `server.state_directory`"),
    ] {
        configure(&site, &origin, &format!("{{ chain: server.crt, key: server.key, ocsp: {ocsp} }}"));
        let text = refused(&whole).unwrap();
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn check_tells_of_a_certificate_that_must_be_stapled_and_is_not() {
    let (site, origin) = (Site::new(), Origin::start());
    run(site.path(), "sh", &["-c", MUST_STAPLE]);
    let check = || {
        let output = run(site.path(), BINARY, &["check", "-c", "gateway.yaml"]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    configure(&site, &origin, "{ chain: must.crt, key: must.key }");
    let told = check();
    assert!(told.contains("ocsp: missing, but `CN=localhost`") && told.contains("must-staple"), "{told}");
    Response::good("must").write(site.path(), "must.ocsp");
    configure(
        &site,
        &origin,
        "{ chain: must.crt, key: must.key, ocsp: { file: must.ocsp, issuer: ca.crt } }",
    );
    assert!(!check().contains("ocsp"), "{}", check());
    let expired = Response { this_update: -7200, next_update: Some(-3600), ..Response::good("must") };
    expired.write(site.path(), "must.ocsp");
    assert!(check().contains("is not stapled"), "{}", check());
}

#[test]
fn a_response_is_fetched_kept_and_renewed_before_it_ends() {
    let (site, origin) = (Site::new(), Origin::start());
    let short = Response { next_update: Some(12), ..Response::good("server") };
    let publisher = Publisher::start(Manner::Body(short.encode(site.path())));
    with_responder(&site, &origin, "server", &publisher.url);
    let gateway = site.start();
    assert!(stapled(&site, &[]).contains("Cert Status: good"), "from the first handshake on");
    let request = &publisher.requests()[0];
    assert!(
        request.starts_with("post ") && request.contains("content-type: application/ocsp-request"),
        "{request}"
    );
    let first = next_update(&gateway);
    publisher.becomes(Manner::Body(Response::good("server").encode(site.path())));
    eventually("it is renewed", || {
        assert!(stapled(&site, &[]).contains("Cert Status: good"), "and there is always one");
        (next_update(&gateway) > first + 60.0).then_some(())
    });
    gateway.logged(&["the OCSP response about `CN=localhost` from", "was fetched: it says `good` until"]);
    drop(gateway);
    publisher.becomes(Manner::Down);
    let gateway = site.start();
    assert!(stapled(&site, &[]).contains("Cert Status: good"), "the kept one");
    eventually("it is asked for", || (fetches(&gateway, "unreachable") > 0.5).then_some(()));
    gateway
        .logged(&["could not be fetched", "what was fetched last is stapled as long as it may be believed"]);
}

#[test]
fn nothing_is_stapled_that_a_responder_should_not_have_said() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["issue", "other", "--kind", "server", "--dns", "other.test"]);
    let good = Response::good("server");
    let body = |response: &Response| Manner::Body(response.encode(site.path()));
    for (manner, result, told) in [
        (Manner::Page("500 Internal Server Error"), "status", "status 500"),
        (Manner::Page("200 OK"), "refused", "it is not an OCSP response"),
        (
            body(&Response { status: Status::Revoked, ..good.clone() }),
            "refused",
            "the certificate was revoked",
        ),
        (body(&Response { next_update: Some(-1), ..good.clone() }), "refused", "it could be believed until"),
        (body(&Response::good("other")), "refused", "it is about another certificate"),
        (Manner::Body(vec![0x30, 3, 0x0a, 1, 3]), "refused", "it asks to try later"),
        (Manner::Announced(1_000_000_000), "too_large", "larger than 65536 bytes"),
        (Manner::Silent, "timeout", "no whole answer within 1 s"),
    ] {
        let publisher = Publisher::start(manner);
        with_responder(&site, &origin, "server", &publisher.url);
        let gateway = site.start();
        eventually(told, || (fetches(&gateway, result) > 0.5).then_some(()));
        gateway.logged(&["could not be fetched", told, "none is stapled"]);
        assert!(none(&site), "{told}");
        publisher.becomes(body(&good));
        eventually("the next attempt succeeds", || {
            stapled(&site, &[]).contains("Cert Status: good").then_some(())
        });
    }
}

#[test]
fn the_responder_that_the_certificate_names_is_asked_only_if_that_is_wanted() {
    let (site, origin) = (Site::new(), Origin::start());
    let publisher = Publisher::start(Manner::Down);
    let certificate = MUST_STAPLE
        .replace("tlsfeature=status_request", &format!("authorityInfoAccess=OCSP;URI:{}", publisher.url));
    run(site.path(), "sh", &["-c", &certificate]);
    publisher.becomes(Manner::Body(Response::good("must").encode(site.path())));
    configure(&site, &origin, "{ chain: must.crt, key: must.key }");
    let gateway = site.start();
    assert!(none(&site) && publisher.requests().is_empty());
    drop(gateway);
    with_responder(&site, &origin, "must", "from_certificate");
    let gateway = site.start();
    assert!(stapled(&site, &[]).contains("Cert Status: good"));
    with_responder(&site, &origin, "server", "from_certificate");
    let (status, told) = gateway.reload();
    assert!(status == 422 && told.contains("the certificate names no OCSP responder"), "{told}");
}

#[test]
fn a_renewed_certificate_that_must_be_stapled_comes_with_its_response() {
    let (site, origin) = (Site::new(), Origin::start());
    run(site.path(), "sh", &["-c", MUST_STAPLE]);
    let publisher = Publisher::start(Manner::Body(Response::good("must").encode(site.path())));
    with_responder(&site, &origin, "must", &publisher.url);
    let gateway = site.start();
    let old = serial(&site, "must");
    assert!(stapled(&site, &[]).contains(&old));
    run(site.path(), "sh", &["-c", &MUST_STAPLE.replace("must.", "next.")]);
    publisher.becomes(Manner::Body(Response::good("next").encode(site.path())));
    let new = serial(&site, "next");
    run(site.path(), "sh", &["-c", "mv next.key must.key && mv next.crt must.crt"]);
    eventually("the new one is shown", || {
        let told = stapled(&site, &[]);
        assert!(told.contains("Cert Status: good"), "there is always a response: {told}");
        told.contains(&new).then_some(())
    });
    assert!(gateway.log().contains("was fetched"));
}

const RESPONDER: &str = "\
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout responder.key -subj /CN=responder \
        -out responder.csr 2>/dev/null && \
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=OCSPSigning\n' > responder.cnf && \
    openssl x509 -req -in responder.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile responder.cnf \
        -out responder.crt 2>/dev/null";

const MUST_STAPLE: &str = "\
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout must.key -subj /CN=localhost \
        -out must.csr 2>/dev/null && \
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\ntlsfeature=status_request\n' > must.cnf && \
    openssl x509 -req -in must.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile must.cnf \
        -out must.crt 2>/dev/null";
