//! Listeners: where they are, how they speak TLS, whom they ask for certificates.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ProxyProtocolFile, SourceLimitsFile};
use crate::config::scalar::Span;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerFile {
    pub name: Option<String>,
    /// `0.0.0.0:8443`, `[::]:8443`, or `systemd:NAME`.
    pub address: String,
    /// Default: `[h2, http/1.1]`.
    pub protocols: Option<Vec<ProtocolFile>>,
    pub tls: TlsFile,
    pub client_auth: ClientAuthFile,
    #[serde(default)]
    pub limits: LimitsFile,
    /// Networks whose clients may come in; no others do. Default: all.
    pub allow_from: Option<Vec<String>>,
    /// Networks whose clients are kept out, also where `allow_from` has them. Default: none.
    #[serde(default)]
    pub deny_from: Vec<String>,
    /// Balancers before this listener that tell who the client is. Default: none.
    pub proxy_protocol: Option<ProxyProtocolFile>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub enum ProtocolFile {
    #[serde(rename = "h2")]
    H2,
    #[serde(rename = "http/1.1")]
    Http1,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFile {
    /// Chosen by SNI; the first is the default.
    pub certificates: Vec<ServerCertificateFile>,
    /// `"1.2"` or `"1.3"`. Default: 1.2.
    pub minimum_version: Option<String>,
    /// Default: 1.3.
    pub maximum_version: Option<String>,
    /// Of TLS 1.3 (`TLS_…`) and of TLS 1.2 (in OpenSSL's names). Default, of each version that none is named of: forward
    /// secrecy and authenticated encryption only.
    pub ciphers: Option<Vec<String>>,
    /// Default: X25519MLKEM768, X25519, P-256, P-384; those that the TLS library does not know are left out.
    pub groups: Option<Vec<String>>,
    /// Default: true.
    pub session_tickets: Option<bool>,
    /// Counts from the full handshake; at most 7 days. Default: 1h.
    pub ticket_lifetime: Option<Span>,
    /// Default: `{ rotate: 12h }`.
    pub ticket_keys: Option<TicketKeysFile>,
}

/// One of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketKeysFile {
    /// Keys are made at start and in such intervals, and are never written anywhere.
    pub rotate: Option<Span>,
    /// Keys that several nodes share, one a line as `openssl rand -hex 80` prints them. The first one seals, all open.
    pub file: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificateFile {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, unencrypted.
    pub key: String,
    /// The word of the certificate's authority that it is not revoked, for clients that ask for it. Default: none.
    pub ocsp: Option<OcspFile>,
}

/// Where an OCSP response comes from: one of `file` and `responder`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OcspFile {
    /// The response, as DER.
    pub file: Option<String>,
    /// Who is asked for it: `http://…`, `https://…`, or `from_certificate`: whom the certificate names.
    pub responder: Option<String>,
    /// Of one question to the responder, in all. Default: 30s.
    pub timeout: Option<Span>,
    /// PEM, whoever issued the leaf. Default: the second certificate of `chain`.
    pub issuer: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM, unencrypted.
    pub key: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthFile {
    /// Default: require.
    pub mode: Option<ModeFile>,
    /// The trust domains that may enter here.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Whether a handshake names the authorities that are trusted. Default: true.
    pub send_ca_names: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModeFile {
    Require,
    Optional,
    Off,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Default: 5s.
    pub handshake_timeout: Option<Span>,
    /// Default: 4096.
    pub handshakes_in_flight: Option<usize>,
    /// Default: 100000.
    pub connections: Option<usize>,
    /// Default: 60s.
    pub keepalive_timeout: Option<Span>,
    /// Default: 10s.
    pub request_header_timeout: Option<Span>,
    /// Default: 60s.
    pub body_timeout: Option<Span>,
    /// Default: 250.
    pub min_bytes_per_second: Option<u64>,
    /// Of one HTTP/2 connection. Default: 100.
    pub resets_per_second: Option<u32>,
    /// Default: 65536.
    pub max_head_bytes: Option<usize>,
    /// Default: 128.
    pub max_fields: Option<usize>,
    /// Default: 8192.
    pub max_target_bytes: Option<usize>,
    /// Default: 1073741824.
    pub max_body_bytes: Option<u64>,
    /// Default: 8192.
    pub max_trailer_bytes: Option<usize>,
    /// Of one IPv4 address, or one IPv6 /64.
    #[serde(default)]
    pub per_address: SourceLimitsFile,
    /// Of one IPv4 /24, or one IPv6 /48.
    #[serde(default)]
    pub per_network: SourceLimitsFile,
    /// Networks for which `per_address` and `per_network` do not count. Default: none.
    #[serde(default)]
    pub exempt: Vec<String>,
}
