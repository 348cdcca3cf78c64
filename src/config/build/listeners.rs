//! Listeners: addresses, TLS, who is asked for a certificate.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::file::{
    CertificateFile, LimitsFile, ListenerFile, ModeFile, OcspFile, ProtocolFile, ServerCertificateFile,
    TlsFile,
};
use super::super::scalar::Span;
use super::super::types::{
    CertificateFiles, ClientAuth, ClientAuthMode, ListenAddress, ListenerConfig, ListenerLimits, OcspConfig,
    OcspSource, Protocol, ResponderConfig, ServerCertificateConfig, TicketKeySource, TlsConfig, TlsVersion,
};
use super::door::DoorFile;
use super::lists::FETCH_TIMEOUT;
use super::{Builder, quoted};
use crate::framing::Limits;

/// In place of the URL of an OCSP responder.
const FROM_CERTIFICATE: &str = "from_certificate";

const DEFAULT_GROUPS: &[&str] = &["X25519MLKEM768", "X25519", "P-256", "P-384"];

const DEFAULT_TICKET_LIFETIME: Duration = Duration::from_secs(3600);
const LONGEST_TICKET_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const DEFAULT_ROTATION: Duration = Duration::from_secs(12 * 3600);
const LONGEST_ROTATION: Duration = LONGEST_TICKET_LIFETIME;
/// Each ticket is looked for among them.
const MOST_KEYS: u32 = 32;

impl Builder {
    pub(super) fn listener(&mut self, index: usize, at: &str, file: ListenerFile) -> Option<ListenerConfig> {
        self.check_name(at, file.name.as_ref());
        let address = self.listen_address(&format!("{at}.address"), &file.address);
        let certificates: Vec<_> = file
            .tls
            .certificates
            .iter()
            .enumerate()
            .map(|(number, file)| self.server_certificate(format!("{at}.tls.certificates[{number}]"), file))
            .collect();
        if certificates.is_empty() {
            self.problem(format!("{at}.tls.certificates"), "there are none", Some("at least one"), None);
        }
        let (ticket_lifetime, ticket_keys) = self.tickets(&format!("{at}.tls"), &file.tls);
        let minimum =
            self.version(&format!("{at}.tls.minimum_version"), file.tls.minimum_version, TlsVersion::Tls12);
        let maximum =
            self.version(&format!("{at}.tls.maximum_version"), file.tls.maximum_version, TlsVersion::Tls13);
        if minimum > maximum {
            self.problem(format!("{at}.tls"), "the minimum version is above the maximum version", None, None);
        }
        let protocols = file.protocols.unwrap_or_else(|| vec![ProtocolFile::H2, ProtocolFile::Http1]);
        if protocols.is_empty() {
            self.problem(format!("{at}.protocols"), "there are none", Some("`[h2, http/1.1]`"), None);
        }
        let (tls13_ciphers, ciphers) = self.ciphers(&format!("{at}.tls.ciphers"), file.tls.ciphers);
        let groups = file.tls.groups;
        let limits = self.limits(&format!("{at}.limits"), at, &file.limits);
        let door = DoorFile {
            allow_from: file.allow_from.as_deref(),
            deny_from: &file.deny_from,
            exempt: &file.limits.exempt,
            per_address: &file.limits.per_address,
            per_network: &file.limits.per_network,
            proxy_protocol: file.proxy_protocol.as_ref(),
        };
        let door = self.door(at, &limits, &door);
        let client_auth = self.client_auth(at, file.client_auth.mode, &file.client_auth.trust);
        Some(ListenerConfig {
            name: file.name.unwrap_or_else(|| format!("listener-{}", index + 1)).into(),
            address: address?,
            protocols: protocols.into_iter().map(protocol).collect(),
            tls: TlsConfig {
                certificates,
                minimum_version: minimum,
                maximum_version: maximum,
                ciphers,
                tls13_ciphers,
                groups: groups
                    .unwrap_or_else(|| DEFAULT_GROUPS.iter().map(|&group| group.to_owned()).collect()),
                session_tickets: file.tls.session_tickets.unwrap_or(true),
                ticket_lifetime,
                ticket_keys,
            },
            client_auth: ClientAuth {
                send_ca_names: file.client_auth.send_ca_names.unwrap_or(true),
                ..client_auth?
            },
            limits,
            door,
        })
    }

    fn limits(&mut self, key: &str, at: &str, file: &LimitsFile) -> ListenerLimits {
        let span = |span: Option<Span>, default| span.map_or(default, |span| span.0);
        ListenerLimits {
            handshake_timeout: span(file.handshake_timeout, Duration::from_secs(5)),
            handshakes_in_flight: self.positive(at, "handshakes_in_flight", file.handshakes_in_flight, 4096),
            connections: self.positive(at, "connections", file.connections, 100_000),
            keepalive_timeout: span(file.keepalive_timeout, Duration::from_secs(60)),
            request_header_timeout: span(file.request_header_timeout, Duration::from_secs(10)),
            body_timeout: span(file.body_timeout, Duration::from_secs(60)),
            min_bytes_per_second: self.between(
                key,
                "min_bytes_per_second",
                file.min_bytes_per_second,
                250,
                1..=1 << 30,
            ),
            resets_per_second: self.between(
                key,
                "resets_per_second",
                file.resets_per_second,
                100,
                1..=1_000_000,
            ),
            request: self.request_limits(key, file),
        }
    }

    /// What is allowed at most is what everybody who reads the request can take.
    fn request_limits(&mut self, key: &str, file: &LimitsFile) -> Limits {
        let default = Limits::DEFAULT;
        let head = self.between(key, "max_head_bytes", file.max_head_bytes, default.head, 1024..=1 << 19);
        let target = default.target.min(head / 2);
        Limits {
            head,
            fields: self.between(key, "max_fields", file.max_fields, default.fields, 16..=250),
            target: self.between(key, "max_target_bytes", file.max_target_bytes, target, 64..=head),
            body: self.between(key, "max_body_bytes", file.max_body_bytes, default.body, 1..=1 << 50),
            trailers: self.between(
                key,
                "max_trailer_bytes",
                file.max_trailer_bytes,
                default.trailers,
                1..=1 << 15,
            ),
        }
    }

    /// How long a session lives, and what seals it.
    fn tickets(&mut self, at: &str, file: &TlsFile) -> (Duration, TicketKeySource) {
        let lifetime = file.ticket_lifetime.as_ref().map_or(DEFAULT_TICKET_LIFETIME, |span| span.0);
        if lifetime > LONGEST_TICKET_LIFETIME {
            let expected = Some("at most 7d (RFC 8446, section 4.6.1)");
            self.problem(format!("{at}.ticket_lifetime"), "it is too long", expected, None);
        }
        let generated = TicketKeySource::Generated { rotate: DEFAULT_ROTATION };
        let Some(keys) = &file.ticket_keys else { return (lifetime, generated) };
        let at = format!("{at}.ticket_keys");
        if file.session_tickets == Some(false) {
            self.problem(&at, "`session_tickets: false` leaves nothing to seal", Some("no such key"), None);
        }
        let source = match (&keys.rotate, &keys.file) {
            (Some(rotate), None) => {
                self.check_rotation(&format!("{at}.rotate"), rotate.0, lifetime);
                TicketKeySource::Generated { rotate: rotate.0 }
            }
            (None, Some(file)) => TicketKeySource::File(self.path(file)),
            (Some(_), Some(_)) => {
                let hint = "keys of a file are rotated by replacing the file".to_owned();
                self.problem(&at, "both `rotate` and `file`", Some("one of them"), Some(hint));
                generated
            }
            (None, None) => {
                self.problem(&at, "neither `rotate` nor `file`", Some("one of them, or no such key"), None);
                generated
            }
        };
        (lifetime, source)
    }

    fn check_rotation(&mut self, at: &str, rotate: Duration, lifetime: Duration) {
        if rotate > LONGEST_ROTATION {
            self.problem(at, "one key would seal for too long", Some("at most 7d"), None);
        }
        // Each of them opens until the last ticket it sealed has ended.
        if rotate * MOST_KEYS < lifetime {
            let found = format!("more than {MOST_KEYS} keys would have to be held");
            let hint = "a longer time, or a shorter `ticket_lifetime`".to_owned();
            self.problem(at, found, None, Some(hint));
        }
    }

    fn listen_address(&mut self, at: &str, text: &str) -> Option<ListenAddress> {
        if let Some(name) = text.strip_prefix("systemd:").filter(|name| !name.is_empty()) {
            return Some(ListenAddress::Systemd(name.to_owned()));
        }
        let address =
            text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).map(ListenAddress::Tcp);
        if address.is_none() {
            let expected =
                "an IP address with a port, such as `0.0.0.0:8443` or `[::]:8443`, or `systemd:NAME`";
            self.problem(at, format!("`{text}` is not an address"), Some(expected), None);
        }
        address
    }

    fn version(&mut self, at: &str, text: Option<String>, default: TlsVersion) -> TlsVersion {
        match text.as_deref() {
            None => default,
            Some("1.2") => TlsVersion::Tls12,
            Some("1.3") => TlsVersion::Tls13,
            Some(other) => {
                self.problem(
                    at,
                    format!("`{other}` is not spoken here"),
                    Some("`\"1.2\"` or `\"1.3\"`"),
                    None,
                );
                default
            }
        }
    }

    /// Those of TLS 1.3, and those of TLS 1.2. The libraries' words for whole families of ciphers are not read: what a word
    /// such as `ALL` stands for is another thing in each of them.
    fn ciphers(&mut self, at: &str, names: Option<Vec<String>>) -> (Vec<String>, Vec<String>) {
        if names.as_ref().is_some_and(Vec::is_empty) {
            self.problem(at, "there are none", Some("at least one, or no such key"), None);
        }
        let is_cipher = |name: &String| {
            let mut words = name.split(['-', '_']);
            words.clone().count() > 1
                && words.all(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        };
        let names = names.unwrap_or_default();
        for name in names.iter().filter(|name| !is_cipher(name)) {
            let expected =
                "`TLS_AES_128_GCM_SHA256` for TLS 1.3, `ECDHE-RSA-AES128-GCM-SHA256` for TLS 1.2, …";
            self.problem(at, format!("`{name}` is not the name of a cipher suite"), Some(expected), None);
        }
        names.into_iter().partition(|name| name.starts_with("TLS_"))
    }

    fn server_certificate(&mut self, at: String, file: &ServerCertificateFile) -> ServerCertificateConfig {
        let ocsp = file.ocsp.as_ref().and_then(|ocsp| self.ocsp(&format!("{at}.ocsp"), ocsp));
        let files = CertificateFiles { chain: self.path(&file.chain), key: self.path(&file.key), at };
        ServerCertificateConfig { files, ocsp }
    }

    fn ocsp(&mut self, at: &str, file: &OcspFile) -> Option<OcspConfig> {
        let source = match (&file.file, &file.responder) {
            (Some(response), None) => OcspSource::File(self.path(response)),
            (None, Some(responder)) => {
                let url = (responder != FROM_CERTIFICATE)
                    .then(|| self.fetch_url(&format!("{at}.responder"), responder));
                let timeout = file.timeout.map_or(FETCH_TIMEOUT, |span| span.0);
                OcspSource::Responder(ResponderConfig { url, timeout, kept: PathBuf::new() })
            }
            _ => {
                let found = "one thing must say where the response comes from";
                self.problem(at, found, Some("either `file` or `responder`"), None);
                return None;
            }
        };
        let issuer = file.issuer.as_deref().map(|issuer| self.path(issuer));
        Some(OcspConfig { source, issuer })
    }

    pub(super) fn certificate(&self, at: String, files: &CertificateFile) -> CertificateFiles {
        CertificateFiles { chain: self.path(&files.chain), key: self.path(&files.key), at }
    }

    fn client_auth(&mut self, at: &str, mode: Option<ModeFile>, trust: &[String]) -> Option<ClientAuth> {
        let mode = match mode.unwrap_or(ModeFile::Require) {
            ModeFile::Require => ClientAuthMode::Require,
            ModeFile::Optional => ClientAuthMode::Optional,
            ModeFile::Off => ClientAuthMode::Off,
        };
        let at = format!("{at}.client_auth.trust");
        if mode == ClientAuthMode::Off && !trust.is_empty() {
            self.problem(&at, "`mode: off` asks for no certificate", Some("no trust domains"), None);
        }
        if mode != ClientAuthMode::Off && trust.is_empty() {
            let hint = match self.trust.as_slice() {
                [] => "define one under `trust`".to_owned(),
                known => format!("there are {}", quoted(known)),
            };
            let expected = Some("the trust domains whose clients may enter here");
            self.problem(&at, "missing: nobody could enter", expected, Some(hint));
        }
        let names: Vec<_> = trust
            .iter()
            .enumerate()
            .map(|(number, name)| self.reference(format!("{at}[{number}]"), "trust domain", name))
            .collect();
        Some(ClientAuth { mode, trust: names.into_iter().collect::<Option<_>>()?, send_ca_names: true })
    }
}

fn protocol(file: ProtocolFile) -> Protocol {
    match file {
        ProtocolFile::H2 => Protocol::H2,
        ProtocolFile::Http1 => Protocol::Http1,
    }
}
