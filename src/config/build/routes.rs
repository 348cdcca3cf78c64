//! Routes: whom they match, and where they lead.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::super::file::{AcceptsFile, ClientFile, ClientMatchFile, ClientWord, OneOrMany, RouteFile};
use super::super::scalar::{Strings, closest};
use super::super::types::{ClientAuthMode, ListenerConfig, RouteConfig, TargetConfig, TrustConfig};
use super::Builder;
use crate::certificate::AttributeKind;
use crate::framing::other_reading;
use crate::pattern::{Pattern, PatternSpec};
use crate::route::{Accepts, ClientMatch, ClientRule, RequestRule, SanMatch, SerialMatch};
use crate::trust::FaultKind;

impl Builder {
    pub(super) fn route(&mut self, index: usize, at: &str, file: RouteFile) -> Option<RouteConfig> {
        self.check_name(at, file.name.as_ref());
        let client = match file.client {
            None => ClientRule::Verified(ClientMatch::default()),
            Some(client) => self.client_rule(&format!("{at}.client"), client),
        };
        let request = RequestRule {
            host: self
                .patterns(&format!("{at}.request.host"), file.request.host)
                .into_iter()
                .map(Pattern::lower_case)
                .collect(),
            path: self.path_patterns(&format!("{at}.request.path"), file.request.path),
            method: self.methods(&format!("{at}.request.method"), file.request.method.as_ref()),
            header: file
                .request
                .header
                .into_iter()
                .flatten()
                .filter_map(|(name, spec)| {
                    let at = format!("{at}.request.header.{name}");
                    Some((self.header_name(&at, &name)?, self.pattern(&at, &spec)?))
                })
                .collect(),
        };
        let target = match (file.pool, file.pools_by) {
            (Some(pool), None) => TargetConfig::Pool(self.reference(format!("{at}.pool"), "pool", &pool)?),
            (None, Some(table)) => {
                let key = table.key.parse().map_err(|_| ()).ok();
                if key.is_none() {
                    let expected = "`subject.CN` or another attribute, `san.dns`, `san.email`, `san.uri`, \
                                    `fingerprint`, `key_fingerprint`, or `serial`";
                    let found = format!("`{}` is no key", table.key);
                    self.problem(format!("{at}.pools_by.key"), found, Some(expected), None);
                }
                let fallback = match table.fallback {
                    Some(pool) => Some(self.reference(format!("{at}.pools_by.fallback"), "pool", &pool)?),
                    None => None,
                };
                TargetConfig::Table { key: key?, file: self.path(&table.table), fallback }
            }
            (Some(_), Some(_)) => {
                self.problem(at, "it has both `pool` and `pools_by`", Some("one of them"), None);
                return None;
            }
            (None, None) => {
                self.problem(at, "it leads nowhere", Some("`pool` or `pools_by`"), None);
                return None;
            }
        };
        let accepts = self.accepts(at, &client, file.accepts);
        Some(RouteConfig {
            accepts,
            name: file.name.unwrap_or_else(|| format!("route-{}", index + 1)).into(),
            client,
            request,
            target,
            at: at.to_owned(),
        })
    }

    pub(super) fn client_rule(&mut self, at: &str, file: ClientFile) -> ClientRule {
        match file {
            ClientFile::Word(ClientWord::Verified) => ClientRule::Verified(ClientMatch::default()),
            ClientFile::Word(ClientWord::Anonymous) => ClientRule::Anonymous,
            ClientFile::Word(ClientWord::Anyone) => ClientRule::Anyone,
            ClientFile::Match(file) => ClientRule::Verified(self.client_match(at, *file)),
        }
    }

    /// What is wrong with it is told, and nothing accepted.
    fn accepts(&mut self, at: &str, client: &ClientRule, file: Option<Vec<AcceptsFile>>) -> Accepts {
        let mut accepts = Accepts::default();
        let Some(items) = file else { return accepts };
        let at = format!("{at}.accepts");
        let expected = Some("`[{ expired_within: 30d }]`, `[{ revocation_stale_within: 24h }]`, or both");
        if items.is_empty() {
            self.problem(&at, "it is empty", expected, None);
        }
        if matches!(client, ClientRule::Anonymous) {
            let found = "clients without a certificate have none that something could be wrong with";
            self.problem(&at, found, None, None);
        }
        for (index, item) in items.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            if item.expired_within.is_none() && item.revocation_stale_within.is_none() {
                self.problem(&at, "it names no fault", expected, None);
            }
            for (key, span, accepted) in [
                ("expired_within", item.expired_within, &mut accepts.expired_within),
                (
                    "revocation_stale_within",
                    item.revocation_stale_within,
                    &mut accepts.revocation_stale_within,
                ),
            ] {
                let Some(span) = span else { continue };
                if accepted.replace(span.0).is_some() {
                    self.problem(format!("{at}.{key}"), "it is there twice", Some("one span"), None);
                }
            }
        }
        accepts
    }

    /// A trust domain lets in whom one of the routes for its clients accepts.
    pub(super) fn open_quarantine(trust: &mut [TrustConfig], routes: &[RouteConfig]) {
        for route in routes {
            let concerns = |name: &Arc<str>| match &route.client {
                ClientRule::Anonymous => false,
                ClientRule::Anyone => true,
                ClientRule::Verified(client) => client.trust.is_empty() || client.trust.contains(name),
            };
            for domain in trust.iter_mut().filter(|domain| concerns(&domain.name)) {
                for kind in FaultKind::ALL {
                    if let Some(span) = route.accepts.span(kind) {
                        domain.policy.quarantine.admit(kind, span);
                    }
                }
            }
        }
    }

    pub(super) fn client_match(&mut self, at: &str, file: ClientMatchFile) -> ClientMatch {
        let strings = |strings: &Option<Strings>| -> Vec<String> {
            strings.iter().flat_map(|strings| strings.iter().map(str::to_owned)).collect()
        };
        let trust = strings(&file.trust);
        let trust =
            trust.iter().filter_map(|name| self.reference(format!("{at}.trust"), "trust domain", name));
        ClientMatch {
            trust: trust.collect(),
            subject: self.attributes(&format!("{at}.subject"), file.subject),
            issuer: self.attributes(&format!("{at}.issuer"), file.issuer),
            san: file.san.map_or_else(SanMatch::default, |san| SanMatch {
                dns: self.patterns(&format!("{at}.san.dns"), san.dns),
                email: self.patterns(&format!("{at}.san.email"), san.email),
                uri: self.patterns(&format!("{at}.san.uri"), san.uri),
                ip: self.parsed(&format!("{at}.san.ip"), &strings(&san.ip), "an IP address"),
            }),
            fingerprint: self.parsed(
                &format!("{at}.fingerprint"),
                &strings(&file.fingerprint),
                "a SHA-256 fingerprint: 64 hex digits",
            ),
            key_fingerprint: self.parsed(
                &format!("{at}.key_fingerprint"),
                &strings(&file.key_fingerprint),
                "a SHA-256 fingerprint: 64 hex digits",
            ),
            serial: match file.serial {
                None => Vec::new(),
                Some(file) => {
                    let serials: Vec<String> = file.serials.iter().map(str::to_owned).collect();
                    let serials =
                        self.parsed(&format!("{at}.serial.serials"), &serials, "a serial number in hex");
                    let issuer = file.issuer;
                    serials.into_iter().map(|serial| SerialMatch { issuer: issuer.clone(), serial }).collect()
                }
            },
        }
    }

    fn attributes(
        &mut self,
        at: &str,
        file: Option<BTreeMap<String, OneOrMany>>,
    ) -> Vec<(AttributeKind, Vec<Pattern>)> {
        let mut attributes = Vec::new();
        for (key, patterns) in file.into_iter().flatten() {
            let at = format!("{at}.{key}");
            let patterns = self.patterns(&at, Some(patterns));
            if let Some(kind) = AttributeKind::from_key(&key) {
                attributes.push((kind, patterns));
            } else {
                let near = closest(&key, AttributeKind::KEYS.iter().copied());
                let hint = near.map(|near| format!("did you mean `{near}`?"));
                let expected = AttributeKind::KEYS.join(", ");
                self.problem(at, "no such attribute", Some(&expected), hint);
            }
        }
        attributes
    }

    fn patterns(&mut self, at: &str, file: Option<OneOrMany>) -> Vec<Pattern> {
        let specs = match file {
            None => return Vec::new(),
            Some(OneOrMany::One(spec)) => vec![spec],
            Some(OneOrMany::Many(specs)) => specs,
        };
        specs.iter().filter_map(|spec| self.pattern(at, spec)).collect()
    }

    fn path_patterns(&mut self, at: &str, file: Option<OneOrMany>) -> Vec<Pattern> {
        let patterns = self.patterns(at, file);
        for error in patterns.iter().filter_map(|pattern| pattern.check_path().err()) {
            self.problem(at.to_owned(), error.to_string(), Some("a path begins with `/`"), None);
        }
        // Requests for it are refused, since origins may read it in another way than this.
        for text in patterns.iter().flat_map(|pattern| [pattern.exact(), pattern.root()]).flatten() {
            if let Some(other) = other_reading(text) {
                let found = format!("origins may read `{text}` in another way");
                self.problem(at.to_owned(), found, Some(&format!("`{other}`")), None);
            }
        }
        patterns
    }

    fn pattern(&mut self, at: &str, spec: &PatternSpec) -> Option<Pattern> {
        match Pattern::parse(spec) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.problem(at, error.to_string(), None, None);
                None
            }
        }
    }

    fn methods(&mut self, at: &str, file: Option<&Strings>) -> Vec<Method> {
        let mut methods = Vec::new();
        for text in file.into_iter().flat_map(Strings::iter) {
            let legal =
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            match text.parse() {
                Ok(method) if legal => methods.push(method),
                _ => self.problem(at, format!("`{text}` is not a method"), Some("`GET`, `POST`, …"), None),
            }
        }
        methods
    }

    /// A route that no listener lets anybody reach is a mistake. Not asked while a listener cannot be read.
    pub(super) fn check_reachable(&mut self, listeners: &[ListenerConfig], routes: &[RouteConfig]) {
        let every = |mode| listeners.iter().all(|listener| listener.client_auth.mode == mode);
        let admits =
            |name: &Arc<str>| listeners.iter().any(|listener| listener.client_auth.trust.contains(name));
        let (demanded, never_asked) = (every(ClientAuthMode::Require), every(ClientAuthMode::Off));
        for route in routes {
            let (found, hint) = match &route.client {
                ClientRule::Anonymous if demanded => (
                    "it can match nobody: every listener demands a certificate",
                    "a listener with `client_auth.mode: optional` or `off` would let them in",
                ),
                ClientRule::Verified(_) if never_asked => (
                    "it can match nobody: no listener asks for a certificate",
                    "`client: anyone` or `client: anonymous` is for clients without one",
                ),
                ClientRule::Verified(client)
                    if !client.trust.is_empty() && !client.trust.iter().any(admits) =>
                {
                    (
                        "it can match nobody: no listener admits its trust domains",
                        "`listeners[].client_auth.trust` says whose clients may enter",
                    )
                }
                _ => continue,
            };
            self.problem(format!("{}.client", route.at), found, None, Some(hint.to_owned()));
        }
    }
}
