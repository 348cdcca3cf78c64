//! What is not about traffic: admin endpoints, logs, the process, the census.

use schemars::JsonSchema;
use serde::Deserialize;

use super::SandboxFile;
use crate::config::scalar::{Span, Strings};

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
