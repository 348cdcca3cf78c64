//! The TLS contexts of one listener: one for each of its certificates, chosen by SNI (RFC 6066, section 3).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    AlpnError, NameType, SslContext, SslContextBuilder, SslMethod, SslMode, SslSessionCacheMode, SslVersion,
};
use openssl::x509::X509;

use crate::config::{ClientAuthMode, ListenerConfig, Protocol, TlsConfig, TlsVersion};
use crate::tls::{self, Demand, SessionTerms, Staple, TicketKeys};
use crate::trust::TrustSet;

/// A certificate chain, leaf first, with the leaf's key.
pub struct ServerCertificate {
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    /// DNS names of the leaf, lower case; the common name where it has no DNS name at all.
    pub names: Vec<String>,
    /// The word of its authority that it is not revoked.
    pub staple: Option<Staple>,
}

/// Above this many bytes of names a handshake grows so large that clients break off; then no names are sent.
const LARGEST_CA_NAMES: usize = 16 * 1024;

/// Ready to accept connections.
#[derive(Clone)]
pub struct ServerContexts {
    default: SslContext,
    choice: Arc<Choice>,
    terms: SessionTerms,
}

/// Which certificate answers to which name. The first certificate answers to everything else.
struct Choice {
    /// Of the certificates after the first.
    others: Vec<SslContext>,
    exact: HashMap<String, usize>,
    /// Parent domain of `*.parent` → certificate.
    wildcard: HashMap<String, usize>,
}

impl Choice {
    fn index(&self, name: &str) -> usize {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(&index) = self.exact.get(&name) {
            return index;
        }
        name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)).copied().unwrap_or(0)
    }
}

impl ServerContexts {
    pub fn build(
        listener: &ListenerConfig,
        certificates: &[ServerCertificate],
        trust: Option<&TrustSet>,
        keys: &Arc<TicketKeys>,
    ) -> Result<Self, ErrorStack> {
        let terms = session_terms(listener, trust);
        let builder = |certificate| {
            let mut builder = builder(listener, certificate, trust)?;
            sessions(&mut builder, listener, &terms, keys)?;
            Ok(builder)
        };
        // The configuration has at least one certificate; without any there is nothing to build.
        let (first, others) = certificates.split_first().ok_or_else(ErrorStack::get)?;
        let mut first: SslContextBuilder = builder(first)?;
        let others: Result<Vec<SslContext>, ErrorStack> =
            others.iter().map(|other| Ok(builder(other)?.build())).collect();
        let (exact, wildcard) = names(certificates);
        let choice = Arc::new(Choice { others: others?, exact, wildcard });
        if certificates.len() > 1 {
            choose_by_sni(&mut first, choice.clone());
        }
        Ok(Self { default: first.build(), choice, terms })
    }

    /// The context that new connections start with; it changes itself once the client named a server.
    pub fn context(&self) -> &SslContext {
        &self.default
    }

    /// What its TLS sessions are bound to.
    pub fn session_terms(&self) -> SessionTerms {
        self.terms
    }

    /// For each certificate a name by which a client gets it, in their order. `None`: a client that asks for no name gets
    /// the first one. A certificate whose names are all another one's has none.
    pub(super) fn names(&self) -> Vec<Option<String>> {
        let exact = self.choice.exact.iter().map(|(name, &index)| (index, name.clone()));
        let wildcard = self.choice.wildcard.iter().map(|(parent, &index)| (index, format!("any.{parent}")));
        let by_index: BTreeMap<usize, String> =
            wildcard.chain(exact).filter(|(index, _)| *index > 0).collect();
        std::iter::once(None).chain(by_index.into_values().map(Some)).collect()
    }

    /// Whether a request for `host` may come over a connection that asked for `sni`: both must lead to the same
    /// certificate (RFC 9110, section 7.4).
    pub fn same_server(&self, sni: &str, host: &str) -> bool {
        self.choice.others.is_empty() || self.choice.index(sni) == self.choice.index(host)
    }
}

fn names(certificates: &[ServerCertificate]) -> (HashMap<String, usize>, HashMap<String, usize>) {
    let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
    for (index, certificate) in certificates.iter().enumerate() {
        for name in &certificate.names {
            match name.strip_prefix("*.") {
                Some(parent) => wildcard.entry(parent.to_owned()).or_insert(index),
                None => exact.entry(name.clone()).or_insert(index),
            };
        }
    }
    (exact, wildcard)
}

fn choose_by_sni(builder: &mut SslContextBuilder, choice: Arc<Choice>) {
    builder.set_servername_callback(move |ssl, _alert| {
        let index = ssl.servername(NameType::HOST_NAME).map_or(0, |name| choice.index(name));
        if let Some(other) = index.checked_sub(1).and_then(|other| choice.others.get(other)) {
            // On failure the default certificate answers, which the client will refuse by itself.
            let _ = ssl.set_ssl_context(other);
        }
        Ok(())
    });
}

fn builder(
    listener: &ListenerConfig,
    certificate: &ServerCertificate,
    trust: Option<&TrustSet>,
) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = tls::server(&certificate.chain, &certificate.key)?;
    if let Some(staple) = &certificate.staple {
        tls::staple(&mut builder, staple)?;
    }
    protocol(&mut builder, &listener.tls)?;
    alpn(&mut builder, &listener.protocols);
    if let Some(trust) = trust {
        let demand = match listener.client_auth.mode {
            ClientAuthMode::Require => Demand::Require,
            ClientAuthMode::Optional | ClientAuthMode::Off => Demand::Ask,
        };
        tls::verify_clients(&mut builder, demand);
        if listener.client_auth.send_ca_names {
            ca_names(&mut builder, trust)?;
        }
    }
    Ok(builder)
}

fn protocol(builder: &mut SslContextBuilder, tls: &TlsConfig) -> Result<(), ErrorStack> {
    builder.set_min_proto_version(Some(version(tls.minimum_version)))?;
    builder.set_max_proto_version(Some(version(tls.maximum_version)))?;
    tls::harden(builder);
    builder.set_mode(
        SslMode::RELEASE_BUFFERS | SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER,
    );
    builder.set_read_ahead(true);
    match tls.ciphers.as_slice() {
        [] => builder.set_cipher_list(DEFAULT_CIPHERS)?,
        ciphers => builder.set_cipher_list(&ciphers.join(":"))?,
    }
    if !tls.tls13_ciphers.is_empty() {
        tls::set_tls13_ciphers(builder, &tls.tls13_ciphers.join(":"))?;
    }
    builder.set_groups_list(&supported_groups(&tls.groups).join(":"))
}

/// Forward secrecy and authenticated encryption only (RFC 9325, section 4.2). TLS 1.3 has no others.
const DEFAULT_CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// The cipher suites that the library does not know: it would leave them out of a list without a word.
pub fn unknown_ciphers(tls: &TlsConfig) -> Vec<&str> {
    let is_known = |cipher: &str| {
        SslContextBuilder::new(SslMethod::tls_server()).is_ok_and(|mut probe| {
            if tls.tls13_ciphers.iter().any(|known| known == cipher) {
                tls::set_tls13_ciphers(&mut probe, cipher).is_ok()
            } else {
                probe.set_cipher_list(cipher).is_ok()
            }
        })
    };
    let ciphers = tls.tls13_ciphers.iter().chain(&tls.ciphers).map(String::as_str);
    ciphers.filter(|cipher| !is_known(cipher)).collect()
}

/// The groups that the library knows: an older OpenSSL has no X25519MLKEM768, and would refuse the whole list.
pub fn supported_groups(groups: &[String]) -> Vec<&str> {
    groups.iter().map(String::as_str).filter(|group| group_is_known(group)).collect()
}

fn group_is_known(group: &str) -> bool {
    SslContextBuilder::new(SslMethod::tls_server())
        .is_ok_and(|mut probe| probe.set_groups_list(group).is_ok())
}

pub(super) fn version(version: TlsVersion) -> SslVersion {
    match version {
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }
}

/// Sessions live in tickets only: nothing grows with the number of clients. The context ties a ticket to the listener's
/// terms, so that one policy's session is worth nothing under another, should our own comparison ever not have run.
fn sessions(
    builder: &mut SslContextBuilder,
    listener: &ListenerConfig,
    terms: &SessionTerms,
    keys: &Arc<TicketKeys>,
) -> Result<(), ErrorStack> {
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_session_id_context(terms.policy())?;
    if listener.tls.session_tickets {
        tls::seal_sessions(builder, keys.clone(), listener.tls.ticket_lifetime)
    } else {
        tls::no_sessions(builder);
        Ok(())
    }
}

/// Everything but certificates and anchors: whether a client would be believed is asked anew, so that certificates,
/// anchors and lists can change without a full handshake of every client.
fn session_terms(listener: &ListenerConfig, trust: Option<&TrustSet>) -> SessionTerms {
    let tls = &listener.tls;
    if !tls.session_tickets {
        return SessionTerms::none();
    }
    let settings = [listener.client_auth.mode as u8, tls.minimum_version as u8, tls.maximum_version as u8];
    let lists = [&tls.ciphers, &tls.tls13_ciphers, &tls.groups].map(|names| names.join(":"));
    let fixed = [listener.name.as_bytes(), &settings].into_iter().chain(lists.iter().map(String::as_bytes));
    let domains = trust.into_iter().flat_map(TrustSet::domains).map(|domain| domain.name().as_bytes());
    // A client that showed no certificate may have one for an anchor that is new.
    let anchors = trust.into_iter().flat_map(TrustSet::anchors);
    let anchors = anchors.flat_map(|(domain, anchor)| [domain.as_bytes(), &anchor.fingerprint.0]);
    SessionTerms::new(fixed.chain(domains), anchors, tls.ticket_lifetime)
}

fn alpn(builder: &mut SslContextBuilder, protocols: &[Protocol]) {
    let ours: Vec<&'static [u8]> = protocols
        .iter()
        .map(|protocol| match protocol {
            Protocol::H2 => b"h2".as_slice(),
            Protocol::Http1 => b"http/1.1",
        })
        .collect();
    builder.set_alpn_select_callback(move |_ssl, offered| {
        // Our order decides. Nothing in common is a fatal alert (RFC 7301, section 3.2).
        ours.iter()
            .find_map(|ours| alpn_names(offered).find(|name| name == ours))
            .ok_or(AlpnError::ALERT_FATAL)
    });
}

/// The names of an ALPN extension: each has its length in the byte before it.
fn alpn_names(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, rest) = wire.split_first()?;
        let (name, rest) = rest.split_at_checked(len.into())?;
        wire = rest;
        Some(name)
    })
}

fn ca_names(builder: &mut SslContextBuilder, trust: &TrustSet) -> Result<(), ErrorStack> {
    let names = trust.ca_names();
    let size: usize = names.iter().map(|name| name.len()).sum();
    if size > LARGEST_CA_NAMES {
        log::warn!(
            "the names of {} trust anchors take {size} bytes, too many for a handshake: none are sent \
             (hint: `client_auth.send_ca_names: false` says so in the configuration)",
            names.len()
        );
        return Ok(());
    }
    tls::name_authorities(builder, trust)
}
