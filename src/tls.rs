//! What the gateway needs of the TLS library beyond the `openssl` crate's safe face.
//!
//! Four things: our own verdict on the client's chain instead of the library's, the chain and its verdict again
//! when a TLS session is resumed, session ticket keys that survive a reload, and a name for each way a handshake
//! can fail. They differ between the libraries that can stand behind the `openssl` crate, so each library has
//! one file below with the same face: `awslc` and `ossl` (OpenSSL).

#[cfg(feature = "aws-lc")]
mod awslc;
mod failure;
mod ocsp;
#[cfg(not(feature = "aws-lc"))]
mod ossl;
mod ticket;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "aws-lc")]
use awslc as library;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{Ssl, SslContextBuilder, SslOptions, SslRef, SslVerifyMode};
use openssl::x509::X509;
#[cfg(not(feature = "aws-lc"))]
use ossl as library;

use crate::UnixTime;
use crate::trust::{ClientIdentity, Rejection, TrustSet};

pub use failure::{classify, describe};
pub use ocsp::{Staple, StapleError, must_be_stapled, ocsp_question};
pub use ticket::{TicketKeys, no_sessions, seal_sessions};

/// What a chain was judged to be.
pub type Verdict = Result<Arc<ClientIdentity>, Rejection>;

/// Rides on each `Ssl`: whom this connection may trust, and what became of the chain it was shown.
pub struct ClientCheck {
    trust: Arc<TrustSet>,
    ticket_lifetime: i64,
    progress: Mutex<Progress>,
}

/// How far a handshake came. Of several tickets that a client offers, only the one looked at last can be the one that
/// is resumed: what an earlier one said is forgotten, or one client could bring another one's ticket along and be taken
/// for it.
#[derive(Default)]
struct Progress {
    /// The chain shown in this handshake.
    full: Option<Verdict>,
    /// The chain of the TLS session that the client offered to resume, judged anew.
    resumed: Option<Verdict>,
    /// When the full handshake took place from which the session descends.
    full_handshake_at: Option<UnixTime>,
    /// What the library's sessions do not keep of the chain.
    #[cfg_attr(feature = "aws-lc", expect(dead_code, reason = "its sessions keep the whole chain"))]
    kept: library::Kept,
}

impl ClientCheck {
    /// `ticket_lifetime` in seconds counts from the full handshake.
    pub fn new(trust: Arc<TrustSet>, ticket_lifetime: i64) -> Self {
        Self { trust, ticket_lifetime, progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change is one assignment: a panic elsewhere leaves nothing half-done.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client presented its chain.
    fn shown(&self, verdict: Verdict, kept: library::Kept) {
        *self.progress() = Progress { full: Some(verdict), kept, ..Progress::default() };
    }

    /// The client offered a ticket, of which nothing is known yet.
    fn offered(&self) {
        *self.progress() = Progress::default();
    }

    /// Whether a session that began with a full handshake at that time is young enough.
    fn is_fresh(&self, full_handshake_at: UnixTime) -> bool {
        now().checked_sub(full_handshake_at).is_some_and(|age| (0..=self.ticket_lifetime).contains(&age))
    }

    /// Takes a session up again, if it would be admitted by a full handshake now. `verdict` is that on its chain, `None`
    /// for a client that had shown none.
    fn resume(&self, full_handshake_at: UnixTime, verdict: Option<Verdict>, kept: library::Kept) -> bool {
        if !self.is_fresh(full_handshake_at) || matches!(verdict, Some(Err(_))) {
            return false;
        }
        let full_handshake_at = Some(full_handshake_at);
        *self.progress() = Progress { full: None, resumed: verdict, full_handshake_at, kept };
        true
    }

    /// When the session that this connection is about to hand out began.
    fn session_began(&self) -> UnixTime {
        *self.progress().full_handshake_at.get_or_insert_with(now)
    }
}

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
    let progress = check(ssl)?.progress();
    if ssl.session_reused() { progress.resumed.clone() } else { progress.full.clone() }
}

/// The verdict that ended a failed handshake, if it was a verdict that ended it.
pub fn rejection(ssl: &SslRef) -> Option<Rejection> {
    check(ssl)?.progress().full.clone()?.err()
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
