//! Limits, as they are written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::ClientFile;
use crate::config::scalar::Strings;
use crate::limits::Rate;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitFile {
    /// In metrics, logs and `RateLimit` fields.
    pub name: String,
    /// What tells one count from another: `client`, `trust_domain`, `address`, `route`, a part of the certificate
    /// (`subject.OU`, `san.email`, …), or a list of these. Default: client.
    pub per: Option<Strings>,
    /// Whom it concerns. Default: anyone.
    pub client: Option<ClientFile>,
    /// The routes that it concerns. Default: all.
    pub routes: Option<Strings>,
    /// `100/s`, `5/m`, `1000/10s`.
    pub requests: Option<RateText>,
    /// How many requests there may be at once after a pause. Default: the number in `requests`.
    pub burst: Option<u64>,
    /// Of the bodies, in both directions: `10MiB/s`.
    pub bytes: Option<RateText>,
    /// Requests in a fixed window that begins with the first of them: `10000/d`.
    pub quota: Option<RateText>,
    /// Requests under way.
    pub concurrent: Option<u32>,
    /// Handshakes, also those that resume a session: `10/m`.
    pub handshakes: Option<RateText>,
    /// Connections that are open.
    pub connections: Option<u32>,
    /// Networks (/24 of IPv4, /48 of IPv6) from which there are connections at the same time.
    pub networks: Option<u32>,
    /// `shadow`: what is over it is counted and not refused. Default: enforce.
    pub mode: Option<LimitModeFile>,
    /// Which answers have `RateLimit` fields. Default: refusals.
    pub tell: Option<TellFile>,
    /// So many keys are counted at most, in about 22 bytes each for each measure. Default: 1000000.
    pub keys: Option<usize>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitModeFile {
    Enforce,
    Shadow,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TellFile {
    Refusals,
    Always,
}

/// So many in such a time.
#[derive(Debug, Clone, Copy)]
pub struct RateText(pub Rate);

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = RateText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number and a time, such as `100/s`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RateText, E> {
        text.parse().map(RateText).map_err(E::custom)
    }
}

impl JsonSchema for RateText {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^0*[1-9][0-9]*(B|kB|KiB|MB|MiB|GB|GiB|TiB)?/[0-9]*(s|m|h|d)$" })
    }
}
