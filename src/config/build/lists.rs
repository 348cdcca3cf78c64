//! Where revocation lists come from, and what else is fetched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::super::file::{FetchedListFile, ListFile};
use super::super::source::ListPlace;
use super::super::types::{FetchedList, ListSource, ListenerConfig, OcspConfig, OcspSource, TrustConfig};
use super::Builder;
use crate::certificate::Fingerprint;
use crate::trust::RevocationList;

const EVERY: Duration = Duration::from_secs(3600);
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// More than this in memory at once helps nobody: a list of ten million entries is smaller.
const MOST_BYTES: u64 = 1024 * 1024 * 1024;

/// More often would be a burden to whoever publishes the list.
const MOST_OFTEN: Duration = Duration::from_secs(1);

impl Builder {
    pub(super) fn list_sources(&mut self, at: &str, lists: Vec<ListFile>) -> Vec<ListSource> {
        let mut sources: Vec<ListSource> = Vec::new();
        for (index, list) in lists.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            let source = match list {
                ListFile::File(file) => {
                    let (path, endings) = (self.path(&file), RevocationList::ENDINGS);
                    ListSource::File(ListPlace { path, endings })
                }
                ListFile::Fetched(file) => ListSource::Fetched(self.fetched_list(&at, &file)),
            };
            let same = |other: &ListSource| match (other, &source) {
                (ListSource::Fetched(one), ListSource::Fetched(other)) => one.url == other.url,
                _ => false,
            };
            if sources.iter().any(same) {
                self.problem(format!("{at}.url"), "another list has it already", None, None);
            }
            sources.push(source);
        }
        sources
    }

    fn fetched_list(&mut self, at: &str, file: &FetchedListFile) -> FetchedList {
        let url = self.fetch_url(&format!("{at}.url"), &file.url);
        if file.ca.is_some() && !is_https(&file.url) {
            let hint = "write `https://`, or leave it out".to_owned();
            self.problem(format!("{at}.ca"), "nobody proves who they are over `http`", None, Some(hint));
        }
        let every = file.every.map_or(EVERY, |span| span.0);
        if every < MOST_OFTEN {
            self.problem(format!("{at}.every"), "it is too often", Some("1s or more"), None);
        }
        let max_bytes =
            self.at_most(&format!("{at}.max_bytes"), file.max_bytes.unwrap_or(MAX_BYTES), MOST_BYTES);
        if max_bytes == 0 {
            self.problem(format!("{at}.max_bytes"), "0 would refuse every list", Some("1 or more"), None);
        }
        FetchedList {
            url,
            every,
            timeout: file.timeout.map_or(FETCH_TIMEOUT, |span| span.0),
            max_bytes,
            ca: file.ca.as_deref().map(|ca| self.path(ca)),
            kept: PathBuf::new(),
        }
    }

    /// An absolute URL of a server: it stands in metrics and logs, so that there is no password in it.
    pub(super) fn fetch_url(&mut self, at: &str, text: &str) -> String {
        let expected = Some("`http://HOST/PATH` or `https://HOST/PATH`");
        let parsed = text.parse::<Uri>().ok().filter(|url| {
            let has_scheme = is_https(text) || url.scheme_str() == Some("http");
            has_scheme && url.host().is_some_and(|host| !host.is_empty()) && !text.contains('#')
        });
        match parsed {
            None => self.problem(at, format!("`{text}` is not a URL that can be fetched"), expected, None),
            Some(url) if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                self.problem(at, "it holds a user name or a password", expected, None);
            }
            Some(_) => {}
        }
        text.to_owned()
    }

    /// What is fetched must outlive the process: a restart while the server is down would let nobody in.
    pub(super) fn place_fetched(
        &mut self,
        trust: &mut [TrustConfig],
        listeners: &mut [ListenerConfig],
        state_directory: Option<&Path>,
    ) {
        for domain in trust {
            for (index, source) in domain.lists.iter_mut().enumerate() {
                let ListSource::Fetched(list) = source else { continue };
                let name = format!("lists/{}-{}.crl", domain.name, digest(&list.url));
                match state_directory {
                    Some(directory) => list.kept = directory.join(name),
                    None => self.nowhere(format!("trust.{}.revocation.lists[{index}].url", domain.name)),
                }
            }
        }
        for listener in listeners {
            for certificate in &mut listener.tls.certificates {
                let Some(OcspConfig { source: OcspSource::Responder(responder), .. }) = &mut certificate.ocsp
                else {
                    continue;
                };
                let what = format!(
                    "{}\n{}",
                    certificate.files.chain.display(),
                    responder.url.as_deref().unwrap_or("")
                );
                let name = format!("ocsp/{}-{}.der", listener.name, digest(&what));
                match state_directory {
                    Some(directory) => responder.kept = directory.join(name),
                    None => self.nowhere(format!("{}.ocsp.responder", certificate.files.at)),
                }
            }
        }
    }

    fn nowhere(&mut self, at: String) {
        let hint = "set `server.state_directory`, for example to `/var/lib/portcullis`; under systemd, \
                    `StateDirectory=portcullis` gives one";
        self.problem(at, "there is no directory to keep what is fetched", None, Some(hint.to_owned()));
    }
}

/// The beginning of a digest, for the names of files.
fn digest(text: &str) -> String {
    let mut digest = Fingerprint(openssl::sha::sha256(text.as_bytes())).to_string();
    digest.truncate(16);
    digest
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}
