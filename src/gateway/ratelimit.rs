//! What clients are told of their limits: `Retry-After` (RFC 9110, section 10.2.3), and the fields `RateLimit-Policy` and
//! `RateLimit` of draft-ietf-httpapi-ratelimit-headers-11 (May 2026).
//!
//! The fields are lists (RFC 9651), and may stand in an answer several times: those of the origin stay as they are, ours
//! come behind them.

use std::fmt::Write;
use std::time::Duration;

use crate::limits::{Keys, Limits, Measure, Moment, Over, Rule, Told};

/// A field of an answer.
pub type Field = (&'static str, String);

/// With a 429: how long to wait, and for which limit.
pub fn refused(limits: &Limits, over: Over) -> Vec<Field> {
    let wait = seconds(over.wait).max(1);
    let mut fields = vec![("retry-after", wait.to_string())];
    if let Some(rule) = limits.rules().get(over.rule) {
        let within = (!matches!(rule.measure(), Measure::Concurrent(_))).then_some(Duration::from_secs(wait));
        let told = Told { rule: over.rule, left: 0, within };
        fields.extend(lists(limits, std::iter::once(told)));
    }
    fields
}

/// With every answer, where the configuration asks for it.
pub fn left(limits: &Limits, keys: &Keys, route: usize, now: Moment) -> Vec<Field> {
    lists(limits, limits.told(keys, route, now))
}

fn lists(limits: &Limits, told: impl Iterator<Item = Told>) -> Vec<Field> {
    let (mut policies, mut left) = (String::new(), String::new());
    for told in told {
        let Some(rule) = limits.rules().get(told.rule) else { continue };
        let comma = if policies.is_empty() { "" } else { ", " };
        policies.push_str(comma);
        left.push_str(comma);
        policy(&mut policies, rule);
        // Writing to a text cannot fail.
        let _ = write!(left, "{};r={}", Policy(rule), integer(told.left));
        if let Some(within) = told.within {
            let _ = write!(left, ";t={}", seconds(within));
        }
    }
    if policies.is_empty() {
        return Vec::new();
    }
    vec![("ratelimit-policy", policies), ("ratelimit", left)]
}

fn policy(out: &mut String, rule: &Rule) {
    let (quota, unit, window) = match rule.measure() {
        Measure::Requests(bucket) => (bucket.burst(), None, Some(bucket.window())),
        Measure::Bytes(bucket) => (bucket.burst(), Some("content-bytes"), Some(bucket.window())),
        Measure::Quota(quota) => (quota.most().into(), None, Some(quota.window())),
        Measure::Concurrent(most) => (most.into(), Some("concurrent-requests"), None),
        // Connections are not answered: none of these is ever told.
        Measure::Handshakes(_) | Measure::Connections(_) | Measure::Networks(_) => return,
    };
    let _ = write!(out, "{};q={}", Policy(rule), integer(quota));
    if let Some(unit) = unit {
        let _ = write!(out, ";qu=\"{unit}\"");
    }
    if let Some(window) = window {
        let _ = write!(out, ";w={}", seconds(window).max(1));
    }
}

/// How a policy is called: as the limit, where requests are counted, else with the measure behind it.
struct Policy<'a>(&'a Rule);

impl std::fmt::Display for Policy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The name is letters, digits, `-`, `_` and `.`: nothing to escape.
        match self.0.measure() {
            Measure::Requests(_) => write!(f, "\"{}\"", self.0.name()),
            other => write!(f, "\"{}-{}\"", self.0.name(), other.as_str()),
        }
    }
}

/// Rounded up: whoever comes back then is not early.
fn seconds(time: Duration) -> u64 {
    integer(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// No integer of a structured field has more than 15 digits (RFC 9651, section 3.3.1).
fn integer(value: u64) -> u64 {
    value.min(999_999_999_999_999)
}
