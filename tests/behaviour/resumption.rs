//! A resumed session is worth what a fresh one would be.

use crate::support::{Gateway, Origin, Site};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

pub(crate) fn connect(site: &Site, version: &str, session: &[&str]) -> String {
    site.s_client(&[&[version, "-alpn", "http/1.1"], session].concat(), REQUEST)
}

fn identity(output: &str) -> Vec<&str> {
    let wanted = ["x-client-", "client-cert", "x-ssl-client", "x-forwarded-client"];
    output
        .lines()
        .filter(|line| wanted.iter().any(|name| line.to_ascii_lowercase().starts_with(name)))
        .collect()
}

fn declined(gateway: &Gateway, cause: &str) -> f64 {
    let labels = format!("{{cause=\"{cause}\",listener=\"edge\"}}");
    gateway.metric(&format!("portcullis_tls_resumptions_declined_total{labels}"))
}

fn resumed(gateway: &Gateway, version: &str) -> f64 {
    gateway.metric(&format!(
        "portcullis_tls_handshakes_total{{listener=\"edge\",result=\"ok\",resumed=\"yes\",version=\"{version}\"}}"
    ))
}

#[test]
fn identity_after_resumption_equals_identity_before() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        let first = connect(&site, flag, &["-sess_out", version]);
        let second = connect(&site, flag, &["-sess_in", version]);
        assert!(first.contains("New, TLS") && second.contains("Reused, TLS"), "{version}\n{second}");
        assert!(identity(&first).len() >= 10, "{first}");
        assert_eq!(identity(&first), identity(&second));
        assert!((resumed(&gateway, version) - 1.0).abs() < 0.1);
    }
}

#[test]
fn a_revoked_client_cannot_resume() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["crl"]);
    site.configure(
        &origin.address,
        &[("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }")],
    );
    let gateway = site.start();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        assert!(connect(&site, flag, &["-sess_out", version]).contains("200 OK"));
        assert!(
            connect(&site, flag, &["-sess_in", version]).contains("Reused, TLS"),
            "a reload must not be needed"
        );
    }
    assert_eq!(gateway.reload().0, 200);
    assert!(
        connect(&site, "-tls1_3", &["-sess_in", "1.3"]).contains("Reused, TLS"),
        "tickets survive a reload"
    );
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        let output = connect(&site, flag, &["-sess_in", version]);
        assert!(!output.contains("200 OK"), "{version}\n{output}");
    }
    gateway.logged(&["\"revoked\"", "CN=sensor-1"]);
    assert!((declined(&gateway, "revoked") - 2.0).abs() < 0.1);
}

#[test]
fn a_session_of_one_listener_is_worth_nothing_at_another() {
    let (site, origin) = (Site::new(), Origin::start());
    let other = crate::support::free_port();
    let listener = |name: &str, port: &str, mode: &str| {
        format!(
            "{{ name: {name}, address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ chain: server.crt, key: \
             server.key }}] }}, client_auth: {{ mode: {mode}, trust: [fleet] }} }}"
        )
    };
    let listeners = format!(
        "[{}, {}]",
        listener("edge", "PORT", "require"),
        listener("other", &other.to_string(), "optional")
    );
    site.configure(&origin.address, &[("listeners", &listeners)]);
    let _gateway = site.start();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        assert!(connect(&site, flag, &["-sess_out", version]).contains("200 OK"));
        let elsewhere = Site { directory: tempfile::tempdir().unwrap(), port: other, admin: site.admin };
        for file in ["ca.crt", "sensor-1.crt", "sensor-1.key", version] {
            std::fs::copy(site.path().join(file), elsewhere.path().join(file)).unwrap();
        }
        let output = connect(&elsewhere, flag, &["-sess_in", version]);
        assert!(output.contains("New, TLS") && output.contains("200 OK"), "{version}\n{output}");
    }
}

#[test]
fn a_ticket_lives_from_the_full_handshake_however_often_it_is_renewed() {
    let (site, origin) = (Site::new(), Origin::start());
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { ticket_lifetime: 3s, certificates: [{ chain: \
                     server.crt, key: server.key }] }, client_auth: { mode: require, trust: [fleet] } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let gateway = site.start();
    let started = std::time::Instant::now();
    assert!(connect(&site, "-tls1_3", &["-sess_out", "s"]).contains("New, TLS"));
    let mut resumed = 0;
    crate::support::eventually("the session ends", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        // Each resumption brings a new ticket, which is used next.
        let output = connect(&site, "-tls1_3", &["-sess_in", "s", "-sess_out", "s"]);
        assert!(output.contains("200 OK"), "{output}");
        resumed += u32::from(output.contains("Reused, TLS"));
        output.contains("New, TLS").then_some(())
    });
    assert!(resumed >= 1 && started.elapsed().as_secs() >= 3, "{resumed} in {:?}", started.elapsed());
    assert!((declined(&gateway, "too_old") - 1.0).abs() < 0.1);
}

#[test]
fn a_client_whose_anchor_is_gone_cannot_resume() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "sensor-1", "--subject", "CN=sensor-1,OU=sensors"]);
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        assert!(connect(&site, flag, &["-sess_out", version]).contains("200 OK"));
        assert!(connect(&site, flag, &["-sess_in", version]).contains("Reused, TLS"));
    }
    site.configure(&origin.address, &[("trust", "{ fleet: { anchors: other/ca.crt } }")]);
    assert_eq!(gateway.reload().0, 200);
    for (flag, version) in [("-tls1_2", "1.2"), ("-tls1_3", "1.3")] {
        let output = connect(&site, flag, &["-sess_in", version]);
        assert!(!output.contains("200 OK"), "{version}\n{output}");
    }
    gateway.logged(&["unknown_issuer", "CN=sensor-1"]);
    assert!((declined(&gateway, "trust_removed") - 2.0).abs() < 0.1);
    assert_eq!(site.curl(Some("other/sensor-1"), &[], "/").status, 200);
}
