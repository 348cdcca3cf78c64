//! OCSP responses that go along with our certificates.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use openssl::x509::X509;

use super::Loader;
use crate::certificate::Certificate;
use crate::config::{OcspConfig, OcspSource, ResponderConfig, ServerCertificateConfig};
use crate::fetch::WantedStaple;
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
        let issuer = self.issuer(&at, ocsp, chain)?;
        let (staple, wanted) = match &ocsp.source {
            OcspSource::File(file) => (self.response(&at, file, &chain[0], &issuer), None),
            OcspSource::Responder(responder) => {
                let url = self.responder(&at, responder, &chain[0])?;
                let staple = self.answer(&at, responder, &chain[0], &issuer);
                let wanted = WantedStaple {
                    listener: listener.clone(),
                    subject: leaf.subject().to_string(),
                    url,
                    timeout: responder.timeout,
                    chain: certificate.files.chain.clone(),
                    issuer: ocsp.issuer.clone(),
                    kept: responder.kept.clone(),
                    is_missing: staple.is_none(),
                };
                (staple, Some(wanted))
            }
        };
        self.staples.push(StapleSummary {
            listener: listener.clone(),
            subject: leaf.subject().to_string(),
            next_update: staple.as_ref().map(|staple| staple.next_update),
            is_required: must_be_stapled(&chain[0]),
            wanted,
        });
        staple
    }

    fn response(&mut self, at: &str, file: &Path, leaf: &X509, issuer: &X509) -> Option<Staple> {
        let at = format!("{at}.file");
        let response = self.read(&at, file)?;
        let file = file.display();
        match Staple::read(&response, leaf, issuer, self.now) {
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

    /// What the responder said last. That there is nothing, or nothing of use, is no fault: it will be asked.
    fn answer(
        &mut self,
        at: &str,
        responder: &ResponderConfig,
        leaf: &X509,
        issuer: &X509,
    ) -> Option<Staple> {
        let kept = responder.kept.display();
        let found = match std::fs::read(&responder.kept) {
            Ok(bytes) => match Staple::read(&bytes, leaf, issuer, self.now) {
                Ok(staple) => return Some(staple),
                Err(error) => format!("what is kept in `{kept}` is not stapled: {error}"),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => "no response was obtained yet".to_owned(),
            Err(error) => format!("what is kept in `{kept}` cannot be read: {error}"),
        };
        self.warnings.push(format!("{at}.responder: {found}; until there is another, none is stapled"));
        None
    }

    fn responder(&mut self, at: &str, responder: &ResponderConfig, leaf: &X509) -> Option<String> {
        if let Some(url) = &responder.url {
            return Some(url.clone());
        }
        let named = leaf.ocsp_responders().ok();
        let urls = named.iter().flatten().map(ToString::to_string);
        let url = urls.into_iter().find(|url| url.starts_with("http://") || url.starts_with("https://"));
        if url.is_none() {
            let found = "the certificate names no OCSP responder".into();
            self.problem(format!("{at}.responder"), found, Some("the URL of one"), None);
        }
        url
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
