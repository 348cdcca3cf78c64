//! How far the process confines itself.

use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    pub mode: SandboxMode,
    /// Directories that may be read beside those of the files that are named at start.
    pub read: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxMode {
    /// As far as the kernel offers it.
    On,
    /// All of it, or there is no start.
    Require,
    Off,
}
