//! OCSP responses that go along with our certificates.

use std::sync::Arc;

use openssl::x509::X509;

use super::Loader;
use crate::certificate::Certificate;
use crate::config::{OcspConfig, ServerCertificateConfig};
use crate::runtime::StapleSummary;
use crate::tls::{Staple, must_be_stapled};

impl Loader<'_> {
    /// A response that cannot be used is none: clients that insist on one refuse us, but no others.
    pub(super) fn staple(
        &mut self,
        certificate: &ServerCertificateConfig,
        chain: &[X509],
        listener: &Arc<str>,
        leaf: &Certificate,
    ) -> Option<Staple> {
        let at = format!("{}.ocsp", certificate.files.at);
        let Some(ocsp) = &certificate.ocsp else {
            if must_be_stapled(&chain[0]) {
                self.warnings.push(format!(
                    "{at}: missing, but `{}` tells clients to insist on an OCSP response (must-staple)",
                    leaf.subject()
                ));
            }
            return None;
        };
        let staple = self.response(&at, ocsp, chain);
        self.staples.push(StapleSummary {
            listener: listener.clone(),
            subject: leaf.subject().to_string(),
            next_update: staple.as_ref().map(|staple| staple.next_update),
        });
        staple
    }

    fn response(&mut self, at: &str, ocsp: &OcspConfig, chain: &[X509]) -> Option<Staple> {
        let issuer = self.issuer(at, ocsp, chain)?;
        let at = format!("{at}.file");
        let response = self.read(&at, &ocsp.response)?;
        let file = ocsp.response.display();
        match Staple::read(&response, &chain[0], &issuer, self.now) {
            Ok(staple) => Some(staple),
            Err(error) if error.is_about_us() => {
                self.warnings.push(format!("{at}: `{file}` is not stapled: {error}"));
                None
            }
            Err(error) => {
                self.problem(at, format!("`{file}` cannot be used: {error}"), None, None);
                None
            }
        }
    }

    fn issuer(&mut self, at: &str, ocsp: &OcspConfig, chain: &[X509]) -> Option<X509> {
        let at = format!("{at}.issuer");
        let issuer = match &ocsp.issuer {
            Some(file) => self.authorities(&at, file)?.into_iter().next(),
            None => chain.get(1).cloned(),
        };
        let Some(issuer) = issuer else {
            let hint = Some("name a PEM file with it, or add it to the chain");
            self.problem(
                at,
                "the chain does not have the certificate of whoever issued the leaf".into(),
                None,
                hint,
            );
            return None;
        };
        let is_issuer = issuer.public_key().is_ok_and(|key| chain[0].verify(&key).unwrap_or(false));
        if !is_issuer {
            let found = "this is not the certificate of whoever issued the leaf".into();
            self.problem(at, found, Some("one PEM block of type CERTIFICATE"), None);
            return None;
        }
        Some(issuer)
    }
}
