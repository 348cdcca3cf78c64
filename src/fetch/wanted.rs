//! Whatever is fetched, seen by the schedule.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{FetchError, Obtained, WantedList, WantedStaple};
use crate::UnixTime;
use crate::telemetry::{FetchMetrics, Metrics};

/// Something that should be here and comes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    List(WantedList),
    Staple(WantedStaple),
}

impl Wanted {
    /// The file in which it is kept: no two have the same.
    pub(super) fn kept(&self) -> &Path {
        match self {
            Self::List(list) => &list.list.kept,
            Self::Staple(staple) => &staple.kept,
        }
    }

    /// It was never obtained, or what is kept cannot be used.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::List(list) => list.is_missing,
            Self::Staple(staple) => staple.is_missing,
        }
    }

    /// Whether it is fetched as `other` is.
    pub(super) fn is_same_way(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(one), Self::List(other)) => one.list == other.list,
            (Self::Staple(one), Self::Staple(other)) => one.url == other.url && one.subject == other.subject,
            _ => false,
        }
    }

    /// After a failure it is tried again no later.
    pub(super) fn longest_retry(&self) -> Duration {
        match self {
            Self::List(list) => list.list.every,
            Self::Staple(_) => Duration::from_secs(600),
        }
    }

    /// Blocks.
    pub(super) fn fetch(&self, now: UnixTime) -> Result<Obtained, FetchError> {
        match self {
            Self::List(list) => list.fetch(now),
            Self::Staple(staple) => staple.fetch(now),
        }
    }

    pub(super) fn metrics(&self, metrics: &Metrics) -> Arc<FetchMetrics> {
        match self {
            Self::List(list) => metrics.revocation_fetch(&list.domain, &list.list.url),
            Self::Staple(staple) => metrics.ocsp_fetch(&staple.listener, &staple.subject),
        }
    }

    /// How to call it in a sentence.
    pub(super) fn name(&self) -> String {
        match self {
            Self::List(list) => {
                format!("trust.{}: the revocation list from `{}`", list.domain, list.list.url)
            }
            Self::Staple(staple) => {
                format!(
                    "listener {}: the OCSP response about `{}` from `{}`",
                    staple.listener, staple.subject, staple.url
                )
            }
        }
    }

    /// What becomes of it while it cannot be fetched.
    pub(super) fn meanwhile(&self) -> &'static str {
        match self {
            Self::List(list) if list.is_missing => {
                "it was never obtained, so `when_stale` decides about clients"
            }
            Self::List(_) => "what was fetched last stays in force",
            Self::Staple(staple) if staple.is_missing => "none is stapled",
            Self::Staple(_) => "what was fetched last is stapled as long as it may be believed",
        }
    }
}
