//! The configuration, checked and typed. No file but the YAML itself was opened to make it.

mod door;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::sandbox::SandboxConfig;
use super::source::ListPlace;
use crate::framing;
use crate::headers::{IdentityHeaderSpec, Prefix};
use crate::limits::LimitSpec;
use crate::proxy_protocol;
use crate::route::{Accepts, ClientRule, IdentityKey, RequestRule};
use crate::trust::TrustPolicy;

pub use door::{ConnectionRate, DoorConfig, OthersThanProxies, ProxyProtocolConfig, SourceLimits};

/// Everything a gateway does.
#[derive(Debug, Clone)]
pub struct Config {
    /// The YAML itself; a reload reads it again.
    pub file: PathBuf,
    /// What stood in it.
    pub text: Arc<str>,
    pub listeners: Vec<ListenerConfig>,
    pub trust: Vec<TrustConfig>,
    pub pools: Vec<PoolConfig>,
    pub routes: Vec<RouteConfig>,
    pub limits: Vec<LimitSpec>,
    pub identity_headers: Vec<IdentityHeaderSpec>,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Prefix>,
    pub admin: Option<AdminConfig>,
    pub logging: LoggingConfig,
    pub server: ServerSettings,
    pub census: CensusConfig,
}

impl Config {
    /// Whether the YAML still says what this was made of.
    pub fn is_what_the_file_says(&self) -> bool {
        std::fs::read(&self.file).is_ok_and(|bytes| bytes == self.text.as_bytes())
    }

    /// The files that are named: certificates, keys, anchors, tables, ticket keys. Neither the YAML itself nor [lists](Self::lists).
    pub fn files(&self) -> Vec<PathBuf> {
        let pair = |files: &CertificateFiles| [files.chain.clone(), files.key.clone()];
        let mut all = Vec::new();
        for certificate in self.listeners.iter().flat_map(|listener| &listener.tls.certificates) {
            all.extend(pair(&certificate.files));
            all.extend(certificate.ocsp.iter().flat_map(OcspConfig::files).cloned());
        }
        for listener in &self.listeners {
            if let TicketKeySource::File(file) = &listener.tls.ticket_keys {
                all.push(file.clone());
            }
        }
        for trust in &self.trust {
            all.push(trust.anchors.clone());
            all.extend(trust.lists.iter().flat_map(ListSource::files).cloned());
        }
        for tls in self.pools.iter().filter_map(|pool| pool.tls.as_ref()) {
            all.extend(tls.client.iter().flat_map(pair));
            if let UpstreamVerify::Ca(file) = &tls.verify {
                all.push(file.clone());
            }
        }
        for route in &self.routes {
            if let TargetConfig::Table { file, .. } = &route.target {
                all.push(file.clone());
            }
        }
        all.extend(self.admin.iter().filter_map(|admin| admin.token_file.clone()));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where revocation lists and deny lists are: files, or directories of them.
    pub fn lists(&self) -> Vec<ListPlace> {
        let revoking = |trust: &'_ TrustConfig| {
            trust.lists.iter().filter_map(ListSource::place).cloned().collect::<Vec<_>>()
        };
        let named =
            self.trust.iter().flat_map(|trust| revoking(trust).into_iter().chain(trust.deny.iter().cloned()));
        named.chain(self.own_deny_list()).collect()
    }

    /// Whether a change of `file` is one of a revocation list or a deny list.
    pub fn is_list(&self, file: &Path) -> bool {
        self.list_places().iter().any(|place| file == place || file.parent() == Some(place))
    }

    /// Files and directories of lists, also of those that are fetched.
    pub fn list_places(&self) -> Vec<PathBuf> {
        let kept = self.trust.iter().flat_map(|trust| &trust.lists).filter_map(|source| match source {
            ListSource::Fetched(list) => Some(list.kept.clone()),
            ListSource::File(_) => None,
        });
        self.lists().into_iter().map(|place| place.path).chain(kept).collect()
    }

    /// The deny list that the gateway keeps itself and that counts in every trust domain; `None`: it keeps nothing. The
    /// file need not be there.
    pub fn own_deny_list(&self) -> Option<ListPlace> {
        let directory = self.server.state_directory.as_ref()?;
        Some(ListPlace { path: directory.join("blocked.yaml"), endings: &[] })
    }
}

#[derive(Debug, Clone)]
pub struct ListenerConfig {
    pub name: Arc<str>,
    pub address: ListenAddress,
    /// In the order in which they are preferred.
    pub protocols: Vec<Protocol>,
    pub tls: TlsConfig,
    pub client_auth: ClientAuth,
    pub limits: ListenerLimits,
    pub door: DoorConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    /// The name of a socket that systemd passes.
    Systemd(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H2,
    Http1,
}

#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Chosen by SNI; the first is the default.
    pub certificates: Vec<ServerCertificateConfig>,
    pub minimum_version: TlsVersion,
    pub maximum_version: TlsVersion,
    /// Of TLS 1.2, in OpenSSL's names; empty: the usual ones.
    pub ciphers: Vec<String>,
    /// Of TLS 1.3; empty: the usual ones.
    pub tls13_ciphers: Vec<String>,
    pub groups: Vec<String>,
    pub session_tickets: bool,
    /// Counts from the full handshake.
    pub ticket_lifetime: Duration,
    pub ticket_keys: TicketKeySource,
}

/// Where the keys come from that seal session tickets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketKeySource {
    /// Made here, a new one in such intervals.
    Generated {
        rotate: Duration,
    },
    File(PathBuf),
}

/// A certificate that is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCertificateConfig {
    pub files: CertificateFiles,
    pub ocsp: Option<OcspConfig>,
}

/// Where the OCSP response comes from that goes along with a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspConfig {
    pub source: OcspSource,
    /// Of the leaf; `None`: the second certificate of the chain.
    pub issuer: Option<PathBuf>,
}

impl OcspConfig {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let response = match &self.source {
            OcspSource::File(file) => file,
            OcspSource::Responder(responder) => &responder.kept,
        };
        std::iter::once(response).chain(&self.issuer)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OcspSource {
    /// As DER.
    File(PathBuf),
    Responder(ResponderConfig),
}

/// Who is asked for OCSP responses about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponderConfig {
    /// `None`: whom the certificate names.
    pub url: Option<String>,
    /// Of one question, in all.
    pub timeout: Duration,
    /// Where the last answer is kept.
    pub kept: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Where in the configuration they are named.
    pub at: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Debug, Clone)]
pub struct ClientAuth {
    pub mode: ClientAuthMode,
    pub trust: Vec<Arc<str>>,
    pub send_ca_names: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthMode {
    Require,
    Optional,
    Off,
}

#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    pub handshake_timeout: Duration,
    pub handshakes_in_flight: usize,
    pub connections: usize,
    pub keepalive_timeout: Duration,
    pub request_header_timeout: Duration,
    /// How long the next piece of a body may take, in either direction.
    pub body_timeout: Duration,
    /// What a body must come to on average, after that time.
    pub min_bytes_per_second: u64,
    /// Requests of one HTTP/2 connection that may be taken back.
    pub resets_per_second: u32,
    /// How much of each a request may have.
    pub request: framing::Limits,
}

#[derive(Debug, Clone)]
pub struct TrustConfig {
    pub name: Arc<str>,
    pub anchors: PathBuf,
    /// Revocation lists.
    pub lists: Vec<ListSource>,
    pub deny: Vec<ListPlace>,
    pub policy: TrustPolicy,
}

/// Where a revocation list comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListSource {
    File(ListPlace),
    Fetched(FetchedList),
}

impl ListSource {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        match self {
            Self::File(_) => [None, None],
            Self::Fetched(list) => [Some(&list.kept), list.ca.as_ref()],
        }
        .into_iter()
        .flatten()
    }

    fn place(&self) -> Option<&ListPlace> {
        match self {
            Self::File(place) => Some(place),
            Self::Fetched(_) => None,
        }
    }
}

/// A revocation list that is fetched, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedList {
    pub url: String,
    pub every: Duration,
    /// Of one attempt, in all.
    pub timeout: Duration,
    pub max_bytes: u64,
    /// Whom to believe that the server is who it says, for https; `None`: whom the system believes.
    pub ca: Option<PathBuf>,
    /// Where the list that was fetched last is kept.
    pub kept: PathBuf,
}

#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: Arc<str>,
    pub endpoints: Vec<EndpointConfig>,
    pub balance: Balance,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTls>,
    pub health: Option<HealthConfig>,
    pub ejection: Option<EjectionConfig>,
    pub timeouts: PoolTimeouts,
    /// On another endpoint, after a failure that did no harm.
    pub retries: u32,
    pub host_header: HostHeader,
    pub dns_refresh: Duration,
    /// In which its servers are told who the client is, before anything else.
    pub proxy_protocol: Option<proxy_protocol::Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    /// `host:port`
    pub address: String,
    pub weight: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConnections,
    Random,
    Hash(HashKey),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Client,
    Path,
    Header(HeaderName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    H2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    pub verify: UpstreamVerify,
    pub server_name: Option<String>,
    /// Ours, where the server demands one.
    pub client: Option<CertificateFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamVerify {
    /// Against these anchors.
    Ca(PathBuf),
    Off,
}

#[derive(Debug, Clone)]
pub struct HealthConfig {
    pub kind: HealthKind,
    pub interval: Duration,
    pub timeout: Duration,
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthKind {
    Http { path: String },
    Tcp,
}

#[derive(Debug, Clone)]
pub struct EjectionConfig {
    pub consecutive_failures: u32,
    pub duration: Duration,
}

#[derive(Debug, Clone)]
pub struct PoolTimeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    /// Of a kept-alive connection.
    pub idle: Duration,
    /// From the request's header to the end of the answer.
    pub total: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    Preserve,
    Set(String),
}

#[derive(Debug, Clone)]
pub struct RouteConfig {
    pub name: Arc<str>,
    pub accepts: Accepts,
    pub client: ClientRule,
    pub request: RequestRule,
    pub target: TargetConfig,
    /// Where in the configuration it stands.
    pub at: String,
}

#[derive(Debug, Clone)]
pub enum TargetConfig {
    Pool(Arc<str>),
    Table { key: IdentityKey, file: PathBuf, fallback: Option<Arc<str>> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    pub addresses: Vec<AdminAddress>,
    /// What whoever asks over TCP must know.
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// Loopback.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone)]
pub struct LoggingConfig {
    pub format: LogFormat,
    pub level: log::LevelFilter,
    pub access: AccessLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Debug, Clone)]
pub struct AccessLog {
    pub requests: bool,
    pub connections: bool,
    /// One in N of the successful requests.
    pub sample: u32,
}

/// What is remembered of the clients' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CensusConfig {
    /// Those not seen for so long do not count.
    pub window: Duration,
    /// Certificates that are remembered at most; 0: there is no census.
    pub maximum: usize,
}

#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub threads: usize,
    pub drain_timeout: Duration,
    pub upgrade_socket: Option<PathBuf>,
    /// Where the gateway keeps what must outlive it; `None`: nowhere.
    pub state_directory: Option<PathBuf>,
    /// Whether files are read anew when they change.
    pub watch: bool,
    pub sandbox: SandboxConfig,
}
