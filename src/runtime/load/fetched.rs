//! Revocation lists that were fetched: files like any other, but that they may not be there yet.

use std::fs::File;
use std::io::{BufReader, ErrorKind};

use crate::UnixTime;
use crate::certificate::Certificate;
use crate::config::FetchedList;
use crate::fetch::Notes;
use crate::trust::{AwaitedList, RevocationList};

/// What is kept of `list`, or since when it is missing and why.
pub(super) fn read(
    list: &FetchedList,
    issuers: &[Certificate],
    now: UnixTime,
) -> Result<Vec<RevocationList>, (AwaitedList, String)> {
    let missing = |reason: String| {
        // A clock that was set back must not make the time longer that clients are believed without it.
        let since = Notes::read(&list.kept).map_or(now, |notes| notes.wanted_since.min(now));
        (AwaitedList { origin: list.url.clone(), since }, reason)
    };
    let unusable = |reason: &dyn std::error::Error| {
        missing(format!(", and what is kept in `{}` cannot be used: {reason}", list.kept.display()))
    };
    match File::open(&list.kept) {
        Ok(file) => {
            let file = BufReader::with_capacity(super::READ_AT_ONCE, file);
            RevocationList::read_from(file, issuers, now).map_err(|error| unusable(&error))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(missing(String::new())),
        Err(error) => Err(unusable(&error)),
    }
}
