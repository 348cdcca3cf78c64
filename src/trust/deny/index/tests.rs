//! The index against a naive model, and its size.

use proptest::prelude::*;

use super::super::{DeniedName, DeniedNames, DenyList, IssuerName};
use super::*;
use crate::certificate::{Attribute, AttributeKind, Fingerprint, Serial, SubjectAltName};
use crate::trust::mint::{NOW, Plan, alternative_names, raw_name, with_parts};

/// A dozen clients that have things in common.
fn clients() -> Vec<Certificate> {
    let root = Plan::ca("CN=Root").self_signed();
    let other = Plan::ca("CN=Other  root,O=Example").self_signed();
    let key = crate::trust::mint::new_key();
    let mut clients = Vec::new();
    for (number, subject) in
        ["CN=a,O=x", "CN=b,O=x", "CN=a,O=y", "CN=a,CN=b,O=x", "OU=1,OU=2,CN=c", "UID=7,OU=1"]
            .iter()
            .enumerate()
    {
        let plan = Plan {
            serial: number as u32 % 3 + 1,
            key: (number % 2 == 0).then(|| key.clone()),
            ..Plan::leaf(subject)
        };
        clients.push(plan.clone().signed_by(&root).certificate());
        clients.push(plan.signed_by(&other).certificate());
    }
    let names: [(&[&str], &str); 3] =
        [(&["A.test"], "urn:1"), (&["a.test", "b.test"], "urn:2"), (&[], "urn:1")];
    for (dns, uri) in names {
        let subject = raw_name(b"\x55\x04\x03", 0x0c, b"a");
        clients.push(Certificate::from_der(&with_parts(&subject, &[alternative_names(dns, uri)])).unwrap());
    }
    clients
}

/// What an entry is meant to mean, without any index.
fn means(selector: &DenySelector, certificate: &Certificate, role: Role) -> bool {
    match selector {
        DenySelector::Fingerprint(digest) => digest == certificate.fingerprint(),
        DenySelector::KeyFingerprint(digest) => digest == certificate.key_fingerprint(),
        DenySelector::Serial { issuer, serial } => {
            role != Role::Root
                && serial == certificate.serial()
                && *issuer == IssuerName::of(certificate.issuer())
        }
        DenySelector::Names(names) => role == Role::Leaf && names.iter().all(|name| has(certificate, name)),
    }
}

fn has(certificate: &Certificate, name: &DeniedName) -> bool {
    match name {
        DeniedName::Subject(wanted) => certificate
            .subject()
            .attributes()
            .any(|found| DeniedName::from(found.clone()) == DeniedName::Subject(wanted.clone())),
        DeniedName::San(wanted) => certificate
            .subject_alternative_names()
            .iter()
            .any(|found| found.to_string().to_lowercase() == wanted.to_string()),
    }
}

/// Selectors that mean one or several of `clients`, or nearly so.
fn selectors(clients: &[Certificate]) -> Vec<DenySelector> {
    let mut selectors = Vec::new();
    for client in clients {
        selectors.push(DenySelector::Fingerprint(*client.fingerprint()));
        selectors.push(DenySelector::KeyFingerprint(*client.key_fingerprint()));
        // As the operator may have typed it.
        let issuer = client.issuer().to_string().to_uppercase().parse().unwrap();
        selectors.push(DenySelector::Serial { issuer, serial: client.serial().clone() });
        let subject = client.subject().attributes().cloned().map(DeniedName::from);
        let alternative = client.subject_alternative_names().iter().cloned().map(DeniedName::from);
        let names: Vec<_> = subject.chain(alternative).collect();
        // Every set of its names.
        for set in 1_usize..1 << names.len() {
            let chosen = names.iter().enumerate().filter(|(bit, _)| set & 1 << bit != 0);
            selectors.extend(DeniedNames::new(chosen.map(|(_, name)| name.clone())).map(DenySelector::Names));
        }
    }
    let nobody = Attribute { kind: AttributeKind::CommonName, value: "nobody".into() };
    selectors.push(DenySelector::Names(DeniedNames::new([DeniedName::Subject(nobody)]).unwrap()));
    selectors.push(DenySelector::Fingerprint(Fingerprint([0; 32])));
    selectors.push(DenySelector::Serial {
        issuer: "CN=Nobody".parse().unwrap(),
        serial: Serial::from_be_bytes(&[1]).unwrap(),
    });
    selectors
}

fn index_of(lists: &[DenyList]) -> DenyIndex {
    let mut builder = DenyIndexBuilder::new(&"fleet".into());
    for (number, list) in lists.iter().enumerate() {
        builder.read(&format!("{number}.yaml"), DenyForm::Yaml, list.to_yaml().as_bytes()).unwrap();
    }
    builder.finish()
}

fn assert_like_the_model(lists: &[DenyList], clients: &[Certificate], now: UnixTime) {
    let index = index_of(lists);
    for certificate in clients {
        for role in [Role::Leaf, Role::Authority, Role::Root] {
            let entries = lists.iter().flat_map(DenyList::entries);
            let in_domain =
                entries.filter(|entry| entry.trust_domain.as_deref().is_none_or(|domain| domain == "fleet"));
            let meant: Vec<_> = in_domain.filter(|entry| means(&entry.selector, certificate, role)).collect();
            assert_eq!(index.names(certificate, role), !meant.is_empty());
            let in_force = meant.iter().filter(|entry| entry.is_in_force(now));
            let longest = in_force.map(|entry| entry.until.unwrap_or(UnixTime::MAX)).max();
            let found = index.find(certificate, role, now);
            assert_eq!(found.map(|denial| denial.note.until.unwrap_or(UnixTime::MAX)), longest);
            // Nothing changes before the moments that are told.
            let changes = index.changes(certificate, role);
            let next = changes.iter().copied().filter(|change| *change > now).min();
            let until = longest.filter(|until| *until < UnixTime::MAX);
            assert!(until.is_none_or(|until| next.is_some_and(|next| next <= until)));
        }
    }
}

#[test]
fn after_each_of_a_thousand_changes_it_says_what_a_naive_list_says() {
    let clients = clients();
    let selectors = selectors(&clients);
    let mut lists = vec![DenyList::default(); 3];
    let mut random =
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let mut below = |limit: usize| random.next_u64() as usize % limit;
    for _ in 0..1000 {
        let list = &mut lists[below(3)];
        let domain = [None, None, Some("fleet"), Some("staff")][below(4)];
        // Few entries, or everybody is always denied.
        if list.len() > 3 {
            let gone = list.entries()[below(list.len())].clone();
            list.remove(&gone.selector, gone.trust_domain.as_deref()).unwrap();
        } else {
            list.insert(DenyEntry {
                selector: selectors[below(selectors.len())].clone(),
                trust_domain: domain.map(Arc::from),
                until: [None, Some(NOW - 10), Some(NOW), Some(NOW + 10)][below(4)],
                reason: None,
            });
        }
        assert_like_the_model(&lists, &clients, NOW + [-11, -10, -1, 0, 1, 10][below(6)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whole_sets_of_entries_are_found_like_in_a_naive_list(chosen in proptest::collection::vec(0_usize..10_000, 0..60)) {
        let clients = clients();
        let selectors = selectors(&clients);
        let mut list = DenyList::default();
        for number in chosen {
            list.insert(DenyEntry::new(selectors[number % selectors.len()].clone()));
        }
        assert_like_the_model(&[list], &clients, NOW);
    }
}

proptest! {
    #[test]
    fn a_cell_means_what_was_written_into_it(name in "[!-~äß€]([ -~äß€]{0,10}[!-~äß€])?", reason in "[ -~]{0,12}") {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["reason", "subject.CN"]).unwrap();
        writer.write_record([&reason, &name]).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let subject = raw_name(b"\x55\x04\x03", 0x0c, name.as_bytes());
        let named = Certificate::from_der(&with_parts(&subject, &[])).unwrap();
        // A line that begins so is a comment.
        prop_assume!(!reason.starts_with('#'));
        let index = csv(&text).unwrap();
        prop_assert!(index.names(&named, Role::Leaf), "{}", text);
    }

    #[test]
    fn no_table_makes_it_panic(text in "(serial|issuer|fingerprint|subject.CN|san|until|[,\"\n\r #.:=]|CN|[0-9a-z€]){0,40}") {
        let _ = csv(&text);
    }
}

fn csv(text: &str) -> Result<DenyIndex, String> {
    let mut builder = DenyIndexBuilder::new(&"fleet".into());
    let told = |error: DenyListError| error.sentences().collect::<Vec<_>>().join("\n");
    builder.read("deny.csv", DenyForm::Csv, text.as_bytes()).map_err(told)?;
    Ok(builder.finish())
}

#[test]
fn a_table_says_what_the_yaml_says() {
    let clients = clients();
    let (a, san) = (&clients[0], &clients[12]);
    let print = a.fingerprint();
    let denied = |text: &str, client| {
        csv(text).unwrap().find(client, Role::Leaf, NOW).map(|denial| denial.to_string())
    };
    assert_eq!(
        denied(
            &format!(
                "# exported\nfingerprint,until,reason\n\n {print} , 2027-01-01T00:00:00Z,\"stolen, twice\"\r\n"
            ),
            a
        ),
        Some(
            "by its fingerprint: line 4 of `deny.csv`, until 2027-01-01 00:00:00 UTC (stolen, twice)".into()
        )
    );
    assert_eq!(
        denied("\u{feff}issuer,serial\n\"CN=Root\",1\n", a),
        Some("by its serial: line 2 of `deny.csv`, for ever".into())
    );
    let names = "subject.CN,subject.O,san.dns,trust\na,x,,fleet\na,,A.TEST,\nz,,,\n";
    assert_eq!(denied(names, a), Some("by its names: line 2 of `deny.csv`, for ever".into()));
    assert_eq!(denied(names, san), Some("by its names: line 3 of `deny.csv`, for ever".into()));
    assert_eq!(denied(names, &clients[2]), None);
    assert_eq!(denied("fingerprint\n", a), None);
}

#[test]
fn every_faulty_line_is_told_with_its_number() {
    let print = "ab".repeat(32);
    let text = format!(
        "fingerprint,reason,subject.CN\n{print},ok,\nab,,\n{print},again,\n,,\n{print},,a\n{print}\n# a note\n,\"a\nb\",c\n"
    );
    let expected = r"`deny.csv`, line 3: fingerprint: `ab` has 2 hex digits (expected: 64, the SHA-256 digest)
`deny.csv`, line 5: it names nobody (expected: `serial` with `issuer`, `fingerprint`, `key_fingerprint`, or `subject` and `san`)
`deny.csv`, line 6: it names a client both by `fingerprint` and by `subject` (expected: one of them; what is meant by either makes two entries)
`deny.csv`, line 7: it has 1 columns (expected: 3, as in the first line)
`deny.csv`, line 9: a quote is left open (expected: a quoted value ends on its line; a quote within one is written twice)
`deny.csv`, line 10: a quote is left open (expected: a quoted value ends on its line; a quote within one is written twice)";
    assert_eq!(csv(&text).err().unwrap(), expected);
    for (text, told) in [
        ("", "it is empty (expected: a first line"),
        ("# nothing\n", "it is empty"),
        ("finger\nab", "line 1: no column is called `finger`"),
        ("subject.CNN\nab", "line 1: subject: no attribute is called `CNN`"),
        ("san.host\nab", "line 1: san: no type is called `host`"),
        ("reason,reason\nab", "line 1: the key `reason` stands there twice"),
        ("subject.CN,reason\na,\"stol", "a quote is left open"),
        ("subject.CN,reason\na,\"stolen\nb,\nc,\n", "line 2: a quote is left open"),
        ("deny:\n  - { fingerprint: ab }\n", "line 1: no column is called `deny:`"),
    ] {
        let error = csv(text).err().unwrap();
        assert!(error.starts_with("`deny.csv`") && error.contains(told), "{text:?}: {error}");
    }
    let mut builder = DenyIndexBuilder::new(&"fleet".into());
    assert!(
        builder.read("x", DenyForm::Csv, b"reason\n\xff\n").unwrap_err().to_string().contains("not UTF-8")
    );
}

#[test]
fn of_several_files_the_one_that_denies_longest_is_told() {
    let clients = clients();
    let mut builder = DenyIndexBuilder::new(&"fleet".into());
    for (file, until) in [("a.csv", "2027"), ("b.csv", "2029"), ("c.csv", "2028")] {
        let text = format!("subject.CN,until\na,{until}-01-01T00:00:00Z\n");
        builder.read(file, DenyForm::Csv, text.as_bytes()).unwrap();
    }
    let index = builder.finish();
    let told = index.find(&clients[0], Role::Leaf, NOW).unwrap().to_string();
    assert_eq!(told, "by its names: line 2 of `b.csv`, until 2029-01-01 00:00:00 UTC");
}

#[test]
fn what_can_mean_nobody_is_doubted() {
    let mut builder = DenyIndexBuilder::new(&"fleet".into());
    let text = "serial,issuer,subject.CN,until,trust\n1,CN=root,,,\n2,CN=Rot,,,\n3,CN=Rot,,,\n,,a,2020-01-01T00:00:00Z,\n\
                ,,b,2020-01-01T00:00:00Z,\n,,c,,staff\n,,d,,\n,,D,2020-01-01T00:00:00Z,\n,,d,,\n,,sensor-*,,\n";
    builder.read("deny.csv", DenyForm::Csv, text.as_bytes()).unwrap();
    let elsewhere: Vec<_> =
        builder.elsewhere().map(|(domain, _, place)| (domain.to_string(), place)).collect();
    assert_eq!(elsewhere, [("staff".to_owned(), Place::Line(7))]);
    let known: IssuerName = "CN=Root".parse().unwrap();
    let doubts = builder.finish().doubts(NOW, |issuer| issuer == known.comparable());
    let expected = [
        "2 entries of `deny.csv` have lapsed (line 5 is the first): they deny nobody any more",
        "line 3 of `deny.csv` names the issuer `CN=Rot`, which is no anchor: it denies nobody, unless clients present an \
         intermediate certificate of that name",
        "2 of the entries of `deny.csv` (line 9 is the first) name clients that others of its entries name too: the one \
         that lasts longest counts",
        "line 11 of `deny.csv` has a `*` in a name, which stands for itself: it denies nobody but a client with that very name",
    ];
    assert_eq!(doubts, expected);
}

#[test]
fn names_that_many_entries_have_are_not_looked_up_by() {
    let mut text = "subject.O,subject.CN\n".to_owned();
    (0..20_000).for_each(|number| text += &format!("x,device-{number}\n"));
    text += "x,a\n";
    let index = csv(&text).unwrap();
    assert_eq!(index.len(), 20_001);
    let clients = clients();
    assert!(index.names(&clients[0], Role::Leaf) && !index.names(&clients[2], Role::Leaf));
    // Found by `CN` alone: under `O` there is nothing.
    let compared = super::name_table::compared(&index.names, &index.hasher, &clients[0]);
    assert!(compared < 500, "{compared} of twenty thousand entries are compared");
}

#[test]
fn a_san_in_upper_case_is_the_same_name() {
    let name = DeniedName::from(SubjectAltName::Dns("A.Test".into()));
    assert_eq!(name.to_string(), "dns:a.test");
}

/// With a million, optimised: `MANY=1000000 cargo test --config profile.dev.package.portcullis.opt-level=3 --lib
/// large_lists_stay_small -- --nocapture`.
#[test]
fn large_lists_stay_small_and_are_looked_up_in_no_time() {
    let many: u32 = std::env::var("MANY").map_or(20_000, |many| many.parse().unwrap());
    let clients = clients();
    let digest = |number: u32| Fingerprint(openssl::sha::sha256(&number.to_be_bytes())).to_string();
    for (kind, header, row) in [
        (
            "fingerprints",
            "fingerprint,reason\n",
            &(|n| format!("{},stolen\n", digest(n))) as &dyn Fn(u32) -> String,
        ),
        ("serials", "serial,issuer\n", &|n| format!("{},\"CN=Root,O=Example\"\n", &digest(n)[..32])),
        ("names", "subject.CN,subject.O\n", &|n| format!("device-{n:08},Example\n")),
    ] {
        let mut text = header.to_owned();
        (0..many).for_each(|number| text += &row(number));
        let started = std::time::Instant::now();
        let index = csv(&text).unwrap();
        let took = started.elapsed();
        assert_eq!(index.len(), many as usize);
        let bytes = index.fingerprints.bytes() + index.serials.size() + index.names.size();
        let started = std::time::Instant::now();
        let found =
            clients.iter().cycle().take(100_000).filter(|client| index.names(client, Role::Leaf)).count();
        let lookup = started.elapsed() / 100_000;
        println!(
            "{many} {kind}: read in {took:?}, {} bytes each, {lookup:?} a look-up",
            bytes / many as usize
        );
        assert_eq!(found, 0);
        assert!(bytes < 80 * many as usize, "{kind}: {bytes}");
    }
}

#[test]
fn a_client_is_denied_in_whatever_case_its_name_is_written() {
    let clients = clients();
    let name = clients[0].subject().values(AttributeKind::CommonName).next().unwrap().to_owned();
    let index = csv(&format!("subject.CN\n{}\n", name.to_uppercase())).unwrap();
    assert!(index.names(&clients[0], Role::Leaf) && !index.names(&clients[2], Role::Leaf));
    assert!(!csv(&format!("subject.CN\n{name}x\n")).unwrap().names(&clients[0], Role::Leaf));
}
