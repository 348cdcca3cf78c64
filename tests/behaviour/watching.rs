//! Files that the configuration names are read anew when they change, whole or not at all.

use std::time::Duration;

use crate::support::open::OpenConnection;
use crate::support::{Gateway, Origin, Site, eventually, run};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "{ threads: 1, drain_timeout: 1s, watch: WATCH }";

fn site(list: &str, watch: &str) -> (Site, Gateway) {
    let (site, origin) = (Site::new(), Origin::start());
    site.client("sensor-2", "CN=sensor-2,OU=sensors");
    site.pki(&["crl"]);
    if list == "volume/ca.crl" {
        publish(&site, "..1");
        std::os::unix::fs::symlink("..data/ca.crl", site.path().join(list)).unwrap();
    }
    let trust = format!("{{ fleet: {{ anchors: ca.crt, revocation: {{ lists: [{list}] }} }} }}");
    site.configure(&origin.address, &[("trust", &trust), ("server", &SERVER.replace("WATCH", watch))]);
    let gateway = site.start();
    (site, gateway)
}

/// As the kubelet replaces the files of a volume.
fn publish(site: &Site, version: &str) {
    let volume = site.path().join("volume");
    std::fs::create_dir_all(volume.join(version)).unwrap();
    std::fs::copy(site.path().join("ca.crl"), volume.join(version).join("ca.crl")).unwrap();
    std::os::unix::fs::symlink(version, volume.join("..data_tmp")).unwrap();
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("portcullis_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn a_client_is_out_within_a_second_of_the_list_that_revokes_it() {
    for list in ["ca.crl", "volume/ca.crl"] {
        let (site, gateway) = site(list, "true");
        let mut revoked = OpenConnection::new(&site, Some("sensor-1"));
        let mut other = OpenConnection::new(&site, Some("sensor-2"));
        assert_eq!((revoked.get("/"), other.get("/")), (200, 200));
        site.pki(&["revoke", "sensor-1.crt"]);
        site.pki(&["crl"]);
        if list == "volume/ca.crl" {
            publish(&site, "..2");
        }
        assert!(revoked.ends_within(SECOND), "{list}");
        assert_eq!(other.get("/"), 200);
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 0);
        assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
        assert!((reloads(&gateway, "ok") - 1.0).abs() < 0.1, "{list}: one change, one reload");
    }
}

#[test]
fn nothing_is_read_by_itself_where_that_is_switched_off() {
    let (site, gateway) = site("ca.crl", "false");
    let mut revoked = OpenConnection::new(&site, Some("sensor-1"));
    assert_eq!(revoked.get("/"), 200);
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    assert!(!revoked.ends_within(3 * SECOND));
    assert!(reloads(&gateway, "ok") < 0.1);
    assert_eq!(gateway.reload().0, 200);
    assert!(revoked.ends_within(SECOND));
}

#[test]
fn a_damaged_file_changes_nothing_and_the_next_good_one_mends_it() {
    let (site, gateway) = site("ca.crl", "true");
    site.pki(&["revoke", "sensor-1.crt"]);
    let good = std::fs::read(site.path().join("ca.crl")).unwrap();
    std::fs::write(site.path().join("ca.crl"), &good[..good.len() / 2]).unwrap();
    eventually("it is refused", || (reloads(&gateway, "failed") > 0.5).then_some(()));
    gateway.logged(&["reload refused", "trust.fleet.revocation.lists[0]"]);
    assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1);
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "what was in force stays");
    site.pki(&["crl"]);
    eventually("the whole list is in force", || {
        (site.curl(Some("sensor-1"), &[], "/").status == 0).then_some(())
    });
    assert!(gateway.metric("portcullis_config_stale") < 0.1);
}

#[test]
fn what_failed_because_of_a_file_when_somebody_asked_is_mended_with_the_file() {
    let (site, gateway) = site("ca.crl", "true");
    let stale = || gateway.metric("portcullis_config_stale") > 0.5;
    for file in ["server.crt", "ca.crl"] {
        let path = site.path().join(file);
        if file == "ca.crl" {
            site.pki(&["crl"]);
        }
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() / 2]).unwrap();
        eventually("it is told", || stale().then_some(()));
        assert_eq!(gateway.reload().0, 422, "{file}");
        std::fs::write(&path, &good).unwrap();
        eventually("it is mended", || (!stale()).then_some(()));
    }
    // But a configuration that is wrong is not mended by a file that is right.
    let yaml = site.path().join("gateway.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap();
    std::fs::write(&yaml, "version: 2\n").unwrap();
    assert_eq!(gateway.reload().0, 422);
    let before = reloads(&gateway, "ok");
    site.pki(&["crl"]);
    eventually("the list is read", || (reloads(&gateway, "ok") > before).then_some(()));
    assert!(stale());
    std::fs::write(&yaml, text).unwrap();
    assert_eq!(gateway.reload().0, 200);
    assert!(!stale());
}

#[test]
fn a_client_is_out_although_another_list_a_table_and_a_certificate_are_damaged() {
    let (site, origin) = (Site::new(), Origin::start());
    for name in ["sensor-2", "sensor-3"] {
        site.client(name, &format!("CN={name},OU=sensors"));
    }
    site.pki(&["crl"]);
    let (lists, deny) = (site.path().join("lists"), site.path().join("deny"));
    for directory in [&lists, &deny] {
        std::fs::create_dir(directory).unwrap();
    }
    let publish = || assert!(std::fs::copy(site.path().join("ca.crl"), lists.join("ca.crl")).is_ok());
    let write = |file: std::path::PathBuf, text: &str| std::fs::write(file, text).unwrap();
    publish();
    write(site.path().join("table.csv"), "sensor-1,main\nsensor-2,main\nsensor-3,main\n");
    let trust = "{ fleet: { anchors: ca.crt, revocation: { lists: [lists] }, deny: [deny] } }";
    let routes = "[{ pools_by: { key: subject.CN, table: table.csv } }]";
    let server = SERVER.replace("WATCH", "true");
    site.configure(&origin.address, &[("trust", trust), ("routes", routes), ("server", &server)]);
    let gateway = site.start();
    let status = |client| site.curl(Some(client), &[], "/").status;
    assert_eq!(["sensor-1", "sensor-2", "sensor-3"].map(status), [200; 3]);

    write(lists.join("broken.crl"), "no list");
    write(deny.join("broken.yaml"), "deny: [{ subject: 1 }]");
    write(site.path().join("table.csv"), "sensor-1,nowhere\n");
    eventually("it is told", || (reloads(&gateway, "failed") > 0.5).then_some(()));
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    publish();
    write(deny.join("stolen.yaml"), "deny: [{ subject: { CN: sensor-2 }, reason: stolen }]");
    eventually("both are out", || (["sensor-1", "sensor-2"].map(status) == [0, 0]).then_some(()));
    assert_eq!(status("sensor-3"), 200, "the table in force stays");
    assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1);
    let told = gateway.admin_get("/status").1;
    assert!(told.contains("broken.crl") || told.contains("table.csv"), "{told}");

    // What cannot be read brings nobody back.
    write(deny.join("stolen.yaml"), "deny: [{");
    eventually("it is told too", || gateway.log().contains("stolen.yaml").then_some(()));
    assert_eq!(["sensor-1", "sensor-2", "sensor-3"].map(status), [0, 0, 200]);

    for file in [lists.join("broken.crl"), deny.join("broken.yaml"), deny.join("stolen.yaml")] {
        std::fs::remove_file(file).unwrap();
    }
    eventually("who is no longer denied is back", || (status("sensor-2") == 200).then_some(()));
    assert_eq!(status("sensor-1"), 0, "who is revoked is not");
    assert!((gateway.metric("portcullis_config_stale") - 1.0).abs() < 0.1, "the table is still wrong");
    write(site.path().join("table.csv"), "sensor-2,main\n");
    eventually("all is as the files say", || (gateway.metric("portcullis_config_stale") < 0.1).then_some(()));
    assert_eq!(["sensor-1", "sensor-2", "sensor-3"].map(status), [0, 200, 403]);
}

#[test]
fn a_half_written_configuration_neither_takes_effect_by_itself_nor_holds_up_a_revocation() {
    let (site, gateway) = site("ca.crl", "true");
    let file = site.path().join("gateway.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("pool: main", "pool: mian")).unwrap();
    assert_eq!(gateway.reload().0, 422);
    site.pki(&["revoke", "sensor-1.crt"]);
    site.pki(&["crl"]);
    eventually("it is out", || (site.curl(Some("sensor-1"), &[], "/").status == 0).then_some(()));
    assert_eq!(site.curl(Some("sensor-2"), &[], "/").status, 200);
    let stale = gateway.metric("portcullis_config_stale");
    assert!((stale - 1.0).abs() < 0.1, "the configuration is still wrong");
    assert!(gateway.admin_get("/status").1.contains("mian"));
    std::fs::write(&file, &good).unwrap();
    assert_eq!(gateway.reload().0, 200);
    assert!(gateway.metric("portcullis_config_stale") < 0.1);
}

#[test]
fn a_renewed_server_certificate_is_shown_without_anybody_asking() {
    let (site, _gateway) = site("ca.crl", "true");
    let shown = || {
        let command = format!(
            "openssl s_client -connect 127.0.0.1:{} -cert sensor-1.crt -key sensor-1.key </dev/null 2>/dev/null | \
             openssl x509 -noout -serial",
            site.port
        );
        String::from_utf8(run(site.path(), "sh", &["-c", &command]).stdout).unwrap()
    };
    let before = shown();
    site.pki(&["issue", "renewed", "--kind", "server", "--subject", "CN=localhost", "--dns", "localhost"]);
    let replace =
        |from: &str, to: &str| std::fs::rename(site.path().join(from), site.path().join(to)).unwrap();
    replace("renewed.crt", "server.crt");
    replace("renewed.key", "server.key");
    eventually("the new one is shown", || (shown() != before).then_some(()));
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
}
