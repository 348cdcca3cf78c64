//! What a reload cannot read because the process gave it up when it started.

use std::path::{Path, PathBuf};

use crate::config::{ConfigErrors, Problem};
use crate::confinement::Confinement;

/// Adds to `errors` which of the files that are `named` lie where this process may not read: one for each directory.
pub(super) fn tell(mut errors: ConfigErrors, named: &[PathBuf], confinement: &Confinement) -> ConfigErrors {
    let mut told: Vec<Option<&Path>> = Vec::new();
    for file in named.iter().filter(|file| confinement.is_outside(file)) {
        if told.contains(&file.parent()) {
            continue;
        }
        told.push(file.parent());
        errors.problems.push(Problem {
            at: "server.sandbox".into(),
            found: format!("`{}` lies where this process may not read since its start", file.display()),
            expected: Some(
                "the directory of a file that was named then, or one of `server.sandbox.read`".into(),
            ),
            hint: Some("restart, or upgrade with SIGQUIT, to have it read".into()),
        });
    }
    errors
}
