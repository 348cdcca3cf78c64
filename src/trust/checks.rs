//! What a path that OpenSSL believes is asked besides.

use std::time::Duration;

use super::deny::{Denied, Role};
use super::path::label;
use super::revocation::RevocationIndex;
use super::standing::plus;
use super::{
    Fault, FaultKind, Finding, RejectionReason, Standing, TrustPolicy, Usage, WhenMissing, WhenStale,
};
use crate::UnixTime;
use crate::certificate::{Certificate, ClientUse, Weakness, utc};

/// A verified path, as certificates that we have read.
pub(super) struct Path<'a> {
    pub leaf: &'a Certificate,
    /// The leaf's issuer first.
    pub intermediates: Vec<&'a Certificate>,
    pub anchor: &'a Certificate,
}

impl<'a> Path<'a> {
    /// Everything that neither OpenSSL nor the way to this point has made sure of.
    pub(super) fn check(
        &self,
        policy: &TrustPolicy,
        revoked: &RevocationIndex,
        now: UnixTime,
    ) -> Result<(), Finding> {
        let revocation = self.check_revocation(policy, policy.when_stale, revoked, now);
        // Revoked is final, and must be known of an expired client too: another domain may let it in for renewal.
        if matches!(revocation, Err((RejectionReason::Revoked, _))) {
            return revocation;
        }
        self.check_validity(policy, now)?;
        revocation
    }

    /// In what standing the client may enter.
    pub(super) fn standing(
        &self,
        policy: &TrustPolicy,
        revoked: &RevocationIndex,
        now: UnixTime,
    ) -> Result<Standing, Finding> {
        let Err(finding) = self.check(policy, revoked, now) else { return Ok(Standing::Good) };
        let is_only = |fault: &Fault| self.check_but(*fault, policy, revoked, now).is_ok();
        match policy.quarantine.faults(finding.0).find(is_only) {
            Some(fault) => Ok(Standing::Quarantined(fault)),
            None => Err(finding),
        }
    }

    /// Everything, as if it were not for this one fault.
    pub(super) fn check_but(
        &self,
        fault: Fault,
        policy: &TrustPolicy,
        revoked: &RevocationIndex,
        now: UnixTime,
    ) -> Result<(), Finding> {
        match fault.kind {
            FaultKind::Expired => {
                self.check_revocation(policy, policy.when_stale, revoked, now)?;
                // The leaf alone may have expired, and counts as on its last day.
                let not_after = self.leaf.not_after();
                let is_within = now <= plus(not_after, fault.within);
                self.check_validity_at(policy, if is_within { now.min(not_after) } else { now }, now)
            }
            FaultKind::RevocationStale => {
                self.check_revocation(policy, policy.when_stale.at_least(fault.within), revoked, now)?;
                self.check_validity(policy, now)
            }
        }
    }

    /// The last moment at which nothing on the path has expired, the leaf of an expired client excepted for as long as
    /// that is accepted.
    pub(super) fn valid_until(&self, standing: Standing) -> UnixTime {
        let forgiven = match standing {
            Standing::Quarantined(Fault { kind: FaultKind::Expired, within }) => within,
            _ => Duration::ZERO,
        };
        let leaf = plus(self.leaf.not_after(), forgiven);
        self.certificates().skip(1).map(Certificate::not_after).fold(leaf, UnixTime::min)
    }

    /// Comes before everything else: it is final, whatever else may be wrong.
    pub(super) fn check_denial(&self, denied: &Denied, now: UnixTime) -> Result<(), Finding> {
        if denied.is_empty() {
            return Ok(());
        }
        for (position, certificate) in self.certificates().enumerate() {
            let role = match position {
                0 => Role::Leaf,
                _ if self.is_anchor(position) && certificate.is_self_issued() => Role::Root,
                _ => Role::Authority,
            };
            if let Some(why) = denied.find(certificate, role, now) {
                let detail = format!("{} is denied {why}", self.describe(position, certificate));
                return Err((RejectionReason::Denied, detail));
            }
        }
        Ok(())
    }

    /// What the certificates and the policy say, at one moment.
    pub(super) fn check_validity(&self, policy: &TrustPolicy, at: UnixTime) -> Result<(), Finding> {
        self.check_validity_at(policy, at, at)
    }

    fn check_validity_at(
        &self,
        policy: &TrustPolicy,
        leaf_at: UnixTime,
        at: UnixTime,
    ) -> Result<(), Finding> {
        self.check_leaf(policy.client_auth_usage)?;
        self.check_depth(policy.max_depth)?;
        self.check_path_lengths()?;
        for (position, certificate) in self.certificates().enumerate() {
            self.check_strength(position, certificate)?;
            self.check_time(position, certificate, if position == 0 { leaf_at } else { at })?;
        }
        Ok(())
    }

    /// From the leaf to the anchor.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &'a Certificate> {
        [self.leaf].into_iter().chain(self.intermediates.iter().copied()).chain([self.anchor])
    }

    fn check_leaf(&self, usage: Usage) -> Result<(), Finding> {
        if self.leaf.is_ca() {
            return Err(leaf_is_ca(self.leaf));
        }
        match (self.leaf.client_use(), usage) {
            (ClientUse::Named, _) | (ClientUse::NotRestricted, Usage::WhenPresent) => Ok(()),
            (ClientUse::NotNamed, _) => Err(not_for_clients(self.leaf)),
            (ClientUse::NotRestricted, Usage::Always) => {
                let leaf = label(self.leaf);
                let detail =
                    format!("{leaf} does not name clientAuth in its extendedKeyUsage, which is required");
                Err((RejectionReason::WrongUsage, detail))
            }
        }
    }

    fn check_depth(&self, most: u32) -> Result<(), Finding> {
        let found = self.intermediates.len();
        if found <= most as usize {
            return Ok(());
        }
        let leaf = label(self.leaf);
        let detail =
            format!("{found} certificates stand between {leaf} and its trust anchor (allowed: {most})");
        Err((RejectionReason::ChainTooLong, detail))
    }

    /// AWS-LC passes over what a self-issued certificate says, and so over what a root says.
    fn check_path_lengths(&self) -> Result<(), Finding> {
        let mut below = 0;
        for (position, certificate) in self.certificates().enumerate().skip(1) {
            if let Some(most) = certificate.path_length().filter(|most| below > *most) {
                let detail = format!(
                    "{below} certificates stand between {} and {}, which allows {most} (pathLenConstraint)",
                    label(self.leaf),
                    self.describe(position, certificate)
                );
                return Err((RejectionReason::ChainTooLong, detail));
            }
            below += u32::from(!certificate.is_self_issued());
        }
        Ok(())
    }

    fn check_strength(&self, position: usize, certificate: &Certificate) -> Result<(), Finding> {
        match certificate.weakness() {
            None => Ok(()),
            // Nobody checks an anchor's own signature.
            Some(Weakness::WeakDigest) if self.is_anchor(position) => Ok(()),
            Some(weakness) => {
                let detail = format!("{}: {weakness}", self.describe(position, certificate));
                Err((RejectionReason::NotAccepted, detail))
            }
        }
    }

    fn check_time(&self, position: usize, certificate: &Certificate, now: UnixTime) -> Result<(), Finding> {
        let what = || self.describe(position, certificate);
        if now < certificate.not_before() {
            let detail = format!("{} is not valid before {}", what(), utc(certificate.not_before()));
            return Err((RejectionReason::NotYetValid, detail));
        }
        if now > certificate.not_after() {
            let detail = format!("{} expired on {}", what(), utc(certificate.not_after()));
            return Err((RejectionReason::Expired, detail));
        }
        Ok(())
    }

    /// A certificate that is revoked says more than one of which nobody knows.
    pub(super) fn check_revocation(
        &self,
        policy: &TrustPolicy,
        when_stale: WhenStale,
        revoked: &RevocationIndex,
        now: UnixTime,
    ) -> Result<(), Finding> {
        if revoked.is_empty() && policy.when_missing == WhenMissing::Believe {
            return Ok(());
        }
        let mut unknown = Ok(());
        for (position, certificate) in self.certificates().enumerate() {
            // Nobody but the operator can revoke a root, and a leaf may have the root's serial.
            if self.is_anchor(position) && certificate.is_self_issued() {
                continue;
            }
            let what = || self.describe(position, certificate);
            let checked = revoked
                .check(certificate, &what, when_stale, now)
                .and_then(|()| revoked.check_presence(certificate, &what, policy.when_missing));
            match checked {
                Err((RejectionReason::Revoked, _)) => return checked,
                _ => unknown = unknown.and(checked),
            }
        }
        unknown
    }

    fn is_anchor(&self, position: usize) -> bool {
        position == self.intermediates.len() + 1
    }

    /// How to call the certificate at `position` in a sentence.
    fn describe(&self, position: usize, certificate: &Certificate) -> String {
        let role = match position {
            0 => "",
            _ if self.is_anchor(position) => "trust anchor ",
            _ => "intermediate ",
        };
        format!("{role}{}", label(certificate))
    }
}

pub(super) fn leaf_is_ca(leaf: &Certificate) -> Finding {
    let detail = format!("{} is that of a CA, not of a client", label(leaf));
    (RejectionReason::LeafIsCa, detail)
}

pub(super) fn not_for_clients(leaf: &Certificate) -> Finding {
    let detail =
        format!("{} is not meant for TLS clients: its extendedKeyUsage lacks clientAuth", label(leaf));
    (RejectionReason::WrongUsage, detail)
}
