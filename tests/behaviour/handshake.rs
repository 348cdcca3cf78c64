//! Who gets through the handshake, and what is counted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Origin, Site, eventually};

fn failures(gateway: &crate::support::Gateway, reason: &str) -> f64 {
    gateway
        .metric(&format!("portcullis_tls_handshake_failures_total{{listener=\"edge\",reason=\"{reason}\"}}"))
}

#[test]
fn h1_and_h2_over_tls_1_2_and_1_3_are_served_and_counted_apart() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (arguments, version) in [
        (&["--http1.1", "--tls-max", "1.2"][..], "1.1"),
        (&["--http2", "--tls-max", "1.2"], "2"),
        (&["--http1.1", "--tlsv1.3"], "1.1"),
        (&["--http2", "--tlsv1.3"], "2"),
    ] {
        let reply = site.curl(Some("sensor-1"), arguments, "/");
        assert_eq!((reply.status, reply.version.as_str()), (200, version), "{arguments:?}");
    }
    for version in ["1.2", "1.3"] {
        let name = format!(
            "portcullis_tls_handshakes_total{{listener=\"edge\",result=\"ok\",resumed=\"no\",version=\"{version}\"}}"
        );
        assert!((gateway.metric(&name) - 2.0).abs() < 0.1, "{version}");
    }
}

#[test]
fn a_client_that_sends_nothing_is_dropped_at_the_deadline() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let started = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(started.elapsed() >= Duration::from_millis(900) && started.elapsed() < Duration::from_secs(5));
    eventually("it is counted", || (failures(&gateway, "timeout") > 0.0).then_some(()));
}

#[test]
fn a_client_that_never_sends_its_request_is_dropped_and_an_idle_one_is_kept_longer() {
    let (site, origin) = (Site::new(), Origin::start());
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { mode: require, trust: [fleet] }, limits: { \
                     request_header_timeout: 1s, keepalive_timeout: 4s } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let _gateway = site.start();
    let started = Instant::now();
    let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], "");
    assert!(!output.contains("HTTP/1.1 200"), "{output}");
    assert!(started.elapsed() < Duration::from_millis(3500), "{:?}", started.elapsed());
    let started = Instant::now();
    let output = site.s_client(&["-quiet", "-alpn", "http/1.1"], "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(output.contains("HTTP/1.1 200"), "{output}");
    assert!(started.elapsed() >= Duration::from_millis(3500), "{:?}", started.elapsed());
    let started = Instant::now();
    site.s_client(&["-quiet", "-alpn", "h2"], "");
    assert!(started.elapsed() < Duration::from_millis(3500), "h2 without a request: {:?}", started.elapsed());
}

#[test]
fn plain_http_and_garbage_are_told_apart_and_others_are_served() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "plain_http"),
        (b"\x16\x03\x01\x00\x05hello", "protocol"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        eventually(reason, || (failures(&gateway, reason) > 0.0).then_some(()));
    }
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn a_certificate_for_servers_or_of_an_authority_is_no_client() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[("routes", "[{ pool: main }]")]);
    let gateway = site.start();
    assert_eq!(site.curl(Some("server"), &[], "/").status, 0, "serverAuth only");
    assert_eq!(site.curl(Some("ca"), &[], "/").status, 0, "a CA as leaf");
    assert!((failures(&gateway, "wrong_usage") - 2.0).abs() < 0.1);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn a_revoked_client_is_refused_and_the_same_serial_of_another_authority_is_not_meant() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["revoke", "sensor-2.crt"]);
    site.pki(&["crl"]);
    site.configure(
        &origin.address,
        &[("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }")],
    );
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 0);
    gateway.logged(&["\"revoked\"", "CN=sensor-2", "was revoked on"]);
}

#[test]
fn an_optional_listener_serves_strangers_only_where_a_route_says_so_and_still_refuses_bad_certificates() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "stranger"]);
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { mode: optional, trust: [fleet] } }]";
    let routes = "[{ request: { path: /public }, client: anonymous, pool: main }, { client: { trust: fleet }, pool: main }]";
    site.configure(&origin.address, &[("listeners", listeners), ("routes", routes)]);
    let _gateway = site.start();
    let reply = site.curl(None, &[], "/public");
    assert_eq!((reply.status, reply.header("X-SSL-Client-Verify")), (200, Some("NONE")));
    assert_eq!(site.curl(None, &[], "/private").status, 403);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/private").status, 200);
    assert_eq!(site.curl(Some("other/stranger"), &[], "/public").status, 0);
}

#[test]
fn the_certificate_is_chosen_by_sni_and_a_host_of_another_one_is_misdirected() {
    let (site, origin) = (Site::new(), Origin::start());
    for (name, dns) in [("a", "a.example"), ("wild", "*.b.example")] {
        site.pki(&["issue", name, "--kind", "server", "--dns", dns]);
    }
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }, { chain: a.crt, key: a.key }, { chain: wild.crt, key: wild.key }] }, \
                     client_auth: { mode: require, trust: [fleet] } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let _gateway = site.start();
    let resolve = |name: &str| format!("{name}:{}:127.0.0.1", site.port);
    for name in ["a.example", "A.Example", "x.b.example", "localhost"] {
        let url = format!("https://{name}:{}/", site.port);
        let reply = site.curl_at(Some("sensor-1"), &["--resolve", &resolve(name)], &url);
        assert_eq!(reply.status, 200, "{name}");
    }
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://a.example:{}/", site.port);
        let arguments = ["--resolve", &resolve("a.example"), version, "-H", "Host: x.b.example"];
        assert_eq!(site.curl_at(Some("sensor-1"), &arguments, &url).status, 421, "{version}");
    }
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn renegotiation_is_refused() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    // `R` on a line of its own makes s_client ask for it.
    let command = format!(
        "(echo R; sleep 1) | openssl s_client -tls1_2 -connect 127.0.0.1:{} -cert sensor-1.crt -key sensor-1.key 2>&1 \
         || true",
        site.port
    );
    let output = crate::support::run(site.path(), "sh", &["-c", &command]);
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("RENEGOTIATING") && output.contains("no renegotiation"), "{output}");
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_thousand_anchors_do_not_break_handshakes() {
    let (site, origin) = (Site::new(), Origin::start());
    let mut bundle = std::fs::read_to_string(site.path().join("ca.crt")).unwrap();
    for number in 0..60 {
        let directory = format!("ca-{number}");
        let name =
            format!("An authority with quite a long name, number {number}, of the department of authorities");
        site.pki_in(&directory, &["init", "--common-name", &name[..64.min(name.len())]]);
        bundle += &std::fs::read_to_string(site.path().join(&directory).join("ca.crt")).unwrap().repeat(17);
    }
    std::fs::write(site.path().join("bundle.crt"), bundle).unwrap();
    site.configure(&origin.address, &[("trust", "{ fleet: { anchors: bundle.crt } }")]);
    let _gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

/// The listener `edge` with what `tls` says besides the certificate.
fn listener(tls: &str) -> String {
    format!(
        "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}], \
         {tls} }}, client_auth: {{ mode: require, trust: [fleet] }} }}]"
    )
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn versions_cipher_suites_and_groups_are_those_of_the_configuration() {
    let (site, origin) = (Site::new(), Origin::start());
    let ciphers = "ciphers: [TLS_AES_256_GCM_SHA384, ECDHE-ECDSA-AES256-GCM-SHA384], groups: [P-384, P-256]";
    site.configure(&origin.address, &[("listeners", &listener(ciphers))]);
    let gateway = site.start();
    for arguments in [
        &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"][..],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        &["-tls1_3", "-groups", "P-384"],
    ] {
        let output = site.s_client(&[&["-alpn", "http/1.1"], arguments].concat(), REQUEST);
        assert!(output.contains("200 OK"), "{arguments:?} {output}");
    }
    for (arguments, reason) in [
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"][..], "no_shared_cipher"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "no_shared_cipher"),
        (&["-tls1_3", "-groups", "X25519"], "no_shared_group"),
    ] {
        let before = failures(&gateway, reason);
        let output = site.s_client(&[&["-alpn", "http/1.1"], arguments].concat(), REQUEST);
        assert!(!output.contains("200 OK"), "{arguments:?} {output}");
        eventually(reason, || (failures(&gateway, reason) > before).then_some(()));
    }
    site.configure(&origin.address, &[("listeners", &listener("minimum_version: \"1.3\""))]);
    assert_eq!(gateway.reload().0, 200);
    assert!(site.s_client(&["-alpn", "http/1.1", "-tls1_3"], REQUEST).contains("200 OK"));
    assert!(!site.s_client(&["-alpn", "http/1.1", "-tls1_2"], REQUEST).contains("200 OK"));
    eventually("it is counted", || (failures(&gateway, "no_shared_version") > 0.0).then_some(()));
}

#[test]
fn a_client_that_goes_away_or_does_not_believe_us_or_is_one_too_many_is_counted_as_that() {
    let (site, origin) = (Site::new(), Origin::start());
    let one = listener("")
        .replace("client_auth", "limits: { handshakes_in_flight: 1, exempt: [127.0.0.0/8] }, client_auth");
    site.configure(&origin.address, &[("listeners", &one)]);
    let gateway = site.start();
    let counted = |reason: &str| eventually(reason, || (failures(&gateway, reason) > 0.0).then_some(()));
    drop(TcpStream::connect(("127.0.0.1", site.port)).unwrap());
    counted("disconnected");
    for version in ["1.2", "1.3"] {
        let before = failures(&gateway, "client_alert");
        let arguments = ["--cacert", "sensor-1.crt", "--tls-max", version];
        assert_eq!(site.curl(Some("sensor-1"), &arguments, "/").status, 0);
        eventually(version, || (failures(&gateway, "client_alert") > before).then_some(()));
    }
    gateway.logged(&["client_alert", "unknown_ca: it does not trust our certificate"]);
    let silent = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    eventually("it is in flight", || {
        (gateway.metric("portcullis_tls_handshakes_in_flight{listener=\"edge\"}") > 0.5).then_some(())
    });
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 0);
    counted("overloaded");
    drop(silent);
    eventually("there is room again", || (site.curl(Some("sensor-1"), &[], "/").status == 200).then_some(()));
}

/// Sends each byte in a segment of its own.
#[derive(Debug)]
struct Pieces(TcpStream);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

#[test]
fn a_client_hello_in_pieces_gets_the_certificate_of_its_name_and_a_name_nobody_has_the_first() {
    use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod};
    let (site, origin) = (Site::new(), Origin::start());
    site.pki(&["issue", "a", "--kind", "server", "--subject", "CN=a", "--dns", "a.example"]);
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }, { chain: a.crt, key: a.key }] }, client_auth: { trust: [fleet] } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let gateway = site.start();
    for (name, subject) in [
        (Some("a.example"), "a"),
        (Some("A.EXAMPLE"), "a"),
        (Some("a.example."), "a"),
        (Some("b.example"), "localhost"),
        (Some("127.0.0.1"), "localhost"),
        (None, "localhost"),
    ] {
        let mut ssl = Ssl::new(&SslContext::builder(SslMethod::tls_client()).unwrap().build()).unwrap();
        if let Some(name) = name {
            ssl.set_hostname(name).unwrap();
        }
        let socket = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The hello is that of a client with post-quantum key exchange where the library has it: more than a packet.
        // The strictest policy holds whatever the name: this client has no certificate, and may learn it as soon as it
        // has sent that.
        let shown = match ssl.connect(Pieces(socket)) {
            Ok(mut stream) => {
                assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
                stream.ssl().peer_certificate()
            }
            Err(HandshakeError::Failure(ended)) => ended.ssl().peer_certificate(),
            Err(other) => panic!("{other}"),
        };
        let shown = shown.unwrap();
        let common_name = shown.subject_name().entries().next().unwrap().data().to_string().unwrap();
        assert_eq!(common_name, subject, "{name:?}");
    }
    eventually("all are refused", || (failures(&gateway, "no_certificate") > 5.5).then_some(()));
}

#[test]
fn a_client_that_writes_early_still_hears_why_it_is_refused() {
    use std::io::{Read, Write};
    let site = Site::new();
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki_in("other", &["issue", "stranger", "--subject", "CN=stranger"]);
    for kind in ["crt", "key"] {
        std::fs::copy(
            site.path().join(format!("other/stranger.{kind}")),
            site.path().join(format!("stranger.{kind}")),
        )
        .unwrap();
    }
    site.configure("127.0.0.1:1", &[]);
    let _gateway = site.start();
    for _ in 0..30 {
        let mut client = site.wire("stranger");
        // More than one write: whoever is reset fails in the second one.
        for _ in 0..20 {
            client.tls.write_all(&[b'x'; 1000]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let error = client.tls.read(&mut [0]).unwrap_err().to_string();
        assert!(error.contains("alert unknown ca") || error.contains("UNKNOWN_CA"), "{error}");
    }
}

#[test]
fn the_cap_on_handshakes_in_flight_is_never_exceeded_however_fast_clients_come() {
    let site = Site::new();
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { mode: require, trust: [fleet] }, limits: { \
                     handshake_timeout: 10s, handshakes_in_flight: 5, exempt: [127.0.0.0/8] } }]";
    site.configure("127.0.0.1:1", &[("listeners", listeners)]);
    let gateway = site.start();
    let _silent: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(("127.0.0.1", site.port))).collect();
    let refused = "portcullis_tls_handshake_failures_total{listener=\"edge\",reason=\"overloaded\"}";
    crate::support::eventually("all but five are refused", || {
        let started = gateway.metric("portcullis_tls_handshakes_started_total{listener=\"edge\"}");
        (started > 99.5).then_some(())
    });
    assert!((gateway.metric(refused) - 95.0).abs() < 1.5, "{}", gateway.metric(refused));
}
