//! Operating by identity: who may ask, what they see, and whom it hits.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::ending::{Connections, ROUTES, SECOND, origin};
use crate::support::open::{OpenConnection, OpenHttp2};
use crate::support::{BINARY, Gateway, Origin, Site, TOKEN, eventually, write_secret};

/// `portcullis VERB -c gateway.yaml …`: exit code, standard output, standard error.
fn portcullis(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY).args(arguments).current_dir(site.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub fn operate(site: &Site, arguments: &[&str]) -> (Option<i32>, String, String) {
    let (verb, rest) = arguments.split_first().unwrap();
    portcullis(site, &[&[*verb, "-c", "gateway.yaml"], rest].concat())
}

pub fn operate_json(site: &Site, arguments: &[&str]) -> Value {
    let (code, output, error) = operate(site, &[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    serde_json::from_str(&output).unwrap()
}

/// Status and body, without the token that the others show.
fn curl(site: &Site, arguments: &[&str], path: &str) -> (u16, String) {
    let url = format!("http://127.0.0.1:{}{path}", site.admin);
    let mut command = Command::new("curl");
    command.current_dir(site.path()).args(["-s", "--max-time", "10", "-w", "\n%{http_code}"]);
    status_and_body(command.args(arguments).arg(url).output().unwrap())
}

fn status_and_body(output: Output) -> (u16, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

fn kicked(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_connections_ended_total{cause=\"kicked\",listener=\"edge\"}")
}

fn ids(answer: &Value) -> Vec<String> {
    let connections = answer["connections"].as_array().unwrap().iter();
    connections.map(|connection| connection["id"].as_str().unwrap().to_owned()).collect()
}

const AUTHORIZED: &str = "Authorization: Bearer a-token-that-only-the-tests-know-0123456789";

#[test]
fn a_kick_ends_every_connection_of_one_client_and_nobody_elses() {
    let site = Site::new();
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin(), &[ROUTES, ("server", "{ threads: 2, drain_timeout: 1s }")]);
    let gateway = site.start();
    let mut kicked_out = Connections::open(&site, "sensor-1");
    let mut other = Connections::open(&site, "sensor-2");
    let done = operate(&site, &["kick", "--subject", "CN=sensor-1", "--reason", "it hangs"]);
    assert_eq!(done, (Some(0), "5 connections ended".into(), String::new()));
    kicked_out.all_end();
    other.all_live();
    assert!((kicked(&gateway) - 5.0).abs() < 0.1);
    gateway.logged(&["\"kind\":\"connection_ended\"", "\"cause\":\"kicked\"", "CN=sensor-1", "it hangs"]);
    let record = gateway.logged(&["\"kind\":\"admin_action\"", "\"action\":\"kick\"", "\"result\":\"ok\""]);
    for part in [
        "\"selector\":\"subject=CN=sensor-1\"",
        "\"reason\":\"it hangs\"",
        "\"connections\":5",
        "\"by\":\"127.0.0.1:",
    ] {
        assert!(record.contains(part), "{part}: {record}");
    }
    // It is no block.
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    eventually("its connection is over", || {
        (operate(&site, &["kick", "--subject", "CN=sensor-1"]).1 == "no connection was open").then_some(())
    });
}

#[test]
fn a_kick_with_grace_lets_requests_finish_and_then_cuts_what_is_left() {
    let site = Site::new();
    site.configure(&origin(), &[ROUTES]);
    let gateway = site.start();
    let mut connections = Connections::open(&site, "sensor-1");
    eventually("each of them has asked", || {
        let all = operate_json(&site, &["connections"]);
        let mut open = all["connections"].as_array().unwrap().iter();
        open.all(|connection| connection["requests"].as_u64() > Some(0)).then_some(())
    });
    assert_eq!(operate_json(&site, &["kick", "--cert", "sensor-1.crt", "--grace", "3s"])["ended"], 5);
    assert!(connections.idle.ends_within(SECOND));
    connections.websocket.send("x");
    assert_eq!(connections.websocket.byte(), Some(b'x'));
    assert_eq!(connections.asking.answer(), 200);
    assert!(connections.asking.ends_within(SECOND), "no further request");
    assert!(connections.websocket.ends_within(Duration::from_secs(4)));
    assert!((kicked(&gateway) - 5.0).abs() < 0.1, "each is counted once");
}

#[test]
fn a_kick_means_whoever_it_names_and_only_them() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[]);
    let _gateway = site.start();
    let mut other = OpenConnection::new(&site, Some("sensor-2"));
    assert_eq!(other.get("/"), 200);
    let all = operate_json(&site, &["connections", "--subject", "CN=sensor-2"]);
    let serial_of_other = all["connections"][0]["client"]["serial"].as_str().unwrap().to_owned();
    for by in ["--connection", "--fingerprint", "--key-fingerprint", "--serial"] {
        let mut open = OpenConnection::new(&site, Some("sensor-1"));
        assert_eq!(open.get("/"), 200);
        let all = operate_json(&site, &["connections", "--subject", "CN=sensor-1,OU=sensors"]);
        let connection = &all["connections"][0];
        let client = &connection["client"];
        let value = match by {
            "--connection" => &connection["id"],
            "--fingerprint" => &client["fingerprint"],
            "--key-fingerprint" => &client["key_fingerprint"],
            _ => &client["serial"],
        };
        let value = value.as_str().unwrap();
        let issuer = ["--issuer", client["issuer"].as_str().unwrap()];
        let issuer = if by == "--serial" { &issuer[..] } else { &[] };
        let kick = |extra: &[&str]| operate(&site, &[&["kick", by, value], issuer, extra].concat());
        assert_eq!(kick(&["--address", "10.0.0.0/8"]).1, "no connection was open", "{by}");
        // What is not there is no way to say nobody: it is misspelt.
        for misspelt in [["--listener", "other"], ["--trust-domain", "staff"]] {
            assert_eq!(kick(&misspelt).0, Some(1), "{by} {misspelt:?}");
        }
        assert_eq!(kick(&["--listener", "edge", "--trust-domain", "fleet"]).1, "1 connection ended", "{by}");
        assert!(open.ends_within(SECOND), "{by}");
    }
    let namesake = ["kick", "--serial", &serial_of_other, "--issuer", "CN=Another CA"];
    assert_eq!(operate(&site, &namesake).1, "no connection was open");
    assert_eq!(other.get("/"), 200);
}

#[test]
fn connections_are_shown_page_by_page_each_once_with_what_is_known_of_them() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut open: Vec<_> = (0..7).map(|_| OpenConnection::new(&site, Some("sensor-1"))).collect();
    assert_eq!((open[0].get("/"), open[0].get("/")), (200, 200));
    let _http2 = OpenHttp2::new(&site, "sensor-2", None);
    let answer = |query: &str| -> Value {
        let (status, body) = gateway.admin_get(&format!("/connections?{query}"));
        assert_eq!(status, 200, "{query}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let all = answer("limit=1000");
    assert_eq!((ids(&all).len(), &all["open"], &all["next"]), (8, &Value::from(8), &Value::Null));
    let (mut paged, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let page = answer(&query);
        assert!((1..=3).contains(&ids(&page).len()));
        paged.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=3&after={next}");
    }
    assert_eq!(paged, ids(&all), "each once, in the same order");
    for (query, count) in [
        ("subject=CN%3Dsensor-1", 7),
        ("subject=CN%3Dsensor-2", 1),
        ("subject=OU%3Dsensors", 8),
        ("subject=CN%3Dsensor", 0),
        ("trust_domain=fleet&listener=edge&address=127.0.0.0/8", 8),
        ("address=10.0.0.1", 0),
        (&format!("connection={}", paged[0]), 1),
        ("connection=0000000000000000", 0),
        ("issuer=CN%3Dtest+ca", 8),
    ] {
        assert_eq!(ids(&answer(query)).len(), count, "{query}");
    }
    let http2 = &answer("subject=CN%3Dsensor-2")["connections"][0];
    assert_eq!(
        (&http2["protocol"], &http2["tls_version"], &http2["requests"]),
        (&"h2".into(), &"TLSv1.3".into(), &1.into())
    );
    let client = &http2["client"];
    for (field, expected) in [
        ("subject", "CN=sensor-2,OU=sensors"),
        ("issuer", "CN=Test CA"),
        ("trust_domain", "fleet"),
        ("anchor", "CN=Test CA"),
    ] {
        assert_eq!(client[field], expected, "{field}");
    }
    assert!(
        client["not_after"].as_str().unwrap().ends_with('Z')
            && client["fingerprint"].as_str().unwrap().len() == 64
    );
    let (code, table, _) = operate(&site, &["connections", "--limit", "7"]);
    assert_eq!(code, Some(0));
    assert_eq!(table.lines().count(), 10, "{table}");
    assert!(table.starts_with("ID ") && table.contains("http/1.1"), "{table}");
    assert!(table.ends_with("7 shown of 8 open, and there are more (hint: --limit)"), "{table}");
}

#[test]
fn without_the_token_nobody_on_the_machine_sees_a_client_or_changes_anything() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    let guarded: [(&[&str], &str); 3] =
        [(&[], "/connections"), (&["-d", "subject=CN=sensor-1"], "/kick"), (&["-X", "POST"], "/reload")];
    for (arguments, path) in guarded {
        let ask = |header: &str| curl(&site, &[arguments, &["-H", header]].concat(), path);
        assert_eq!(ask("X: y").0, 401, "{path}");
        let (status, told) = ask("Authorization: Bearer wrong");
        assert!(status == 401 && told.contains("not the token of `admin.token_file`"), "{path}: {told}");
        assert_eq!(ask(&format!("Authorization: Basic {TOKEN}")).0, 401, "{path}");
        for foreign in ["Origin: http://localhost", "Sec-Fetch-Site: cross-site", "Host: rebound.example"] {
            let (status, told) = curl(&site, &[arguments, &["-H", AUTHORIZED, "-H", foreign]].concat(), path);
            assert!(status == 403 && !told.is_empty(), "{path} {foreign}: {status} {told}");
        }
    }
    // The link on a page, or an image: a GET.
    assert_eq!(curl(&site, &["-H", AUTHORIZED], "/kick?subject=CN%3Dsensor-1").0, 405);
    assert_eq!(open.get("/"), 200, "nobody was kicked");
    gateway.logged(&["admin_action", "\"action\":\"kick\"", "\"result\":\"refused\"", "not the token"]);
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/certs"] {
        assert_eq!(curl(&site, &[], path).0, 200, "{path}");
        assert_eq!(curl(&site, &["-H", "Origin: http://localhost"], path).0, 403, "{path}");
    }
    assert_eq!(curl(&site, &["-H", AUTHORIZED], "/connections").0, 200);
    assert_eq!(curl(&site, &["-H", AUTHORIZED, "-d", "subject=CN=sensor-1"], "/kick").0, 200);
    assert!(open.ends_within(SECOND));
}

#[test]
fn without_a_token_file_these_are_not_there_over_tcp_but_on_a_unix_socket() {
    let (site, origin) = (Site::new(), Origin::start());
    let admin = format!("{{ address: [\"127.0.0.1:{}\", \"unix:admin.sock\"] }}", site.admin);
    site.configure(&origin.address, &[("admin", &admin)]);
    let gateway = site.start();
    for (arguments, path) in
        [(&[][..], "/connections"), (&["-d", "subject=CN=x"], "/kick"), (&["-X", "POST"], "/reload")]
    {
        let (status, told) = curl(&site, &[arguments, &["-H", AUTHORIZED]].concat(), path);
        assert!(status == 403 && told.contains("`admin.token_file`"), "{path}: {status} {told}");
    }
    let (code, _, error) = operate(&site, &["connections", "--admin", &format!("127.0.0.1:{}", site.admin)]);
    assert!(code == Some(1) && error.contains("over TCP this needs a token"), "{error}");
    // Of the two, the commands take the socket.
    let mut open = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    assert_eq!(operate_json(&site, &["connections"])["open"], 1);
    assert_eq!(operate(&site, &["kick", "--subject", "CN=sensor-1"]).1, "1 connection ended");
    assert!(open.ends_within(SECOND));
    let user = std::fs::metadata(site.path()).unwrap().uid();
    gateway.logged(&["admin_action", &format!("\"by\":\"unix uid={user} pid=")]);
    assert!(operate(&site, &["reload"]).1.contains("generation 2 is in force"));
}

#[test]
fn a_unix_socket_is_its_owners_alone() {
    let (site, origin) = (Site::new(), Origin::start());
    let admin = format!("{{ address: [\"127.0.0.1:{}\", \"unix:admin.sock\"] }}", site.admin);
    site.configure(&origin.address, &[("admin", &admin)]);
    let _gateway = site.start();
    let socket = site.path().join("admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |program: &str, before: &[&str]| {
        let mut command = Command::new(program);
        command.args(before).args(["-s", "--max-time", "5", "-w", "\n%{http_code}", "--unix-socket"]);
        command.arg(&socket).arg("http://gateway/connections").output().unwrap()
    };
    assert_eq!(status_and_body(ask("curl", &[])).0, 200);
    // Whoever may become somebody else looks at it from there as well.
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        std::fs::set_permissions(site.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let other = ask("setpriv", &["--reuid=65534", "--regid=65534", "--clear-groups", "curl"]);
        assert_eq!(status_and_body(other).0, 0, "no connection");
    }
}

#[test]
fn a_token_is_a_secret_and_may_be_changed_while_the_gateway_runs() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let file = site.path().join("admin.token");
    let check = || portcullis(&site, &["check", "-c", "gateway.yaml"]);
    for mode in [0o604, 0o620, 0o602, 0o666] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, _, error) = check();
        assert!(
            code == Some(1) && error.contains("admin.token_file") && error.contains("chmod 600"),
            "{error}"
        );
    }
    for mode in [0o640, 0o400, 0o600] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(check().0, Some(0), "{mode:o}");
    }
    for (token, told) in
        [("short", "has 5 characters"), ("", "is empty"), ("a b c d e f g h i j k l m n o p q r", "header")]
    {
        write_secret(&file, token);
        let (code, _, error) = check();
        assert!(code == Some(1) && error.contains(told) && !error.contains("short"), "{token}: {error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(check().2.contains("admin.token_file: `admin.token` cannot be read"));
    write_secret(&file, TOKEN);
    let _gateway = site.start();
    let show =
        |token: &str| curl(&site, &["-H", &format!("Authorization: Bearer {token}")], "/connections").0;
    let other = "another-token-that-only-this-test-knows";
    assert_eq!((show(TOKEN), show(other)), (200, 401));
    write_secret(&site.path().join("new.token"), other);
    std::fs::rename(site.path().join("new.token"), &file).unwrap();
    eventually("the new token is known", || (show(other) == 200).then_some(()));
    assert_eq!(show(TOKEN), 401, "the old one is worth nothing any more");
}

#[test]
fn the_commands_tell_what_is_wrong_and_end_with_the_usual_codes() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let address = format!("127.0.0.1:{}", site.admin);
    let (code, _, error) = operate(&site, &["connections"]);
    assert!(code == Some(1) && error.contains(&format!("no gateway can be asked at `{address}`")), "{error}");
    let (code, _, error) = operate(&site, &["status", "--admin", "unix:nowhere.sock"]);
    assert!(code == Some(1) && error.contains("`unix:nowhere.sock`"), "{error}");
    let gateway = site.start();
    for (arguments, told) in [
        (&["kick"][..], "it must be said who"),
        (&["kick", "--trust-domain", "fleet"], "it must be said who"),
        (&["kick", "--serial", "01"], "only together with its issuer"),
        (&["kick", "--subject", "sensor-1"], "is not `TYPE=value`"),
        (&["kick", "--fingerprint", "abcd"], "has 4 hex digits"),
        (&["kick", "--connection", "1"], "16 hexadecimal digits"),
        (&["kick", "--subject", "CN=x", "--grace", "soon"], "is not a duration"),
        (&["connections", "--limit", "0"], "0 is not in 1.."),
        (&["connections", "--admin", "10.0.0.1:9900"], "a loopback address"),
    ] {
        let (code, _, error) = operate(&site, arguments);
        assert!(code == Some(2) && error.contains(told), "{arguments:?}: {code:?} {error}");
    }
    for (arguments, told) in [
        (&["kick", "--cert", "missing.crt"][..], "`missing.crt` cannot be read"),
        (&["kick", "--cert", "server.key"], "`server.key` holds no certificate"),
        (
            &["kick", "--subject", "CN=x", "--reason", "two\nlines"],
            "reason: it is too long or no single line",
        ),
        (&["connections", "--admin", &address], "this needs the token"),
        (&["connections", "--token-file", "missing"], "the token file `missing` cannot be read"),
        (&["connections", "--token-file", "gateway.yaml"], "`gateway.yaml` holds no token"),
    ] {
        let (code, _, error) = operate(&site, arguments);
        assert!(code == Some(1) && error.contains(told), "{arguments:?}: {code:?} {error}");
    }
    write_secret(&site.path().join("wrong.token"), "a-token-that-nobody-knows-0123456789");
    let (code, _, error) = operate(&site, &["kick", "--subject", "CN=x", "--token-file", "wrong.token"]);
    assert!(code == Some(1) && error.contains("not the token"), "{error}");
    let with_token = ["status", "--admin", &address, "--token-file", "admin.token"];
    let (code, status, _) = portcullis(&site, &with_token);
    assert!(code == Some(0) && status.contains("ready, up for") && status.contains("edge"), "{status}");
    let good = std::fs::read_to_string(site.path().join("gateway.yaml")).unwrap();
    std::fs::write(site.path().join("gateway.yaml"), good.replace("anchors: ca.crt", "anchors: gone.crt"))
        .unwrap();
    let (code, _, error) = operate(&site, &["reload"]);
    assert!(code == Some(1) && error.contains("trust.fleet.anchors: `gone.crt` cannot be read"), "{error}");
    assert!(operate(&site, &["status"]).1.contains("NOT in force is what is on disk"));
    gateway.logged(&["\"action\":\"reload\"", "\"result\":\"failed\"", "gone.crt"]);
}

#[test]
fn what_is_no_request_for_the_admin_endpoints_does_no_harm() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let large = "x".repeat(20_000);
    for (body, expected) in [
        (&*large, 413),
        ("{\"subject\":\"CN=sensor-1\"}", 400),
        ("subject=CN=a&subject=CN=b", 400),
        ("subject=", 400),
        ("%ff%00=%", 400),
        ("sbject=CN=a", 400),
    ] {
        assert_eq!(curl(&site, &["-H", AUTHORIZED, "-d", body], "/kick").0, expected, "{body:.40}");
    }
    assert_eq!(curl(&site, &["-H", AUTHORIZED], "/connections?limit=1001").0, 400);
    assert_eq!(gateway.admin_get("/healthz").0, 200);
    assert!(gateway.metric("portcullis_panics_total") < 0.5);
}
