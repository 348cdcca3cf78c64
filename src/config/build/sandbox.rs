//! `server.sandbox`.

use super::super::file::{SandboxFile, SandboxModeFile, SandboxSettingsFile};
use super::super::sandbox::{SandboxConfig, SandboxMode};
use super::Builder;

impl Builder {
    pub(super) fn sandbox(&mut self, file: Option<SandboxFile>) -> SandboxConfig {
        let file = match file {
            Some(SandboxFile::Settings(settings)) => settings,
            Some(SandboxFile::Mode(mode)) => SandboxSettingsFile { mode, read: Vec::new() },
            None => SandboxSettingsFile::default(),
        };
        let at = |index| format!("server.sandbox.read[{index}]");
        for (index, _) in file.read.iter().enumerate().filter(|(_, text)| text.is_empty()) {
            self.problem(at(index), "it is empty", Some("a directory"), None);
        }
        SandboxConfig {
            mode: match file.mode {
                SandboxModeFile::On => SandboxMode::On,
                SandboxModeFile::Require => SandboxMode::Require,
                SandboxModeFile::Off => SandboxMode::Off,
            },
            read: file.read.iter().map(|text| self.path(text)).collect(),
        }
    }
}
