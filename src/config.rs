//! The configuration: a dumb mirror of the YAML (`ConfigFile`), checked and typed (`Config`) along one path.
//!
//! `check`, start-up and reload all come through here, so what `check` accepts is what runs.

mod build;
mod file;
mod problem;
mod sandbox;
mod scalar;
mod shape;
mod source;
mod types;

use std::path::Path;

pub use problem::{ConfigErrors, Problem};
pub use sandbox::{SandboxConfig, SandboxMode};
pub use scalar::Span;
pub use source::{ListPlace, Listed};
pub use types::*;

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) => Err(ConfigErrors {
                file: path.to_owned(),
                problems: vec![Problem {
                    at: "file".into(),
                    found: format!("it cannot be read: {error}"),
                    expected: None,
                    hint: None,
                }],
            }),
        }
    }

    /// `path` is what relative paths in the text are relative to, and what messages name.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        build::build(path, text)
    }
}

/// The JSON Schema of the YAML, for editors.
pub fn schema() -> serde_json::Value {
    serde_json::to_value(schemars::schema_for!(file::ConfigFile)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trust::FaultKind;

    const GOOD: &str = r#"
version: 1
listeners:
  - address: "127.0.0.1:8443"
    tls: { certificates: [{ chain: a.crt, key: a.key }] }
    client_auth: { trust: [fleet] }
trust: { fleet: { anchors: ca.crt } }
pools: { main: { endpoints: ["127.0.0.1:9000"] } }
routes: [{ client: { trust: fleet }, pool: main }]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("conf/x.yaml"), text).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_dozen_lines_are_enough_and_the_defaults_are_safe() {
        let config = parse(GOOD).unwrap();
        let listener = &config.listeners[0];
        assert_eq!(listener.client_auth.mode, ClientAuthMode::Require);
        assert_eq!(listener.tls.minimum_version, TlsVersion::Tls12);
        assert_eq!(listener.tls.certificates[0].files.chain, Path::new("conf/a.crt"));
        assert_eq!(config.trust[0].policy.when_stale, crate::trust::WhenStale::Refuse);
        assert_eq!(config.identity_headers.len(), 1);
        assert!(config.trusted_proxies.is_empty() && config.admin.is_none());
    }

    #[test]
    fn every_problem_is_told_at_once_with_path_and_remedy() {
        let text = r#"
version: 2
listeners:
  - address: "somewhere"
    tls: { certificates: [{ chain: a.crt, key: a.key }], minimum_versoin: "1.2" }
    client_auth: { trust: [fleet] }
  - address: "somewhere"
    tls: { certificates: [] }
    client_auth: { trust: [flet] }
trust: { fleet: { anchors: ca.crt } }
pools:
  a: { endpoints: [nohost], balance: rr }
  b: { endpoints: ["127.0.0.1:1"], retries: -1 }
routes:
  - { pool: c }
  - { client: { subject: { CNN: x } }, pool: a }
  - { request: { path: { regex: "(" } }, pool: b }
  - {}
identity_headers: [rfc9441]
lisners: 1
"#;
        let expected = r"error: conf/x.yaml cannot be used: 14 problems
  lisners: unknown key
    hint: did you mean `listeners`?
  version: this version is not known
    expected: `version: 1`
  listeners[0].tls.minimum_versoin: unknown field `minimum_versoin`, expected one of `certificates`, `minimum_version`, `maximum_version`, `ciphers`, `groups`, `session_tickets`, `ticket_lifetime`, `ticket_keys`
    hint: did you mean `minimum_version`?
  listeners[1].address: `somewhere` is not an address
    expected: an IP address with a port, such as `0.0.0.0:8443` or `[::]:8443`, or `systemd:NAME`
  listeners[1].tls.certificates: there are none
    expected: at least one
  listeners[1].client_auth.trust[0]: no trust domain is called `flet`
    hint: did you mean `fleet`?
  pools.a.balance: expected `round_robin`, `least_connections`, `random`, or `{ hash: client }`
  pools.b.retries: invalid value: integer `-1`, expected u32
  routes[0].pool: no pool is called `c`
    hint: did you mean `a`?
  routes[1].client.subject.CNN: no such attribute
    expected: CN, OU, O, L, ST, C, serialNumber, UID, DC, emailAddress
    hint: did you mean `CN`?
  routes[2].request.path: `(` is not a regular expression: unclosed group
  routes[3]: it leads nowhere
    expected: `pool` or `pools_by`
  listeners[1].address: `somewhere` is what `listeners[0]` has already
  identity_headers[0]: expected `rfc9440`, `xfcc`, `nginx`, `plain`, or `{ header: NAME, field: FIELD }`";
        let told = parse(text).unwrap_err();
        assert_eq!(told, expected, "{told}");
    }

    #[test]
    fn what_would_open_or_close_the_gate_by_mistake_is_refused() {
        for (from, to, told) in [
            ("trust: [fleet] }", "mode: off, trust: [fleet] }", "asks for no certificate"),
            ("trust: [fleet] }", "mode: optional }", "nobody could enter"),
            ("routes: [{ client: { trust: fleet }", "routes: [{ client: anonymous", "can match nobody"),
            (
                "anchors: ca.crt }",
                "anchors: ca.crt }, fleet: { anchors: b }",
                "duplicate entry with key \"fleet\"",
            ),
            ("version: 1", "version: 1\nversion: 1", "duplicate"),
            (
                "pool: main }",
                "pool: main, pools_by: { key: subject.CN, table: t.csv } }",
                "both `pool` and `pools_by`",
            ),
            ("endpoints: [\"127.0.0.1:9000\"]", "endpoints: []", "there are none"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let error = parse(&text).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
    }

    #[test]
    fn nothing_is_never_taken_for_everything() {
        let route = "client: { trust: fleet }";
        let pool = "endpoints: [\"127.0.0.1:9000\"]";
        for (from, to, at) in [
            (route, "client: ~", "routes[0].client"),
            (route, "client: {}", "routes[0].client"),
            (route, "client: { trust: [] }", "routes[0].client.trust"),
            (route, "client: { trust: ~ }", "routes[0].client.trust"),
            (route, "client: { subject: {} }", "routes[0].client.subject"),
            (route, "client: { fingerprint: [] }", "routes[0].client.fingerprint"),
            (
                route,
                "client: { serial: { issuer: \"CN=a\", serials: [] } }",
                "routes[0].client.serial.serials",
            ),
            (route, "request: { method: [] }", "routes[0].request.method"),
            (route, "request: { path: ~ }", "routes[0].request.path"),
            (pool, "endpoints: [\"a:1\"], tls: ~", "pools.main.tls"),
            (pool, "endpoints: [\"a:1\"], tls: { verify: \"\" }", "pools.main.tls.verify"),
        ] {
            let text = GOOD.replace(from, to);
            let error = parse(&text).unwrap_err();
            assert!(error.contains(&format!("1 problem\n  {at}: ")), "{to}: {error}");
        }
        assert!(parse(&GOOD.replace(route, "client: verified")).is_ok());
    }

    #[test]
    fn a_trust_domain_lets_in_whom_a_route_for_its_clients_accepts() {
        let two = GOOD
            .replace("{ fleet: { anchors: ca.crt } }", "{ fleet: { anchors: a }, staff: { anchors: b } }")
            .replace("trust: [fleet] }", "trust: [fleet, staff] }");
        let spans = |routes: &str| {
            let config = parse(&two.replace("routes: [", &format!("routes: [{routes}"))).unwrap();
            let of = |kind| {
                config.trust.iter().map(move |trust| {
                    trust.policy.quarantine.spans(kind).iter().map(Duration::as_secs).collect::<Vec<_>>()
                })
            };
            of(FaultKind::Expired).chain(of(FaultKind::RevocationStale)).collect::<Vec<_>>()
        };
        let none = Vec::new;
        assert_eq!(spans(""), [none(), none(), none(), none()], "off unless configured");
        let fleet = "{ client: { trust: fleet }, accepts: [{ expired_within: 2m }, { revocation_stale_within: 1h }], pool: main },";
        assert_eq!(spans(fleet), [vec![120], none(), vec![3600], none()]);
        let all = "{ accepts: [{ expired_within: 1m }], pool: main }, { client: anyone, accepts: [{ expired_within: 3m }], pool: main },";
        assert_eq!(spans(&format!("{fleet}{all}")), [vec![60, 120, 180], vec![60, 180], vec![3600], none()]);
        for (accepts, told) in [
            ("[]", "routes[0].accepts: it is empty"),
            ("[{}]", "routes[0].accepts[0]: it names no fault"),
            ("[{ expired_within: 0d }]", "`0d` is not a duration"),
            ("[{ expired: 1d }]", "routes[0].accepts[0].expired: unknown field `expired`"),
            (
                "[{ expired_within: 1d }, { expired_within: 2d }]",
                "routes[0].accepts[1].expired_within: it is there twice",
            ),
            ("~", "routes[0].accepts: nothing stands here"),
            ("expired", "routes[0].accepts"),
        ] {
            let route = format!("routes: [{{ accepts: {accepts}, pool: main }}, ");
            let error = parse(&two.replace("routes: [", &route)).unwrap_err();
            assert!(error.contains(told), "{accepts}: {error}");
        }
        let anonymous = two.replace(
            "routes: [",
            "routes: [{ client: anonymous, accepts: [{ expired_within: 1d }], pool: main }, ",
        );
        assert!(parse(&anonymous).unwrap_err().contains("routes[0].accepts: clients without a certificate"));
    }

    #[test]
    fn a_key_misspelt_among_conditions_is_named() {
        let error = parse(&GOOD.replace("trust: fleet }", "trust: fleet, subjct: { CN: a } }")).unwrap_err();
        assert!(error.contains("routes[0].client.subjct: unknown field"), "{error}");
        assert!(error.contains("did you mean `subject`?"), "{error}");
    }

    #[test]
    fn what_check_accepts_can_be_served() {
        let good = GOOD
            .replace("{ fleet: { anchors: ca.crt } }", "{ fleet: { anchors: a }, staff: { anchors: b } }");
        assert!(parse(&good).is_ok());
        let second = "listeners:\n  - { address: \"127.0.0.1:8443\", tls: { certificates: [{ chain: a, key: b }] }, \
                      client_auth: { trust: [fleet] } }";
        let tls = |endpoints: &str, tls: &str| format!("endpoints: {endpoints}, tls: {{ {tls} }}");
        let endpoints = "endpoints: [\"127.0.0.1:9000\"]";
        let address = tls("[\"127.0.0.1:9000\"]", "verify: ca.crt");
        let names = tls("[\"a.test:1\", \"b.test:1\"]", "verify: ca.crt");
        for (from, to, told) in [
            (
                "listeners:",
                second,
                "listeners[1].address: `127.0.0.1:8443` is what `listeners[0]` has already",
            ),
            (endpoints, &*address, "pools.main.tls.server_name: missing"),
            (endpoints, &names, "pools.main.tls.server_name: missing"),
            ("client_auth: { trust: [fleet] }", "client_auth: { mode: off }", "it can match nobody"),
            (
                "routes: [{ client: { trust: fleet }",
                "routes: [{ client: { trust: staff }",
                "routes[0].client: it can match nobody: no listener admits its trust domains",
            ),
            ("version: 1", "version: 1\nserver: { drain_timeout: 0s }", "`0s` is not a duration"),
            ("version: 1", "version: 1\nserver: { threads: 5000 }", "server.threads: 5000 is too much"),
            (
                "listeners:",
                &second.replace("127.0.0.1:8443", "[::]:8443"),
                "listeners[1].address: `127.0.0.1:8443` and `[::]:8443` of `listeners[0]` cannot both",
            ),
            (
                "listeners:",
                &second.replace("127.0.0.1:8443", "[::ffff:127.0.0.1]:8443"),
                "listeners[1].address: `127.0.0.1:8443` and",
            ),
            (
                "version: 1",
                "version: 1\nadmin: { address: \"127.0.0.1:8443\" }",
                "listeners[0].address: `127.0.0.1:8443` and `127.0.0.1:8443` of `admin` cannot both",
            ),
            (
                "listeners:",
                &second
                    .replace("{ address: \"127.0.0.1:8443\"", "{ name: listener-2, address: \"127.0.0.1:1\""),
                "listeners[1].name: `listener-2` is the name of `listeners[0]`",
            ),
            (
                "routes: [",
                "routes: [{ name: route-2, pool: main }, ",
                "routes[1].name: `route-2` is the name of",
            ),
            ("routes: [{", "routes: [{ name: \"a b\",", "routes[0].name: `a b` is not a name"),
            ("- address", "- name: \"\"\n    address", "listeners[0].name: `` is not a name"),
            ("127.0.0.1:8443", "127.0.0.1:0", "`127.0.0.1:0` is not an address"),
            ("127.0.0.1:8443", "systemd:", "`systemd:` is not an address"),
            (
                "version: 1",
                "version: 1\nadmin: { address: \"127.0.0.1:0\" }",
                "`127.0.0.1:0` is not an address",
            ),
            ("version: 1", "version: 1\nadmin: { address: \"unix:\" }", "is not a path for a Unix socket"),
            (endpoints, "endpoints: [\"a b:80\"]", "`a b:80` is not an endpoint"),
            (
                endpoints,
                &tls("[\"127.0.0.1:9000\"]", "verify: ca.crt, server_name: \"\""),
                "`` is not a DNS name",
            ),
            (
                endpoints,
                &tls("[\"a.test:1\"]", "verify: ca.crt, server_name: \"a\\0b\""),
                "is not a DNS name",
            ),
            (endpoints, &tls("[\"a.test:1\"]", "verify: ca.crt, server_name: 10.0.0.1"), "is not a DNS name"),
            (
                endpoints,
                "endpoints: [\"a.test:1\"], host_header: \"a b\"",
                "pools.main.host_header: `a b` is not a host",
            ),
            (
                endpoints,
                "endpoints: [\"a.test:1\"], health: { path: \"/a b\" }",
                "pools.main.health.path: `/a b` is not",
            ),
            ("key: a.key }]", "key: a.key }], ciphers: [ALL]", "`ALL` is not the name of a cipher suite"),
            ("key: a.key }]", "key: a.key }], ciphers: [\"-A\"]", "`-A` is not the name of a cipher suite"),
            ("key: a.key }]", "key: a.key }], ciphers: []", "listeners[0].tls.ciphers: there are none"),
        ] {
            let text = good.replace(from, to);
            let error = parse(&text).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
        }
        let listener = |number: u16| {
            let port = 9000 + number;
            format!(
                "  - {{ address: \"127.0.0.1:{port}\", tls: {{ certificates: [{{ chain: a, key: b }}] }}, \
                 client_auth: {{ trust: [fleet] }} }}\n"
            )
        };
        let many = (0..33).map(listener).collect::<Vec<_>>().concat();
        let many = GOOD.replace("listeners:\n", &format!("listeners:\n{many}"));
        assert!(parse(&many).unwrap_err().contains("listeners: an upgrade could not hand over so many"));
        for good in
            [tls("[\"a.test:1\", \"a.test:2\"]", "verify: ca.crt"), tls("[\"127.0.0.1:1\"]", "verify: off")]
        {
            assert!(parse(&GOOD.replace(endpoints, &good)).is_ok(), "{good}");
        }
        for (from, to) in [
            ("listeners:", second.replace("127.0.0.1:8443", "127.0.0.2:8443")),
            ("version: 1", "version: 1\nadmin: { address: \"[::1]:8443\" }".to_owned()),
            (
                endpoints,
                "endpoints: [\"[::1]:80\", \"under_score.test:1\"], host_header: \"a.test:8080\"".to_owned(),
            ),
            (endpoints, "endpoints: [\"a.test:1\"], host_header: \"[::1]\"".to_owned()),
            (
                "key: a.key }]",
                "key: a.key }], ciphers: [TLS_AES_128_GCM_SHA256, ECDHE-RSA-AES128-GCM-SHA256]".to_owned(),
            ),
        ] {
            assert!(
                parse(&GOOD.replace(from, &to)).is_ok(),
                "{to}: {:?}",
                parse(&GOOD.replace(from, &to)).err()
            );
        }
    }

    #[test]
    fn sockets_are_never_handed_over_in_a_directory_of_everybody() {
        let socket = parse(GOOD).unwrap().server.upgrade_socket;
        assert_eq!(socket.as_deref(), Some(Path::new("/run/portcullis/upgrade.sock")));
    }

    #[test]
    fn control_characters_of_the_file_never_reach_the_terminal() {
        let error = parse(&GOOD.replace("pool: main", "pool: \"a\\e[31m\"")).unwrap_err();
        assert!(error.contains("`a\\u{1b}[31m`") && !error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn every_example_can_be_read() {
        let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let examples = std::fs::read_dir(conf).unwrap().map(|entry| entry.unwrap().path());
        let examples: Vec<_> =
            examples.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
        assert!(!examples.is_empty());
        for example in examples {
            assert!(
                Config::read(&example).is_ok(),
                "{:?}",
                Config::read(&example).map_err(|e| e.to_string())
            );
        }
    }
}
