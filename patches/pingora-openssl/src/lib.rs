//! The TLS face Pingora expects, backed by the `openssl` crate.
//!
//! It stands in for the crate of the same name through `[patch.crates-io]`.
//! Two things differ from it: it also builds when `openssl` sits on AWS-LC
//! (feature `openssl/aws-lc`), and it does not switch on `openssl/vendored`.

#![warn(clippy::all)]

#[cfg(awslc)]
mod connector;
pub mod ext;

#[cfg(not(awslc))]
pub use openssl::ssl;
pub use openssl::{dh, error, hash, nid, pkey, x509};
pub use openssl_sys as ssl_sys;
pub use tokio_openssl as tokio_ssl;

/// [`openssl::ssl`], with two types replaced.
#[cfg(awslc)]
pub mod ssl {
    pub use crate::connector::{SslConnector, SslConnectorBuilder};
    pub use openssl::ssl::*;
}
