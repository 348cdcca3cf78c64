//! Who a client is, once it is believed.

use std::sync::Arc;

use super::glance::Glance;
use super::{Anchor, Standing};
use crate::UnixTime;
use crate::certificate::Certificate;

/// A verified client. Holding one is the proof: nothing outside of [`trust`](super) can make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    trust_domain: Arc<str>,
    anchor: Arc<Anchor>,
    certificate: Certificate,
    intermediates: Vec<Vec<u8>>,
    /// What the client presented besides: no part of the verified path, but another domain may have one of it.
    others: Vec<Vec<u8>>,
    standing: Standing,
    valid_until: UnixTime,
    glance: Glance,
    voucher: [u8; 32],
}

/// What a client showed besides its own certificate, as DER, and a glance at all of it.
pub(super) struct Companions {
    /// The verified path without leaf and anchor.
    pub intermediates: Vec<Vec<u8>>,
    pub others: Vec<Vec<u8>>,
    pub glance: Glance,
}

impl ClientIdentity {
    pub(super) fn new(
        trust_domain: Arc<str>,
        anchor: Arc<Anchor>,
        certificate: Certificate,
        companions: Companions,
        standing: Standing,
        valid_until: UnixTime,
    ) -> Self {
        let Companions { intermediates, others, glance } = companions;
        let voucher = openssl::sha::sha256(&[&anchor.fingerprint.0, trust_domain.as_bytes()].concat());
        Self {
            trust_domain,
            anchor,
            certificate,
            intermediates,
            others,
            standing,
            valid_until,
            glance,
            voucher,
        }
    }

    /// An identity that nobody verified, for the tests of other modules.
    #[cfg(test)]
    pub(crate) fn for_tests(trust_domain: &str, certificate: Certificate) -> Self {
        let anchor = Anchor {
            subject: certificate.issuer().to_string(),
            fingerprint: crate::certificate::Fingerprint([0xaa; 32]),
            not_after: certificate.not_after(),
        };
        let valid_until = certificate.not_after();
        let companions = Companions {
            intermediates: Vec::new(),
            others: Vec::new(),
            glance: Glance::at([Some(certificate.serial())].into_iter()),
        };
        let (anchor, standing) = (Arc::new(anchor), Standing::Good);
        Self::new(trust_domain.into(), anchor, certificate, companions, standing, valid_until)
    }

    #[cfg(test)]
    pub(crate) fn quarantined(self, fault: super::Fault) -> Self {
        Self { standing: Standing::Quarantined(fault), ..self }
    }

    /// The domain that vouches for the client: its names mean something only there.
    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    /// The anchor at the end of the verified path.
    pub fn anchor(&self) -> &Arc<Anchor> {
        &self.anchor
    }

    /// Tells domain and anchor together from all others, on every node: what a TLS session is bound to.
    pub fn voucher(&self) -> &[u8; 32] {
        &self.voucher
    }

    /// The leaf.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The verified path without leaf and anchor, as DER, the leaf's issuer first.
    pub fn intermediates(&self) -> &[Vec<u8>] {
        &self.intermediates
    }

    /// Everything that was presented, as DER, the verified path first.
    pub(super) fn presented(&self) -> impl Iterator<Item = &[u8]> {
        let rest = self.intermediates.iter().chain(&self.others).map(Vec::as_slice);
        std::iter::once(self.certificate.der()).chain(rest)
    }

    /// Whether anything is wrong with it.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// At the serials of everything that was presented.
    pub(super) fn glance(&self) -> Glance {
        self.glance
    }

    /// The earliest notAfter on the path, anchor included: from then on a fresh handshake would fail. An expired client
    /// that may enter all the same counts until its span is over.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }
}
