//! `ConfigFile` → `Config`. Every problem is found, not the first: each section is read by itself.

mod door;
mod limits;
mod listeners;
mod lists;
mod pools;
mod reader;
mod routes;
mod sandbox;
mod server;
mod trust;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use serde_yaml::{Mapping, Value};

use super::file::{AdminFile, LimitFile, ListenerFile, LoggingFile, PoolFile, RouteFile, TrustFile};
use super::scalar::closest;
use super::shape;
use super::types::Config;
use super::{ConfigErrors, Problem};
use crate::headers::{HeaderPreset, IdentityHeaderSpec, Prefix};
use reader::{Needed, names};
use server::logging;

const SECTIONS: &[&str] = &[
    "version",
    "listeners",
    "trust",
    "pools",
    "routes",
    "limits",
    "identity_headers",
    "trusted_proxies",
    "admin",
    "logging",
    "server",
    "census",
];

pub(super) fn build(path: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let mut builder = Builder {
        directory: path.parent().map(Path::to_owned).unwrap_or_default(),
        problems: Vec::new(),
        trust: Vec::new(),
        pools: Vec::new(),
    };
    let config = builder.config(path, text);
    match config {
        Some(config) if builder.problems.is_empty() => Ok(config),
        _ => Err(ConfigErrors { file: path.to_owned(), problems: builder.problems }),
    }
}

struct Builder {
    directory: PathBuf,
    problems: Vec<Problem>,
    /// Names that may be referred to; also those whose section has problems of its own.
    trust: Vec<String>,
    pools: Vec<String>,
}

impl Builder {
    fn config(&mut self, path: &Path, text: &str) -> Option<Config> {
        let root = match serde_yaml::from_str::<Value>(text) {
            Ok(Value::Mapping(root)) => root,
            Ok(_) => {
                self.problem("file", "it is not a YAML mapping", Some("`version: 1` and so on"), None);
                return None;
            }
            Err(error) => {
                self.problem("file", format!("it is not YAML: {error}"), None, None);
                return None;
            }
        };
        self.check_sections(&root);
        shape::refuse_nothing(&root, &mut self.problems);
        self.trust = names(root.get("trust"));
        self.pools = names(root.get("pools"));
        let mut trust: Vec<_> = self
            .entries::<TrustFile>(&root, "trust")
            .into_iter()
            .filter_map(|(name, at, file)| self.trust_domain(&name, &at, file))
            .collect();
        let mut listeners: Vec<_> = self
            .items::<ListenerFile>(&root, "listeners", Needed::Yes)
            .into_iter()
            .filter_map(|(index, at, file)| self.listener(index, &at, file))
            .collect();
        let pools: Vec<_> = self
            .entries::<PoolFile>(&root, "pools")
            .into_iter()
            .filter_map(|(name, at, file)| self.pool(&name, &at, file))
            .collect();
        let routes: Vec<_> = self
            .items::<RouteFile>(&root, "routes", Needed::Yes)
            .into_iter()
            .filter_map(|(index, at, file)| self.route(index, &at, file))
            .collect();
        Self::open_quarantine(&mut trust, &routes);
        self.unique(&root, "listeners", "name");
        self.unique(&root, "listeners", "address");
        self.unique(&root, "routes", "name");
        let limits: Vec<_> = self
            .items::<LimitFile>(&root, "limits", Needed::No)
            .into_iter()
            .filter_map(|(_, at, file)| Some((at.clone(), self.limit(&at, file)?)))
            .collect();
        self.unique(&root, "limits", "name");
        let complete = |section: &str, read: usize| {
            root.get(section).and_then(Value::as_sequence).is_some_and(|items| items.len() == read)
        };
        if complete("listeners", listeners.len()) {
            self.check_numbered("listeners", listeners.iter().map(|listener| &*listener.name));
            self.check_reachable(&listeners, &routes);
        }
        if complete("routes", routes.len()) {
            self.check_numbered("routes", routes.iter().map(|route| &*route.name));
            self.check_limited_routes(&limits, &routes);
        }
        let admin = self.section::<AdminFile>(&root, "admin").and_then(|file| self.admin(&file));
        self.check_ports(&root, admin.as_ref());
        let identity_headers = self.section::<Vec<IdentityHeaderSpec>>(&root, "identity_headers");
        let trusted_proxies = self.trusted_proxies(&root);
        let logging = logging(self.section::<LoggingFile>(&root, "logging").unwrap_or_default());
        let server = self.server(&root);
        self.place_fetched(&mut trust, &mut listeners, server.state_directory.as_deref());
        Some(Config {
            file: path.to_owned(),
            text: text.into(),
            listeners,
            trust,
            pools,
            routes,
            limits: limits.into_iter().map(|(_, limit)| limit).collect(),
            identity_headers: identity_headers
                .unwrap_or_else(|| vec![IdentityHeaderSpec::Preset(HeaderPreset::Rfc9440)]),
            trusted_proxies,
            admin,
            census: self.census(&root),
            logging,
            server,
        })
    }

    fn problem(
        &mut self,
        at: impl Into<String>,
        found: impl Into<String>,
        expected: Option<&str>,
        hint: Option<String>,
    ) {
        let problem =
            Problem { at: at.into(), found: found.into(), expected: expected.map(str::to_owned), hint };
        self.problems.push(problem);
    }

    fn check_sections(&mut self, root: &Mapping) {
        for key in root.keys() {
            let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
            if !SECTIONS.contains(&key.as_str()) {
                let hint =
                    closest(&key, SECTIONS.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                self.problem(&key, "unknown key", None, hint);
            }
        }
        match root.get("version") {
            Some(Value::Number(number)) if number.as_u64() == Some(1) => {}
            Some(_) => self.problem("version", "this version is not known", Some("`version: 1`"), None),
            None => self.problem("version", "missing", Some("`version: 1`"), None),
        }
        if !root.contains_key("pools") {
            self.problem("pools", "missing", Some("at least one pool"), None);
        }
    }

    fn positive(&mut self, at: &str, name: &str, value: Option<usize>, default: usize) -> usize {
        if value == Some(0) {
            self.problem(format!("{at}.limits.{name}"), "0 would refuse everybody", Some("1 or more"), None);
        }
        value.unwrap_or(default)
    }

    fn between<T: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        at: &str,
        name: &str,
        value: Option<T>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        match value {
            Some(value) if !range.contains(&value) => {
                let expected = format!("{} to {}", range.start(), range.end());
                self.problem(
                    format!("{at}.{name}"),
                    format!("{value} is out of range"),
                    Some(&expected),
                    None,
                );
                default
            }
            value => value.unwrap_or(default),
        }
    }

    fn at_most<T: Copy + PartialOrd + std::fmt::Display>(&mut self, at: &str, value: T, most: T) -> T {
        if value > most {
            self.problem(at, format!("{value} is too much"), Some(&format!("at most {most}")), None);
        }
        value
    }

    fn header_name(&mut self, at: &str, text: &str) -> Option<HeaderName> {
        let name = text.parse().ok();
        if name.is_none() {
            self.problem(at, format!("`{text}` is not a header name"), None, None);
        }
        name
    }

    fn parsed<T: FromStr>(&mut self, at: &str, texts: &[String], expected: &str) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(value) => parsed.push(value),
                Err(_) => self.problem(at, format!("`{text}` is not {expected}"), None, None),
            }
        }
        parsed
    }

    fn trusted_proxies(&mut self, root: &Mapping) -> Vec<Prefix> {
        let texts = self.section::<Vec<String>>(root, "trusted_proxies").unwrap_or_default();
        self.parsed("trusted_proxies", &texts, "a network, such as `192.0.2.0/24`")
    }

    /// Names stand in labels of metrics and on command lines.
    fn check_name(&mut self, at: &str, name: Option<&String>) {
        if let Some(name) = name.filter(|name| !is_name(name)) {
            let expected = Some("letters, digits, `-`, `_` and `.`");
            self.problem(format!("{at}.name"), format!("`{name}` is not a name"), expected, None);
        }
    }

    fn path(&self, text: &str) -> PathBuf {
        self.directory.join(text)
    }

    fn reference(&mut self, at: String, what: &str, name: &str) -> Option<Arc<str>> {
        let known = if what == "pool" { &self.pools } else { &self.trust };
        if known.iter().any(|known| known == name) {
            return Some(name.into());
        }
        let near = closest(name, known.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no {what}"),
            None => format!("there are {}", quoted(known)),
        };
        self.problem(at, format!("no {what} is called `{name}`"), None, Some(hint));
        None
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
