//! Routes: identity and request to decision. The first route that matches wins; no match is a refusal.

mod index;
mod rule;
mod table;

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::certificate::Certificate;
use crate::trust::ClientIdentity;
use index::Index;

pub use rule::{ClientMatch, ClientRule, RequestRule, SanMatch, SerialMatch};
pub use table::{IdentityKey, IdentityTable, TableError};

/// Who may ask for what, and where it goes.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub client: ClientRule,
    pub request: RequestRule,
    pub target: Target,
}

/// Where the requests of a route go.
#[derive(Debug, Clone)]
pub enum Target {
    Pool(Arc<str>),
    /// The client's row in a table says; without a row the fallback, without a fallback nobody gets in.
    Table {
        key: IdentityKey,
        table: Arc<IdentityTable>,
        fallback: Option<Arc<str>>,
    },
}

/// What routes look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Lower case, without port.
    pub host: &'a str,
    pub path: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision<'a> {
    Pool {
        route: &'a Route,
        route_index: usize,
        pool: &'a Arc<str>,
    },
    /// A route matched, but its table does not have this client.
    NotInTable {
        route: &'a Route,
        route_index: usize,
    },
    NoRoute,
}

/// One route, and why it did or did not match.
#[derive(Debug)]
pub struct RouteTrace {
    pub route: Arc<str>,
    pub outcome: RouteOutcome,
}

#[derive(Debug, PartialEq, Eq)]
pub enum RouteOutcome {
    Matched,
    /// Every reason, as sentences.
    Missed(Vec<String>),
}

/// All routes in their order, with an index that finds the few that can match.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    index: Index,
}

impl RouteTable {
    pub fn build(routes: Vec<Route>) -> Self {
        Self { index: Index::build(&routes), routes }
    }

    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub fn decide(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Decision<'_> {
        let found =
            self.index.first(identity, request, |index| self.routes[index].matches(identity, request));
        match found {
            Some(index) => self.target(index, identity),
            None => Decision::NoRoute,
        }
    }

    fn target(&self, route_index: usize, identity: Option<&ClientIdentity>) -> Decision<'_> {
        let route = &self.routes[route_index];
        match &route.target {
            Target::Pool(pool) => Decision::Pool { route, route_index, pool },
            Target::Table { key, table, fallback } => {
                let certificate = identity.map(ClientIdentity::certificate);
                match certificate.and_then(|c| key.find_in(table, c)).or(fallback.as_ref()) {
                    Some(pool) => Decision::Pool { route, route_index, pool },
                    None => Decision::NotInTable { route, route_index },
                }
            }
        }
    }

    /// Every route up to the one that decides, with its reasons.
    pub fn explain(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Vec<RouteTrace> {
        let mut traces = Vec::new();
        for route in &self.routes {
            let reasons = route.misses(identity, request);
            let outcome =
                if reasons.is_empty() { RouteOutcome::Matched } else { RouteOutcome::Missed(reasons) };
            let matched = outcome == RouteOutcome::Matched;
            traces.push(RouteTrace { route: route.name.clone(), outcome });
            if matched {
                break;
            }
        }
        traces
    }
}

impl Route {
    fn matches(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> bool {
        self.client.matches(identity) && self.request.matches(request)
    }

    /// Empty where [`Route::matches`] is true: both go through the same checks.
    fn misses(&self, identity: Option<&ClientIdentity>, request: &RequestView<'_>) -> Vec<String> {
        let mut reasons = self.client.misses(identity);
        reasons.extend(self.request.misses(request));
        reasons
    }
}

/// What a certificate says under a key; nothing where it says it more than once or not at all.
fn single<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

fn common_name(certificate: &Certificate) -> Option<&str> {
    single(certificate.subject().values(crate::certificate::AttributeKind::CommonName))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::certificate::AttributeKind;
    use crate::pattern::{Pattern, PatternSpec};
    use crate::pki::test_certificate;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(&PatternSpec::Text(text.into())).unwrap()
    }

    fn identity(domain: &str, subject: &[(&str, &str)]) -> ClientIdentity {
        ClientIdentity::for_tests(domain, test_certificate(subject))
    }

    fn subject_route(name: &str, subject: &[(&str, &str)], path: Option<&str>) -> Route {
        let attribute =
            |(key, text): &(&str, &str)| (AttributeKind::from_key(key).unwrap(), vec![pattern(text)]);
        Route {
            name: name.into(),
            client: ClientRule::Verified(ClientMatch {
                subject: subject.iter().map(attribute).collect(),
                ..ClientMatch::default()
            }),
            request: RequestRule { path: path.map(pattern).into_iter().collect(), ..RequestRule::default() },
            target: Target::Pool(name.into()),
        }
    }

    fn decide(table: &RouteTable, identity: Option<&ClientIdentity>, path: &str) -> Option<String> {
        let headers = HeaderMap::new();
        let request = RequestView { host: "localhost", path, method: &Method::GET, headers: &headers };
        match table.decide(identity, &request) {
            Decision::Pool { pool, .. } => Some(pool.to_string()),
            _ => None,
        }
    }

    #[test]
    fn the_first_route_that_matches_wins_and_no_match_is_none() {
        let table = RouteTable::build(vec![
            subject_route("exact", &[("CN", "sensor-1")], None),
            subject_route("glob", &[("CN", "sensor-*")], None),
            subject_route("late", &[("CN", "sensor-1")], None),
        ]);
        let sensor = |cn| identity("fleet", &[("CN", cn)]);
        assert_eq!(decide(&table, Some(&sensor("sensor-1")), "/").as_deref(), Some("exact"));
        assert_eq!(decide(&table, Some(&sensor("sensor-2")), "/").as_deref(), Some("glob"));
        assert_eq!(decide(&table, Some(&sensor("gateway")), "/"), None);
        assert_eq!(decide(&table, None, "/"), None);
    }

    #[test]
    fn a_rule_on_the_common_name_needs_exactly_one() {
        let table = RouteTable::build(vec![subject_route("r", &[("CN", "a")], None)]);
        assert_eq!(decide(&table, Some(&identity("fleet", &[("CN", "a"), ("CN", "b")])), "/"), None);
        let table = RouteTable::build(vec![subject_route("r", &[("OU", "a")], None)]);
        assert!(decide(&table, Some(&identity("fleet", &[("OU", "b"), ("OU", "a")])), "/").is_some());
    }

    #[test]
    fn a_name_counts_only_inside_the_domain_that_issued_it() {
        let mut route = subject_route("r", &[("CN", "admin")], None);
        if let ClientRule::Verified(client) = &mut route.client {
            client.trust = vec!["staff".into()];
        }
        let table = RouteTable::build(vec![route]);
        assert!(decide(&table, Some(&identity("staff", &[("CN", "admin")])), "/").is_some());
        assert_eq!(decide(&table, Some(&identity("fleet", &[("CN", "admin")])), "/"), None);
    }

    #[test]
    fn anonymous_routes_are_for_clients_without_identity_only() {
        let mut route = subject_route("r", &[], None);
        route.client = ClientRule::Anonymous;
        let table = RouteTable::build(vec![route]);
        assert!(decide(&table, None, "/").is_some());
        assert_eq!(decide(&table, Some(&identity("fleet", &[("CN", "a")])), "/"), None);
    }

    #[test]
    fn misses_are_told_in_words() {
        let table = RouteTable::build(vec![subject_route("r", &[("OU", "sensors")], Some("/readings"))]);
        let headers = HeaderMap::new();
        let request = RequestView { host: "h", path: "/other", method: &Method::GET, headers: &headers };
        let traces = table.explain(Some(&identity("fleet", &[("OU", "gateways")])), &request);
        let RouteOutcome::Missed(reasons) = &traces[0].outcome else { panic!("matched") };
        assert_eq!(
            reasons,
            &["subject OU is `gateways`, wanted `sensors`", "path is `/other`, wanted `/readings`"]
        );
    }

    proptest! {
        #[test]
        fn the_index_decides_as_a_scan_of_all_routes_would(
            routes in proptest::collection::vec(
                (proptest::option::of("[ab*]"), proptest::option::of("[ab*]"), proptest::option::of("/[ab*]")), 0..12),
            cn in "[abc]", ou in "[abc]", path in "/[abc]",
        ) {
            let routes: Vec<Route> = routes.iter().enumerate().map(|(index, (cn, ou, path))| {
                let mut subject = Vec::new();
                subject.extend(cn.as_deref().map(|cn| ("CN", cn)));
                subject.extend(ou.as_deref().map(|ou| ("OU", ou)));
                subject_route(&index.to_string(), &subject, path.as_deref())
            }).collect();
            let identity = identity("fleet", &[("CN", &cn), ("OU", &ou)]);
            let headers = HeaderMap::new();
            let request = RequestView { host: "h", path: &path, method: &Method::GET, headers: &headers };
            let naive = routes.iter().find(|r| r.matches(Some(&identity), &request)).map(|r| r.name.to_string());
            let table = RouteTable::build(routes);
            prop_assert_eq!(decide(&table, Some(&identity), &path), naive);
        }
    }
}
