//! `Config` → `Runtime`: the one place that reads the files a configuration names.

mod fetched;
mod key_pair;
mod lists;
mod operator;
mod renew;
mod staples;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use openssl::x509::X509;

use super::{CertificateSummary, ListenerRuntime, ListenerTickets, Runtime, StapleSummary, Surroundings};
use crate::UnixTime;
use crate::certificate::{AttributeKind, Certificate, SubjectAltName};
use crate::config::{
    ClientAuthMode, Config, ConfigErrors, ListenerConfig, PoolConfig, Problem, RouteConfig,
    ServerCertificateConfig, TargetConfig, TrustConfig, UpstreamVerify,
};
use crate::headers::{Forwarding, IdentityHeaders};
use crate::limits::Limits;
use crate::listener::contexts::{ServerCertificate, ServerContexts, supported_groups, unknown_ciphers};
use crate::listener::refuses_strangers;
use crate::route::{IdentityTable, Route, RouteTable, Target};
use crate::telemetry::{HandshakeFailure, ListStatus};
use crate::trust::{AwaitedList, DenyIndex, RevocationList, TrustDomain, TrustError, TrustSet, WhenMissing};
use crate::upstream::{LoadedUpstreamTls, Pools, UpstreamPool};

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

    fn listener(
        &mut self,
        index: usize,
        listener: &ListenerConfig,
        domains: &[Arc<TrustDomain>],
    ) -> Option<Arc<ListenerRuntime>> {
        let before = self.problems.len();
        let mut certificates = Vec::new();
        for certificate in &listener.tls.certificates {
            certificates.extend(self.server_certificate(certificate, &listener.name));
        }
        self.check_groups(index, &listener.tls.groups);
        for cipher in unknown_ciphers(&listener.tls) {
            let found = format!("the TLS library does not know `{cipher}`, or takes it for too weak");
            self.problem(format!("listeners[{index}].tls.ciphers"), found, None, None);
        }
        let mut trusted = Vec::new();
        for name in &listener.client_auth.trust {
            // A domain that could not be loaded has its own problem already.
            trusted.push(domains.iter().find(|domain| domain.name() == name)?.clone());
        }
        let tickets = self.tickets(index, listener);
        if self.problems.len() > before {
            return None;
        }
        let tickets = tickets?;
        let trust =
            (listener.client_auth.mode != ClientAuthMode::Off).then(|| Arc::new(TrustSet::new(trusted)));
        let keys = tickets.keys();
        let contexts = match ServerContexts::build(listener, &certificates, trust.as_deref(), keys) {
            Ok(contexts) => contexts,
            Err(error) => {
                let at = format!("listeners[{index}].tls");
                self.problem(at, format!("the TLS library refuses these settings: {error}"), None, None);
                return None;
            }
        };
        self.prove(index, listener, &contexts, trust.as_ref())?;
        Some(Arc::new(ListenerRuntime {
            name: listener.name.clone(),
            address: listener.address.clone(),
            mode: listener.client_auth.mode,
            limits: listener.limits,
            door: Arc::new(listener.door.clone()),
            tickets,
            contexts,
            trust,
            metrics: self.surroundings.metrics.listener(&listener.name),
        }))
    }

    /// `trusted_proxies` are asked about the client whom a balancer names, so that the balancer itself is found there only
    /// where it does not say who the client is: who comes in such a way could write whatever it likes.
    fn doubt_trusted_balancers(&mut self, config: &Config) {
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(proxies) = &listener.door.proxy_protocol else { continue };
            if let Some(both) = config.trusted_proxies.iter().find(|network| proxies.from.meet(**network)) {
                self.warnings.push(format!(
                    "trusted_proxies: `{both}` has balancers of `listeners[{index}].proxy_protocol.from`, which add no \
                     header fields; what their clients say in X-Forwarded-For must not be believed"
                ));
            }
        }
    }

    fn tickets(&mut self, index: usize, listener: &ListenerConfig) -> Option<ListenerTickets> {
        let previous = self.previous.and_then(|previous| previous.listeners.get(index));
        let at = format!("listeners[{index}].tls");
        let loaded = ListenerTickets::load(&listener.tls, &at, previous.map(|previous| &previous.tickets));
        loaded.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn check_groups(&mut self, index: usize, groups: &[String]) {
        let at = format!("listeners[{index}].tls.groups");
        let known = supported_groups(groups);
        if known.is_empty() {
            self.problem(at, "the TLS library knows none of these groups".into(), None, None);
            return;
        }
        for group in groups.iter().filter(|group| !known.contains(&group.as_str())) {
            self.warnings.push(format!("{at}: the TLS library does not know `{group}`; it is left out"));
        }
    }

    fn prove(
        &mut self,
        index: usize,
        listener: &ListenerConfig,
        contexts: &ServerContexts,
        trust: Option<&Arc<TrustSet>>,
    ) -> Option<()> {
        if listener.client_auth.mode != ClientAuthMode::Require {
            return Some(());
        }
        let at = format!("listeners[{index}].client_auth.mode");
        let Some(trust) = trust else {
            self.problem(at, "`require` without a trust domain".into(), None, None);
            return None;
        };
        match refuses_strangers(contexts, &listener.tls, trust) {
            Ok(unproven) => {
                let told = |(trial, failure): (_, HandshakeFailure)| {
                    format!(
                        "listeners[{index}].tls: no handshake in {trial} could be made: {}",
                        failure.sentence()
                    )
                };
                self.warnings.extend(unproven.into_iter().map(told));
                Some(())
            }
            Err(error) => {
                let expected = Some("a handshake without a certificate fails");
                self.problem(at, format!("`require` could not be proven: {error}"), expected, None);
                None
            }
        }
    }

    fn server_certificate(
        &mut self,
        certificate: &ServerCertificateConfig,
        listener: &Arc<str>,
    ) -> Option<ServerCertificate> {
        let files = &certificate.files;
        let (chain, key) = self.key_pair(files)?;
        let leaf = chain[0].to_der().ok().and_then(|der| Certificate::from_der(&der).ok());
        let Some(leaf) = leaf else {
            let found = format!("`{}` holds a malformed certificate", files.chain.display());
            self.problem(format!("{}.chain", files.at), found, None, None);
            return None;
        };
        if leaf.not_after() < self.now {
            self.warnings.push(format!("{}: certificate `{}` has expired", files.at, leaf.subject()));
        }
        self.certificates.push(CertificateSummary {
            kind: "server",
            name: listener.clone(),
            subject: leaf.subject().to_string(),
            not_after: leaf.not_after(),
        });
        let staple = self.staple(certificate, &chain, listener, &leaf);
        Some(ServerCertificate { chain, key, names: dns_names(&leaf), staple })
    }

    fn pools(&mut self, pools: &[PoolConfig]) -> Pools {
        let mut built = Pools::default();
        for pool in pools {
            let Some(tls) = self.upstream_tls(pool) else { continue };
            let previous = self.previous.and_then(|runtime| runtime.pools.named(&pool.name));
            let (built_pool, warnings) =
                UpstreamPool::build(pool, tls, previous.map(Arc::as_ref), &self.surroundings.metrics);
            self.warnings.extend(warnings);
            built.add(built_pool);
        }
        built
    }

    fn upstream_tls(&mut self, pool: &PoolConfig) -> Option<LoadedUpstreamTls> {
        let Some(tls) = &pool.tls else { return Some(LoadedUpstreamTls::default()) };
        let at = format!("pools.{}.tls.verify", pool.name);
        let ca = match &tls.verify {
            UpstreamVerify::Off => None,
            UpstreamVerify::Ca(path) => Some(self.authorities(&at, path)?),
        };
        let client = match &tls.client {
            Some(files) => Some(self.key_pair(files)?),
            None => None,
        };
        Some(LoadedUpstreamTls { ca, client })
    }

    /// Whom to believe of those whom the gateway itself connects to.
    fn authorities(&mut self, at: &str, file: &Path) -> Option<Vec<X509>> {
        let pem = self.read(at, file)?;
        let ca = X509::stack_from_pem(&pem).unwrap_or_default();
        if ca.is_empty() {
            self.problem(at, format!("`{}` holds no certificate", file.display()), None, None);
            return None;
        }
        Some(ca)
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

/// The names a certificate answers to (RFC 6125): its DNS names, or the common name where there are none.
fn dns_names(leaf: &Certificate) -> Vec<String> {
    let names: Vec<String> = leaf
        .subject_alternative_names()
        .iter()
        .filter_map(|name| match name {
            SubjectAltName::Dns(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        leaf.subject().values(AttributeKind::CommonName).map(str::to_ascii_lowercase).collect()
    } else {
        names
    }
}
