//! Trust domains.

use super::super::file::{OnExpiryFile, StaleWord, TrustFile, UsageFile, WhenMissingFile, WhenStaleFile};
use super::super::scalar::Strings;
use super::super::source::ListPlace;
use super::super::types::TrustConfig;
use super::Builder;
use crate::trust::{DenyForm, OnExpiry, TrustPolicy, Usage, WhenMissing, WhenStale};

impl Builder {
    pub(super) fn trust_domain(&mut self, name: &str, at: &str, file: TrustFile) -> Option<TrustConfig> {
        let default = TrustPolicy::default();
        if file.anchors.is_empty() {
            self.problem(format!("{at}.anchors"), "it is empty", Some("a PEM bundle"), None);
        }
        let lists = self.list_sources(&format!("{at}.revocation.lists"), file.revocation.lists);
        if lists.is_empty() && file.revocation.when_missing == Some(WhenMissingFile::Refuse) {
            self.problem(
                format!("{at}.revocation.when_missing"),
                "`refuse` without a list would refuse every client",
                Some("`lists` that are not empty"),
                Some("name the lists of all issuers, or leave `when_missing` out".to_owned()),
            );
        }
        Some(TrustConfig {
            name: name.into(),
            anchors: self.path(&file.anchors),
            lists,
            deny: file.deny.iter().flat_map(Strings::iter).map(|path| self.deny_list(at, path)).collect(),
            policy: TrustPolicy {
                client_auth_usage: match file.client_auth_usage {
                    Some(UsageFile::Always) => Usage::Always,
                    Some(UsageFile::WhenPresent) | None => default.client_auth_usage,
                },
                max_depth: self.at_most(
                    &format!("{at}.max_depth"),
                    file.max_depth.unwrap_or(default.max_depth),
                    100,
                ),
                max_chain_bytes: file.max_chain_bytes.unwrap_or(default.max_chain_bytes),
                when_stale: match file.revocation.when_stale {
                    Some(WhenStaleFile::Word(StaleWord::Believe)) => WhenStale::Believe,
                    Some(WhenStaleFile::For(span)) => WhenStale::BelieveFor(span.believe_for.0),
                    Some(WhenStaleFile::Word(StaleWord::Refuse)) | None => default.when_stale,
                },
                when_missing: match file.revocation.when_missing {
                    Some(WhenMissingFile::Refuse) => WhenMissing::Refuse,
                    Some(WhenMissingFile::Believe) | None => default.when_missing,
                },
                on_expiry: match file.on_expiry {
                    Some(OnExpiryFile::Keep) => OnExpiry::Keep,
                    Some(OnExpiryFile::Close) | None => OnExpiry::Close,
                },
                grace: file.grace.map(|span| span.0),
                // The routes say.
                quarantine: default.quarantine,
            },
        })
    }

    fn deny_list(&mut self, at: &str, path: &str) -> ListPlace {
        if path.is_empty() {
            self.problem(format!("{at}.deny"), "a path is empty", Some("files or directories"), None);
        }
        ListPlace { path: self.path(path), endings: DenyForm::ENDINGS }
    }
}
