//! What the gateway needs of the TLS library beyond the `openssl` crate's safe face.
//!
//! Four things: our own verdict on the client's chain instead of the library's, the chain and its verdict again
//! when a TLS session is resumed, session ticket keys that survive a reload, and a name for each way a handshake
//! can fail. They differ between the libraries that can stand behind the `openssl` crate, so each library has
//! one file below with the same face: `awslc` and `ossl` (OpenSSL).

#[cfg(feature = "aws-lc")]
mod awslc;
mod check;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod key_file;
mod keys;
mod ocsp;
#[cfg(not(feature = "aws-lc"))]
mod ossl;
mod terms;
mod ticket;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "aws-lc")]
use awslc as library;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslOptions, SslRef, SslVerifyMode};
use openssl::x509::X509;
#[cfg(not(feature = "aws-lc"))]
use ossl as library;

use crate::UnixTime;
use crate::telemetry::Declined;
use crate::trust::{Rejection, TrustSet};

pub use check::{ClientCheck, Verdict};
pub use failure::{classify, describe};
pub use key_file::KeyFileError;
pub use keys::{KeyRing, KeySchedule, TicketKeys};
pub use ocsp::{Staple, StapleError, must_be_stapled, ocsp_question};
pub use terms::SessionTerms;

/// Makes `builder`'s contexts demand (or ask for) a certificate and judge it with the [`ClientCheck`] that was
/// [attached](attach) to the connection. A connection without one is refused.
pub fn verify_clients(builder: &mut SslContextBuilder, demand: Demand) {
    let mode = match demand {
        Demand::Require => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        Demand::Ask => SslVerifyMode::PEER,
    };
    library::judge_chains(builder, mode);
}

/// How strongly a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    Require,
    Ask,
}

/// A context for a server that shows `chain`, leaf first, and proves it with `key`.
pub fn server(chain: &[X509], key: &PKeyRef<Private>) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContextBuilder::new(library::server_method())?;
    library::show(&mut builder, chain, key)?;
    Ok(builder)
}

/// Gives `staple` to clients that ask for it, for as long as it may be believed.
pub fn staple(builder: &mut SslContextBuilder, staple: &Staple) -> Result<(), ErrorStack> {
    library::staple(builder, staple)
}

/// Tells clients whose certificates are believed (RFC 8446, section 4.2.4).
pub fn name_authorities(builder: &mut SslContextBuilder, trust: &TrustSet) -> Result<(), ErrorStack> {
    library::name_authorities(builder, trust)
}

/// Gives a connection its [`ClientCheck`], before the handshake starts.
pub fn attach(ssl: &mut SslRef, check: ClientCheck) -> Result<(), ErrorStack> {
    ssl.set_ex_data(check_index()?, check);
    Ok(())
}

/// What the handshake made of the client: `None` when it showed no certificate.
///
/// After a resumption it is the verdict on the session's chain *now*, not the one of the full handshake.
pub fn verdict(ssl: &SslRef) -> Option<Verdict> {
    check(ssl)?.verdict(ssl.session_reused())
}

/// The verdict that ended a failed handshake, if it was a verdict that ended it.
pub fn rejection(ssl: &SslRef) -> Option<Rejection> {
    check(ssl)?.rejection()
}

/// Why a ticket that the client offered was not taken up.
pub fn declined(ssl: &SslRef) -> Option<Declined> {
    check(ssl)?.why_declined()
}

/// Lets clients resume sessions from tickets sealed with `keys`, for at most `lifetime` after the full handshake; one
/// ticket in each TLS 1.3 handshake.
pub fn seal_sessions(
    builder: &mut SslContextBuilder,
    keys: Arc<TicketKeys>,
    lifetime: Duration,
) -> Result<(), ErrorStack> {
    library::set_tickets(builder, 1);
    library::set_session_lifetime(builder, u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
    library::seal_tickets(builder, keys)
}

/// No tickets: every connection begins with a full handshake.
pub fn no_sessions(builder: &mut SslContextBuilder) {
    builder.set_options(SslOptions::NO_TICKET);
    library::set_tickets(builder, 0);
}

/// Whether the handshake is done.
pub fn is_established(ssl: &SslRef) -> bool {
    library::is_established(ssl)
}

/// Switches off what makes TLS weaker: renegotiation, compression, the client's choice of ciphers before ours.
pub fn harden(builder: &mut SslContextBuilder) {
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::CIPHER_SERVER_PREFERENCE | library::OFF);
}

/// Sets the cipher suites of TLS 1.3: they have names of their own, and a list of their own in every library.
pub fn set_tls13_ciphers(builder: &mut SslContextBuilder, names: &str) -> Result<(), ErrorStack> {
    library::set_tls13_ciphers(builder, names)
}

/// The library and its version, for `portcullis version`.
pub fn library() -> &'static str {
    openssl::version::version()
}

/// The clock of the shell; the core takes the time as an argument.
pub fn now() -> UnixTime {
    // A clock before 1970 makes every certificate not yet valid: it fails closed.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as UnixTime)
}

fn check(ssl: &SslRef) -> Option<&ClientCheck> {
    ssl.ex_data(check_index().ok()?)
}

fn check_index() -> Result<Index<Ssl, ClientCheck>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, ClientCheck>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// The keys that seal the tickets of a connection's listener.
fn keys(ssl: &SslRef) -> Option<&TicketKeys> {
    ssl.ssl_context().ex_data(keys_index().ok()?).map(Arc::as_ref)
}

fn keys_index() -> Result<Index<SslContext, Arc<TicketKeys>>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Arc<TicketKeys>>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = SslContext::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
