//! How much each client may do: rates, quotas, and how much at a time. Decided before a request is sent on, and when a
//! client has shaken hands.
//!
//! No request waits for a lock that all threads take, and none costs memory: what is counted for a key is one number in a
//! bounded [`table`]. The crate `governor` does the same arithmetic, but its keyed state has no bound, and forgets only
//! when told to look at all of it.

mod bucket;
mod entry;
mod keys;
mod meter;
mod networks;
mod quota;
mod rate;
mod spec;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::trust::ClientIdentity;

pub use bucket::Bucket;
pub use entry::{Entry, Hold};
pub use keys::Keys;
pub use meter::Meter;
pub use networks::{MOST_NETWORKS, Network};
pub use quota::Quota;
pub use rate::{BadRate, Rate};
pub use spec::{LimitSpec, Measure, Mode, Per, Stage, Tells};
pub use table::Held;

/// Nanoseconds since shortly before the process began. Never set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    fn seconds(self) -> u32 {
        u32::try_from(self.0 / 1_000_000_000).unwrap_or(u32::MAX)
    }
}

/// Of all limits together; which of them concern a request is a set of bits.
pub const MOST_RULES: usize = 64;

/// All limits of one configuration.
pub struct Limits {
    rules: Vec<Rule>,
    /// The hash of each route's name.
    routes: Vec<u64>,
    began: Instant,
    tells_always: bool,
    concerns_requests: bool,
    concerns_connections: bool,
}

/// One measure of one limit.
pub struct Rule {
    spec: Arc<LimitSpec>,
    measure: Measure,
    /// By number, whether a route is concerned.
    routes: Option<Vec<bool>>,
    per_route: bool,
    meter: Arc<Meter>,
}

/// What was taken for a request, and must be settled when it is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken(u64);

impl Taken {
    fn has(self, rule: usize) -> bool {
        self.0 & 1 << rule != 0
    }
}

/// Who is over which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// The number of the rule.
    pub rule: usize,
    /// There is room after so long.
    pub wait: Duration,
}

/// What the limits say of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Admission {
    pub taken: Taken,
    /// It is refused, and nothing was taken.
    pub refused: Option<Over>,
    /// It would be refused if that limit were enforced.
    pub shadowed: Option<usize>,
}

impl Limits {
    /// Counts go on from `previous` where they still say something.
    pub fn build(specs: &[LimitSpec], routes: &[Arc<str>], previous: Option<&Self>, began: Instant) -> Self {
        let mut rules = Vec::new();
        for spec in specs {
            let spec = Arc::new(spec.clone());
            let concerned = spec
                .routes
                .as_ref()
                .map(|names| routes.iter().map(|route| names.contains(route)).collect::<Vec<_>>());
            for &measure in &spec.measures {
                let meter = previous
                    .and_then(|previous| previous.meter(&spec, measure))
                    .unwrap_or_else(|| Arc::new(Meter::new(measure, spec.keys)));
                rules.push(Rule {
                    measure,
                    routes: concerned.clone(),
                    per_route: spec.per.contains(&Per::Route),
                    spec: spec.clone(),
                    meter,
                });
            }
        }
        // More are refused by the configuration.
        rules.truncate(MOST_RULES);
        let tells_always = rules.iter().any(|rule| rule.spec.tells == Tells::Always);
        let routes = routes.iter().map(|name| keys::of_route(name)).collect();
        let concerns = |stage| rules.iter().any(|rule: &Rule| rule.measure.stage() == stage);
        Self {
            concerns_requests: concerns(Stage::Request),
            concerns_connections: concerns(Stage::Connection),
            rules,
            routes,
            began,
            tells_always,
        }
    }

    /// One request a second for each client.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let rate = Rate::new(1, Duration::from_secs(1)).unwrap();
        let measures = vec![Measure::Requests(Bucket::of_ones(rate, 1))];
        let spec = LimitSpec {
            name: "x".into(),
            per: vec![Per::Client],
            client: crate::route::ClientRule::Anyone,
            routes: None,
            mode: Mode::Enforce,
            tells: Tells::Refusals,
            keys: 1,
            measures,
        };
        Self::build(&[spec], &[], None, Instant::now())
    }

    fn meter(&self, spec: &LimitSpec, measure: Measure) -> Option<Arc<Meter>> {
        let goes_on = |rule: &&Rule| {
            rule.spec.name == spec.name
                && rule.spec.per == spec.per
                && rule.spec.keys == spec.keys
                && measure.goes_on_from(rule.measure)
        };
        self.rules.iter().find(goes_on).map(|rule| rule.meter.clone())
    }

    /// Whether there is anything to be asked.
    pub fn concern(&self, stage: Stage) -> bool {
        match stage {
            Stage::Connection => self.concerns_connections,
            Stage::Request => self.concerns_requests,
        }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn moment(&self, at: Instant) -> Moment {
        // The first second is left out: a number of 0 says that nothing was counted yet.
        let since = at.saturating_duration_since(self.began) + Duration::from_secs(1);
        Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whom a client is counted as. Made once for each of its connections and configurations.
    pub fn keys(&self, generation: u64, identity: Option<&ClientIdentity>, peer: SocketAddr) -> Keys {
        let key = |rule: &Rule| keys::key(&rule.spec, identity, peer);
        Keys { generation, of: self.rules.iter().map(key).collect() }
    }

    /// Asks all limits, and takes what the request takes from each unless one refuses it.
    pub fn admit(&self, keys: &Keys, route: usize, now: Moment) -> Admission {
        let mut admission = Admission::default();
        for (number, rule, key) in self.concerned(keys, route) {
            match (rule.meter.take(rule.measure, key, now), rule.spec.mode) {
                (Ok(()), _) => admission.taken.0 |= 1 << number,
                (Err(_), Mode::Shadow) => {
                    rule.meter.count_shadowed();
                    admission.shadowed.get_or_insert(number);
                }
                (Err(wait), Mode::Enforce) => {
                    rule.meter.count_refused();
                    for (_, rule, key) in self.taken(admission.taken, keys, route) {
                        rule.meter.give_back(rule.measure, key, now);
                    }
                    admission.taken = Taken::default();
                    admission.refused = Some(Over { rule: number, wait });
                    break;
                }
            }
        }
        admission
    }

    /// The request is over, and its bodies had so many bytes.
    pub fn settle(&self, taken: Taken, keys: &Keys, route: usize, bytes: u64, now: Moment) {
        for (_, rule, key) in self.taken(taken, keys, route) {
            rule.meter.settle(rule.measure, key, bytes, now);
        }
    }

    fn concerned<'a>(
        &'a self,
        keys: &'a Keys,
        route: usize,
    ) -> impl Iterator<Item = (usize, &'a Rule, u64)> + 'a {
        let rules = self.rules.iter().zip(&keys.of).enumerate();
        rules
            .filter(|(_, (rule, _))| rule.measure.stage() == Stage::Request)
            .filter_map(move |(number, (rule, key))| Some((number, rule, self.key(rule, (*key)?, route)?)))
    }

    fn taken<'a>(
        &'a self,
        taken: Taken,
        keys: &'a Keys,
        route: usize,
    ) -> impl Iterator<Item = (usize, &'a Rule, u64)> + 'a {
        self.concerned(keys, route).filter(move |(number, ..)| taken.has(*number))
    }

    /// `None`: the route is not concerned.
    fn key(&self, rule: &Rule, key: u64, route: usize) -> Option<u64> {
        if let Some(routes) = &rule.routes
            && !routes.get(route).copied().unwrap_or(false)
        {
            return None;
        }
        if rule.per_route {
            self.routes.get(route).map(|route| keys::on_route(key, *route))
        } else {
            Some(key)
        }
    }

    /// Whether answers that are no refusals say what is left.
    pub fn tells_always(&self) -> bool {
        self.tells_always
    }

    /// The rules of which every answer to this client says what is left.
    pub fn told<'a>(&'a self, keys: &'a Keys, route: usize, now: Moment) -> impl Iterator<Item = Told> + 'a {
        let tells = |rule: &Rule| rule.spec.tells == Tells::Always && rule.spec.mode == Mode::Enforce;
        self.concerned(keys, route).filter(move |(_, rule, _)| tells(rule)).map(move |(number, rule, key)| {
            let (left, within) = rule.meter.left(rule.measure, key, now);
            Told { rule: number, left, within }
        })
    }

    /// The rules that concern a client and a route, for people.
    pub fn explain<'a>(&'a self, keys: &'a Keys, route: usize) -> impl Iterator<Item = &'a Rule> + 'a {
        self.of_connections(keys).chain(self.concerned(keys, route)).map(|(_, rule, _)| rule)
    }
}

/// How much of what a rule allows is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub rule: usize,
    pub left: u64,
    /// In this time no more than that may be used.
    pub within: Option<Duration>,
}

impl Rule {
    /// Of the limit.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    pub fn spec(&self) -> &LimitSpec {
        &self.spec
    }

    pub fn measure(&self) -> Measure {
        self.measure
    }

    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

#[cfg(test)]
mod tests;
