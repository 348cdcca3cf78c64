//! What was fetched, kept in files: it outlives the process, and is replaced whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::client::Validators;
use crate::UnixTime;
use crate::certificate::Fingerprint;

/// What is known about a file that was fetched; in a file of its own beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Since when it has been wanted.
    pub wanted_since: UnixTime,
    fetched_at: Option<UnixTime>,
    /// Of the file that these notes are about: whoever puts another one in its place is noticed.
    sha256: Option<String>,
    #[serde(flatten)]
    pub(super) validators: Validators,
}

impl Notes {
    pub(super) fn wanted(now: UnixTime) -> Self {
        Self { wanted_since: now, ..Self::default() }
    }

    pub(super) fn about(bytes: &[u8], validators: Validators, wanted_since: UnixTime, now: UnixTime) -> Self {
        Self { wanted_since, fetched_at: Some(now), sha256: Some(digest(bytes)), validators }
    }

    /// `None`: there are none, or none that can be read, which costs no more than one fetch.
    pub fn read(kept: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(beside(kept)).ok()?).ok()
    }

    pub(super) fn write(&self, kept: &Path) -> std::io::Result<()> {
        replace(&beside(kept), &serde_json::to_vec(self)?)
    }

    pub(super) fn is_about(&self, bytes: &[u8]) -> bool {
        self.sha256.as_ref().is_some_and(|sha256| *sha256 == digest(bytes))
    }
}

fn beside(kept: &Path) -> PathBuf {
    kept.with_extension("json")
}

fn digest(bytes: &[u8]) -> String {
    Fingerprint(openssl::sha::sha256(bytes)).to_string()
}

pub(super) fn read(kept: &Path) -> Option<Vec<u8>> {
    std::fs::read(kept).ok()
}

/// Writes a new file and renames it: whoever reads sees the old one or the new one, also after a power cut.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let written = write(&new, bytes).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = written {
        // A disk that is full must not stay so because of us.
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lists/a.crl");
        replace(&file, b"old").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!(read(&file).unwrap(), b"new");
        assert!(replace(&directory.path().join("lists"), b"in the way").is_err());
        let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
        assert_eq!((names(directory.path()), names(&directory.path().join("lists"))), (1, 1));
    }

    #[test]
    fn notes_are_about_the_bytes_they_were_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.crl");
        let notes = Notes::about(b"list", Validators::default(), 1, 2);
        notes.write(&file).unwrap();
        let read = Notes::read(&file).unwrap();
        assert_eq!(read, notes);
        assert!(read.is_about(b"list") && !read.is_about(b"other"));
        std::fs::write(directory.path().join("a.json"), "{").unwrap();
        assert_eq!(Notes::read(&file), None);
    }
}
