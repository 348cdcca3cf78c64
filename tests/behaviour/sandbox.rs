//! What the process gives up after its start, and that everything it is for goes on.

use std::path::Path;
use std::process::Command;

use crate::support::{BINARY, Gateway, Origin, Site, eventually};

/// With what the test needs beside it.
fn sandboxed(sandbox: &str) -> (Site, Origin) {
    let (site, origin) = (Site::new(), Origin::start());
    let server = format!(
        "{{ threads: 1, drain_timeout: 2s, state_directory: state, upgrade_socket: upgrade.sock, sandbox: {sandbox} }}"
    );
    site.configure(&origin.address, &[("server", &server)]);
    (site, origin)
}

/// A line of `/proc/PID/status`, of each thread.
fn of_each_thread(process: u32, name: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: std::fs::DirEntry| {
        // It may have ended.
        let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
        line.map(str::to_owned)
    };
    let found: Vec<String> = threads.map(Result::unwrap).filter_map(of).collect();
    assert!(found.len() > 5, "{found:?}");
    found
}

fn sandbox(gateway: &Gateway) -> serde_json::Value {
    let status: serde_json::Value = serde_json::from_str(&gateway.admin_get("/status").1).unwrap();
    status["sandbox"].clone()
}

/// Whether the kernel of this machine confines files.
fn has_landlock(gateway: &Gateway) -> bool {
    let has = !sandbox(gateway)["landlock"].is_null();
    if !has {
        eprintln!("this kernel offers no Landlock: that part is not tested");
    }
    has
}

#[test]
fn every_thread_has_given_up_what_it_does_not_need_unless_that_is_off() {
    let (site, _origin) = sandboxed("on");
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let all = |name: &str, value: &str| {
        let found = of_each_thread(gateway.pid(), name);
        assert!(found.iter().all(|found| found == value), "{name}: {found:?}");
    };
    all("NoNewPrivs", "1");
    all("Seccomp", "2");
    let is_root = of_each_thread(gateway.pid(), "Uid").iter().any(|ids| ids.starts_with("0\t"));
    for set in ["CapPrm", "CapEff"] {
        // Root keeps the one with which it can read, at a reload, the keys of others.
        all(set, if is_root { "0000000000000002" } else { "0000000000000000" });
    }
    all("CapAmb", "0000000000000000");
    all("CapInh", "0000000000000000");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{cores}");
    let status = sandbox(&gateway);
    assert!(status["system_calls_filtered"] == true && status["core_dumps"] == false, "{status}");
    gateway.logged(&["sandbox: no new privileges", "system calls filtered; no core dumps"]);
    let (_, metrics) = gateway.admin_get("/metrics");
    for figure in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
        assert!(metrics.lines().any(|line| line.starts_with(figure)), "{figure}");
    }

    let (site, _origin) = sandboxed("off");
    let gateway = site.start();
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    for name in ["NoNewPrivs", "Seccomp", "CapEff"] {
        let here = ours.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim();
        assert!(of_each_thread(gateway.pid(), name).iter().all(|found| found == here), "{name}");
    }
    assert_eq!(sandbox(&gateway)["mode"], "off");
    gateway.logged(&["sandbox: off"]);
}

#[test]
fn a_reload_that_names_a_file_elsewhere_is_refused_and_says_what_to_do() {
    let elsewhere = tempfile::tempdir().unwrap();
    let name = elsewhere.path().display().to_string();
    for (sandbox, is_taken) in [("on", false), ("off", true), (&*format!("{{ read: [\"{name}\"] }}"), true)] {
        let (site, _origin) = sandboxed(sandbox);
        let gateway = site.start();
        if sandbox == "on" && !has_landlock(&gateway) {
            continue;
        }
        std::fs::copy(site.path().join("ca.crt"), elsewhere.path().join("ca.crt")).unwrap();
        let file = site.path().join("gateway.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        let moved = good.replace("anchors: ca.crt", &format!("anchors: \"{name}/ca.crt\""));
        std::fs::write(&file, moved).unwrap();
        let (status, told) = gateway.reload();
        assert_eq!(status == 200, is_taken, "{sandbox}: {told}");
        if !is_taken {
            for part in ["trust.fleet.anchors: `", "cannot be read", "server.sandbox: `", "hint: restart"] {
                assert!(told.contains(part), "{told}");
            }
        }
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "{sandbox}");
    }
}

#[test]
fn keys_are_replaced_and_links_followed_within_what_was_named() {
    let (site, origin) = (Site::new(), Origin::start());
    let volume = site.path().join("volume");
    for (version, name) in [("..1", "one"), ("..2", "two")] {
        std::fs::create_dir_all(volume.join(version)).unwrap();
        site.pki(&[
            "issue",
            name,
            "--kind",
            "server",
            "--subject",
            &format!("CN={name}"),
            "--dns",
            "localhost",
        ]);
        for kind in ["crt", "key"] {
            let from = site.path().join(format!("{name}.{kind}"));
            std::fs::rename(from, volume.join(version).join(format!("server.{kind}"))).unwrap();
        }
    }
    std::os::unix::fs::symlink("..1", volume.join("..data")).unwrap();
    for kind in ["crt", "key"] {
        std::os::unix::fs::symlink(format!("..data/server.{kind}"), volume.join(format!("server.{kind}")))
            .unwrap();
    }
    site.configure(&origin.address, &[("server", "{ threads: 1, sandbox: on }")]);
    let file = site.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("server.crt", "volume/server.crt").replace("server.key", "volume/server.key");
    std::fs::write(&file, text).unwrap();
    let gateway = site.start();
    std::os::unix::fs::symlink("..2", volume.join("..new")).unwrap();
    std::fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    eventually("the new certificate is shown", || {
        site.s_client(&["-brief"], "").contains("CN = two").then_some(())
    });
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    drop(gateway);
}

#[test]
fn a_process_that_takes_the_sockets_over_is_confined_before_it_serves() {
    let (site, _origin) = sandboxed("on");
    let mut old = site.start();
    let mut new = Command::new(BINARY)
        .args(["run", "-c", "gateway.yaml", "--upgrade"])
        .current_dir(site.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the new process waits", || site.path().join("upgrade.sock").exists().then_some(()));
    let seccomp = of_process(new.id(), "Seccomp");
    old.signal("QUIT");
    assert_eq!(old.wait(), Some(0));
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let _ = new.kill();
    let _ = new.wait();
    assert_eq!(seccomp, "2", "the new process is confined before it serves");
}

fn of_process(process: u32, name: &str) -> String {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[test]
fn a_state_directory_that_could_not_be_made_is_told_of_at_start() {
    let (site, _origin) = sandboxed("on");
    std::fs::write(site.path().join("state"), "no directory").unwrap();
    let gateway = site.start();
    if has_landlock(&gateway) {
        gateway.logged(&["state` is no directory", "start again"]);
    }
}

#[test]
fn what_is_no_sandbox_is_told() {
    let site = Site::new();
    for (sandbox, told) in [
        ("maybe", "server.sandbox: unknown variant `maybe`"),
        ("{ mode: off, write: [x] }", "unknown field `write`"),
        ("{ read: [\"\"] }", "server.sandbox.read[0]: it is empty"),
        ("[on]", "`on`, `require`, `off`, or `{ mode: on, read: [DIRECTORY] }`"),
    ] {
        site.configure("127.0.0.1:1", &[("server", &format!("{{ sandbox: {sandbox} }}"))]);
        let output = Command::new(BINARY)
            .args(["check", "-c", "gateway.yaml"])
            .current_dir(site.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(told), "{sandbox}: {text}");
    }
}

#[test]
fn a_private_key_that_everybody_may_read_is_told_of() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    site.configure("127.0.0.1:1", &[]);
    let check = |mode| {
        let key = site.path().join("server.key");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(mode)).unwrap();
        let check =
            Command::new(BINARY).args(["check", "-c", "gateway.yaml"]).current_dir(site.path()).output();
        let output = check.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told = "listeners[0].tls.certificates[0].key: `server.key` is a private key that everybody";
    assert!(check(0o644).contains(told));
    assert!(check(0o660).contains("that its group may change"));
    for good in [0o600, 0o640, 0o400] {
        assert!(!check(good).contains("is a private key"));
    }
}
