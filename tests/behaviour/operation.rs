//! Start, reload, stop, and the commands.

use std::process::Command;

use crate::support::{BINARY, Origin, Site, eventually};

fn portcullis(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY).args(arguments).current_dir(site.path()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_reload_that_fails_changes_nothing_and_one_that_works_changes_all() {
    let (site, origin) = (Site::new(), Origin::start());
    let file = site.configure(&origin.address, &[]);
    let gateway = site.start();
    let good = std::fs::read_to_string(&file).unwrap();
    for (broken, told) in [
        (good.replace("anchors: ca.crt", "anchors: missing.crt"), "trust.fleet.anchors"),
        (good.replace("anchors: ca.crt", "anchors: server.key"), "holds no certificate"),
        (good.replace("pool: main", "pool: mian"), "did you mean `main`?"),
        ("version: [".to_owned(), "it is not YAML"),
    ] {
        std::fs::write(&file, broken).unwrap();
        let (status, text) = gateway.reload();
        assert!(status == 422 && text.contains(told), "{status} {text}");
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
        assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1);
    }
    std::fs::write(&file, good.replace("OU: sensors", "OU: gateways")).unwrap();
    gateway.signal("HUP");
    eventually("the reload is in force", || {
        (site.curl(Some("sensor-1"), &[], "/").status == 403).then_some(())
    });
    assert!(gateway.metric("portcullis_config_stale") < 0.1);
}

#[test]
fn a_reload_drops_no_connection() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let url = format!("https://localhost:{}/[1-60]", site.port);
    let path = site.path().to_owned();
    let client = std::thread::spawn(move || {
        Command::new("curl")
            .current_dir(path)
            .args([
                "-sS",
                "--http1.1",
                "--rate",
                "30/s",
                "--cacert",
                "ca.crt",
                "--cert",
                "sensor-1.crt",
                "--key",
            ])
            .args(["sensor-1.key", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\\n", &url])
            .output()
            .unwrap()
    });
    for _ in 0..8 {
        assert_eq!(gateway.reload().0, 200);
    }
    let output = String::from_utf8(client.join().unwrap().stdout).unwrap();
    assert_eq!(output.lines().filter(|line| line.starts_with("200")).count(), 60, "{output}");
    assert_eq!(
        output.lines().filter(|line| *line == "200 1").count(),
        1,
        "one connection carried all: {output}"
    );
}

#[test]
fn a_graceful_stop_lets_requests_finish_and_then_ends() {
    let site = Site::new();
    let origin = Origin::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(800));
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    site.configure(&origin.address, &[]);
    let mut gateway = site.start();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| site.curl(Some("sensor-1"), &["--http1.1"], "/").status);
        eventually("the request is under way", || (!origin.requests().is_empty()).then_some(()));
        gateway.signal("TERM");
        assert_eq!(slow.join().unwrap(), 200);
    });
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 0);
}

#[test]
fn a_binary_upgrade_hands_the_sockets_over() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(
        &origin.address,
        &[("server", "{ threads: 1, drain_timeout: 2s, upgrade_socket: upgrade.sock }")],
    );
    let mut old = site.start();
    let mut new = Command::new(BINARY)
        .args(["run", "-c", "gateway.yaml", "--upgrade"])
        .current_dir(site.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the new process waits", || site.path().join("upgrade.sock").exists().then_some(()));
    old.signal("QUIT");
    let mut statuses = Vec::new();
    eventually("the old process ends", || {
        statuses.push(site.curl(Some("sensor-1"), &[], "/").status);
        (old.pid() != 0 && !std::path::Path::new(&format!("/proc/{}/exe", old.pid())).exists()).then_some(())
    });
    statuses.push(site.curl(Some("sensor-1"), &[], "/").status);
    assert_eq!(old.wait(), Some(0));
    let _ = new.kill();
    let _ = new.wait();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    let (code, text) = portcullis(&site, &["run", "-c", "gateway.yaml"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot listen on") && text.contains("hint: `ss -ltnp`"), "{text}");
    drop(taken);
}

#[test]
fn bad_files_are_each_told_with_key_path_and_remedy() {
    let (site, origin) = (Site::new(), Origin::start());
    site.pki_in("other", &["init"]);
    site.pki_in("other", &["crl"]);
    std::fs::write(site.path().join("empty"), "").unwrap();
    let crt = std::fs::read(site.path().join("ca.crt")).unwrap();
    std::fs::write(site.path().join("truncated.crt"), &crt[..crt.len() / 2]).unwrap();
    std::fs::write(site.path().join("bad.csv"), "key,pool\nsensor-1,main\nsensor-2\n").unwrap();
    let trust = |anchors: &str, list: &str| {
        format!("{{ fleet: {{ anchors: {anchors}, revocation: {{ lists: [{list}] }} }} }}")
    };
    let table = "[{ pools_by: { key: subject.CN, table: bad.csv } }]";
    let mismatched = "[{ address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: sensor-1.key }] }, \
                      client_auth: { trust: [fleet] } }]";
    for (section, text, told) in [
        ("trust", trust("nowhere.crt", ""), "`trust.fleet.anchors: `"),
        ("trust", trust("empty", ""), "is empty"),
        ("trust", trust("truncated.crt", ""), "cannot be used"),
        ("trust", trust("server.key", ""), "holds no certificate"),
        ("trust", trust("server.crt", ""), "is not the certificate of a CA"),
        ("trust", trust("ca.crt", "ca.crt"), "holds no revocation list"),
        ("trust", trust("ca.crt", "other/ca.crl"), "is not among the certificates of the trust domain"),
        ("listeners", mismatched.to_owned(), "is not the key of"),
        ("routes", table.to_owned(), "line 3: the row needs two columns"),
    ] {
        site.configure(&origin.address, &[(section, &text)]);
        for verb in ["check", "run"] {
            let (code, output) = portcullis(&site, &[verb, "-c", "gateway.yaml"]);
            let told = told.trim_matches('`').trim_end();
            assert!(code == Some(1) && output.contains(told), "{verb} {text}: {code:?} {output}");
            assert!(!output.contains("panicked"), "{output}");
        }
    }
}

#[test]
fn explain_says_what_the_gateway_does() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("mallory", "CN=mallory");
    site.configure(&origin.address, &[]);
    let explain = |client: &[&str]| {
        let arguments =
            [&["explain", "-c", "gateway.yaml", "--json"], client, &["GET", "https://localhost/x"]].concat();
        let (code, text) = portcullis(&site, &arguments);
        assert_eq!(code, Some(0), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let answer = explain(&["--cert", "sensor-1.crt"]);
    assert_eq!((&answer["pool"], &answer["handshake"]["accepted"]), (&"main".into(), &true.into()));
    let headers = answer["headers"].as_array().unwrap();
    assert!(headers.iter().any(|header| header["name"] == "x-client-cn" && header["value"] == "sensor-1"));
    let answer = explain(&["--cert", "mallory.crt"]);
    assert_eq!((&answer["pool"], &answer["status"]), (&serde_json::Value::Null, &403.into()));
    assert_eq!(answer["routes"][0]["reasons"][0], "subject OU is missing, wanted `sensors`");
    assert_eq!(explain(&[])["handshake"]["accepted"], false);
    assert_eq!(explain(&["--cert", "server.crt"])["handshake"]["accepted"], false);
}

#[test]
fn commands_exit_with_0_1_or_2() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    for (arguments, code) in [
        (&["check", "-c", "gateway.yaml"][..], 0),
        (&["check", "-c", "nowhere.yaml"], 1),
        (&["explode"], 2),
        (&["version"], 0),
        (&["schema"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["pki", "init", "-d", "."], 1),
        (&["pki", "issue", "-d", ".", "x", "--days", "0"], 2),
        (&["pki", "crl", "-d", ".", "--days", "4294967295"], 2),
    ] {
        let (got, text) = portcullis(&site, arguments);
        assert_eq!(got, Some(code), "{arguments:?}: {text}");
    }
}

#[test]
fn metrics_and_status_are_for_loopback_and_never_on_a_public_listener() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    assert!(gateway.admin_get("/metrics").1.contains("portcullis_build_info"));
    let status: serde_json::Value = serde_json::from_str(&gateway.admin_get("/status").1).unwrap();
    assert_eq!(status["ready"], true);
    assert!(gateway.admin_get("/certs").1.contains("CN=localhost"));
    // A public listener forwards the same paths like any other.
    assert!(site.curl(Some("sensor-1"), &[], "/metrics").body.starts_with("GET /metrics HTTP/1.1"));
    let (code, text) = {
        site.configure(&origin.address, &[("admin", "{ address: \"0.0.0.0:9900\" }")]);
        portcullis(&site, &["check", "-c", "gateway.yaml"])
    };
    assert!(code == Some(1) && text.contains("can be reached from other machines"), "{text}");
}

#[test]
fn a_revocation_list_older_than_the_one_in_force_is_refused_and_a_newer_one_is_taken() {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["crl"]);
    let list = site.path().join("ca.crl");
    let old = std::fs::read(&list).unwrap();
    site.pki(&["revoke", "sensor-2.crt"]);
    site.pki(&["crl"]);
    site.configure(
        &origin.address,
        &[("trust", "{ fleet: { anchors: ca.crt, revocation: { lists: [ca.crl] } } }")],
    );
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 0);
    std::fs::write(&list, old).unwrap();
    let (status, text) = gateway.reload();
    assert!(status == 422 && text.contains("trust.fleet.revocation.lists: the revocation list of"), "{text}");
    assert!(text.contains("older than the one in force"), "{text}");
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 0, "it is still revoked");
    assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1);
    site.pki(&["crl"]);
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 0);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn a_reload_changes_what_is_logged_and_refuses_what_only_a_restart_can_change() {
    let (site, origin) = (Site::new(), Origin::start());
    let gateway = {
        site.configure(&origin.address, &[]);
        site.start()
    };
    let reload = |sections: &[(&str, &str)]| {
        site.configure(&origin.address, sections);
        gateway.reload()
    };
    let request = |path: &str| assert_eq!(site.curl(Some("sensor-1"), &[], path).status, 200);
    request("/told");
    gateway.logged(&["\"path\":\"/told\""]);
    assert_eq!(reload(&[("logging", "{ level: error, access: { requests: false } }")]).0, 200);
    request("/not-told");
    assert_eq!(reload(&[("logging", "{ level: debug }")]).0, 200);
    request("/told-again");
    gateway.logged(&["\"path\":\"/told-again\""]);
    gateway.logged(&["\"level\":\"debug\""]);
    assert!(!gateway.log().contains("/not-told"));
    for (section, text, told) in [
        ("logging", "{ format: text }", "logging.format: the format of the log changed"),
        ("server", "{ threads: 2, drain_timeout: 5s }", "server.threads: the number of threads changed"),
        ("server", "{ threads: 1, drain_timeout: 6s }", "server.drain_timeout: the time to drain changed"),
        ("server", "{ threads: 1, drain_timeout: 5s, upgrade_socket: x }", "server.upgrade_socket: "),
        ("admin", "{ address: \"127.0.0.1:1\" }", "admin: the admin address changed"),
    ] {
        let (status, answer) = reload(&[(section, text)]);
        assert!(status == 422 && answer.contains(told), "{text}: {status} {answer}");
    }
    assert_eq!(reload(&[]).0, 200);
}

#[test]
fn an_upgrade_without_a_place_for_its_socket_is_one_clear_error() {
    let (site, origin) = (Site::new(), Origin::start());
    std::fs::write(site.path().join("file"), "precious").unwrap();
    for (socket, told) in [
        ("nowhere/upgrade.sock", "No such file or directory"),
        ("file", "it is there already, and is no socket"),
        (&*"x".repeat(200), "a path for a Unix socket"),
    ] {
        let server = format!("{{ threads: 1, upgrade_socket: \"{socket}\" }}");
        site.configure(&origin.address, &[("server", &server)]);
        let (code, text) = portcullis(&site, &["run", "-c", "gateway.yaml", "--upgrade"]);
        assert!(code == Some(1) && text.contains(told) && !text.contains("panicked"), "{code:?} {text}");
    }
    assert_eq!(std::fs::read(site.path().join("file")).unwrap(), b"precious");
}

#[test]
fn a_quit_signal_without_a_successor_changes_nothing_and_ctrl_c_ends_even_a_drain() {
    let (site, origin) = (Site::new(), Origin::start());
    let listeners = "[{ name: edge, address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { trust: [fleet] }, limits: { handshake_timeout: 30s } }]";
    let server = "{ threads: 1, drain_timeout: 60s, upgrade_socket: upgrade.sock }";
    site.configure(&origin.address, &[("listeners", listeners), ("server", server)]);
    let mut gateway = site.start();
    gateway.signal("QUIT");
    gateway.logged(&["SIGQUIT: no process waits for the sockets"]);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    // In the midst of its handshake: a drain would wait for it.
    let _silent = std::net::TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    let open = "portcullis_connections{listener=\"edge\"}";
    eventually("it is connected", || (gateway.metric(open) > 0.5).then_some(()));
    gateway.signal("TERM");
    gateway.logged(&["draining"]);
    gateway.signal("INT");
    assert_eq!(gateway.wait(), Some(0));
    assert!(gateway.log().contains("interrupted while draining"), "{}", gateway.log());
}

#[test]
fn an_authority_revokes_only_what_it_issued_and_leaves_nothing_out_of_its_list() {
    let site = Site::new();
    site.pki_in("other", &["init", "--common-name", "Test CA"]);
    site.pki_in("other", &["issue", "stranger"]);
    let (code, text) = portcullis(&site, &["pki", "revoke", "-d", ".", "other/stranger.crt"]);
    assert!(code == Some(1) && text.contains("another authority of the same name"), "{code:?} {text}");
    assert_eq!(portcullis(&site, &["pki", "revoke", "-d", ".", "sensor-1.crt"]).0, Some(0));
    let noted = site.path().join("revoked.json");
    let damaged = std::fs::read_to_string(&noted).unwrap().replace("\"serial\": \"", "\"serial\": \"xyz");
    std::fs::write(&noted, damaged.replace("\"serial\":\"", "\"serial\":\"xyz")).unwrap();
    let (code, text) = portcullis(&site, &["pki", "crl", "-d", "."]);
    assert!(code == Some(1) && text.contains("is not a serial number"), "{code:?} {text}");
    assert!(!site.path().join("ca.crl").exists());
}

#[test]
fn nobody_reading_is_no_fault_of_the_program() {
    let site = Site::new();
    for arguments in ["completions bash", "schema", "version", "pki init -d elsewhere", "pki issue -d . x"] {
        let command = format!("{BINARY} {arguments} > /dev/full");
        let output = Command::new("sh").current_dir(site.path()).args(["-c", &command]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(0) && told.is_empty(),
            "{arguments}: {:?} {told}",
            output.status
        );
    }
}

#[test]
fn systemd_is_told_of_readiness_reloads_stops_and_that_we_live() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let path = site.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    // The watchdog is that of one process; `exec` keeps the number that the shell has.
    let mut command = Command::new("sh");
    command.current_dir(site.path()).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    command.args(["-c", &format!("export WATCHDOG_PID=$$; exec {BINARY} run -c gateway.yaml")]);
    let mut gateway = crate::support::Gateway::spawn(command, site.admin);
    let hear = |wanted: &str| {
        let mut message = [0; 512];
        eventually(wanted, || {
            let length = socket.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..length]).lines().any(|line| line == wanted).then_some(())
        });
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    gateway.signal("HUP");
    hear("RELOADING=1");
    hear("READY=1");
    gateway.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn a_socket_of_systemd_is_served_by_its_name_and_one_that_was_not_passed_is_an_error() {
    let (site, origin) = (Site::new(), Origin::start());
    let listeners = "[{ name: edge, address: \"systemd:edge\", tls: { certificates: [{ chain: server.crt, key: \
                     server.key }] }, client_auth: { trust: [fleet] } }]";
    site.configure(&origin.address, &[("listeners", listeners)]);
    let (code, text) = portcullis(&site, &["run", "-c", "gateway.yaml"]);
    assert!(code == Some(1) && text.contains("systemd passed no socket called `edge`"), "{code:?} {text}");
    let mut command = Command::new("systemd-socket-activate");
    command.current_dir(site.path()).args(["--fdname=edge", &format!("--listen=127.0.0.1:{}", site.port)]);
    command.args([BINARY, "run", "-c", "gateway.yaml"]);
    // The first connection starts the program, and is served when it is ready.
    let first = std::net::TcpStream::connect_timeout;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], site.port));
    let waiting = std::thread::spawn(move || {
        eventually("systemd listens", || first(&address, std::time::Duration::from_secs(1)).ok())
    });
    let _gateway = crate::support::Gateway::spawn(command, site.admin);
    drop(waiting.join().unwrap());
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}

#[test]
fn an_admin_socket_replaces_what_an_earlier_run_left_and_nothing_else() {
    let (site, origin) = (Site::new(), Origin::start());
    let configure = |socket: &str| {
        site.configure(&origin.address, &[("admin", &format!("{{ address: \"unix:{socket}\" }}"))]);
    };
    let ask = || {
        let command = ["-s", "--max-time", "5", "--unix-socket", "admin.sock", "http://gateway/readyz"];
        let output = Command::new("curl").current_dir(site.path()).args(command).output().unwrap();
        (output.stdout == b"ready\n").then_some(())
    };
    let start = || {
        let mut command = Command::new(BINARY);
        command.current_dir(site.path()).args(["run", "-c", "gateway.yaml"]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    configure("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(site.path().join("admin.sock")).unwrap());
    let mut gateway = start();
    eventually("it is ready", ask);
    let listeners = "[{ address: \"127.0.0.1:PORT\", tls: { certificates: [{ chain: server.crt, key: server.key }] }, \
                     client_auth: { trust: [fleet] } }]";
    let elsewhere = listeners.replace("PORT", &crate::support::free_port().to_string());
    let admin = ("admin", "{ address: \"unix:admin.sock\" }");
    site.configure(&origin.address, &[admin, ("listeners", &elsewhere)]);
    let (code, text) = portcullis(&site, &["run", "-c", "gateway.yaml"]);
    assert!(
        code == Some(1) && text.contains("admin.sock` cannot be used: another process"),
        "{code:?} {text}"
    );
    assert!(ask().is_some(), "the one that was there is still reached");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    configure("server.key");
    let (code, text) = portcullis(&site, &["run", "-c", "gateway.yaml"]);
    assert!(code == Some(1) && text.contains("server.key` cannot be used"), "{code:?} {text}");
    assert!(std::fs::read_to_string(site.path().join("server.key")).unwrap().contains("PRIVATE KEY"));
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_not_taken_in_huge_pages() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    // Kernels before 5.0 do not tell.
    let told = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    assert!(told.is_none_or(|told| told.trim() == "0"), "{told:?}");
}
