//! The YAML as it is written: one struct for each mapping, nothing checked but shape and spelling.

mod door;
mod limits;
mod listeners;
mod pools;
mod routes;
mod sandbox;
mod server;
mod trust;
mod word_or_mapping;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::headers::IdentityHeaderSpec;

pub use door::{OthersFile, ProxyProtocolFile, ProxyVersionFile, SourceLimitsFile};
pub use limits::{LimitFile, LimitModeFile, RateText, TellFile};
pub use listeners::{
    CertificateFile, LimitsFile, ListenerFile, ModeFile, OcspFile, ProtocolFile, ServerCertificateFile,
    TlsFile,
};
pub use pools::{BalanceFile, BalanceWord, EndpointFile, HashKeyFile, PoolFile, UpstreamTlsFile, VerifyFile};
pub use routes::{AcceptsFile, ClientFile, ClientMatchFile, ClientWord, OneOrMany, RouteFile};
pub use sandbox::{SandboxFile, SandboxModeFile, SandboxSettingsFile};
pub use server::{AdminFile, CensusFile, FormatFile, LevelFile, LoggingFile, ServerFile};
pub use trust::{
    FetchedListFile, ListFile, OnExpiryFile, StaleWord, TrustFile, UsageFile, WhenMissingFile, WhenStaleFile,
};

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
