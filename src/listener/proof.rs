//! A listener that says `require` proves it, before it serves anything: a real handshake without a certificate
//! must fail.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslContextRef, SslMethod, SslVerifyMode};

use crate::tls::{self, ClientCheck};
use crate::trust::TrustSet;

const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("a handshake without a certificate was accepted")]
    Accepted,
    #[error("the trial handshake could not be made: {0}")]
    Io(#[from] std::io::Error),
    #[error("the trial handshake could not be made: {0}")]
    Library(#[from] openssl::error::ErrorStack),
}

/// Shakes hands with `context` over a socket pair as a client that has no certificate, in TLS 1.2 and 1.3 as far as
/// the context speaks them, and fails if the server side lets it through.
pub fn refuses_strangers(context: &SslContextRef, trust: &Arc<TrustSet>) -> Result<(), ProofError> {
    let (ours, theirs) = UnixStream::pair()?;
    for end in [&ours, &theirs] {
        end.set_read_timeout(Some(LIMIT))?;
        end.set_write_timeout(Some(LIMIT))?;
    }
    let stranger = std::thread::Builder::new().name("stranger".into()).spawn(move || stranger(theirs))?;
    let mut ssl = Ssl::new(context)?;
    tls::attach(&mut ssl, ClientCheck::new(trust.clone(), 0))?;
    let accepted = ssl.accept(ours).is_ok();
    // The server's end is closed by now, so the stranger ends too.
    let _ = stranger.join();
    if accepted { Err(ProofError::Accepted) } else { Ok(()) }
}

fn stranger(socket: UnixStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = SslContext::builder(SslMethod::tls_client())?;
    // It is our own certificate that is shown; only the other direction is on trial.
    builder.set_verify(SslVerifyMode::NONE);
    let mut ssl = Ssl::new(&builder.build())?;
    ssl.set_alpn_protos(b"\x02h2\x08http/1.1")?;
    // In TLS 1.3 the client's handshake ends before the server's verdict: that one comes with the first read.
    let mut stream = ssl.connect(socket)?;
    stream.read_exact(&mut [0; 1])?;
    Ok(())
}
