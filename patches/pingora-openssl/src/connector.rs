//! `SslConnector` and its builder, for AWS-LC only.
//!
//! Pingora's connector calls `set_sigalgs_list` on the builder. AWS-LC has that
//! function but the `openssl` crate hides the method there, so both types are
//! wrapped to bring it back. All else is reached through `Deref`.

use openssl::error::ErrorStack;
use openssl::ssl::{self, SslContextBuilder, SslMethod};
use std::ffi::CString;
use std::ops::{Deref, DerefMut};

/// See [`openssl::ssl::SslConnector`].
#[derive(Clone, Debug)]
pub struct SslConnector(ssl::SslConnector);

impl SslConnector {
    /// See [`openssl::ssl::SslConnector::builder`].
    pub fn builder(method: SslMethod) -> Result<SslConnectorBuilder, ErrorStack> {
        ssl::SslConnector::builder(method).map(SslConnectorBuilder)
    }

    /// See [`openssl::ssl::SslConnector::into_context`].
    pub fn into_context(self) -> ssl::SslContext {
        self.0.into_context()
    }
}

impl Deref for SslConnector {
    type Target = ssl::SslConnector;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// See [`openssl::ssl::SslConnectorBuilder`].
pub struct SslConnectorBuilder(ssl::SslConnectorBuilder);

impl SslConnectorBuilder {
    /// Sets the signature algorithms to offer and to accept, by name, most
    /// wanted first, separated by colons.
    pub fn set_sigalgs_list(&mut self, sigalgs: &str) -> Result<(), ErrorStack> {
        let Ok(sigalgs) = CString::new(sigalgs) else {
            return Err(ErrorStack::get()); // a NUL inside
        };
        // SAFETY: the pointer comes from a live exclusive reference; the string
        // ends in NUL and is only read during the call.
        let outcome = unsafe { openssl_sys::SSL_CTX_set1_sigalgs_list(self.0.as_ptr(), sigalgs.as_ptr()) };
        match outcome {
            1 => Ok(()),
            _ => Err(ErrorStack::get()),
        }
    }

    /// See [`openssl::ssl::SslConnectorBuilder::build`].
    pub fn build(self) -> SslConnector {
        SslConnector(self.0.build())
    }
}

impl Deref for SslConnectorBuilder {
    type Target = SslContextBuilder;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for SslConnectorBuilder {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
