//! How Pingora is told to reach an endpoint.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::CertKey;

use super::announcement::{Announcing, OnBehalf};
use super::{LoadedUpstreamTls, Patience};
use crate::config::{PoolConfig, UpstreamProtocol, UpstreamVerify};
use crate::proxy_protocol::{Header, Version};

/// Everything about a pool's connections but the address; made once.
pub(super) struct PeerTemplate {
    peer: HttpPeer,
    announces: Option<Version>,
}

impl PeerTemplate {
    pub(super) fn new(config: &PoolConfig, loaded: LoadedUpstreamTls) -> Self {
        let server_name = config.tls.as_ref().map(|tls| {
            tls.server_name
                .clone()
                .unwrap_or_else(|| host_of(config.endpoints.first().map_or("", |e| &e.address)))
        });
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut peer = HttpPeer::new(anywhere, config.tls.is_some(), server_name.unwrap_or_default());
        let verify = config.tls.as_ref().is_some_and(|tls| !matches!(tls.verify, UpstreamVerify::Off));
        let options = &mut peer.options;
        options.connection_timeout = Some(config.timeouts.connect);
        options.total_connection_timeout = Some(config.timeouts.connect);
        options.read_timeout = Some(config.timeouts.first_byte);
        options.write_timeout = Some(config.timeouts.first_byte);
        options.idle_timeout = Some(config.timeouts.idle);
        options.verify_cert = verify;
        options.verify_hostname = verify;
        options.ca = loaded.ca.map(|ca| Arc::from(ca.into_boxed_slice()));
        options.alpn = match config.protocol {
            UpstreamProtocol::Http1 => ALPN::H1,
            UpstreamProtocol::H2 => ALPN::H2,
        };
        options.max_h2_streams = 100;
        peer.client_cert_key = loaded.client.map(|(chain, key)| Arc::new(CertKey::new(chain, key)));
        peer.group_key = group_key(config);
        Self { peer, announces: config.proxy_protocol }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.peer.is_tls()
    }

    pub(super) fn announces(&self) -> bool {
        self.announces.is_some()
    }

    pub(super) fn announcement(&self, header: &Header) -> Vec<u8> {
        self.announces.map(|version| version.write(header)).unwrap_or_default()
    }

    pub(super) fn peer(
        &self,
        address: SocketAddr,
        patience: Patience,
        client: impl FnOnce() -> OnBehalf,
    ) -> Box<HttpPeer> {
        let mut peer = self.peer.clone();
        peer._address = address.into();
        if self.announces() {
            let client = client();
            peer.options.custom_l4 = Some(Arc::new(Announcing(self.announcement(&client.header))));
            // Should one be kept, it is not found by anybody else.
            let mut hasher = DefaultHasher::new();
            (peer.group_key, client.connection).hash(&mut hasher);
            peer.group_key = hasher.finish();
        }
        let options = &mut peer.options;
        match patience {
            Patience::Usual => {}
            Patience::Endless => (options.read_timeout, options.write_timeout) = (None, None),
            Patience::AtMost(left) => {
                for timeout in [
                    &mut options.connection_timeout,
                    &mut options.total_connection_timeout,
                    &mut options.read_timeout,
                    &mut options.write_timeout,
                ] {
                    *timeout = Some(timeout.map_or(left, |timeout| timeout.min(left)));
                }
            }
        }
        Box::new(peer)
    }
}

/// Connections are reused only within a pool of the same settings: another pool may show another certificate, or
/// verify against another CA.
fn group_key(config: &PoolConfig) -> u64 {
    let mut hasher = DefaultHasher::new();
    config.name.hash(&mut hasher);
    format!("{:?}", config.tls).hash(&mut hasher);
    hasher.finish()
}

fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    host.trim_matches(['[', ']']).to_owned()
}
