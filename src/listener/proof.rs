//! A listener that says `require` proves it, before it serves anything: real handshakes without a certificate must fail.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use openssl::ssl::{HandshakeError, Ssl, SslContext, SslMethod, SslVerifyMode};

use super::contexts::{ServerContexts, version};
use crate::config::{TlsConfig, TlsVersion};
use crate::telemetry::HandshakeFailure;
use crate::tls::{self, ClientCheck, SessionTerms};
use crate::trust::TrustSet;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("a handshake without a certificate was accepted ({0})")]
    Accepted(Trial),
    #[error("the trial handshake could not be made: {0}")]
    Io(#[from] std::io::Error),
    #[error("the trial handshake could not be made: {0}")]
    Library(#[from] openssl::error::ErrorStack),
}

/// One handshake: a version of TLS, and the server that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    version: TlsVersion,
    server_name: Option<String>,
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.version {
            TlsVersion::Tls12 => "TLS 1.2",
            TlsVersion::Tls13 => "TLS 1.3",
        })?;
        self.server_name.iter().try_for_each(|name| write!(f, " for `{name}`"))
    }
}

/// Shakes hands with a listener over socket pairs as a client that has no certificate, in each version of TLS that it
/// speaks and for each of its certificates, and fails if it lets the client through.
///
/// What ended before a certificate was asked for proves nothing, and no client may get further: those are returned.
pub fn refuses_strangers(
    contexts: &ServerContexts,
    tls: &TlsConfig,
    trust: &Arc<TrustSet>,
) -> Result<Vec<(Trial, HandshakeFailure)>, ProofError> {
    let mut unproven = Vec::new();
    for server_name in contexts.names() {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            if (tls.minimum_version..=tls.maximum_version).contains(&version) {
                let trial = Trial { version, server_name: server_name.clone() };
                match knock(contexts, &trial, trust)? {
                    None => return Err(ProofError::Accepted(trial)),
                    Some(HandshakeFailure::NoCertificate) => {}
                    Some(other) => unproven.push((trial, other)),
                }
            }
        }
    }
    Ok(unproven)
}

/// How the listener's side of the handshake failed; `None`: it did not.
fn knock(
    contexts: &ServerContexts,
    trial: &Trial,
    trust: &Arc<TrustSet>,
) -> Result<Option<HandshakeFailure>, ProofError> {
    let (ours, theirs) = UnixStream::pair()?;
    for end in [&ours, &theirs] {
        end.set_read_timeout(Some(LIMIT))?;
        end.set_write_timeout(Some(LIMIT))?;
    }
    let stranger = stranger(theirs, trial.clone())?;
    let mut ssl = Ssl::new(contexts.context())?;
    tls::attach(&mut ssl, ClientCheck::new(Some(trust.clone()), SessionTerms::none()))?;
    let failure = match ssl.accept(ours) {
        Ok(_) => None,
        Err(HandshakeError::SetupFailure(error)) => return Err(error.into()),
        Err(HandshakeError::Failure(at) | HandshakeError::WouldBlock(at)) => {
            Some(tls::classify(at.error(), at.ssl()))
        }
    };
    // The server's end is closed by now, so the stranger ends too.
    let _ = stranger.join();
    Ok(failure)
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn stranger(socket: UnixStream, trial: Trial) -> std::io::Result<JoinHandle<Ended>> {
    let shake_hands = move || {
        let mut builder = SslContext::builder(SslMethod::tls_client())?;
        // It is our own certificate that is shown; only the other direction is on trial.
        builder.set_verify(SslVerifyMode::NONE);
        builder.set_min_proto_version(Some(version(trial.version)))?;
        builder.set_max_proto_version(Some(version(trial.version)))?;
        let mut ssl = Ssl::new(&builder.build())?;
        ssl.set_alpn_protos(b"\x02h2\x08http/1.1")?;
        if let Some(name) = &trial.server_name {
            ssl.set_hostname(name)?;
        }
        // In TLS 1.3 the client's handshake ends before the server's verdict: that one comes with the first read.
        let mut stream = ssl.connect(socket)?;
        stream.read_exact(&mut [0; 1])?;
        Ok(())
    };
    std::thread::Builder::new().name("stranger".into()).spawn(shake_hands)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{ClientAuthMode, Config};
    use crate::listener::contexts::ServerCertificate;
    use crate::tls::{KeyRing, TicketKeys};
    use crate::trust::mint::Plan;
    use crate::trust::{TrustDomain, TrustPolicy};

    fn prove(mode: ClientAuthMode, tls: &str) -> Result<Vec<(Trial, HandshakeFailure)>, ProofError> {
        let yaml = format!(
            "version: 1\nlisteners: [{{ address: \"127.0.0.1:1\", tls: {{ certificates: [{{ chain: a, key: a }}]{tls} }}, \
             client_auth: {{ trust: [fleet] }} }}]\ntrust: {{ fleet: {{ anchors: a }} }}\n\
             pools: {{ p: {{ endpoints: [\"127.0.0.1:1\"] }} }}\nroutes: [{{ pool: p }}]\n"
        );
        let mut listener = Config::parse(Path::new("x.yaml"), &yaml).unwrap().listeners.remove(0);
        listener.client_auth.mode = mode;
        let ca = Plan::ca("CN=CA").self_signed();
        let certificates = ["a.test", "*.b.test"].map(|name| {
            let server = Plan::leaf("CN=server").signed_by(&ca);
            ServerCertificate {
                chain: vec![server.x509],
                key: server.key,
                names: vec![name.to_owned()],
                staple: None,
            }
        });
        let domain =
            TrustDomain::build("fleet", vec![ca.certificate()], vec![], TrustPolicy::default()).unwrap();
        let trust = Arc::new(TrustSet::new(vec![Arc::new(domain)]));
        let keys = Arc::new(TicketKeys::new(KeyRing::generate(std::time::Instant::now()).unwrap()));
        let contexts = ServerContexts::build(&listener, &certificates, Some(&trust), &keys).unwrap();
        refuses_strangers(&contexts, &listener.tls, &trust)
    }

    #[test]
    fn a_listener_that_requires_refuses_strangers_in_every_version_and_one_that_asks_does_not() {
        assert_eq!(prove(ClientAuthMode::Require, "").unwrap(), []);
        for versions in ["", ", maximum_version: \"1.2\"", ", minimum_version: \"1.3\""] {
            let proof = prove(ClientAuthMode::Optional, versions);
            assert!(matches!(proof, Err(ProofError::Accepted(_))), "{versions}");
        }
    }

    #[test]
    fn what_ends_before_a_certificate_is_asked_for_proves_nothing() {
        let ciphers = ", ciphers: [ECDHE-RSA-AES128-GCM-SHA256]";
        let unproven = prove(ClientAuthMode::Require, ciphers).unwrap();
        let told: Vec<_> = unproven.iter().map(|(trial, failure)| format!("{trial}: {failure:?}")).collect();
        assert_eq!(told, ["TLS 1.2: NoSharedCipher", "TLS 1.2 for `any.b.test`: NoSharedCipher"]);
    }
}
