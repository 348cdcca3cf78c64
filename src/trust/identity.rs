//! Who a client is. Only `trust` can make one: holding it is the evidence that its chain was believed.

use std::sync::Arc;

use super::Anchor;
use crate::UnixTime;
use crate::certificate::Certificate;

/// A believed client. Shared by all requests of a connection.
#[derive(Debug)]
pub struct ClientIdentity {
    trust_domain: Arc<str>,
    anchor: Arc<Anchor>,
    certificate: Certificate,
    intermediates: Vec<Vec<u8>>,
    valid_until: UnixTime,
}

impl ClientIdentity {
    /// `path`: leaf first, anchor last.
    pub(super) fn new(
        trust_domain: Arc<str>,
        anchor: Arc<Anchor>,
        certificate: Certificate,
        path: &[Certificate],
    ) -> Self {
        let between = path.get(1..path.len().saturating_sub(1)).unwrap_or_default();
        Self {
            trust_domain,
            anchor,
            valid_until: path.iter().map(Certificate::not_after).min().unwrap_or(certificate.not_after()),
            intermediates: between.iter().map(|certificate| certificate.der().to_vec()).collect(),
            certificate,
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(trust_domain: &str, certificate: Certificate) -> Self {
        let anchor = Arc::new(Anchor {
            subject: "CN=Test".into(),
            fingerprint: crate::certificate::Fingerprint([7; 32]),
            not_after: i64::MAX,
        });
        Self::new(trust_domain.into(), anchor, certificate, &[])
    }

    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    pub fn anchor(&self) -> &Arc<Anchor> {
        &self.anchor
    }

    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// DER of the verified path, without leaf and anchor.
    pub fn intermediates(&self) -> &[Vec<u8>] {
        &self.intermediates
    }

    /// When the first certificate of the path expires.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }
}
