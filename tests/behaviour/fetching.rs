//! Revocation lists fetched by URL: the last good one stays in force, whatever the server does.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::open::OpenConnection;
use crate::support::publisher::{Manner, Publisher};
use crate::support::{BINARY, Gateway, Origin, Site, eventually, run};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "{ threads: 1, drain_timeout: 1s, state_directory: state }";

/// A site with two clients, whose list is fetched every second.
struct Fleet {
    site: Site,
    origin: Origin,
    more: &'static str,
}

impl Fleet {
    fn new() -> Self {
        let site = Site::new();
        site.client("sensor-2", "CN=sensor-2,OU=sensors");
        Self { site, origin: Origin::start(), more: "" }
    }

    fn configure(&self, url: &str, policy: &str) -> PathBuf {
        let trust = format!(
            "{{ fleet: {{ anchors: ca.crt, revocation: {{ lists: [{{ url: \"{url}\", every: 1s{} }}]{policy} }} }} }}",
            self.more
        );
        self.site.configure(&self.origin.address, &[("trust", &trust), ("server", SERVER)])
    }

    fn start(&self, publisher: &Publisher) -> Gateway {
        self.configure(&publisher.url, "");
        self.site.start()
    }

    /// The next list of the authority.
    fn list(&self) -> Manner {
        self.site.pki(&["crl"]);
        Manner::Body(std::fs::read(self.site.path().join("ca.crl")).unwrap())
    }

    fn revoke(&self, client: &str) -> Manner {
        self.site.pki(&["revoke", &format!("{client}.crt")]);
        self.list()
    }

    fn status(&self, client: &str) -> u16 {
        self.site.curl(Some(client), &[], "/").status
    }

    fn kept(&self) -> PathBuf {
        let files = std::fs::read_dir(self.site.path().join("state/lists")).unwrap();
        let mut lists =
            files.map(|file| file.unwrap().path()).filter(|file| file.extension().unwrap() == "crl");
        lists.next().unwrap()
    }
}

fn fetches(gateway: &Gateway, url: &str, result: &str) -> f64 {
    let labels = format!("{{result=\"{result}\",trust_domain=\"fleet\",url=\"{url}\"}}");
    gateway.metric(&format!("portcullis_revocation_fetches_total{labels}"))
}

fn counted(gateway: &Gateway, url: &str, result: &str) {
    eventually(&format!("`{result}` is counted"), || (fetches(gateway, url, result) > 0.5).then_some(()));
}

#[test]
fn a_client_is_out_as_soon_as_the_list_that_revokes_it_is_fetched() {
    let fleet = Fleet::new();
    let publisher = Publisher::start(fleet.list());
    let gateway = fleet.start(&publisher);
    let mut revoked = OpenConnection::new(&fleet.site, Some("sensor-1"));
    let mut other = OpenConnection::new(&fleet.site, Some("sensor-2"));
    assert_eq!((revoked.get("/"), other.get("/")), (200, 200));
    publisher.becomes(fleet.revoke("sensor-1"));
    assert!(revoked.ends_within(4 * SECOND));
    assert_eq!((other.get("/"), fleet.status("sensor-1"), fleet.status("sensor-2")), (200, 0, 200));
    gateway.logged(&["\"reason\":\"revoked\""]);
    counted(&gateway, &publisher.url, "new");
    let name = "portcullis_revocation_fetch_last_success_timestamp_seconds";
    let at = gateway.metric(&format!("{name}{{trust_domain=\"fleet\",url=\"{}\"}}", publisher.url));
    assert!(at > 1e9, "{at}");
}

#[test]
fn a_list_that_is_there_already_is_not_sent_again() {
    let fleet = Fleet::new();
    let publisher = Publisher::start(fleet.list());
    let gateway = fleet.start(&publisher);
    eventually("it is asked for again", || {
        (fetches(&gateway, &publisher.url, "unchanged") > 1.5).then_some(())
    });
    let requests = publisher.requests();
    assert!(!requests[0].contains("if-none-match"), "{requests:?}");
    assert!(requests[1..].iter().all(|head| head.contains("if-none-match")), "{requests:?}");
    assert!(gateway.metric("portcullis_reloads_total{result=\"ok\"}") < 0.5, "nothing is read anew");
    std::fs::write(fleet.kept(), "damaged").unwrap();
    gateway.logged(&["reload refused", "there is no usable list"]);
    assert_eq!(fleet.status("sensor-1"), 200, "what was in force stays");
    let list = eventually("it is fetched anew", || {
        let kept = std::fs::read(fleet.kept()).unwrap();
        kept.starts_with(b"-----BEGIN X509 CRL").then_some(kept)
    });
    assert_eq!(list, std::fs::read(fleet.site.path().join("ca.crl")).unwrap());
}

#[test]
fn whatever_the_server_does_the_last_good_list_stays_in_force() {
    let mut fleet = Fleet::new();
    fleet.more = ", timeout: 1s, max_bytes: 100000";
    let first = fleet.list();
    let publisher = Publisher::start(fleet.revoke("sensor-1"));
    let gateway = fleet.start(&publisher);
    assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200));
    let kept = std::fs::read(fleet.kept()).unwrap();
    fleet.site.pki_in("other", &["init", "--common-name", "Other CA"]);
    fleet.site.pki_in("other", &["crl"]);
    let foreign = std::fs::read(fleet.site.path().join("other/ca.crl")).unwrap();
    let half = Manner::Half(kept.clone());
    for (manner, result, told) in [
        (Manner::Page("500 Internal Server Error"), "status", "status 500"),
        (Manner::Page("404 Not Found"), "status", "is the URL right?"),
        (Manner::Page("200 OK"), "refused", "it looks like a web page"),
        (first, "refused", "is older than the one in force"),
        (Manner::Body(foreign), "refused", "is not among the certificates of the trust domain"),
        (Manner::Body(kept[..kept.len() / 2].to_vec()), "refused", "what it sends is refused"),
        (Manner::Body(Vec::new()), "refused", "it holds no revocation list"),
        (Manner::Announced(1_000_000_000), "too_large", "larger than 100000 bytes"),
        (Manner::Endless, "too_large", "raise `max_bytes`"),
        (Manner::Silent, "timeout", "no whole answer within 1 s"),
        (half, "unreachable", "cannot be reached"),
        (Manner::Down, "unreachable", "what was fetched last stays in force"),
        (Manner::Redirect(publisher.url.clone()), "refused", "more than 3 redirects"),
    ] {
        let before = fetches(&gateway, &publisher.url, result);
        publisher.becomes(manner);
        eventually(&format!("it is noticed: {told}"), || {
            (fetches(&gateway, &publisher.url, result) > before + 0.5).then_some(())
        });
        gateway.logged(&["could not be fetched", &publisher.url, told, "the next attempt is in"]);
        assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200), "{told}");
        assert_eq!(std::fs::read(fleet.kept()).unwrap(), kept, "{told}");
    }
    publisher.becomes(fleet.revoke("sensor-2"));
    eventually("it is well again", || (fleet.status("sensor-2") == 0).then_some(()));
}

#[test]
fn a_restart_believes_the_kept_list_while_the_server_is_down() {
    let fleet = Fleet::new();
    let publisher = Publisher::start(fleet.revoke("sensor-1"));
    let gateway = fleet.start(&publisher);
    assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200));
    drop(gateway);
    publisher.becomes(Manner::Down);
    let gateway = fleet.site.start();
    assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200));
    counted(&gateway, &publisher.url, "unreachable");
}

#[test]
fn a_list_that_was_never_obtained_is_a_matter_of_policy() {
    for (policy, admitted, refused) in [
        ("", 0, 0),
        (", when_stale: refuse", 0, 0),
        (", when_stale: believe", 200, 0),
        (", when_stale: { believe_for: 1h }", 200, 0),
        (", when_stale: { believe_for: 1s }", 0, 0),
    ] {
        let fleet = Fleet::new();
        let publisher = Publisher::start(Manner::Down);
        fleet.configure(&publisher.url, policy);
        let gateway = fleet.site.start();
        eventually(policy, || (fleet.status("sensor-1") == admitted).then_some(()));
        if admitted == 0 {
            gateway.logged(&["\"reason\":\"revocation_unknown\"", "has never been obtained"]);
        }
        publisher.becomes(fleet.revoke("sensor-1"));
        eventually("the list is in force", || (fleet.status("sensor-2") == 200).then_some(()));
        eventually("the list is in force", || (fleet.status("sensor-1") == refused).then_some(()));
    }
}

#[test]
fn a_start_does_not_wait_for_a_server_that_hangs() {
    let fleet = Fleet::new();
    let publisher = Publisher::start(Manner::Silent);
    let begun = std::time::Instant::now();
    let gateway = fleet.start(&publisher);
    assert!(begun.elapsed() < 15 * SECOND);
    gateway.logged(&["nobody waits longer than 5 s"]);
    assert_eq!(fleet.status("sensor-1"), 0);
    assert_eq!(gateway.admin_get("/healthz").0, 200);
}

#[test]
fn an_issuer_with_a_complete_list_of_its_own_is_not_held_up() {
    let fleet = Fleet::new();
    fleet.site.pki(&["revoke", "sensor-1.crt"]);
    fleet.site.pki(&["crl"]);
    let publisher = Publisher::start(Manner::Down);
    let lists = format!("ca.crl, {{ url: \"{}\", every: 1h }}", publisher.url);
    let trust = format!("{{ fleet: {{ anchors: ca.crt, revocation: {{ lists: [{lists}] }} }} }}");
    fleet.site.configure(&fleet.origin.address, &[("trust", &trust), ("server", SERVER)]);
    let _gateway = fleet.site.start();
    assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200));
}

#[test]
fn a_reload_that_names_a_list_nobody_publishes_locks_nobody_out() {
    let fleet = Fleet::new();
    let publisher = Publisher::start(Manner::Page("404 Not Found"));
    fleet.site.configure(&fleet.origin.address, &[("server", SERVER)]);
    let gateway = fleet.site.start();
    let mut open = OpenConnection::new(&fleet.site, Some("sensor-1"));
    assert_eq!(open.get("/"), 200);
    fleet.configure(&publisher.url, "");
    let (status, told) = gateway.reload();
    assert_eq!(status, 422, "{told}");
    assert!(told.contains("trust.fleet.revocation.lists: there is no usable list from"), "{told}");
    assert_eq!((open.get("/"), fleet.status("sensor-1")), (200, 200));
    publisher.becomes(fleet.revoke("sensor-1"));
    assert_eq!(gateway.reload().0, 200, "it is fetched first");
    assert!(open.ends_within(SECOND));
    assert_eq!((fleet.status("sensor-1"), fleet.status("sensor-2")), (0, 200));
    fleet.site.configure(&fleet.origin.address, &[("server", SERVER)]);
    assert_eq!(gateway.reload().0, 200);
    let shown = gateway.admin_get("/metrics").1;
    eventually("nothing is shown of it", || {
        (!gateway.admin_get("/metrics").1.contains("portcullis_revocation_fetches_total{")).then_some(())
    });
    assert!(shown.contains("portcullis_reloads_total"));
}

#[test]
fn https_is_believed_only_if_the_ca_vouches_for_the_name() {
    let mut fleet = Fleet::new();
    let site = &fleet.site;
    site.pki_in("web", &["init", "--common-name", "Web CA"]);
    for (name, dns) in [("web", "localhost"), ("elsewhere", "elsewhere.test")] {
        site.pki_in("web", &["issue", name, "--kind", "server", "--dns", dns]);
    }
    let list = fleet.list();
    let good = Publisher::with_tls(&fleet.site.path().join("web"), "web", list.clone());
    let impostor = Publisher::with_tls(&fleet.site.path().join("web"), "elsewhere", list.clone());
    fleet.more = ", ca: web/ca.crt";
    let gateway = fleet.start(&good);
    assert_eq!(fleet.status("sensor-1"), 200);
    counted(&gateway, &good.url, "new");

    fleet.configure(&impostor.url, "");
    assert_eq!(gateway.reload().0, 422);
    gateway.logged(&["could not be fetched", &impostor.url, "its certificate is not believed"]);
    fleet.more = ", ca: ca.crt";
    fleet.configure(&good.url.replace("localhost", "127.0.0.1"), "");
    assert_eq!(gateway.reload().0, 422, "not the name, and not the CA");
    fleet.more = "";
    fleet.configure(&good.url.replace("fleet.crl", "other.crl"), "");
    assert_eq!(gateway.reload().0, 422, "the system does not know the CA");
    assert_eq!(fleet.status("sensor-1"), 200);

    let plain = Publisher::start(fleet.revoke("sensor-1"));
    good.becomes(Manner::Redirect(plain.url.clone()));
    counted(&gateway, &good.url, "refused");
    gateway.logged(&["a redirect from `https` to `http`"]);
    assert!(plain.requests().is_empty());
    good.becomes(Manner::Silent);
    let moved = Publisher::with_tls(&fleet.site.path().join("web"), "web", fleet.list());
    good.becomes(Manner::Redirect(moved.url.clone()));
    eventually("a redirect within https is followed", || (fleet.status("sensor-1") == 0).then_some(()));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told_with_its_remedy() {
    let fleet = Fleet::new();
    let lists = fleet.site.path().join("state/lists");
    std::fs::create_dir(fleet.site.path().join("state")).unwrap();
    std::fs::write(&lists, "no directory").unwrap();
    let publisher = Publisher::start(fleet.list());
    let gateway = fleet.start(&publisher);
    gateway.logged(&["it cannot be kept in", "server.state_directory"]);
    counted(&gateway, &publisher.url, "not_kept");
    assert_eq!(fleet.status("sensor-1"), 0);
    std::fs::remove_file(&lists).unwrap();
    eventually("it is kept", || (fleet.status("sensor-1") == 200).then_some(()));
}

#[test]
fn check_says_what_is_wrong_with_a_url_and_fetches_nothing() {
    let mut fleet = Fleet::new();
    let publisher = Publisher::start(fleet.list());
    let check = |file: PathBuf| {
        let output = std::process::Command::new(BINARY)
            .args(["check", "-c"])
            .arg(&file)
            .env_remove("STATE_DIRECTORY")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, told) = check(fleet.configure(&publisher.url, ""));
    assert!(code == 0 && told.contains("has never been obtained"), "{told}");
    assert!(publisher.requests().is_empty());
    for (url, expected) in [
        ("ftp://a.test/x", "is not a URL that can be fetched"),
        ("a.test/x.crl", "is not a URL that can be fetched"),
        ("http://", "is not a URL that can be fetched"),
        ("http://user:secret@a.test/x", "a user name or a password"),
    ] {
        let (code, told) = check(fleet.configure(url, ""));
        assert!(code == 1 && told.contains("lists[0].url: ") && told.contains(expected), "{url}: {told}");
        assert!(!told.contains("secret"), "{told}");
    }
    fleet.more = ", ca: ca.crt";
    let (code, told) = check(fleet.configure(&publisher.url, ""));
    assert!(code == 1 && told.contains("lists[0].ca: nobody proves who they are over `http`"), "{told}");
    fleet.more = ", ca: missing.crt";
    let (code, told) = check(fleet.configure("https://a.test/x", ""));
    assert!(code == 1 && told.contains("lists[0].ca: "), "{told}");
    fleet.more = "";
    let file = fleet.configure(&publisher.url, "");
    let text = std::fs::read_to_string(&file).unwrap().replace(", state_directory: state", "");
    std::fs::write(&file, text).unwrap();
    let (code, told) = check(file);
    assert!(code == 1 && told.contains("hint: set `server.state_directory`"), "{told}");
    let schema = run(fleet.site.path(), BINARY, &["schema"]).stdout;
    assert!(String::from_utf8(schema).unwrap().contains("FetchedListFile"));
}
