//! The YAML as it is written: one struct for each mapping, nothing checked but shape and spelling.

mod door;
mod limits;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::scalar::{Span, Strings};
use crate::headers::IdentityHeaderSpec;
use crate::pattern::PatternSpec;

pub use door::{OthersFile, ProxyProtocolFile, ProxyVersionFile, SourceLimitsFile};
pub use limits::{LimitFile, LimitModeFile, RateText, TellFile};

/// Reads an enum of a word and a mapping. Serde's `untagged` would forget which key of the mapping is wrong.
macro_rules! word_or_mapping {
    ($name:ident, $word:ident, $mapping:ident, $expected:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Either;

                impl<'de> Visitor<'de> for Either {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        Deserialize::deserialize(text.into_deserializer()).map($name::$word)
                    }

                    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        Deserialize::deserialize(MapAccessDeserializer::new(map)).map($name::$mapping)
                    }
                }

                deserializer.deserialize_any(Either)
            }
        }
    };
}

mod sandbox;

pub use sandbox::{SandboxFile, SandboxModeFile, SandboxSettingsFile};

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Portcullis configuration")]
#[allow(dead_code, reason = "the sections are read one by one; this mirror is what the schema is made of")]
pub struct ConfigFile {
    /// Of the format: 1.
    pub version: u64,
    pub listeners: Vec<ListenerFile>,
    pub trust: Option<BTreeMap<String, TrustFile>>,
    pub pools: BTreeMap<String, PoolFile>,
    /// The first that matches wins; no match is refused with 403.
    pub routes: Vec<RouteFile>,
    /// How much each client may do. Default: as much as it likes.
    pub limits: Option<Vec<LimitFile>>,
    /// Which headers tell the origin who is calling. Default: `[rfc9440]`.
    pub identity_headers: Option<Vec<IdentityHeaderSpec>>,
    /// Networks whose `X-Forwarded-*` and `Forwarded` are believed. Default: none.
    pub trusted_proxies: Option<Vec<String>>,
    pub admin: Option<AdminFile>,
    pub logging: Option<LoggingFile>,
    pub server: Option<ServerFile>,
    pub census: Option<CensusFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerFile {
    pub name: Option<String>,
    /// `0.0.0.0:8443`, `[::]:8443`, or `systemd:NAME`.
    pub address: String,
    /// Default: `[h2, http/1.1]`.
    pub protocols: Option<Vec<ProtocolFile>>,
    pub tls: TlsFile,
    pub client_auth: ClientAuthFile,
    #[serde(default)]
    pub limits: LimitsFile,
    /// Networks whose clients may come in; no others do. Default: all.
    pub allow_from: Option<Vec<String>>,
    /// Networks whose clients are kept out, also where `allow_from` has them. Default: none.
    #[serde(default)]
    pub deny_from: Vec<String>,
    /// Balancers before this listener that tell who the client is. Default: none.
    pub proxy_protocol: Option<ProxyProtocolFile>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum ProtocolFile {
    #[serde(rename = "h2")]
    H2,
    #[serde(rename = "http/1.1")]
    Http1,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Chosen by SNI; the first is the default.
    pub certificates: Vec<ServerCertificateFile>,
    /// `"1.2"` or `"1.3"`. Default: 1.2.
    pub minimum_version: Option<String>,
    /// Default: 1.3.
    pub maximum_version: Option<String>,
    /// Of TLS 1.3 (`TLS_…`) and of TLS 1.2 (in OpenSSL's names). Default, of each version that none is named of: forward
    /// secrecy and authenticated encryption only.
    pub ciphers: Option<Vec<String>>,
    /// Default: X25519MLKEM768, X25519, P-256, P-384; those that the TLS library does not know are left out.
    pub groups: Option<Vec<String>>,
    /// Default: true.
    pub session_tickets: Option<bool>,
    /// Counts from the full handshake; at most 7 days. Default: 1h.
    pub ticket_lifetime: Option<Span>,
    /// Default: `{ rotate: 12h }`.
    pub ticket_keys: Option<TicketKeysFile>,
}

/// One of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketKeysFile {
    /// Keys are made at start and in such intervals, and are never written anywhere.
    pub rotate: Option<Span>,
    /// Keys that several nodes share, one a line as `openssl rand -hex 80` prints them. The first one seals, all open.
    pub file: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificateFile {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, unencrypted.
    pub key: String,
    /// The word of the certificate's authority that it is not revoked, for clients that ask for it. Default: none.
    pub ocsp: Option<OcspFile>,
}

/// Where an OCSP response comes from: one of `file` and `responder`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OcspFile {
    /// The response, as DER.
    pub file: Option<String>,
    /// Who is asked for it: `http://…`, `https://…`, or `from_certificate`: whom the certificate names.
    pub responder: Option<String>,
    /// Of one question to the responder, in all. Default: 30s.
    pub timeout: Option<Span>,
    /// PEM, whoever issued the leaf. Default: the second certificate of `chain`.
    pub issuer: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, unencrypted.
    pub key: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthFile {
    /// Default: require.
    pub mode: Option<ModeFile>,
    /// The trust domains that may enter here.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Whether a handshake names the authorities that are trusted. Default: true.
    pub send_ca_names: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeFile {
    Require,
    Optional,
    Off,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Default: 5s.
    pub handshake_timeout: Option<Span>,
    /// Default: 4096.
    pub handshakes_in_flight: Option<usize>,
    /// Default: 100000.
    pub connections: Option<usize>,
    /// Default: 60s.
    pub keepalive_timeout: Option<Span>,
    /// Default: 10s.
    pub request_header_timeout: Option<Span>,
    /// Default: 60s.
    pub body_timeout: Option<Span>,
    /// Default: 250.
    pub min_bytes_per_second: Option<u64>,
    /// Of one HTTP/2 connection. Default: 100.
    pub resets_per_second: Option<u32>,
    /// Default: 65536.
    pub max_head_bytes: Option<usize>,
    /// Default: 128.
    pub max_fields: Option<usize>,
    /// Default: 8192.
    pub max_target_bytes: Option<usize>,
    /// Default: 1073741824.
    pub max_body_bytes: Option<u64>,
    /// Default: 8192.
    pub max_trailer_bytes: Option<usize>,
    /// Of one IPv4 address, or one IPv6 /64.
    #[serde(default)]
    pub per_address: SourceLimitsFile,
    /// Of one IPv4 /24, or one IPv6 /48.
    #[serde(default)]
    pub per_network: SourceLimitsFile,
    /// Networks for which `per_address` and `per_network` do not count. Default: none.
    #[serde(default)]
    pub exempt: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// A PEM bundle: every certificate of it is a trust anchor.
    pub anchors: String,
    #[serde(default)]
    pub revocation: RevocationFile,
    /// Deny lists, YAML or CSV: who is kept out whatever else may be said. A file or several; of a directory, all files
    /// that end in `.yaml`, `.yml` or `.csv`.
    pub deny: Option<Strings>,
    /// What becomes of an open connection when a certificate of its client's chain expires. Default: close.
    pub on_expiry: Option<OnExpiryFile>,
    /// How long requests under way may go on when their client may no longer enter. Default: not at all where it is
    /// revoked, else 10s.
    pub grace: Option<Span>,
    /// Whether a client's certificate must say that it is one. Default: when_present.
    pub client_auth_usage: Option<UsageFile>,
    /// Intermediates between leaf and anchor. Default: 5.
    pub max_depth: Option<u32>,
    /// Of the presented chain. Default: 65536.
    pub max_chain_bytes: Option<usize>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationFile {
    /// PEM or DER: files, directories of which all files count that end in `.crl`, `.pem` or `.der`, and URLs of lists
    /// that are fetched.
    #[serde(default)]
    pub lists: Vec<ListFile>,
    /// For a list past its nextUpdate, or never obtained: `refuse`, `believe`, or `{ believe_for: 24h }`. Default: refuse.
    pub when_stale: Option<WhenStaleFile>,
    /// For a client with an issuer on its chain of which there is no list: `refuse` or `believe`. Default: believe.
    pub when_missing: Option<WhenMissingFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenMissingFile {
    Refuse,
    Believe,
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum ListFile {
    /// The path of a file.
    File(String),
    Fetched(FetchedListFile),
}

word_or_mapping!(ListFile, File, Fetched, "the path of a file, or `{ url: \"http://…\" }`");

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FetchedListFile {
    /// `http://…` or `https://…`
    pub url: String,
    /// How often it is fetched. Default: 1h.
    pub every: Option<Span>,
    /// Of one attempt, in all. Default: 30s.
    pub timeout: Option<Span>,
    /// Of the list. Default: 67108864.
    pub max_bytes: Option<u64>,
    /// A PEM bundle of whom to believe that the server is who it says. Default: whom the system believes.
    pub ca: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiryFile {
    Close,
    Keep,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UsageFile {
    WhenPresent,
    Always,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `refuse`, `believe`, or `{ believe_for: 24h }`")]
pub enum WhenStaleFile {
    Word(StaleWord),
    For(BelieveFor),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StaleWord {
    Refuse,
    Believe,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BelieveFor {
    pub believe_for: Span,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolFile {
    pub endpoints: Vec<EndpointFile>,
    /// `round_robin`, `least_connections`, `random`, or `{ hash: client | path | { header: NAME } }`.
    pub balance: Option<BalanceFile>,
    /// Default: http/1.1.
    pub protocol: Option<ProtocolFile>,
    pub tls: Option<UpstreamTlsFile>,
    pub health: Option<HealthFile>,
    pub ejection: Option<EjectionFile>,
    #[serde(default)]
    pub timeouts: TimeoutsFile,
    /// Default: 1.
    pub retries: Option<u32>,
    /// Sent instead of the client's. Default: the client's own.
    pub host_header: Option<String>,
    /// Default: 30s.
    pub dns_refresh: Option<Span>,
    /// `v1` or `v2`: each connection begins with a PROXY protocol header that says who the client is. Default: none does.
    pub proxy_protocol: Option<ProxyVersionFile>,
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum EndpointFile {
    /// `host:port`
    Address(String),
    Weighted(WeightedFile),
}

word_or_mapping!(EndpointFile, Address, Weighted, "`host:port`, or `{ address: host:port, weight: 3 }`");

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedFile {
    /// `host:port`
    pub address: String,
    /// Default: 1.
    pub weight: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `round_robin`, `least_connections`, `random`, or `{ hash: client }`")]
pub enum BalanceFile {
    Word(BalanceWord),
    Hash(HashFile),
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceWord {
    RoundRobin,
    LeastConnections,
    Random,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashFile {
    pub hash: HashKeyFile,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKeyFile {
    Client,
    Path,
    #[serde(untagged)]
    Header(HeaderKeyFile),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderKeyFile {
    pub header: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTlsFile {
    /// A PEM bundle to verify the server against, or `off`.
    pub verify: VerifyFile,
    /// Default: the host of the endpoints; needed where that is an address, or more than one name.
    pub server_name: Option<String>,
    /// Our own certificate, where the server demands one.
    pub client: Option<CertificateFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a PEM bundle of trust anchors, or `off`")]
pub enum VerifyFile {
    /// YAML reads a bare `off` as false.
    Off(bool),
    Ca(String),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthFile {
    /// GET this; without it, whether a TCP connection can be made.
    pub path: Option<String>,
    /// Default: 5s.
    pub interval: Option<Span>,
    /// Default: 2s.
    pub timeout: Option<Span>,
    /// Default: 1.
    pub healthy_after: Option<u32>,
    /// Default: 3.
    pub unhealthy_after: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EjectionFile {
    /// Default: 5.
    pub consecutive_failures: Option<u32>,
    /// Default: 30s.
    pub duration: Option<Span>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsFile {
    /// Default: 2s.
    pub connect: Option<Span>,
    /// Between two reads from the server. Default: 30s.
    pub first_byte: Option<Span>,
    /// Of a kept-alive connection. Default: 60s.
    pub idle: Option<Span>,
    /// From the request's header to the end of the answer, retries included; an upgraded connection has none. Default:
    /// none.
    pub total: Option<Span>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    pub name: Option<String>,
    /// Default: any verified client.
    pub client: Option<ClientFile>,
    /// Clients with which only this is wrong may come in for this route, and for no route that does not accept it.
    /// Default: none, the handshake refuses them.
    pub accepts: Option<Vec<AcceptsFile>>,
    #[serde(default)]
    pub request: RequestFile,
    pub pool: Option<String>,
    pub pools_by: Option<PoolsByFile>,
}

/// One fault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptsFile {
    /// The client's own certificate expired no longer ago than this.
    pub expired_within: Option<Span>,
    /// A revocation list about it is past its nextUpdate by no more than this.
    pub revocation_stale_within: Option<Span>,
}

#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum ClientFile {
    Word(ClientWord),
    Match(Box<ClientMatchFile>),
}

word_or_mapping!(
    ClientFile,
    Word,
    Match,
    "`anonymous`, `anyone`, `verified`, or conditions: trust, subject, issuer, san, fingerprint, key_fingerprint, serial"
);

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientWord {
    Anonymous,
    Anyone,
    Verified,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientMatchFile {
    pub trust: Option<Strings>,
    pub subject: Option<BTreeMap<String, OneOrMany>>,
    pub issuer: Option<BTreeMap<String, OneOrMany>>,
    pub san: Option<SanFile>,
    pub fingerprint: Option<Strings>,
    pub key_fingerprint: Option<Strings>,
    pub serial: Option<SerialFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a pattern or a list of patterns: a text, or `{ exact | prefix | suffix | glob | regex: TEXT }`"
)]
pub enum OneOrMany {
    One(PatternSpec),
    Many(Vec<PatternSpec>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SanFile {
    pub dns: Option<OneOrMany>,
    pub email: Option<OneOrMany>,
    pub uri: Option<OneOrMany>,
    pub ip: Option<Strings>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SerialFile {
    /// As `portcullis explain` shows it.
    pub issuer: String,
    /// Hex.
    pub serials: Strings,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestFile {
    pub host: Option<OneOrMany>,
    pub path: Option<OneOrMany>,
    pub method: Option<Strings>,
    pub header: Option<BTreeMap<String, PatternSpec>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolsByFile {
    /// `subject.CN`, `san.dns`, `san.email`, `san.uri`, `fingerprint`, `key_fingerprint`, `serial`, …
    pub key: String,
    /// CSV: `key,pool`.
    pub table: String,
    /// For clients without a row. Default: they are refused.
    pub fallback: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminFile {
    /// A loopback address with a port, `unix:PATH`, or a list of such.
    pub address: Strings,
    /// Holds what must be shown over TCP to change anything or to see clients: 32 characters or more. Others may not read
    /// it. Default: over TCP none of that is there.
    pub token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoggingFile {
    /// Default: json.
    pub format: Option<FormatFile>,
    /// Default: info.
    pub level: Option<LevelFile>,
    #[serde(default)]
    pub access: AccessFile,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatFile {
    Json,
    Text,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LevelFile {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessFile {
    /// Default: true.
    pub requests: Option<bool>,
    /// Default: true.
    pub connections: Option<bool>,
    /// One in N of the successful requests. Default: 1.
    pub sample: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// Default: one for each core.
    pub threads: Option<usize>,
    /// Default: 30s.
    pub drain_timeout: Option<Span>,
    /// Where a new process takes the sockets over. Default: `/run/portcullis/upgrade.sock`.
    pub upgrade_socket: Option<String>,
    /// Where the gateway keeps what must outlive it. Default: what systemd's `StateDirectory=` gives, or none.
    pub state_directory: Option<String>,
    /// Whether the files that are named here are read anew when they change. Default: true.
    pub watch: Option<bool>,
    /// What the process gives up after its start. Default: on.
    pub sandbox: Option<SandboxFile>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CensusFile {
    /// Client certificates not seen for so long do not count. Default: 30d.
    pub window: Option<Span>,
    /// So many certificates are remembered at most, in about 70 bytes each; 0: none. Default: 1000000.
    pub maximum: Option<usize>,
}
