//! A revocation list: fetched, checked against its trust domain and what was fetched before, and kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::{self, Answer, Question};
use super::kept::{self, Notes};
use super::{FetchError, Obtained};
use crate::UnixTime;
use crate::certificate::{Certificate, utc};
use crate::config::FetchedList;
use crate::trust::RevocationList;

/// What `Accept` says: the media type of RFC 2585, and what most servers call it.
const ACCEPT: &str =
    "application/pkix-crl, application/x-pkcs7-crl;q=0.9, application/x-pem-file;q=0.8, */*;q=0.1";

/// A list that some trust domain should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedList {
    pub domain: Arc<str>,
    /// Those who may have signed it.
    pub anchors: PathBuf,
    pub list: FetchedList,
    /// It was never obtained, or what is kept cannot be used.
    pub is_missing: bool,
}

impl WantedList {
    /// One attempt. Blocks, for no longer than the list's timeout and the time to check it.
    pub(super) fn fetch(&self, now: UnixTime) -> Result<Obtained, FetchError> {
        let list = &self.list;
        let before = kept::read(&list.kept);
        let notes = if let Some(notes) = Notes::read(&list.kept) {
            notes
        } else {
            // How long it has been wanted must outlive a restart too.
            let notes = Notes::wanted(now);
            self.keep_notes(&notes)?;
            notes
        };
        // A list that is gone or damaged is asked for as if it had never been there.
        let usable = before.as_deref().filter(|bytes| !self.is_missing && notes.is_about(bytes));
        let answer = client::ask(&Question {
            url: &list.url,
            accept: ACCEPT,
            body: None,
            known: usable.map(|_| &notes.validators),
            ca: list.ca.as_deref(),
            timeout: list.timeout,
            max_bytes: list.max_bytes,
        })?;
        let (bytes, validators) = match answer {
            Answer::Unchanged => return Ok(self.obtained(None)),
            Answer::Found(bytes, validators) => (bytes, validators),
        };
        let notes = Notes::about(&bytes, validators, notes.wanted_since, now);
        if usable == Some(&*bytes) {
            self.keep_notes(&notes)?;
            return Ok(self.obtained(None));
        }
        let what = self.check(&bytes, before.as_deref(), now)?;
        kept::replace(&list.kept, &bytes).map_err(|source| not_kept(&list.kept, source))?;
        self.keep_notes(&notes)?;
        Ok(self.obtained(Some(what)))
    }

    fn obtained(&self, what: Option<String>) -> Obtained {
        Obtained { what, again: self.list.every }
    }

    /// Nothing takes the place of a list but one of the same issuers, and newer.
    fn check(&self, bytes: &[u8], before: Option<&[u8]>, now: UnixTime) -> Result<String, FetchError> {
        let issuers = self.issuers()?;
        let lists = RevocationList::read_all(bytes, &issuers, now).map_err(|error| refused(bytes, &error))?;
        if lists.iter().any(RevocationList::is_delta) {
            // Without its base, which comes from elsewhere, the domain could not be loaded.
            return Err(FetchError::Refused(
                "it is a delta list (expected: a complete one; deltas can be named as files)".into(),
            ));
        }
        // What cannot be used any more, since the anchors are others now, binds nobody.
        let before = before.and_then(|before| RevocationList::read_all(before, &issuers, now).ok());
        RevocationList::check_succession(&lists, before.as_deref().unwrap_or_default())
            .map_err(|error| FetchError::Refused(error.to_string()))?;
        Ok(lists.iter().map(describe).collect::<Vec<_>>().join(", "))
    }

    fn issuers(&self) -> Result<Vec<Certificate>, FetchError> {
        let unusable =
            |reason: String| FetchError::Authorities { file: self.anchors.display().to_string(), reason };
        let pem = std::fs::read(&self.anchors).map_err(|error| unusable(error.to_string()))?;
        Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))
    }

    fn keep_notes(&self, notes: &Notes) -> Result<(), FetchError> {
        notes.write(&self.list.kept).map_err(|source| not_kept(&self.list.kept, source))
    }
}

fn describe(list: &RevocationList) -> String {
    let next = list.next_update().map_or_else(|| "never".to_owned(), |next| utc(next).to_string());
    format!(
        "the list of `{}` of {}, {} revoked, to be replaced by {next}",
        list.issuer(),
        utc(list.this_update()),
        list.len()
    )
}

/// Servers that have lost a list often answer with a page and status 200.
fn refused(bytes: &[u8], error: &dyn std::error::Error) -> FetchError {
    let is_page = bytes.trim_ascii_start().first() == Some(&b'<');
    FetchError::Refused(if is_page {
        format!("it looks like a web page; {error}")
    } else {
        error.to_string()
    })
}

pub(super) fn not_kept(file: &Path, source: std::io::Error) -> FetchError {
    FetchError::NotKept { file: file.display().to_string(), source }
}
