//! Who is to be kept out, and for how long.

use super::{BadParameter, Parameters, Selector};
use crate::UnixTime;
use crate::config::Span;
use crate::trust::{DeniedName, DeniedNames, DenyEntry, DenySelector};

impl Selector {
    /// The entry of a deny list that means the same, and where it counts.
    pub fn denied(&self) -> Result<DenyEntry, BadParameter> {
        if self.connection.is_some() || self.listener.is_some() || self.address.is_some() {
            return Err(BadParameter::Incomplete(
                "a client is blocked wherever it comes from: `connection`, `listener` and `address` cannot narrow that",
            ));
        }
        self.names_a_client()?;
        let by_serial = self.serial.clone().zip(self.issuer.clone());
        if self.issuer.is_some() && by_serial.is_none() {
            return Err(BadParameter::Incomplete("`issuer` counts only together with `serial`"));
        }
        let ways = [
            self.fingerprint.map(DenySelector::Fingerprint),
            self.key_fingerprint.map(DenySelector::KeyFingerprint),
            by_serial.map(|(serial, issuer)| DenySelector::Serial { issuer, serial }),
            self.denied_names()?.map(DenySelector::Names),
        ];
        let mut ways = ways.into_iter().flatten();
        match (ways.next(), ways.next()) {
            (Some(selector), None) => {
                let trust_domain = self.trust_domain.as_deref().map(Into::into);
                Ok(DenyEntry { trust_domain, ..DenyEntry::new(selector) })
            }
            _ => Err(BadParameter::Incomplete(
                "a client is blocked by one name (expected: one of `fingerprint`, `key_fingerprint`, `serial` with \
                 `issuer`, `subject`)",
            )),
        }
    }

    fn denied_names(&self) -> Result<Option<DeniedNames>, BadParameter> {
        let Some(subject) = &self.subject else { return Ok(None) };
        let mut kinds: Vec<_> = subject.attributes().map(|attribute| &attribute.kind).collect();
        kinds.sort_unstable();
        if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(BadParameter::Incomplete(
                "subject: a list of blocked clients holds each kind of attribute once (hint: `fingerprint` or \
                 `key_fingerprint` names this client too)",
            ));
        }
        let names: Vec<_> = subject.attributes().cloned().map(DeniedName::from).collect();
        if names.iter().any(DeniedName::has_asterisk) {
            return Err(BadParameter::Incomplete(
                "subject: `*` would stand for itself, not for any text (hint: an attribute that all of them have, such as \
                 `OU=sensors`, blocks them all)",
            ));
        }
        Ok(DeniedNames::new(names))
    }
}

/// `until` or `for`, if there is one.
pub(super) fn end(parameters: &mut Parameters, now: UnixTime) -> Result<Option<UnixTime>, BadParameter> {
    let until: Option<jiff::Timestamp> = parameters.parsed("until")?;
    let span = parameters.parsed::<Span>("for")?;
    let until = match (until, span) {
        (Some(_), Some(_)) => {
            return Err(BadParameter::Incomplete("it has two ends (expected: `until` or `for`)"));
        }
        // Rounded up: nobody is let in too early.
        (Some(until), None) => Some(until.as_second() + i64::from(until.subsec_nanosecond() > 0)),
        (None, Some(span)) => Some(now.saturating_add(span.0.as_secs().max(1) as i64)),
        (None, None) => None,
    };
    match until {
        Some(until) if until <= now => {
            let error = "it is past (expected: a moment to come, such as `2027-01-31T12:00:00Z`)".to_owned();
            Err(BadParameter::Wrong { name: "until", error })
        }
        until => Ok(until),
    }
}
