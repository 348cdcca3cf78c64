//! What the gateway needs of the TLS library beyond the `openssl` crate's safe face.
//!
//! Four things: our own verdict on the client's chain instead of the library's, the chain and its verdict again
//! when a TLS session is resumed, session ticket keys that survive a reload, and a name for each way a handshake
//! can fail. They differ between the libraries that can stand behind the `openssl` crate, so each library has
//! one file below with the same face.
//!
//! Sources: `SSL_CTX_set_cert_verify_callback(3)`, `SSL_CTX_set_session_ticket_cb(3)`, `SSL_get_error(3)`.

mod failure;
mod ossl;
mod ticket;

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslContextBuilder, SslRef, SslVerifyMode};

use crate::UnixTime;
use crate::trust::{ClientIdentity, Rejection, TrustSet};

pub use failure::{classify, describe};
pub use ticket::TicketKeys;

/// What a chain was judged to be.
pub type Verdict = Result<Arc<ClientIdentity>, Rejection>;

/// Rides on each `Ssl`: whom this connection may trust, and what became of the chain it was shown.
pub struct ClientCheck {
    trust: Arc<TrustSet>,
    ticket_lifetime: i64,
    /// The chain shown in this handshake.
    full: OnceLock<Verdict>,
    /// The chain of the TLS session that the client offered to resume, judged anew.
    resumed: OnceLock<Verdict>,
    /// When the full handshake took place from which an offered session descends.
    full_handshake_at: OnceLock<UnixTime>,
    /// What the client presented besides the leaf; goes into the ticket.
    intermediates: OnceLock<Vec<Vec<u8>>>,
}

impl ClientCheck {
    /// `ticket_lifetime` in seconds counts from the full handshake.
    pub fn new(trust: Arc<TrustSet>, ticket_lifetime: i64) -> Self {
        Self {
            trust,
            ticket_lifetime,
            full: OnceLock::new(),
            resumed: OnceLock::new(),
            full_handshake_at: OnceLock::new(),
            intermediates: OnceLock::new(),
        }
    }

    fn judge(&self, presented: &[&[u8]]) -> Verdict {
        self.trust.verify(presented, now()).map(Arc::new)
    }
}

/// Makes `builder`'s contexts demand (or ask for) a certificate and judge it with the [`ClientCheck`] that was
/// [attached](attach) to the connection. A connection without one is refused.
pub fn verify_clients(builder: &mut SslContextBuilder, demand: Demand) {
    let mode = match demand {
        Demand::Require => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        Demand::Ask => SslVerifyMode::PEER,
    };
    builder.set_verify(mode);
    ossl::set_chain_callback(builder);
    ossl::set_ticket_callbacks(builder);
}

/// How strongly a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    Require,
    Ask,
}

/// Gives a connection its [`ClientCheck`], before the handshake starts.
pub fn attach(ssl: &mut SslRef, check: ClientCheck) -> Result<(), ErrorStack> {
    ssl.set_ex_data(check_index()?, check);
    Ok(())
}

/// What the handshake made of the client: `None` when it showed no certificate.
///
/// After a resumption it is the verdict on the session's chain *now*, not the one of the full handshake.
pub fn verdict(ssl: &SslRef) -> Option<&Verdict> {
    let check = ssl.ex_data(check_index().ok()?)?;
    if ssl.session_reused() { check.resumed.get() } else { check.full.get() }
}

/// The verdict that ended a failed handshake, if it was a verdict that ended it.
pub fn rejection(ssl: &SslRef) -> Option<&Rejection> {
    ssl.ex_data(check_index().ok()?)?.full.get()?.as_ref().err()
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

fn check_index() -> Result<Index<Ssl, ClientCheck>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, ClientCheck>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
