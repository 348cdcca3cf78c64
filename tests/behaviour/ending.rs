//! Open connections end when their clients may no longer be there, and no others do.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::open::{OpenConnection, OpenHttp2};
use crate::support::{Gateway, Origin, Site, eventually};

pub const SECOND: Duration = Duration::from_secs(1);
const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGVzdA==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Answers at once, but for `/slow` after a while and `/ws` with a WebSocket that echoes.
pub fn origin() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if head.starts_with(b"GET /ws") {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            )?;
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            return Ok(());
        }
        if head.starts_with(b"GET /slow") {
            std::thread::sleep(Duration::from_secs(2));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
}

/// Connections of one client, of each kind.
pub struct Connections {
    pub idle: OpenConnection,
    pub asking: OpenConnection,
    pub websocket: OpenConnection,
    pub http2: OpenHttp2,
    pub streaming: OpenHttp2,
}

impl Connections {
    pub fn open(site: &Site, client: &str) -> Self {
        let mut idle = OpenConnection::new(site, Some(client));
        assert_eq!(idle.get("/"), 200);
        let mut websocket = OpenConnection::new(site, Some(client));
        websocket.send(WEBSOCKET);
        assert_eq!(websocket.answer(), 101);
        let (http2, streaming) =
            (OpenHttp2::new(site, client, None), OpenHttp2::new(site, client, Some("/slow")));
        let mut asking = OpenConnection::new(site, Some(client));
        asking.ask("/slow");
        Self { idle, asking, websocket, http2, streaming }
    }

    pub fn all_end(&mut self) {
        assert!(self.idle.ends_within(SECOND), "an idle connection ends");
        assert!(self.asking.ends_within(SECOND), "one with a request under way is cut");
        assert!(self.websocket.ends_within(SECOND), "a WebSocket is cut");
        assert!(self.http2.ends_within(SECOND), "an idle HTTP/2 connection ends");
        assert!(self.streaming.ends_within(SECOND), "one with a stream under way is cut");
    }

    pub fn all_live(&mut self) {
        assert_eq!(self.asking.answer(), 200, "its request is answered");
        assert_eq!(self.idle.get("/"), 200);
        self.websocket.send("x");
        assert_eq!(self.websocket.byte(), Some(b'x'));
        assert!(!self.http2.ends_within(Duration::from_millis(100)));
        assert!(!self.streaming.ends_within(Duration::from_millis(100)));
    }
}

fn ended(gateway: &Gateway, cause: &str) -> f64 {
    gateway.metric(&format!("portcullis_connections_ended_total{{cause=\"{cause}\",listener=\"edge\"}}"))
}

pub const ROUTES: (&str, &str) = ("routes", "[{ pool: main }]");

#[test]
fn a_revoked_client_is_cut_off_on_all_its_open_connections_and_nobody_else_is() {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["crl"]);
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }";
    site.configure(&origin(), &[ROUTES, ("trust", trust), ("server", "{ threads: 2, drain_timeout: 1s }")]);
    let gateway = site.start();
    let mut revoked = Connections::open(&site, "sensor-1");
    let mut other = Connections::open(&site, "sensor-2");
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    revoked.all_end();
    other.all_live();
    eventually("all are counted", || (ended(&gateway, "revoked") > 4.5).then_some(()));
    assert!(ended(&gateway, "revoked") < 5.5);
    let record = gateway.logged(&[
        "\"kind\":\"connection_ended\"",
        "\"cause\":\"revoked\"",
        "CN=sensor-1",
        "was revoked on",
    ]);
    assert!(record.contains("\"open_seconds\":"), "{record}");
    let log = gateway.log();
    assert!(!log.lines().any(|line| line.contains("connection_ended") && line.contains("sensor-2")));
    // The request that was cut off has its record like any other.
    gateway.logged(&["\"kind\":\"request\"", "\"path\":\"/slow\"", "CN=sensor-1", "the client went away"]);
    eventually("their sockets are closed", || {
        (gateway.metric("portcullis_connections{listener=\"edge\"}") < 5.5).then_some(())
    });
}

#[test]
fn grace_lets_requests_of_a_revoked_client_finish_and_then_cuts_what_is_left() {
    let site = Site::new();
    site.pki(&["crl"]);
    let trust = "{ fleet: { anchors: ca.crt, grace: 3s, revocation: { lists: [ca.crl] } } }";
    site.configure(&origin(), &[ROUTES, ("trust", trust)]);
    let gateway = site.start();
    let mut connections = Connections::open(&site, "sensor-1");
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    assert!(connections.idle.ends_within(SECOND));
    connections.websocket.send("x");
    assert_eq!(connections.websocket.byte(), Some(b'x'));
    assert_eq!(connections.asking.answer(), 200);
    assert!(connections.asking.ends_within(SECOND), "no further request");
    assert!(connections.websocket.ends_within(Duration::from_secs(4)));
}

#[test]
fn connections_end_with_the_anchor_or_the_trust_domain_that_vouched_for_them() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki_in("other", &["init", "--common-name", "Other CA"]);
    site.pki(&["crl"]);
    std::fs::write(
        site.path().join("both.crt"),
        ["ca.crt", "other/ca.crt"]
            .map(|file| std::fs::read_to_string(site.path().join(file)).unwrap())
            .concat(),
    )
    .unwrap();
    for (old, new, stays) in [
        ("{ fleet: { anchors: both.crt } }", "{ fleet: { anchors: ca.crt } }", true),
        ("{ fleet: { anchors: both.crt } }", "{ fleet: { anchors: other/ca.crt } }", false),
        // Its list, still there, does not keep it in.
        (
            "{ fleet: { anchors: both.crt, revocation: { lists: [ca.crl] } } }",
            "{ fleet: { anchors: other/ca.crt, revocation: { lists: [ca.crl] } } }",
            false,
        ),
        ("{ fleet: { anchors: ca.crt } }", "{ fleet: { anchors: both.crt } }", true),
        ("{ fleet: { anchors: ca.crt } }", "{ fleet: { anchors: ca.crt, max_depth: 0 } }", true),
        ("{ fleet: { anchors: ca.crt } }", "{ fleet: { anchors: ca.crt, max_chain_bytes: 10 } }", false),
    ] {
        site.configure(&origin.address, &[ROUTES, ("trust", old)]);
        let gateway = site.start();
        let mut open = OpenConnection::new(&site, Some("sensor-1"));
        assert_eq!(open.get("/"), 200);
        site.configure(&origin.address, &[ROUTES, ("trust", new)]);
        assert_eq!(gateway.reload().0, 200);
        assert_eq!(open.ends_within(Duration::from_millis(700)), !stays, "{old} to {new}");
        if stays {
            assert_eq!(open.get("/"), 200);
        }
    }
}

#[test]
fn a_client_without_a_certificate_is_shown_out_when_one_is_demanded() {
    let (site, origin) = (Site::new(), Origin::start());
    let listeners = |mode: &str| {
        format!(
            "[{{ name: edge, address: \"127.0.0.1:PORT\", tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}, \
             client_auth: {{ mode: {mode}, trust: [fleet] }} }}]"
        )
    };
    let routes = ("routes", "[{ client: anyone, pool: main }]");
    site.configure(&origin.address, &[routes, ("listeners", &listeners("optional"))]);
    let gateway = site.start();
    let (mut nobody, mut sensor) =
        (OpenConnection::new(&site, None), OpenConnection::new(&site, Some("sensor-1")));
    assert_eq!((nobody.get("/"), sensor.get("/")), (200, 200));
    site.configure(&origin.address, &[("listeners", &listeners("require"))]);
    assert_eq!(gateway.reload().0, 200);
    assert!(nobody.ends_within(SECOND));
    assert_eq!(sensor.get("/"), 200);
    assert!((ended(&gateway, "certificate_required") - 1.0).abs() < 0.1);
}

/// A client's certificate that lives for so many seconds.
pub fn short_lived(site: &Site, name: &str, seconds: i64) {
    use openssl::asn1::Asn1Time;
    use openssl::pkey::PKey;
    use openssl::x509::{X509, X509Builder, X509Name};
    let read = |file: &str| std::fs::read(site.path().join(file)).unwrap();
    let ca = X509::from_pem(&read("ca.crt")).unwrap();
    let ca_key = PKey::private_key_from_pem(&read("ca.key")).unwrap();
    let key = PKey::private_key_from_pem(&read("sensor-1.key")).unwrap();
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    let serial = openssl::bn::BigNum::from_u32(4711).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&subject.build()).unwrap();
    builder.set_issuer_name(ca.subject_name()).unwrap();
    builder.set_pubkey(&key).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    builder.set_not_before(&Asn1Time::from_unix(now - 60).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(now + seconds).unwrap()).unwrap();
    builder.sign(&ca_key, openssl::hash::MessageDigest::sha256()).unwrap();
    std::fs::write(site.path().join(format!("{name}.crt")), builder.build().to_pem().unwrap()).unwrap();
    std::fs::copy(site.path().join("sensor-1.key"), site.path().join(format!("{name}.key"))).unwrap();
}

#[test]
fn a_connection_ends_when_the_certificate_expires_unless_it_may_be_kept() {
    let (site, origin) = (Site::new(), Origin::start());
    for (on_expiry, stays) in [("close", false), ("keep", true)] {
        let trust = format!("{{ fleet: {{ anchors: ca.crt, on_expiry: {on_expiry} }} }}");
        site.configure(&origin.address, &[ROUTES, ("trust", &trust)]);
        let gateway = site.start();
        short_lived(&site, "brief", 2);
        let mut brief = OpenConnection::new(&site, Some("brief"));
        let mut sensor = OpenConnection::new(&site, Some("sensor-1"));
        assert_eq!((brief.get("/"), sensor.get("/")), (200, 200));
        assert_eq!(brief.ends_within(Duration::from_secs(4)), !stays, "{on_expiry}");
        assert_eq!(sensor.get("/"), 200);
        assert!((ended(&gateway, "expired") - f64::from(u8::from(!stays))).abs() < 0.1);
        // A reload does not change its mind, and no new connection is let in.
        assert_eq!(gateway.reload().0, 200);
        assert!(!stays || brief.get("/") == 200);
        assert_eq!(site.curl(Some("brief"), &[], "/").status, 0);
    }
}
