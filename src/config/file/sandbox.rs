//! `server.sandbox`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::word_or_mapping::word_or_mapping;

#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub enum SandboxFile {
    Mode(SandboxModeFile),
    Settings(SandboxSettingsFile),
}

word_or_mapping!(SandboxFile, Mode, Settings, "`on`, `require`, `off`, or `{ mode: on, read: [DIRECTORY] }`");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxSettingsFile {
    /// Default: on.
    #[serde(default)]
    pub mode: SandboxModeFile,
    /// Directories that may be read beside those of the files that are named at start: where a reload will find files.
    #[serde(default)]
    pub read: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxModeFile {
    /// As far as the kernel offers it.
    #[default]
    On,
    /// All of it, or the gateway does not start.
    Require,
    Off,
}
