//! HTTPS for the HTTP client, through the one TLS library that is in the process anyway.

use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, MidHandshakeSslStream, SslConnector, SslMethod, SslStream, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509VerifyResult};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Puts TLS around a connection where the URL asks for it.
#[derive(Debug)]
pub(super) struct Secure {
    /// Whom to believe; `None`: whom the system believes.
    ca: Option<PathBuf>,
}

impl Secure {
    pub(super) fn new(ca: Option<&Path>) -> Self {
        Self { ca: ca.map(Path::to_owned) }
    }

    /// Made for each connection: a CA that was replaced counts at once.
    fn connector(&self) -> Result<SslConnector, Error> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(library)?;
        builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(library)?;
        let mut store = X509StoreBuilder::new().map_err(library)?;
        let files = match &self.ca {
            Some(file) => vec![file.clone()],
            None => system_bundle().into_iter().collect(),
        };
        for file in files {
            let pem = std::fs::read(&file)?;
            for certificate in X509::stack_from_pem(&pem).map_err(library)? {
                store.add_cert(certificate).map_err(library)?;
            }
        }
        builder.set_cert_store(store.build());
        Ok(builder.build())
    }
}

/// What the operating system keeps for everybody.
fn system_bundle() -> Option<PathBuf> {
    openssl_probe::probe().cert_file
}

impl<In: Transport> Connector<In> for Secure {
    type Out = Either<In, SecureTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let mut adapter = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        adapter.set_timeout(details.timeout);
        // Checks the chain and the name in it, be it a DNS name or an address.
        let stream = self.connector()?.connect(host, Plain(adapter)).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => library(error),
            HandshakeError::Failure(stream) | HandshakeError::WouldBlock(stream) => broken_off(stream),
        })?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(SecureTransport { stream, buffers })))
    }
}

fn library(error: ErrorStack) -> Error {
    Error::Io(std::io::Error::other(error))
}

fn broken_off(stream: MidHandshakeSslStream<Plain>) -> Error {
    let verified = stream.ssl().verify_result();
    match stream.into_error().into_io_error() {
        Ok(error) => Error::from(error),
        Err(_) if verified != X509VerifyResult::OK => {
            let found = format!("its certificate is not believed: {}", verified.error_string());
            Error::Io(std::io::Error::other(found))
        }
        Err(error) => Error::Io(std::io::Error::other(error)),
    }
}

/// What lies below TLS.
struct Plain(TransportAdapter);

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

pub(super) struct SecureTransport {
    stream: SslStream<Plain>,
    buffers: LazyBuffers,
}

impl fmt::Debug for SecureTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecureTransport")
    }
}

impl Transport for SecureTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().0.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        // An error of the connection below comes up as what it was: a timeout stays a timeout.
        self.stream.write_all(output).map_err(Error::from)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().0.set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Each connection carries one request.
        false
    }

    fn is_tls(&self) -> bool {
        true
    }
}
