//! `Config` → `Runtime`: the one place that reads the files a configuration names.

mod fetched;
mod key_pair;
mod listeners;
mod lists;
mod operator;
mod pools;
mod renew;
mod staples;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::{CertificateSummary, Runtime, StapleSummary, Surroundings};
use crate::UnixTime;
use crate::certificate::Certificate;
use crate::config::{Config, ConfigErrors, Problem, RouteConfig, TargetConfig, TrustConfig};
use crate::headers::{Forwarding, IdentityHeaders};
use crate::limits::Limits;
use crate::route::{IdentityTable, Route, RouteTable, Target};
use crate::telemetry::ListStatus;
use crate::trust::{AwaitedList, DenyIndex, RevocationList, TrustDomain, TrustError, WhenMissing};

const READ_AT_ONCE: usize = 64 * 1024;

/// Gathers what is found on the way.
struct Loader<'a> {
    surroundings: &'a Surroundings,
    previous: Option<&'a Runtime>,
    now: UnixTime,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// What is to be said of revocation lists and deny lists.
    list_warnings: Vec<String>,
    certificates: Vec<CertificateSummary>,
    staples: Vec<StapleSummary>,
    /// If it is there.
    own_deny_list: Option<PathBuf>,
    /// It was there, and is not any more.
    lacks_own_deny_list: bool,
}

pub use renew::Renewed;
pub(super) use renew::renew;

pub(super) fn load(
    config: Config,
    previous: Option<&Runtime>,
    surroundings: &Surroundings,
    now: UnixTime,
) -> Result<Runtime, ConfigErrors> {
    let mut loader = Loader::new(surroundings, previous, now);
    if let Some(previous) = previous {
        loader.refuse_moved_listeners(&config, &previous.config);
        loader.refuse_settings_of_the_process(&config, &previous.config);
    }
    loader.find_own_deny_list(&config);
    loader.doubt_trusted_balancers(&config);
    let trust: Vec<_> = config.trust.iter().filter_map(|trust| loader.trust(trust, &config)).collect();
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .enumerate()
        .filter_map(|(index, listener)| loader.listener(index, listener, &trust))
        .collect();
    let pools = loader.pools(&config.pools);
    let known: Vec<Arc<str>> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let routes: Vec<_> = config.routes.iter().filter_map(|route| loader.route(route, &known)).collect();
    let token_file = config.admin.as_ref().and_then(|admin| admin.token_file.as_deref());
    let admin_token = token_file.and_then(|file| loader.admin_token(file));
    let identity_headers = match IdentityHeaders::new(&config.identity_headers) {
        Ok(headers) => Some(headers),
        Err(error) => {
            loader.problem("identity_headers", error.to_string(), None, None);
            None
        }
    };
    let (Some(identity_headers), true) = (identity_headers, loader.problems.is_empty()) else {
        return Err(ConfigErrors { file: config.file, problems: loader.problems });
    };
    let names: Vec<_> = routes.iter().map(|route| route.name.clone()).collect();
    let counted = previous.map(|previous| &*previous.limits);
    let limits = Limits::build(&config.limits, &names, counted, surroundings.started);
    let metrics = &surroundings.metrics;
    show(&trust, surroundings);
    metrics.forget_certificates();
    for certificate in &loader.certificates {
        metrics.set_certificate_expiry(
            certificate.kind,
            &certificate.name,
            &certificate.subject,
            certificate.not_after,
        );
    }
    metrics.forget_staples();
    for staple in &loader.staples {
        metrics.set_staple(&staple.listener, &staple.subject, staple.next_update);
    }
    Ok(Runtime {
        generation: previous.map_or(1, |previous| previous.generation + 1),
        loaded_at: SystemTime::now(),
        listeners,
        trust,
        pools,
        route_metrics: routes.iter().map(|route| metrics.route(&route.name)).collect(),
        routes: Arc::new(RouteTable::build(routes)),
        limits: Arc::new(limits),
        identity_headers: Arc::new(identity_headers),
        forwarding: Arc::new(Forwarding::new(config.trusted_proxies.clone())),
        admin_token,
        certificates: loader.certificates,
        own_deny_list: loader.own_deny_list,
        staples: loader.staples,
        warnings: loader.warnings,
        list_warnings: loader.list_warnings,
        config,
    })
}

/// In the metrics.
fn show(trust: &[Arc<TrustDomain>], surroundings: &Surroundings) {
    let lists = trust.iter().flat_map(|domain| {
        domain.revocation_lists().map(|list| ListStatus {
            trust_domain: domain.name().clone(),
            issuer: list.issuer().to_owned(),
            scope: list.scope(),
            entries: list.len(),
            this_update: list.this_update(),
            next_update: list.next_update(),
        })
    });
    surroundings.metrics.revocation().show_lists(lists.collect());
}

impl<'a> Loader<'a> {
    fn new(surroundings: &'a Surroundings, previous: Option<&'a Runtime>, now: UnixTime) -> Self {
        Self {
            surroundings,
            previous,
            now,
            problems: Vec::new(),
            warnings: Vec::new(),
            list_warnings: Vec::new(),
            certificates: Vec::new(),
            staples: Vec::new(),
            own_deny_list: None,
            lacks_own_deny_list: false,
        }
    }
}

impl Loader<'_> {
    fn problem(&mut self, at: impl Into<String>, found: String, expected: Option<&str>, hint: Option<&str>) {
        self.problems.push(Problem {
            at: at.into(),
            found,
            expected: expected.map(str::to_owned),
            hint: hint.map(str::to_owned),
        });
    }

    fn read(&mut self, at: &str, path: &Path) -> Option<Vec<u8>> {
        match std::fs::read(path) {
            Ok(bytes) if bytes.is_empty() => {
                self.problem(at, format!("`{}` is empty", path.display()), None, None);
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problem(at, format!("`{}` cannot be read: {error}", path.display()), None, None);
                None
            }
        }
    }

    /// For files that may be large.
    fn open(&mut self, at: &str, path: &Path) -> Option<BufReader<File>> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((found, _)) if found.is_file() && found.len() == 0 => {
                self.problem(at, format!("`{}` is empty", path.display()), None, None);
                None
            }
            Ok((_, file)) => Some(BufReader::with_capacity(READ_AT_ONCE, file)),
            Err(error) => {
                self.problem(at, format!("`{}` cannot be read: {error}", path.display()), None, None);
                None
            }
        }
    }

    /// Sockets are bound at start; a reload that would need other ones says so instead of half applying.
    fn refuse_moved_listeners(&mut self, new: &Config, old: &Config) {
        let of = |config: &Config| -> Vec<(Arc<str>, String)> {
            config.listeners.iter().map(|l| (l.name.clone(), l.address.to_string())).collect()
        };
        if of(new) != of(old) {
            self.problem(
                "listeners",
                "listeners were added, removed, renamed or moved to another address".into(),
                Some("the same names and addresses, in the same order, as at start"),
                Some("restart, or upgrade with SIGQUIT, to change sockets"),
            );
        }
        let addresses = |config: &Config| config.admin.as_ref().map(|admin| admin.addresses.clone());
        if addresses(new) != addresses(old) {
            self.problem(
                "admin",
                "the admin address changed".into(),
                None,
                Some("restart to change sockets"),
            );
        }
    }

    /// What is settled once, at start: a reload that took the file and left these as they were would be half a reload.
    fn refuse_settings_of_the_process(&mut self, new: &Config, old: &Config) {
        let hint = Some("restart to change it");
        let mut refuse = |at: &str, what: &str, changed: bool| {
            if changed {
                self.problem(at, format!("the {what} changed"), None, hint);
            }
        };
        let (now, then) = (&new.server, &old.server);
        refuse("server.threads", "number of threads", now.threads != then.threads);
        refuse("server.drain_timeout", "time to drain", now.drain_timeout != then.drain_timeout);
        refuse("server.upgrade_socket", "upgrade socket", now.upgrade_socket != then.upgrade_socket);
        refuse("server.sandbox", "sandbox", now.sandbox != then.sandbox);
        refuse("server.state_directory", "state directory", now.state_directory != then.state_directory);
        refuse("logging.format", "format of the log", new.logging.format != old.logging.format);
    }

    fn trust(&mut self, trust: &TrustConfig, config: &Config) -> Option<Arc<TrustDomain>> {
        let bundle = self.anchors(trust)?;
        let before = self.problems.len();
        let lists = self.revocation_lists(trust, &bundle);
        let denied = self.deny_lists(trust, config);
        if self.problems.len() > before {
            return None;
        }
        self.domain(trust, bundle, lists, denied, Vec::new())
    }

    fn anchors(&mut self, trust: &TrustConfig) -> Option<Vec<Certificate>> {
        let at = format!("trust.{}.anchors", trust.name);
        let expected = Some("one or more PEM blocks of type CERTIFICATE");
        let pem = self.read(&at, &trust.anchors)?;
        let file = trust.anchors.display();
        let bundle = match Certificate::from_pem_bundle(&pem) {
            Ok(bundle) if bundle.is_empty() => {
                self.problem(at, format!("`{file}` holds no certificate"), expected, None);
                return None;
            }
            Ok(bundle) => bundle,
            Err(error) => {
                self.problem(at, format!("`{file}` cannot be used: {error}"), expected, None);
                return None;
            }
        };
        for anchor in &bundle {
            if anchor.not_after() < self.now {
                self.warnings.push(format!(
                    "trust.{}: anchor `{}` has expired",
                    trust.name,
                    anchor.subject()
                ));
            }
            self.certificates.push(CertificateSummary {
                kind: "anchor",
                name: trust.name.clone(),
                subject: anchor.subject().to_string(),
                not_after: anchor.not_after(),
            });
        }
        Some(bundle)
    }

    fn domain(
        &mut self,
        trust: &TrustConfig,
        bundle: Vec<Certificate>,
        (lists, awaited): (Vec<Arc<RevocationList>>, Vec<AwaitedList>),
        denied: [Arc<DenyIndex>; 2],
        still_denied: Vec<Arc<DenyIndex>>,
    ) -> Option<Arc<TrustDomain>> {
        match TrustDomain::build(&trust.name, bundle, lists, trust.policy.clone()) {
            Ok(domain) => {
                let domain = domain.awaiting(awaited);
                self.refuse_older_lists(trust, &domain)?;
                self.doubt_lists_about_the_expired(trust, &domain);
                let domain = self.deny(domain, denied, still_denied);
                for anchor in domain.anchors_without_list() {
                    let meaning = match trust.policy.when_missing {
                        WhenMissing::Believe => "nothing of it is revoked",
                        WhenMissing::Refuse => "as `when_missing` says, its clients are refused",
                    };
                    self.list_warnings.push(format!(
                        "trust.{}: no revocation list speaks about what `{}` issued; {meaning}",
                        trust.name, anchor.subject
                    ));
                }
                let notices = domain
                    .revocation_lists()
                    .filter_map(|list| list.notice(trust.policy.when_stale, self.now));
                self.list_warnings.extend(notices.map(|notice| format!("trust.{}: {notice}", trust.name)));
                Some(Arc::new(domain))
            }
            Err(error @ (TrustError::DeltaWithoutBase { .. } | TrustError::NoMemory)) => {
                let at = format!("trust.{}.revocation.lists", trust.name);
                self.problem(at, error.to_string(), None, Some("get the issuer's newest complete list too"));
                None
            }
            Err(error) => {
                let at = format!("trust.{}.anchors", trust.name);
                let file = trust.anchors.display();
                self.problem(at, format!("`{file}` cannot be used: {error}"), None, None);
                None
            }
        }
    }

    fn route(&mut self, route: &RouteConfig, pools: &[Arc<str>]) -> Option<Route> {
        let target = match &route.target {
            TargetConfig::Pool(pool) => Target::Pool(pool.clone()),
            TargetConfig::Table { key, file, fallback } => {
                let at = format!("{}.pools_by.table", route.at);
                let bytes = self.read(&at, file)?;
                match IdentityTable::parse_for(key, bytes.as_slice(), pools) {
                    Ok(table) => {
                        Target::Table { key: key.clone(), table: Arc::new(table), fallback: fallback.clone() }
                    }
                    Err(error) => {
                        let found = format!("`{}` cannot be used: {error}", file.display());
                        self.problem(at, found, Some("two columns: `key,pool`"), None);
                        return None;
                    }
                }
            }
        };
        Some(Route {
            name: route.name.clone(),
            accepts: route.accepts,
            client: route.client.clone(),
            request: route.request.clone(),
            target,
        })
    }
}
