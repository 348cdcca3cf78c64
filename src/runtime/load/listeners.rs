//! Listeners: their certificates, whom they believe, and the proof that strangers stay out.

use std::sync::Arc;

use super::super::{CertificateSummary, ListenerRuntime, ListenerTickets};
use super::Loader;
use crate::certificate::{AttributeKind, Certificate, SubjectAltName};
use crate::config::{ClientAuthMode, Config, ListenerConfig, ServerCertificateConfig};
use crate::listener::contexts::{ServerCertificate, ServerContexts, supported_groups, unknown_ciphers};
use crate::listener::refuses_strangers;
use crate::telemetry::HandshakeFailure;
use crate::trust::{TrustDomain, TrustSet};

impl Loader<'_> {
    pub(super) fn listener(
        &mut self,
        index: usize,
        listener: &ListenerConfig,
        domains: &[Arc<TrustDomain>],
    ) -> Option<Arc<ListenerRuntime>> {
        let before = self.problems.len();
        let mut certificates = Vec::new();
        for certificate in &listener.tls.certificates {
            certificates.extend(self.server_certificate(certificate, &listener.name));
        }
        self.check_groups(index, &listener.tls.groups);
        for cipher in unknown_ciphers(&listener.tls) {
            let found = format!("the TLS library does not know `{cipher}`, or takes it for too weak");
            self.problem(format!("listeners[{index}].tls.ciphers"), found, None, None);
        }
        let mut trusted = Vec::new();
        for name in &listener.client_auth.trust {
            // A domain that could not be loaded has its own problem already.
            trusted.push(domains.iter().find(|domain| domain.name() == name)?.clone());
        }
        let tickets = self.tickets(index, listener);
        if self.problems.len() > before {
            return None;
        }
        let tickets = tickets?;
        let trust =
            (listener.client_auth.mode != ClientAuthMode::Off).then(|| Arc::new(TrustSet::new(trusted)));
        let keys = tickets.keys();
        let contexts = match ServerContexts::build(listener, &certificates, trust.as_deref(), keys) {
            Ok(contexts) => contexts,
            Err(error) => {
                let at = format!("listeners[{index}].tls");
                self.problem(at, format!("the TLS library refuses these settings: {error}"), None, None);
                return None;
            }
        };
        self.prove(index, listener, &contexts, trust.as_ref())?;
        Some(Arc::new(ListenerRuntime {
            name: listener.name.clone(),
            address: listener.address.clone(),
            mode: listener.client_auth.mode,
            limits: listener.limits,
            door: Arc::new(listener.door.clone()),
            tickets,
            contexts,
            trust,
            metrics: self.surroundings.metrics.listener(&listener.name),
        }))
    }

    /// `trusted_proxies` are asked about the client whom a balancer names, so that the balancer itself is found there only
    /// where it does not say who the client is: who comes in such a way could write whatever it likes.
    pub(super) fn doubt_trusted_balancers(&mut self, config: &Config) {
        for (index, listener) in config.listeners.iter().enumerate() {
            let Some(proxies) = &listener.door.proxy_protocol else { continue };
            if let Some(both) = config.trusted_proxies.iter().find(|network| proxies.from.meet(**network)) {
                self.warnings.push(format!(
                    "trusted_proxies: `{both}` has balancers of `listeners[{index}].proxy_protocol.from`, which add no \
                     header fields; what their clients say in X-Forwarded-For must not be believed"
                ));
            }
        }
    }

    fn tickets(&mut self, index: usize, listener: &ListenerConfig) -> Option<ListenerTickets> {
        let previous = self.previous.and_then(|previous| previous.listeners.get(index));
        let at = format!("listeners[{index}].tls");
        let loaded = ListenerTickets::load(&listener.tls, &at, previous.map(|previous| &previous.tickets));
        loaded.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn check_groups(&mut self, index: usize, groups: &[String]) {
        let at = format!("listeners[{index}].tls.groups");
        let known = supported_groups(groups);
        if known.is_empty() {
            self.problem(at, "the TLS library knows none of these groups".into(), None, None);
            return;
        }
        for group in groups.iter().filter(|group| !known.contains(&group.as_str())) {
            self.warnings.push(format!("{at}: the TLS library does not know `{group}`; it is left out"));
        }
    }

    fn prove(
        &mut self,
        index: usize,
        listener: &ListenerConfig,
        contexts: &ServerContexts,
        trust: Option<&Arc<TrustSet>>,
    ) -> Option<()> {
        if listener.client_auth.mode != ClientAuthMode::Require {
            return Some(());
        }
        let at = format!("listeners[{index}].client_auth.mode");
        let Some(trust) = trust else {
            self.problem(at, "`require` without a trust domain".into(), None, None);
            return None;
        };
        match refuses_strangers(contexts, &listener.tls, trust) {
            Ok(unproven) => {
                let told = |(trial, failure): (_, HandshakeFailure)| {
                    format!(
                        "listeners[{index}].tls: no handshake in {trial} could be made: {}",
                        failure.sentence()
                    )
                };
                self.warnings.extend(unproven.into_iter().map(told));
                Some(())
            }
            Err(error) => {
                let expected = Some("a handshake without a certificate fails");
                self.problem(at, format!("`require` could not be proven: {error}"), expected, None);
                None
            }
        }
    }

    fn server_certificate(
        &mut self,
        certificate: &ServerCertificateConfig,
        listener: &Arc<str>,
    ) -> Option<ServerCertificate> {
        let files = &certificate.files;
        let (chain, key) = self.key_pair(files)?;
        let leaf = chain[0].to_der().ok().and_then(|der| Certificate::from_der(&der).ok());
        let Some(leaf) = leaf else {
            let found = format!("`{}` holds a malformed certificate", files.chain.display());
            self.problem(format!("{}.chain", files.at), found, None, None);
            return None;
        };
        if leaf.not_after() < self.now {
            self.warnings.push(format!("{}: certificate `{}` has expired", files.at, leaf.subject()));
        }
        self.certificates.push(CertificateSummary {
            kind: "server",
            name: listener.clone(),
            subject: leaf.subject().to_string(),
            not_after: leaf.not_after(),
        });
        let staple = self.staple(certificate, &chain, listener, &leaf);
        Some(ServerCertificate { chain, key, names: dns_names(&leaf), staple })
    }
}

/// The names a certificate answers to (RFC 6125): its DNS names, or the common name where there are none.
fn dns_names(leaf: &Certificate) -> Vec<String> {
    let names: Vec<String> = leaf
        .subject_alternative_names()
        .iter()
        .filter_map(|name| match name {
            SubjectAltName::Dns(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        leaf.subject().values(AttributeKind::CommonName).map(str::to_ascii_lowercase).collect()
    } else {
        names
    }
}
