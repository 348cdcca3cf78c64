//! That nobody is missed: what is looked over after a change against what a look at everybody finds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::certificate::der;
use crate::trust::mint::{ListPlan, Minted, NOW, Plan, extension};
use crate::trust::{ClientIdentity, RevocationList, TrustPolicy, WhenStale};

const SERIALS: std::ops::Range<u32> = 1..5;
/// Of the intermediate, which one of the roots issued.
const MIDDLE: u32 = 5;

/// Two roots, an intermediate below the first one, and clients of all three, each with the same serials.
struct World {
    issuers: [Minted; 3],
    clients: Vec<Arc<ClientIdentity>>,
}

impl World {
    fn new() -> Self {
        let (one, two) = (Plan::ca("CN=One").self_signed(), Plan::ca("CN=Two").self_signed());
        let middle = Plan { serial: MIDDLE, ..Plan::ca("CN=Middle") }.signed_by(&one);
        let anchors = vec![one.certificate(), two.certificate()];
        let domain = TrustDomain::build("fleet", anchors, Vec::new(), TrustPolicy::default()).unwrap();
        let set = TrustSet::new(vec![Arc::new(domain)]);
        let mut clients = Vec::new();
        for serial in SERIALS {
            let leaf = |issuer| Plan { serial, ..Plan::leaf("CN=device") }.signed_by(issuer).der();
            // The last one shows what is not on its path.
            for chain in [
                vec![leaf(&one)],
                vec![leaf(&two)],
                vec![leaf(&middle), middle.der()],
                vec![leaf(&two), middle.der()],
            ] {
                let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
                clients.push(set.verify(&chain, NOW).unwrap());
            }
        }
        Self { issuers: [one, two, middle], clients }
    }

    fn list(&self, issuer: usize, plan: &ListPlan) -> Arc<RevocationList> {
        let issuers: Vec<_> = self.issuers.iter().map(Minted::certificate).collect();
        let der = plan.signed_by(&self.issuers[issuer]);
        Arc::new(RevocationList::read(&der, &issuers, NOW).unwrap())
    }
}

thread_local! {
    static WORLD: World = World::new();
    static LISTS: RefCell<HashMap<(usize, Listed), Arc<RevocationList>>> = RefCell::default();
}

/// A list of one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Listed {
    revoked: BTreeSet<u32>,
    is_stale: bool,
    is_for_clients: bool,
}

/// What a domain is made of.
#[derive(Debug, Clone)]
struct Draft {
    lists: [Option<Listed>; 3],
    has_both_roots: bool,
    has_middle: bool,
    believes_stale: bool,
    max_depth: u32,
}

#[derive(Debug, Clone)]
enum Edit {
    List(usize, Option<Listed>),
    Revoke(usize, u32),
    Pardon(usize, u32),
    BothRoots(bool),
    Middle(bool),
    BelievesStale(bool),
    MaxDepth(u32),
}

impl Draft {
    fn edit(&mut self, edit: &Edit) {
        match edit.clone() {
            Edit::List(issuer, list) => self.lists[issuer] = list,
            Edit::Revoke(issuer, serial) => {
                if let Some(list) = &mut self.lists[issuer] {
                    list.revoked.insert(serial);
                }
            }
            Edit::Pardon(issuer, serial) => {
                if let Some(list) = &mut self.lists[issuer] {
                    list.revoked.remove(&serial);
                }
            }
            Edit::BothRoots(has) => self.has_both_roots = has,
            Edit::Middle(has) => self.has_middle = has,
            Edit::BelievesStale(believes) => self.believes_stale = believes,
            Edit::MaxDepth(most) => self.max_depth = most,
        }
    }

    fn build(&self, name: &str) -> Arc<TrustDomain> {
        WORLD.with(|world| {
            let [one, two, middle] = &world.issuers;
            let mut anchors = vec![one.certificate()];
            anchors.extend(self.has_both_roots.then(|| two.certificate()));
            anchors.extend(self.has_middle.then(|| middle.certificate()));
            let lists =
                (0..).zip(&self.lists).filter_map(|(issuer, list)| Some(read(world, issuer, list.as_ref()?)));
            let policy = TrustPolicy {
                when_stale: if self.believes_stale { WhenStale::Believe } else { WhenStale::Refuse },
                max_depth: self.max_depth,
                ..TrustPolicy::default()
            };
            Arc::new(TrustDomain::build(name, anchors, lists.collect(), policy).unwrap())
        })
    }
}

/// Half of them are the same in memory when they come again, as from a file that did not change.
fn read(world: &World, issuer: usize, listed: &Listed) -> Arc<RevocationList> {
    let point = der::sequence(&[&der::element(0x81, &[0xff])]);
    let plan = ListPlan {
        revoked: listed.revoked.iter().map(|serial| (*serial, 1)).collect(),
        days: if listed.is_stale { -9..-1 } else { -1..7 },
        extensions: if listed.is_for_clients { vec![extension(28, true, &point)] } else { Vec::new() },
        ..ListPlan::default()
    };
    if listed.revoked.len().is_multiple_of(2) {
        return world.list(issuer, &plan);
    }
    LISTS.with_borrow_mut(|lists| {
        lists.entry((issuer, listed.clone())).or_insert_with(|| world.list(issuer, &plan)).clone()
    })
}

fn listed() -> impl Strategy<Value = Listed> {
    let revoked = proptest::collection::btree_set(SERIALS.start..=MIDDLE, 0..4);
    (revoked, prop::bool::weighted(0.1), prop::bool::weighted(0.2))
        .prop_map(|(revoked, is_stale, is_for_clients)| Listed { revoked, is_stale, is_for_clients })
}

fn draft() -> impl Strategy<Value = Draft> {
    let list = || proptest::option::of(listed());
    ([list(), list(), list()], any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), 0_u32..2).prop_map(
        |(lists, has_both_roots, has_middle, believes_stale, max_depth)| Draft {
            lists,
            has_both_roots,
            has_middle,
            believes_stale,
            max_depth,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    let serial = || (0_usize..3, SERIALS.start..=MIDDLE);
    prop_oneof![
        6 => serial().prop_map(|(issuer, serial)| Edit::Revoke(issuer, serial)),
        3 => serial().prop_map(|(issuer, serial)| Edit::Pardon(issuer, serial)),
        2 => (0_usize..3, proptest::option::of(listed())).prop_map(|(issuer, list)| Edit::List(issuer, list)),
        1 => any::<bool>().prop_map(Edit::BothRoots),
        1 => any::<bool>().prop_map(Edit::Middle),
        1 => any::<bool>().prop_map(Edit::BelievesStale),
        1 => (0_u32..2).prop_map(Edit::MaxDepth),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever a reload changes, in however many places at once: of those that might stay before, the same ones are
    /// found as by looking at everybody, for the same reason.
    #[test]
    fn nobody_is_missed(
        (mut fleet, mut other) in (draft(), proptest::option::of(draft())),
        edits in vec((any::<bool>(), edit()), 0..4),
    ) {
        let build = |fleet: &Draft, other: &Option<Draft>| {
            let mut domains = vec![fleet.build("fleet")];
            domains.extend(other.as_ref().map(|other| other.build("other")));
            TrustSet::new(domains)
        };
        let before = build(&fleet, &other);
        for (of_other, edit) in &edits {
            match &mut other {
                Some(other) if *of_other => other.edit(edit),
                _ => fleet.edit(edit),
            }
        }
        let after = build(&fleet, &other);
        let change = after.change_since(&before, NOW);
        let (mut earlier, mut some, mut all) =
            (before.review(NOW), after.review_after(&change, NOW), after.review(NOW));
        WORLD.with(|world| {
            for client in world.clients.iter().filter(|client| earlier.judge(client).is_ok()) {
                prop_assert_eq!(some.judge(client), all.judge(client), "{:?}", change);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_list_that_only_grew_concerns_only_who_is_new_on_it() {
    let list = |revoked: &[u32]| Listed {
        revoked: revoked.iter().copied().collect(),
        is_stale: false,
        is_for_clients: false,
    };
    let draft = |one: Option<Listed>| Draft {
        lists: [one, Some(list(&[1])), None],
        has_both_roots: true,
        has_middle: false,
        believes_stale: false,
        max_depth: 5,
    };
    let set = |one| TrustSet::new(vec![draft(one).build("fleet")]);
    let revoked = |serials: &[u32]| {
        let serial = |serial: &u32| Serial::from_be_bytes(&serial.to_be_bytes()).unwrap();
        Change::Revoked(serials.iter().map(serial).collect())
    };
    let before = set(Some(list(&[1])));
    let change = |after: TrustSet| after.change_since(&before, NOW);
    assert_eq!(change(set(Some(list(&[1])))), Change::Nothing);
    assert_eq!(change(set(Some(list(&[])))), Change::Nothing, "nobody is worse off");
    assert_eq!(change(set(Some(list(&[1, 2, 4])))), revoked(&[2, 4]));
    assert_eq!(change(set(None)), Change::Anything);
    assert_eq!(change(set(Some(Listed { is_stale: true, ..list(&[1]) }))), Change::Anything);
    assert_eq!(change(set(Some(Listed { is_for_clients: true, ..list(&[1]) }))), Change::Anything);
    assert_eq!(set(Some(list(&[1, 2]))).change_since(&set(None), NOW), revoked(&[1, 2]));
    // The serial of an anchor: whoever is below it does not show it.
    assert_eq!(change(set(Some(list(&[1, 0x0ca])))), Change::Anything);
    let without = TrustSet::new(Vec::new());
    assert_eq!(without.change_since(&before, NOW), Change::Anything);
}

/// What an issuer has said, and what is on it in truth.
#[derive(Default)]
struct Author {
    number: u8,
    complete: u8,
    revoked: BTreeSet<u32>,
    /// Since the complete list: true for what was revoked.
    changes: BTreeMap<u32, bool>,
    files: Vec<Arc<RevocationList>>,
    superseded: Option<Arc<RevocationList>>,
}

impl Author {
    fn write(&mut self, world: &World, issuer: usize, random: &mut StdRng) {
        for _ in 0..random.random_range(0..3) {
            let serial = random.random_range(SERIALS);
            let is_revoked = random.random_bool(0.6);
            let (set, changes) = (&mut self.revoked, &mut self.changes);
            if is_revoked {
                set.insert(serial)
            } else {
                set.remove(&serial)
            };
            changes.insert(serial, is_revoked);
        }
        self.number += 1;
        if self.files.is_empty() || random.random_bool(0.4) {
            let revoked = self.revoked.iter().map(|serial| (*serial, 1)).collect();
            let plan = ListPlan { revoked, number: Some(self.number), ..ListPlan::default() };
            let old = std::mem::replace(&mut self.files, vec![world.list(issuer, &plan)]);
            // Somebody may leave the delta lists of before where they are.
            self.files.extend(old.iter().skip(1).filter(|_| random.random_bool(0.5)).cloned());
            self.superseded = old.into_iter().next();
            self.complete = self.number;
            self.changes.clear();
        } else {
            let removed_or_not =
                |(serial, is_revoked): (&u32, &bool)| (*serial, if *is_revoked { 1 } else { 8 });
            let plan = ListPlan {
                revoked: self.changes.iter().map(removed_or_not).collect(),
                number: Some(self.number),
                extensions: vec![extension(27, true, &der::unsigned(&[self.complete]))],
                ..ListPlan::default()
            };
            self.files.truncate(3);
            self.files.push(world.list(issuer, &plan));
        }
    }
}

#[test]
fn after_a_thousand_reloads_those_are_in_who_are_on_no_list() {
    WORLD.with(|world| {
        let mut random = StdRng::seed_from_u64(5280);
        let build = |files: Vec<Arc<RevocationList>>| {
            let anchors = world.issuers[..2].iter().map(Minted::certificate).collect();
            Arc::new(TrustDomain::build("fleet", anchors, files, TrustPolicy::default()).unwrap())
        };
        let mut authors = [Author::default(), Author::default()];
        let mut set = TrustSet::new(vec![build(Vec::new())]);
        let is_revoked = |client: &ClientIdentity, authors: &[Author; 2]| {
            let serial = u32::from(client.certificate().serial().as_bytes()[0]);
            let issuer = client.certificate().issuer().to_string();
            (issuer == "CN=One" && authors[0].revoked.contains(&serial))
                || (issuer == "CN=Two" && authors[1].revoked.contains(&serial))
        };
        let mut inside: Vec<_> = world.clients.clone();
        let (mut ended, mut refused) = (0, 0);
        for reload in 0..1000 {
            // Numbers are one byte in these lists.
            if reload % 250 == 249 {
                (authors, set) = (Default::default(), TrustSet::new(vec![build(Vec::new())]));
            }
            let which = random.random_range(0..2);
            let files =
                |authors: &[Author; 2]| authors.iter().flat_map(|author| author.files.clone()).collect();
            if let Some(old) = authors[which].superseded.clone().filter(|_| random.random_bool(0.2)) {
                let others = &authors[1 - which].files;
                let rolled_back = build(others.iter().cloned().chain([old]).collect());
                assert!(rolled_back.check_succession(&set.domains()[0]).is_err());
                refused += 1;
                continue;
            }
            authors[which].write(world, which, &mut random);
            let domain = build(files(&authors));
            domain.check_succession(&set.domains()[0]).unwrap();
            let after = TrustSet::new(vec![domain]);
            let change = after.change_since(&set, NOW);
            let mut review = after.review_after(&change, NOW);
            let before = inside.len();
            inside.retain(|client| review.judge(client).is_ok());
            ended += before - inside.len();
            for client in &world.clients {
                let is_inside = inside.iter().any(|other| Arc::ptr_eq(client, other));
                let may_come = after.review(NOW).judge(client).is_ok();
                assert_eq!(may_come, !is_revoked(client, &authors), "reload {reload}");
                assert!(!is_inside || may_come, "reload {reload}: one was missed");
                if may_come && !is_inside && random.random_bool(0.5) {
                    inside.push(client.clone());
                }
            }
            set = after;
        }
        assert!(ended > 200 && refused > 50, "{ended} ended, {refused} refused: too little happened");
    });
}
