//! What the process gives up once it has what it needs: files, system calls, privileges, core dumps.
//!
//! All of it is entered before the first thread is started, and each thread inherits it. What the kernel does not offer
//! is told, and is an error only where the configuration demands it.

mod calls;
mod files;
mod places;
mod privileges;

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{SandboxConfig, SandboxMode};

use files::FileRules;
pub use places::Places;
use privileges::Privileges;

/// What is in force of it.
pub struct Confinement(Option<InForce>);

struct InForce {
    places: Places,
    privileges: Privileges,
    files: Result<FileRules, String>,
    calls: Result<(), String>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "server.sandbox: `require`, but {0} (hint: `on` takes what the kernel offers, and says in the log what it does not)"
)]
pub struct ConfinementError(String);

impl Confinement {
    /// Nothing is given up.
    pub fn none() -> Self {
        Self(None)
    }

    /// To be called while there is one thread only: what the kernel confines is the thread that asks, and those that it starts.
    pub fn enter(config: &SandboxConfig, places: Places) -> Result<Self, ConfinementError> {
        if config.mode == SandboxMode::Off {
            return Ok(Self::none());
        }
        let privileges = Privileges::give_up();
        let files = files::confine(&places);
        // Last: of what comes before, some is among what is refused from now on.
        let calls = calls::refuse();
        let in_force = InForce { places, privileges, files, calls };
        let missing = in_force.missing();
        match missing.first() {
            Some(missing) if config.mode == SandboxMode::Require => Err(ConfinementError(missing.clone())),
            _ => Ok(Self(Some(in_force))),
        }
    }

    /// For the log, at start.
    pub fn tell(&self) {
        log::info!("sandbox: {self}");
        for missing in self.0.iter().flat_map(InForce::missing) {
            log::warn!("the sandbox is not complete: {missing}");
        }
        for place in self.0.iter().filter(|it| it.files.is_ok()).flat_map(|it| it.places.absent()) {
            log::warn!(
                "`{}` is no directory: what takes its place cannot be used before the next start (hint: make it, and \
                 start again)",
                place.display()
            );
        }
        if self.0.as_ref().is_some_and(|it| it.privileges.is_root) {
            log::warn!(
                "the gateway runs as root, who may open the files of every user (hint: a user of its own, as the unit in \
                 `packaging/` gives it)"
            );
        }
    }

    /// Whether a file of this name, as the file system is now, lies where this process may not read.
    pub fn is_outside(&self, path: &Path) -> bool {
        let rules = self.0.as_ref().and_then(|in_force| in_force.files.as_ref().ok());
        rules.is_some_and(|rules| !rules.covers(path))
    }

    pub fn to_json(&self) -> Value {
        let Some(InForce { places, privileges, files, calls }) = &self.0 else {
            return json!({ "mode": "off", "summary": self.to_string() });
        };
        json!({
            "mode": "on",
            "summary": self.to_string(),
            "no_new_privileges": privileges.no_new.is_ok(),
            "capabilities": privileges.kept(),
            "core_dumps": privileges.no_dumps.is_err(),
            "landlock": files.as_ref().ok().map(|rules| rules.abi),
            "system_calls_filtered": calls.is_ok(),
            "may_read": shown(&places.read),
            "may_write": shown(&places.keep),
            "may_make_sockets": shown(&places.sockets),
        })
    }
}

fn shown<'a>(paths: impl IntoIterator<Item = &'a std::path::PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.display().to_string()).collect()
}

impl InForce {
    fn missing(&self) -> Vec<String> {
        let privileges = &self.privileges;
        let parts = [
            ("new privileges cannot be ruled out", privileges.no_new.as_ref().err()),
            ("core dumps cannot be switched off", privileges.no_dumps.as_ref().err()),
            ("files cannot be confined (Landlock)", self.files.as_ref().err()),
            ("system calls cannot be filtered (seccomp)", self.calls.as_ref().err()),
        ];
        parts.into_iter().filter_map(|(what, why)| Some(format!("{what}: {}", why?))).collect()
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(InForce { places, privileges, files, calls }) = &self.0 else {
            return f.write_str("off, as `server.sandbox` says");
        };
        if privileges.no_new.is_ok() {
            f.write_str("no new privileges; ")?;
        }
        match privileges.kept().as_slice() {
            [] => f.write_str("no capabilities"),
            kept => write!(f, "capabilities {}", kept.join(", ")),
        }?;
        if let Ok(rules) = files {
            let (read, written) = (places.read.len(), places.keep.len() + places.sockets.len());
            write!(f, "; Landlock ABI {}: {read} places to read, {written} to write", rules.abi)?;
        }
        if calls.is_ok() {
            f.write_str("; system calls filtered")?;
        }
        if privileges.no_dumps.is_ok() {
            f.write_str("; no core dumps")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_offer_is_named() {
        let in_force = InForce {
            places: Places::of_the_system(),
            privileges: Privileges::of_a_test(),
            files: Err("the kernel does not offer it".into()),
            calls: Ok(()),
        };
        assert_eq!(in_force.missing(), ["files cannot be confined (Landlock): the kernel does not offer it"]);
        let shown = Confinement(Some(in_force));
        assert!(!shown.to_string().contains("Landlock") && shown.to_json()["landlock"].is_null());
        assert!(!shown.is_outside(Path::new("/")), "nothing is outside of what is not confined");
    }
}
