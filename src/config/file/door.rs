//! The door of a listener, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::scalar::Span;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceLimitsFile {
    /// Open at a time. Default: of an address a half, of a network three quarters of what the listener takes, 16 at least.
    pub connections: Option<u32>,
    /// Default: the same shares.
    pub handshakes_in_flight: Option<u32>,
    /// New connections; further ones are turned away. Default: as many as come.
    pub connections_per_second: Option<u32>,
    /// New connections at once, after a pause. Default: ten times `connections_per_second`.
    pub burst: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolFile {
    /// Networks of balancers. What comes from there must begin with a header, of version 1 or 2, and is taken for the
    /// connection of whom that names.
    pub from: Vec<String>,
    /// Who comes from elsewhere: `direct`, where no header is believed, or `refuse`. Default: direct.
    pub others: Option<OthersFile>,
    /// In which the header must be there; a part of `limits.handshake_timeout`. Default: 3s.
    pub timeout: Option<Span>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersionFile {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OthersFile {
    Direct,
    Refuse,
}
