//! Trust domains: anchors, revocation lists, deny lists, policy.

use schemars::JsonSchema;
use serde::Deserialize;

use super::word_or_mapping::word_or_mapping;
use crate::config::scalar::{Span, Strings};

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
