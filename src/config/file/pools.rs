//! Pools: endpoints, and how they are reached.

use schemars::JsonSchema;
use serde::Deserialize;

use super::ProxyVersionFile;
use super::word_or_mapping::word_or_mapping;
use super::{CertificateFile, ProtocolFile};
use crate::config::scalar::Span;

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
