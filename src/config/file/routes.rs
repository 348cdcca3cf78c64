//! Routes: whom and what they are for, and where they lead.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::word_or_mapping::word_or_mapping;
use crate::config::scalar::{Span, Strings};
use crate::pattern::PatternSpec;

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
