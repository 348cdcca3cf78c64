//! Limits: whom they concern, and how much they allow.

use std::sync::Arc;
use std::time::Duration;

use super::super::file::{LimitFile, LimitModeFile, RateText, TellFile};
use super::super::scalar::{Strings, closest};
use super::super::types::RouteConfig;
use super::{Builder, quoted};
use crate::limits::{Bucket, LimitSpec, MOST_NETWORKS, MOST_RULES, Measure, Mode, Per, Quota, Stage, Tells};
use crate::route::ClientRule;

const DEFAULT_KEYS: usize = 1_000_000;

/// What is counted costs memory.
const MOST_KEYS: usize = 50_000_000;

/// Requests in a second: beyond it nothing could be told from rounding.
const MOST_REQUESTS: u64 = 1_000_000;

impl Builder {
    pub(super) fn limit(&mut self, at: &str, file: LimitFile) -> Option<LimitSpec> {
        let before = self.problems.len();
        self.check_name(at, Some(&file.name));
        let per = self.per(at, file.per.as_ref());
        let measures = self.measures(at, &file);
        let client = match file.client {
            None => ClientRule::Anyone,
            Some(client) => self.client_rule(&format!("{at}.client"), client),
        };
        let routes: Option<Vec<Arc<str>>> =
            file.routes.as_ref().map(|names| names.iter().map(Arc::from).collect());
        if routes.as_ref().is_some_and(Vec::is_empty) {
            let hint = "without `routes` it concerns all of them".to_owned();
            self.problem(format!("{at}.routes"), "there are none", Some("at least one"), Some(hint));
        }
        let has_route = per.contains(&Per::Route) || routes.is_some();
        let of_connections = measures.iter().find(|measure| measure.stage() == Stage::Connection);
        if let Some(measure) = of_connections.filter(|_| has_route) {
            let hint = "a limit of its own, without `routes` and `per: route`, can have it".to_owned();
            let found = "a connection has no route";
            self.problem(format!("{at}.{}", measure.as_str()), found, None, Some(hint));
        }
        let keys = self.between(at, "keys", file.keys, DEFAULT_KEYS, 1..=MOST_KEYS);
        (self.problems.len() == before).then(|| LimitSpec {
            name: file.name.into(),
            per,
            client: client.normalised(),
            routes,
            mode: match file.mode {
                Some(LimitModeFile::Shadow) => Mode::Shadow,
                Some(LimitModeFile::Enforce) | None => Mode::Enforce,
            },
            tells: match file.tell {
                Some(TellFile::Always) => Tells::Always,
                Some(TellFile::Refusals) | None => Tells::Refusals,
            },
            keys,
            measures,
        })
    }

    fn per(&mut self, at: &str, file: Option<&Strings>) -> Vec<Per> {
        let Some(texts) = file else { return vec![Per::Client] };
        let at = format!("{at}.per");
        let mut per = Vec::new();
        for text in texts.iter() {
            match text.parse::<Per>() {
                Ok(one) if per.contains(&one) => {
                    self.problem(&at, format!("`{text}` is there twice"), None, None);
                }
                Ok(one) => per.push(one),
                Err(error) => {
                    let words = ["client", "trust_domain", "address", "route"];
                    let hint = closest(text, words).map(|near| format!("did you mean `{near}`?"));
                    self.problem(&at, error.to_string(), None, hint);
                }
            }
        }
        if texts.iter().next().is_none() {
            let hint = "`route` counts all clients of a route together".to_owned();
            self.problem(&at, "there are none", Some("at least one"), Some(hint));
        }
        per
    }

    fn measures(&mut self, at: &str, file: &LimitFile) -> Vec<Measure> {
        let mut measures = Vec::new();
        if let Some(RateText(rate)) = file.requests {
            if !rate.is_at_most(MOST_REQUESTS) {
                let expected = format!("at most {MOST_REQUESTS}/s");
                self.problem(format!("{at}.requests"), format!("{rate} is too much"), Some(&expected), None);
            }
            let burst = self.between(at, "burst", file.burst, rate.amount(), 1..=u32::MAX.into());
            measures.push(Measure::Requests(Bucket::of_ones(rate, burst)));
        } else if file.burst.is_some() {
            self.problem(
                format!("{at}.burst"),
                "of what it is a burst is not said",
                Some("`requests`"),
                None,
            );
        }
        if let Some(RateText(rate)) = file.bytes {
            measures.push(Measure::Bytes(Bucket::of_many(rate)));
        }
        if let Some(RateText(rate)) = file.quota {
            match u32::try_from(rate.amount()) {
                Ok(most) if rate.period() <= Duration::from_secs(u32::MAX.into()) => {
                    measures.push(Measure::Quota(Quota::new(most, rate.period())));
                }
                _ => {
                    let expected = Some("at most 4294967295 requests");
                    self.problem(format!("{at}.quota"), format!("{rate} is too much"), expected, None);
                }
            }
        }
        if let Some(RateText(rate)) = file.handshakes {
            measures.push(Measure::Handshakes(Bucket::of_ones(rate, rate.amount())));
        }
        for (key, most, measure) in [
            ("concurrent", file.concurrent, Measure::Concurrent as fn(u32) -> Measure),
            ("connections", file.connections, Measure::Connections),
        ] {
            let Some(most) = most else { continue };
            if most == 0 {
                self.problem(format!("{at}.{key}"), "0 would refuse everybody", Some("1 or more"), None);
            }
            measures.push(measure(most));
        }
        if let Some(most) = file.networks {
            let most = self.between(at, "networks", Some(most), 1, 1..=MOST_NETWORKS - 1);
            measures.push(Measure::Networks(most));
        }
        let is_told = self.problems.iter().any(|problem| problem.at.starts_with(at));
        if measures.is_empty() && !is_told {
            let names = Measure::NAMES.map(str::to_owned);
            let expected = format!("one or more of {}", quoted(&names));
            self.problem(at, "it limits nothing", Some(&expected), None);
        }
        measures
    }

    /// Not asked while a route cannot be read.
    pub(super) fn check_limited_routes(&mut self, limits: &[(String, LimitSpec)], routes: &[RouteConfig]) {
        for (at, limit) in limits {
            for name in limit.routes.iter().flatten() {
                if routes.iter().any(|route| route.name == *name) {
                    continue;
                }
                let near = closest(name, routes.iter().map(|route| &*route.name));
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                self.problem(format!("{at}.routes"), format!("no route is called `{name}`"), None, hint);
            }
        }
        let rules: usize = limits.iter().map(|(_, limit)| limit.measures.len()).sum();
        if rules > MOST_RULES {
            let expected = format!("at most {MOST_RULES}, each of `requests`, `bytes` and so on counted");
            self.problem("limits", format!("{rules} are too many"), Some(&expected), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn limits(text: &str) -> Result<Config, String> {
        let yaml = format!(
            r#"
version: 1
listeners:
  - address: "127.0.0.1:8443"
    tls: {{ certificates: [{{ chain: a.crt, key: a.key }}] }}
    client_auth: {{ trust: [fleet] }}
trust: {{ fleet: {{ anchors: ca.crt }} }}
pools: {{ main: {{ endpoints: ["127.0.0.1:9000"] }} }}
routes: [{{ name: sensors, client: {{ trust: fleet }}, pool: main }}]
limits: {text}
"#
        );
        Config::parse(Path::new("x.yaml"), &yaml).map_err(|errors| errors.to_string())
    }

    #[test]
    fn what_limits_nothing_or_everybody_is_told_with_its_place() {
        for (text, told) in [
            ("[{ name: a }]", "limits[0]: it limits nothing"),
            ("[{ requests: 1/s }]", "limits[0].name: missing"),
            ("[{ name: \"a b\", requests: 1/s }]", "limits[0].name: `a b` is not a name"),
            (
                "[{ name: a, requests: 5 }]",
                "limits[0].requests: invalid type: integer `5`, expected a number and a",
            ),
            ("[{ name: a, requests: 0/s }]", "limits[0].requests: `0/s` is not a rate"),
            ("[{ name: a, requests: 2000000/s }]", "limits[0].requests: 2000000/s is too much"),
            ("[{ name: a, requests: 1/s, burst: 0 }]", "limits[0].burst: 0 is out of range"),
            ("[{ name: a, quota: 1/s, burst: 2 }]", "limits[0].burst: of what it is a burst is not said"),
            ("[{ name: a, quota: 5000000000/d }]", "limits[0].quota: 5000000000/d is too much"),
            ("[{ name: a, concurrent: 0 }]", "limits[0].concurrent: 0 would refuse everybody"),
            ("[{ name: a, connections: 0 }]", "limits[0].connections: 0 would refuse everybody"),
            ("[{ name: a, networks: 64 }]", "limits[0].networks: 64 is out of range"),
            ("[{ name: a, networks: 2, routes: sensors }]", "limits[0].networks: a connection has no route"),
            (
                "[{ name: a, handshakes: 5/m, per: [client, route] }]",
                "limits[0].handshakes: a connection has no",
            ),
            ("[{ name: a, concurrent: -1 }]", "limits[0].concurrent: "),
            ("[{ name: a, requests: 1/s, keys: 0 }]", "limits[0].keys: 0 is out of range"),
            ("[{ name: a, requests: 1/s, per: [] }]", "limits[0].per: there are none"),
            ("[{ name: a, requests: 1/s, per: clinet }]", "did you mean `client`?"),
            ("[{ name: a, requests: 1/s, per: [route, route] }]", "limits[0].per: `route` is there twice"),
            ("[{ name: a, requests: 1/s, per: subject.XX }]", "`subject.XX` is nothing to count by"),
            ("[{ name: a, requests: 1/s, routes: sensor }]", "no route is called `sensor`"),
            ("[{ name: a, requests: 1/s, routes: [] }]", "limits[0].routes: there are none"),
            ("[{ name: a, requests: 1/s, client: {} }]", "limits[0].client: it is empty"),
            ("[{ name: a, requests: 1/s, client: { trust: flet } }]", "no trust domain is called `flet`"),
            ("[{ name: a, requests: 1/s }, { name: a, bytes: 1kB/s }]", "limits[1].name: `a` is what"),
            ("[{ name: a, requests: 1/s, mode: off }]", "limits[0].mode: "),
            ("{ a: { requests: 1/s } }", "limits: it is not a list"),
        ] {
            let error = limits(text).unwrap_err();
            assert!(error.contains("1 problem\n") && error.contains(told), "{text}: {error}");
        }
        let many: Vec<_> = (0..17)
            .map(|n| format!("{{ name: l{n}, requests: 1/s, bytes: 1/s, quota: 1/d, concurrent: 1 }}"))
            .collect();
        assert!(limits(&format!("[{}]", many.join(", "))).unwrap_err().contains("limits: 68 are too many"));
        assert!(limits(&format!("[{}]", many[..16].join(", "))).is_ok());
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = limits("[{ name: a, requests: 100/s }]").unwrap();
        let limit = &config.limits[0];
        assert_eq!(limit.measures[0].to_string(), "100/s requests, 100 at once");
        assert_eq!((limit.per.len(), limit.per[0].to_string().as_str()), (1, "client"));
        assert_eq!((limit.mode, limit.tells), (crate::limits::Mode::Enforce, crate::limits::Tells::Refusals));
        assert!(limits("[]").unwrap().limits.is_empty());
        let all = "[{ name: a, per: [client, route], routes: sensors, client: { subject: { OU: x } }, requests: 1/m, \
                   burst: 9, bytes: 10MiB/s, quota: 10000/d, concurrent: 3, mode: shadow, tell: always, keys: 5 }]";
        assert_eq!(limits(all).unwrap().limits[0].measures.len(), 4);
    }
}
