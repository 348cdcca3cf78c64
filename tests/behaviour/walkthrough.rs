//! The walk-through that the product exists for, with the same `openssl` commands.

use crate::support::{Gateway, Origin, Site, free_port, run};

const COMMANDS: &str = r#"
openssl genrsa -out rootCA.key 2048
openssl req -x509 -new -nodes -key rootCA.key -sha256 -days 1024 -out rootCA.pem -subj "/CN=Root"
openssl req -nodes -newkey rsa:2048 -keyout server.key -out server.csr -subj "/CN=localhost"
openssl x509 -req -days 365 -in server.csr -CA rootCA.pem -CAkey rootCA.key -set_serial 01 -out server.crt
openssl req -nodes -newkey rsa:2048 -keyout client.key -out client.csr -subj "/CN=device-1"
openssl x509 -req -days 365 -in client.csr -CA rootCA.pem -CAkey rootCA.key -set_serial 01 -out client.crt
openssl genrsa -out other.key 2048
openssl req -x509 -new -nodes -key other.key -sha256 -days 1024 -out other.pem -subj "/CN=Root"
openssl req -nodes -newkey rsa:2048 -keyout forged.key -out forged.csr -subj "/CN=device-1"
openssl x509 -req -days 365 -in forged.csr -CA other.pem -CAkey other.key -set_serial 01 -out forged.crt
openssl req -x509 -nodes -newkey rsa:2048 -keyout self.key -days 365 -out self.crt -subj "/CN=device-1"
openssl req -nodes -newkey rsa:2048 -keyout expired.key -out expired.csr -subj "/CN=device-9"
openssl x509 -req -days -1 -in expired.csr -CA rootCA.pem -CAkey rootCA.key -set_serial 02 -out expired.crt
"#;

#[test]
fn the_walk_through_works_as_typed() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), "sh", &["-e", "-c", COMMANDS]);
    let origin = Origin::start();
    let site = Site { directory, port: free_port(), admin: free_port() };
    let yaml = format!(
        r#"version: 1
listeners:
  - address: "[::]:{}"
    tls: {{ certificates: [{{ chain: server.crt, key: server.key }}] }}
    client_auth: {{ mode: require, trust: [fleet] }}
trust:
  fleet: {{ anchors: rootCA.pem }}
pools:
  users: {{ endpoints: ["{}"] }}
routes:
  - {{ client: {{ trust: fleet }}, pool: users }}
admin: {{ address: "127.0.0.1:{}" }}
"#,
        site.port, origin.address, site.admin
    );
    std::fs::write(site.path().join("gateway.yaml"), yaml).unwrap();
    let gateway = Gateway::start(site.path(), site.admin);
    let curl = |client: Option<&str>| site.curl(client, &["-k", "--cacert", "rootCA.pem"], "/users").status;

    assert_eq!(curl(None), 0, "no certificate");
    gateway.logged(&["no_certificate", "presented no certificate"]);
    assert_eq!(curl(Some("client")), 200);
    gateway.logged(&["\"peer\":\"127.0.0.1:", "\"status\":200"]);
    assert_eq!(curl(Some("forged")), 0, "another authority of the same name");
    gateway.logged(&["bad_signature", "issued by another CA of that name"]);
    assert_eq!(curl(Some("expired")), 0);
    gateway.logged(&["\"expired\"", "`CN=device-9`"]);
    assert_eq!(curl(Some("self")), 0);
    gateway.logged(&["unknown_issuer", "`CN=device-1`"]);
    assert_eq!(origin.requests().len(), 1, "nothing but the good request reached the origin");
    let failed = |reason: &str| {
        gateway.metric(&format!(
            "portcullis_tls_handshake_failures_total{{listener=\"listener-1\",reason=\"{reason}\"}}"
        ))
    };
    for reason in ["no_certificate", "bad_signature", "expired", "unknown_issuer"] {
        assert!((failed(reason) - 1.0).abs() < 0.1, "{reason}: {}", failed(reason));
    }
}
