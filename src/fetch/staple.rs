//! The OCSP response about a certificate of ours: asked for, checked, and kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssl::x509::X509;

use super::client::{self, Answer, Question};
use super::list::not_kept;
use super::{FetchError, Obtained, kept};
use crate::UnixTime;
use crate::certificate::utc;
use crate::tls::{Staple, ocsp_question};

/// Real ones have a few kilobytes, most of them a certificate.
const LARGEST: u64 = 64 * 1024;

/// A responder is not asked more often while its answer stays what it was.
const SOONEST: Duration = Duration::from_secs(5);

/// An OCSP response that should be stapled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedStaple {
    pub listener: Arc<str>,
    /// Of the certificate.
    pub subject: String,
    pub url: String,
    pub timeout: Duration,
    /// The certificate's file; `None` for the issuer: its second certificate.
    pub chain: PathBuf,
    pub issuer: Option<PathBuf>,
    pub kept: PathBuf,
    /// There is none that can be used.
    pub is_missing: bool,
}

impl WantedStaple {
    pub(super) fn fetch(&self, now: UnixTime) -> Result<Obtained, FetchError> {
        let (leaf, issuer) = self.certificates()?;
        let question = ocsp_question(&leaf, &issuer)
            .map_err(|error| FetchError::Refused(format!("no question can be asked: {error}")))?;
        let answer = client::ask(&Question {
            url: &self.url,
            accept: "application/ocsp-response",
            body: Some(("application/ocsp-request", &question)),
            known: None,
            ca: None,
            timeout: self.timeout,
            max_bytes: LARGEST,
        })?;
        let Answer::Found(bytes, _) = answer else { return Err(FetchError::Broken) };
        let read = |bytes: &[u8]| Staple::read(bytes, &leaf, &issuer, now);
        let staple = read(&bytes).map_err(|error| FetchError::Refused(error.to_string()))?;
        let before = kept::read(&self.kept).and_then(|bytes| read(&bytes).ok());
        // One that is no newer says nothing new; an older one less.
        let times = |staple: &Staple| (staple.this_update, staple.next_update);
        if before.is_some_and(|before| times(&before) >= times(&staple)) && !self.is_missing {
            return Ok(Obtained { what: None, again: again(&staple, now) });
        }
        kept::replace(&self.kept, &bytes).map_err(|source| not_kept(&self.kept, source))?;
        let what = format!("it says `good` until {}", utc(staple.next_update));
        Ok(Obtained { what: Some(what), again: again(&staple, now) })
    }

    fn certificates(&self) -> Result<(X509, X509), FetchError> {
        let mut chain = read(&self.chain)?.into_iter();
        let missing = |file: &Path| unusable(file, "it holds no certificate that is needed");
        let leaf = chain.next().ok_or_else(|| missing(&self.chain))?;
        let issuer = match &self.issuer {
            Some(file) => read(file)?.into_iter().next().ok_or_else(|| missing(file))?,
            None => chain.next().ok_or_else(|| missing(&self.chain))?,
        };
        Ok((leaf, issuer))
    }
}

fn read(file: &Path) -> Result<Vec<X509>, FetchError> {
    let pem = std::fs::read(file).map_err(|error| unusable(file, error.to_string()))?;
    X509::stack_from_pem(&pem).map_err(|error| unusable(file, error.to_string()))
}

fn unusable(file: &Path, reason: impl Into<String>) -> FetchError {
    FetchError::Authorities { file: file.display().to_string(), reason: reason.into() }
}

/// Half of its life later, and then in ever shorter steps: whatever fails has time to be mended.
fn again(staple: &Staple, now: UnixTime) -> Duration {
    let half = staple.this_update + (staple.next_update - staple.this_update) / 2;
    let wait = if now < half { half - now } else { (staple.next_update - now) / 4 };
    Duration::from_secs(wait.try_into().unwrap_or(0)).max(SOONEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_renewed_well_before_it_ends() {
        let staple = Staple { response: Arc::from([]), this_update: 1000, next_update: 101_000 };
        let wait = |now| again(&staple, now).as_secs();
        assert_eq!((wait(1000), wait(41_000), wait(51_000), wait(100_900)), (50_000, 10_000, 12_500, 25));
        assert_eq!((wait(100_990), wait(200_000)), (5, 5));
    }
}
