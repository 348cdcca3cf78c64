//! `ConfigFile` → `Config`. Every problem is found, not the first: each section is read by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::file::{
    AdminFile, BalanceFile, BalanceWord, CertificateFile, ClientFile, ClientMatchFile, ClientWord,
    EndpointFile, FormatFile, HashKeyFile, LevelFile, ListenerFile, LoggingFile, ModeFile, OnExpiryFile,
    OneOrMany, PoolFile, ProtocolFile, RouteFile, ServerFile, StaleWord, TrustFile, UpstreamTlsFile,
    UsageFile, VerifyFile, WhenStaleFile,
};
use super::scalar::{Span, closest};
use super::shape;
use super::types::{
    AccessLog, AdminAddress, AdminConfig, Balance, CertificateFiles, ClientAuth, ClientAuthMode, Config,
    EjectionConfig, EndpointConfig, HashKey, HealthConfig, HealthKind, HostHeader, ListenAddress,
    ListenerConfig, ListenerLimits, LogFormat, LoggingConfig, PoolConfig, PoolTimeouts, Protocol,
    RouteConfig, ServerSettings, TargetConfig, TlsConfig, TlsVersion, TrustConfig, UpstreamProtocol,
    UpstreamTls, UpstreamVerify,
};
use super::{ConfigErrors, Problem};
use crate::certificate::AttributeKind;
use crate::headers::{HeaderPreset, IdentityHeaderSpec};
use crate::pattern::{Pattern, PatternSpec};
use crate::route::{ClientMatch, ClientRule, RequestRule, SanMatch, SerialMatch};
use crate::trust::{OnExpiry, TrustPolicy, Usage, WhenStale};

const SECTIONS: &[&str] = &[
    "version",
    "listeners",
    "trust",
    "pools",
    "routes",
    "identity_headers",
    "trusted_proxies",
    "admin",
    "logging",
    "server",
];
const DEFAULT_UPGRADE_SOCKET: &str = "/run/portcullis/upgrade.sock";
const LONGEST_SOCKET_PATH: usize = 107;
/// What Pingora passes from process to process at once.
const MOST_SOCKETS: usize = 32;
const DEFAULT_GROUPS: &[&str] = &["X25519MLKEM768", "X25519", "P-256", "P-384"];

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
        let trust: Vec<_> = self
            .entries::<TrustFile>(&root, "trust")
            .into_iter()
            .filter_map(|(name, at, file)| self.trust_domain(&name, &at, file))
            .collect();
        let listeners: Vec<_> = self
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
        self.unique(&root, "listeners", "name");
        self.unique(&root, "listeners", "address");
        self.unique(&root, "routes", "name");
        let complete = |section: &str, read: usize| {
            root.get(section).and_then(Value::as_sequence).is_some_and(|items| items.len() == read)
        };
        if complete("listeners", listeners.len()) {
            self.check_numbered("listeners", listeners.iter().map(|listener| &*listener.name));
            self.check_reachable(&listeners, &routes);
        }
        if complete("routes", routes.len()) {
            self.check_numbered("routes", routes.iter().map(|route| &*route.name));
        }
        let admin = self.section::<AdminFile>(&root, "admin").and_then(|file| self.admin(&file));
        self.check_ports(&root, admin.as_ref());
        Some(Config {
            file: path.to_owned(),
            listeners,
            trust,
            pools,
            routes,
            identity_headers: self
                .section::<Vec<IdentityHeaderSpec>>(&root, "identity_headers")
                .unwrap_or_else(|| vec![IdentityHeaderSpec::Preset(HeaderPreset::Rfc9440)]),
            trusted_proxies: self.trusted_proxies(&root),
            admin,
            logging: logging(self.section::<LoggingFile>(&root, "logging").unwrap_or_default()),
            server: self.server(&root),
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

    /// Reads a value. Everything that is wrong with its shape is told, not the first thing only.
    fn read<T: DeserializeOwned>(&mut self, at: &str, value: &Value) -> Option<T> {
        shape::read(at, value, &mut self.problems)
    }

    fn section<T: DeserializeOwned>(&mut self, root: &Mapping, name: &str) -> Option<T> {
        let value = root.get(name)?;
        self.read(name, value)
    }

    /// The elements of a list that can be read, with their numbers and paths.
    fn items<T: DeserializeOwned>(
        &mut self,
        root: &Mapping,
        name: &str,
        needed: Needed,
    ) -> Vec<(usize, String, T)> {
        let items = match root.get(name) {
            Some(Value::Sequence(items)) if !items.is_empty() => items.as_slice(),
            None | Some(Value::Null | Value::Sequence(_)) => {
                if matches!(needed, Needed::Yes) {
                    self.problem(name, "there are none", Some("a list with at least one element"), None);
                }
                return Vec::new();
            }
            Some(_) => {
                self.problem(name, "it is not a list", Some("a list"), None);
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{name}[{index}]");
            if let Some(item) = self.read(&at, item) {
                read.push((index, at, item));
            }
        }
        read
    }

    /// The entries of a mapping that can be read, with their names and paths.
    fn entries<T: DeserializeOwned>(&mut self, root: &Mapping, name: &str) -> Vec<(String, String, T)> {
        let entries = match root.get(name) {
            Some(Value::Mapping(entries)) => entries,
            None | Some(Value::Null) => return Vec::new(),
            Some(_) => {
                self.problem(name, "it is not a mapping", Some("a mapping of names"), None);
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (key, value) in entries {
            let Some(key) = key.as_str().filter(|key| is_name(key)) else {
                let found = format!("{key:?} is not a name");
                self.problem(name, found, Some("letters, digits, `-`, `_` and `.`"), None);
                continue;
            };
            let at = format!("{name}.{key}");
            if let Some(value) = self.read(&at, value) {
                read.push((key.to_owned(), at, value));
            }
        }
        read
    }

    /// Names are compared as the file has them: what cannot be read otherwise still has its name and its number.
    fn unique(&mut self, root: &Mapping, section: &str, key: &str) {
        let mut seen = HashMap::new();
        let items = root.get(section).and_then(Value::as_sequence);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let Some(name) = item.get(key).and_then(Value::as_str) else { continue };
            let first = *seen.entry(name).or_insert(index);
            if first != index {
                let at = format!("{section}[{index}].{key}");
                self.problem(at, format!("`{name}` is what `{section}[{first}]` has already"), None, None);
            }
        }
    }

    /// A name that is given may be the one that another element has by its number. Not asked while an element cannot be
    /// read: its place would be another one's.
    fn check_numbered<'a>(&mut self, section: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = HashMap::new();
        for (index, name) in names.enumerate() {
            let first = *seen.entry(name).or_insert(index);
            let at = format!("{section}[{index}].name");
            if first != index && self.problems.iter().all(|problem| problem.at != at) {
                self.problem(at, format!("`{name}` is the name of `{section}[{first}]`"), None, None);
            }
        }
    }

    /// Two sockets that the kernel would not give us both, however differently their addresses are written.
    fn check_ports(&mut self, root: &Mapping, admin: Option<&AdminConfig>) {
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        if let Some(AdminConfig { address: AdminAddress::Tcp(address) }) = admin {
            taken.push(("admin".to_owned(), *address));
        }
        let texts = root.get("listeners").and_then(Value::as_sequence);
        if texts.map_or(0, Vec::len) + taken.len() > MOST_SOCKETS {
            let expected = format!("at most {MOST_SOCKETS} sockets, that of `admin` among them");
            self.problem("listeners", "an upgrade could not hand over so many", Some(&expected), None);
        }
        for (index, item) in texts.into_iter().flatten().enumerate() {
            let address = item.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok());
            let Some(address) = address else { continue };
            let at = format!("listeners[{index}].address");
            let other = taken.iter().find(|(_, other)| overlap(*other, address));
            if let Some((other, theirs)) = other.filter(|_| self.problems.iter().all(|told| told.at != at)) {
                let found = format!("`{address}` and `{theirs}` of `{other}` cannot both be listened on");
                self.problem(at, found, Some("another port"), None);
            }
            taken.push((format!("listeners[{index}]"), address));
        }
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

    // Listeners

    fn listener(&mut self, index: usize, at: &str, file: ListenerFile) -> Option<ListenerConfig> {
        self.check_name(at, file.name.as_ref());
        let address = self.listen_address(&format!("{at}.address"), &file.address);
        let certificates: Vec<_> = file
            .tls
            .certificates
            .iter()
            .enumerate()
            .map(|(number, files)| self.certificate(format!("{at}.tls.certificates[{number}]"), files))
            .collect();
        if certificates.is_empty() {
            self.problem(format!("{at}.tls.certificates"), "there are none", Some("at least one"), None);
        }
        let minimum =
            self.version(&format!("{at}.tls.minimum_version"), file.tls.minimum_version, TlsVersion::Tls12);
        let maximum =
            self.version(&format!("{at}.tls.maximum_version"), file.tls.maximum_version, TlsVersion::Tls13);
        if minimum > maximum {
            self.problem(format!("{at}.tls"), "the minimum version is above the maximum version", None, None);
        }
        let protocols = file.protocols.unwrap_or_else(|| vec![ProtocolFile::H2, ProtocolFile::Http1]);
        if protocols.is_empty() {
            self.problem(format!("{at}.protocols"), "there are none", Some("`[h2, http/1.1]`"), None);
        }
        let (tls13_ciphers, ciphers) = self.ciphers(&format!("{at}.tls.ciphers"), file.tls.ciphers);
        let groups = file.tls.groups;
        let client_auth = self.client_auth(at, file.client_auth.mode, &file.client_auth.trust);
        let limits = file.limits;
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        Some(ListenerConfig {
            name: file.name.unwrap_or_else(|| format!("listener-{}", index + 1)).into(),
            address: address?,
            protocols: protocols.into_iter().map(protocol).collect(),
            tls: TlsConfig {
                certificates,
                minimum_version: minimum,
                maximum_version: maximum,
                ciphers,
                tls13_ciphers,
                groups: groups
                    .unwrap_or_else(|| DEFAULT_GROUPS.iter().map(|&group| group.to_owned()).collect()),
                session_tickets: file.tls.session_tickets.unwrap_or(true),
                ticket_lifetime: span(file.tls.ticket_lifetime, Duration::from_secs(3600)),
            },
            client_auth: ClientAuth {
                send_ca_names: file.client_auth.send_ca_names.unwrap_or(true),
                ..client_auth?
            },
            limits: ListenerLimits {
                handshake_timeout: span(limits.handshake_timeout, Duration::from_secs(5)),
                handshakes_in_flight: self.positive(
                    at,
                    "handshakes_in_flight",
                    limits.handshakes_in_flight,
                    1024,
                ),
                connections: self.positive(at, "connections", limits.connections, 100_000),
                keepalive_timeout: span(limits.keepalive_timeout, Duration::from_secs(60)),
                request_header_timeout: span(limits.request_header_timeout, Duration::from_secs(10)),
            },
        })
    }

    fn positive(&mut self, at: &str, name: &str, value: Option<usize>, default: usize) -> usize {
        if value == Some(0) {
            self.problem(format!("{at}.limits.{name}"), "0 would refuse everybody", Some("1 or more"), None);
        }
        value.unwrap_or(default)
    }

    fn at_most<T: Copy + PartialOrd + std::fmt::Display>(&mut self, at: &str, value: T, most: T) -> T {
        if value > most {
            self.problem(at, format!("{value} is too much"), Some(&format!("at most {most}")), None);
        }
        value
    }

    fn listen_address(&mut self, at: &str, text: &str) -> Option<ListenAddress> {
        if let Some(name) = text.strip_prefix("systemd:").filter(|name| !name.is_empty()) {
            return Some(ListenAddress::Systemd(name.to_owned()));
        }
        let address =
            text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).map(ListenAddress::Tcp);
        if address.is_none() {
            let expected =
                "an IP address with a port, such as `0.0.0.0:8443` or `[::]:8443`, or `systemd:NAME`";
            self.problem(at, format!("`{text}` is not an address"), Some(expected), None);
        }
        address
    }

    fn version(&mut self, at: &str, text: Option<String>, default: TlsVersion) -> TlsVersion {
        match text.as_deref() {
            None => default,
            Some("1.2") => TlsVersion::Tls12,
            Some("1.3") => TlsVersion::Tls13,
            Some(other) => {
                self.problem(
                    at,
                    format!("`{other}` is not spoken here"),
                    Some("`\"1.2\"` or `\"1.3\"`"),
                    None,
                );
                default
            }
        }
    }

    /// Those of TLS 1.3, and those of TLS 1.2. The libraries' words for whole families of ciphers are not read: what a word
    /// such as `ALL` stands for is another thing in each of them.
    fn ciphers(&mut self, at: &str, names: Option<Vec<String>>) -> (Vec<String>, Vec<String>) {
        if names.as_ref().is_some_and(Vec::is_empty) {
            self.problem(at, "there are none", Some("at least one, or no such key"), None);
        }
        let is_cipher = |name: &String| {
            let mut words = name.split(['-', '_']);
            words.clone().count() > 1
                && words.all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        };
        let names = names.unwrap_or_default();
        for name in names.iter().filter(|name| !is_cipher(name)) {
            let expected =
                "`TLS_AES_128_GCM_SHA256` for TLS 1.3, `ECDHE-RSA-AES128-GCM-SHA256` for TLS 1.2, …";
            self.problem(at, format!("`{name}` is not the name of a cipher suite"), Some(expected), None);
        }
        names.into_iter().partition(|name| name.starts_with("TLS_"))
    }

    fn certificate(&self, at: String, files: &CertificateFile) -> CertificateFiles {
        CertificateFiles { chain: self.path(&files.chain), key: self.path(&files.key), at }
    }

    fn client_auth(&mut self, at: &str, mode: Option<ModeFile>, trust: &[String]) -> Option<ClientAuth> {
        let mode = match mode.unwrap_or(ModeFile::Require) {
            ModeFile::Require => ClientAuthMode::Require,
            ModeFile::Optional => ClientAuthMode::Optional,
            ModeFile::Off => ClientAuthMode::Off,
        };
        let at = format!("{at}.client_auth.trust");
        if mode == ClientAuthMode::Off && !trust.is_empty() {
            self.problem(&at, "`mode: off` asks for no certificate", Some("no trust domains"), None);
        }
        if mode != ClientAuthMode::Off && trust.is_empty() {
            let hint = match self.trust.as_slice() {
                [] => "define one under `trust`".to_owned(),
                known => format!("there are {}", quoted(known)),
            };
            let expected = Some("the trust domains whose clients may enter here");
            self.problem(&at, "missing: nobody could enter", expected, Some(hint));
        }
        let names: Vec<_> = trust
            .iter()
            .enumerate()
            .map(|(number, name)| self.reference(format!("{at}[{number}]"), "trust domain", name))
            .collect();
        Some(ClientAuth { mode, trust: names.into_iter().collect::<Option<_>>()?, send_ca_names: true })
    }

    // Trust

    fn trust_domain(&mut self, name: &str, at: &str, file: TrustFile) -> Option<TrustConfig> {
        let default = TrustPolicy::default();
        if file.anchors.is_empty() {
            self.problem(format!("{at}.anchors"), "it is empty", Some("a PEM bundle"), None);
        }
        Some(TrustConfig {
            name: name.into(),
            anchors: self.path(&file.anchors),
            lists: file.revocation.lists.iter().map(|list| self.path(list)).collect(),
            policy: TrustPolicy {
                client_auth_usage: match file.client_auth_usage {
                    Some(UsageFile::Always) => Usage::Always,
                    Some(UsageFile::WhenPresent) | None => default.client_auth_usage,
                },
                max_depth: self.at_most(
                    &format!("{at}.max_depth"),
                    file.max_depth.unwrap_or(default.max_depth),
                    100,
                ),
                max_chain_bytes: file.max_chain_bytes.unwrap_or(default.max_chain_bytes),
                when_stale: match file.revocation.when_stale {
                    Some(WhenStaleFile::Word(StaleWord::Believe)) => WhenStale::Believe,
                    Some(WhenStaleFile::For(span)) => WhenStale::BelieveFor(span.believe_for.0),
                    Some(WhenStaleFile::Word(StaleWord::Refuse)) | None => default.when_stale,
                },
                on_expiry: match file.on_expiry {
                    Some(OnExpiryFile::Keep) => OnExpiry::Keep,
                    Some(OnExpiryFile::Close) | None => OnExpiry::Close,
                },
                grace: file.grace.map(|span| span.0),
            },
        })
    }

    // Pools

    fn pool(&mut self, name: &str, at: &str, file: PoolFile) -> Option<PoolConfig> {
        let span = |span: Option<Span>, default| span.map_or(Duration::from_secs(default), |span| span.0);
        let endpoints = self.endpoints(at, file.endpoints);
        let balance = self.balance(at, file.balance);
        let tls = file.tls.map(|tls| self.upstream_tls(at, tls));
        if let Some(tls) = &tls {
            self.check_server_name(at, tls, &endpoints);
        }
        let health = file.health.map(|health| HealthConfig {
            kind: health.path.map_or(HealthKind::Tcp, |path| HealthKind::Http { path }),
            interval: span(health.interval, 5).max(Duration::from_millis(100)),
            timeout: span(health.timeout, 2),
            healthy_after: health.healthy_after.unwrap_or(1).max(1),
            unhealthy_after: health.unhealthy_after.unwrap_or(3).max(1),
        });
        if let Some(HealthConfig { kind: HealthKind::Http { path }, .. }) = &health
            && !(path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok())
        {
            self.problem(format!("{at}.health.path"), format!("`{path}` is not a path"), Some("`/…`"), None);
        }
        if let Some(host) = file.host_header.as_ref().filter(|host| !is_authority(host)) {
            let found = format!("`{host}` is not a host");
            self.problem(format!("{at}.host_header"), found, Some("`host` or `host:port`"), None);
        }
        Some(PoolConfig {
            name: name.into(),
            endpoints,
            balance: balance?,
            protocol: match file.protocol {
                Some(ProtocolFile::H2) => UpstreamProtocol::H2,
                Some(ProtocolFile::Http1) | None => UpstreamProtocol::Http1,
            },
            tls,
            health,
            ejection: file.ejection.map(|ejection| EjectionConfig {
                consecutive_failures: ejection.consecutive_failures.unwrap_or(5).max(1),
                duration: span(ejection.duration, 30),
            }),
            timeouts: PoolTimeouts {
                connect: span(file.timeouts.connect, 2),
                first_byte: span(file.timeouts.first_byte, 30),
                idle: span(file.timeouts.idle, 60),
                total: file.timeouts.total.map(|total| total.0),
            },
            retries: self.at_most(&format!("{at}.retries"), file.retries.unwrap_or(1), 10),
            host_header: file.host_header.map_or(HostHeader::Preserve, HostHeader::Set),
            dns_refresh: span(file.dns_refresh, 30).max(Duration::from_secs(1)),
        })
    }

    fn endpoints(&mut self, at: &str, files: Vec<EndpointFile>) -> Vec<EndpointConfig> {
        if files.is_empty() {
            self.problem(format!("{at}.endpoints"), "there are none", Some("at least one `host:port`"), None);
        }
        let mut endpoints: Vec<EndpointConfig> = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            let at = format!("{at}.endpoints[{index}]");
            let (address, weight) = match file {
                EndpointFile::Address(address) => (address, 1),
                EndpointFile::Weighted(weighted) => (weighted.address, weighted.weight.unwrap_or(1)),
            };
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                let port: u16 = port.parse().ok()?;
                (port > 0 && is_host(host)).then_some(port)
            });
            if port.is_none() {
                self.problem(&at, format!("`{address}` is not an endpoint"), Some("`host:port`"), None);
            }
            if weight == 0 || weight > 1000 {
                self.problem(
                    format!("{at}.weight"),
                    format!("{weight} is out of range"),
                    Some("1 to 1000"),
                    None,
                );
            }
            if endpoints.iter().any(|known| known.address == address) {
                self.problem(
                    &at,
                    format!("`{address}` is in the pool twice"),
                    None,
                    Some("give it a weight".into()),
                );
            }
            endpoints.push(EndpointConfig { address, weight });
        }
        endpoints
    }

    fn balance(&mut self, at: &str, file: Option<BalanceFile>) -> Option<Balance> {
        Some(match file {
            None | Some(BalanceFile::Word(BalanceWord::RoundRobin)) => Balance::RoundRobin,
            Some(BalanceFile::Word(BalanceWord::LeastConnections)) => Balance::LeastConnections,
            Some(BalanceFile::Word(BalanceWord::Random)) => Balance::Random,
            Some(BalanceFile::Hash(file)) => Balance::Hash(match file.hash {
                HashKeyFile::Client => HashKey::Client,
                HashKeyFile::Path => HashKey::Path,
                HashKeyFile::Header(key) => {
                    HashKey::Header(self.header_name(&format!("{at}.balance.hash.header"), &key.header)?)
                }
            }),
        })
    }

    fn header_name(&mut self, at: &str, text: &str) -> Option<HeaderName> {
        let name = text.parse().ok();
        if name.is_none() {
            self.problem(at, format!("`{text}` is not a header name"), None, None);
        }
        name
    }

    fn upstream_tls(&mut self, at: &str, file: UpstreamTlsFile) -> UpstreamTls {
        let verify = match file.verify {
            VerifyFile::Off(false) => UpstreamVerify::Off,
            VerifyFile::Ca(text) if text == "off" => UpstreamVerify::Off,
            VerifyFile::Ca(path) if path.is_empty() => {
                let expected = Some("a PEM bundle of trust anchors, or `off`");
                self.problem(format!("{at}.tls.verify"), "it is empty", expected, None);
                UpstreamVerify::Off
            }
            VerifyFile::Ca(path) => UpstreamVerify::Ca(self.path(&path)),
            VerifyFile::Off(true) => {
                let expected = Some("a PEM bundle of trust anchors, or `off`");
                self.problem(format!("{at}.tls.verify"), "against what?", expected, None);
                UpstreamVerify::Off
            }
        };
        if let Some(name) = file.server_name.as_ref().filter(|name| !is_dns_name(name)) {
            // Without a name the server's certificate would be that of anybody whom the anchors vouch for.
            let found = format!("`{name}` is not a DNS name");
            let expected = Some("the DNS name that the servers' certificates carry");
            self.problem(format!("{at}.tls.server_name"), found, expected, None);
        }
        let client = file.client.map(|files| self.certificate(format!("{at}.tls.client"), &files));
        UpstreamTls { verify, server_name: file.server_name, client }
    }

    /// Without `server_name` the certificate is checked against the endpoints' own host, which must then be one name:
    /// such a check against an address always fails, and every request with it.
    fn check_server_name(&mut self, at: &str, tls: &UpstreamTls, endpoints: &[EndpointConfig]) {
        if tls.server_name.is_some() || tls.verify == UpstreamVerify::Off {
            return;
        }
        let mut hosts = endpoints.iter().filter_map(|e| e.address.rsplit_once(':')).map(|(host, _)| host);
        let first = hosts.next().unwrap_or_default();
        let is_address = first.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        if is_address || hosts.any(|host| host != first) {
            let expected = Some("the DNS name that the servers' certificates carry");
            let found = "missing, and the endpoints are not all of one DNS name";
            self.problem(format!("{at}.tls.server_name"), found, expected, None);
        }
    }

    // Routes

    fn route(&mut self, index: usize, at: &str, file: RouteFile) -> Option<RouteConfig> {
        self.check_name(at, file.name.as_ref());
        let client = match file.client {
            None | Some(ClientFile::Word(ClientWord::Verified)) => {
                ClientRule::Verified(ClientMatch::default())
            }
            Some(ClientFile::Word(ClientWord::Anonymous)) => ClientRule::Anonymous,
            Some(ClientFile::Word(ClientWord::Anyone)) => ClientRule::Anyone,
            Some(ClientFile::Match(file)) => {
                ClientRule::Verified(self.client_match(&format!("{at}.client"), *file))
            }
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
        Some(RouteConfig {
            name: file.name.unwrap_or_else(|| format!("route-{}", index + 1)).into(),
            client,
            request,
            target,
            at: at.to_owned(),
        })
    }

    fn client_match(&mut self, at: &str, file: ClientMatchFile) -> ClientMatch {
        let strings = |strings: &Option<super::scalar::Strings>| -> Vec<String> {
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

    fn parsed<T: std::str::FromStr>(&mut self, at: &str, texts: &[String], expected: &str) -> Vec<T> {
        let mut parsed = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(value) => parsed.push(value),
                Err(_) => self.problem(at, format!("`{text}` is not {expected}"), None, None),
            }
        }
        parsed
    }

    fn attributes(
        &mut self,
        at: &str,
        file: Option<std::collections::BTreeMap<String, OneOrMany>>,
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

    fn methods(&mut self, at: &str, file: Option<&super::scalar::Strings>) -> Vec<Method> {
        let mut methods = Vec::new();
        for text in file.into_iter().flat_map(super::scalar::Strings::iter) {
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
    fn check_reachable(&mut self, listeners: &[ListenerConfig], routes: &[RouteConfig]) {
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

    // The rest

    fn trusted_proxies(&mut self, root: &Mapping) -> Vec<crate::headers::Prefix> {
        let texts = self.section::<Vec<String>>(root, "trusted_proxies").unwrap_or_default();
        self.parsed("trusted_proxies", &texts, "a network, such as `192.0.2.0/24`")
    }

    fn admin(&mut self, file: &AdminFile) -> Option<AdminConfig> {
        let address = match file.address.strip_prefix("unix:") {
            Some(path) => Some(AdminAddress::Unix(self.socket_path("admin.address", path))),
            None => match file.address.parse::<SocketAddr>() {
                Ok(address) if address.port() > 0 && address.ip().is_loopback() => {
                    Some(AdminAddress::Tcp(address))
                }
                Ok(address) if address.port() > 0 => {
                    let hint = "put a proxy of your own in front of it where others must reach it".to_owned();
                    let found = format!("`{address}` can be reached from other machines");
                    self.problem(
                        "admin.address",
                        found,
                        Some("a loopback address, or `unix:PATH`"),
                        Some(hint),
                    );
                    None
                }
                Ok(_) | Err(_) => {
                    let found = format!("`{}` is not an address", file.address);
                    self.problem("admin.address", found, Some("`127.0.0.1:9900` or `unix:PATH`"), None);
                    None
                }
            },
        };
        address.map(|address| AdminConfig { address })
    }

    /// The kernel takes no longer path (`unix(7)`), and an empty one would be the directory.
    fn socket_path(&mut self, at: &str, text: &str) -> PathBuf {
        let path = self.path(text);
        if text.is_empty() || path.as_os_str().len() > LONGEST_SOCKET_PATH {
            let found = format!("`{text}` is not a path for a Unix socket");
            self.problem(at, found, Some("a path of at most 107 bytes"), None);
        }
        path
    }

    fn server(&mut self, root: &Mapping) -> ServerSettings {
        let file = self.section::<ServerFile>(root, "server").unwrap_or_default();
        if file.threads == Some(0) {
            self.problem("server.threads", "0 threads serve nobody", Some("1 or more"), None);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ServerSettings {
            threads: self.at_most("server.threads", file.threads.unwrap_or(cores.min(1024)), 1024),
            drain_timeout: file.drain_timeout.map_or(Duration::from_secs(30), |span| span.0),
            // Never Pingora's own default, which lies in `/tmp`, where anybody may put a socket.
            upgrade_socket: Some(self.socket_path(
                "server.upgrade_socket",
                file.upgrade_socket.as_deref().unwrap_or(DEFAULT_UPGRADE_SOCKET),
            )),
            watch: file.watch.unwrap_or(true),
        }
    }
}

enum Needed {
    Yes,
}

/// Whether the kernel would refuse the second of two listening sockets: `[::]` takes the port of every address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |wide: std::net::IpAddr, narrow: std::net::IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

fn protocol(file: ProtocolFile) -> Protocol {
    match file {
        ProtocolFile::H2 => Protocol::H2,
        ProtocolFile::Http1 => Protocol::Http1,
    }
}

fn logging(file: LoggingFile) -> LoggingConfig {
    LoggingConfig {
        format: match file.format {
            Some(FormatFile::Text) => LogFormat::Text,
            Some(FormatFile::Json) | None => LogFormat::Json,
        },
        level: match file.level {
            Some(LevelFile::Error) => log::LevelFilter::Error,
            Some(LevelFile::Warn) => log::LevelFilter::Warn,
            Some(LevelFile::Debug) => log::LevelFilter::Debug,
            Some(LevelFile::Info) | None => log::LevelFilter::Info,
        },
        access: AccessLog {
            requests: file.access.requests.unwrap_or(true),
            connections: file.access.connections.unwrap_or(true),
            sample: file.access.sample.unwrap_or(1).max(1),
        },
    }
}

fn names(section: Option<&Value>) -> Vec<String> {
    let entries = section.and_then(Value::as_mapping);
    entries.into_iter().flat_map(|m| m.keys().filter_map(Value::as_str)).map(str::to_owned).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Letters, digits, `-`, `_` and `.`, and no address: that would be compared with the names of a certificate in vain.
fn is_dns_name(text: &str) -> bool {
    is_name(text) && text.parse::<std::net::IpAddr>().is_err()
}

/// A DNS name, an IPv4 address, or an IPv6 address with or without brackets.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    is_name(text) || bare.parse::<std::net::Ipv6Addr>().is_ok()
}

/// What may stand in `Host` (RFC 9110, section 7.2).
fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && !host.is_empty() => host,
        _ => text,
    };
    is_name(host) || (host.starts_with('[') && is_host(host))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
