//! The door of a listener, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

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
