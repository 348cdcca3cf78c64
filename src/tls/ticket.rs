//! Session tickets: the keys that seal them, and how long they are good for.

use openssl::error::ErrorStack;
use openssl::ssl::SslContextBuilder;

use super::library;

/// The keys that seal session tickets: made at start, kept in memory only, shared by all contexts of the process,
/// so that a reload does not force every client through a full handshake.
#[derive(Clone)]
pub struct TicketKeys(pub(super) [u8; TicketKeys::SIZE]);

impl TicketKeys {
    /// What OpenSSL wants: 16 bytes of name, 32 for the MAC, 32 for the cipher.
    pub(super) const SIZE: usize = 80;

    pub fn generate() -> Result<Self, ErrorStack> {
        let mut keys = [0; Self::SIZE];
        openssl::rand::rand_bytes(&mut keys)?;
        Ok(Self(keys))
    }
}

/// Lets clients resume sessions from tickets sealed with `keys`, for at most `lifetime` seconds after the full
/// handshake; one ticket in each TLS 1.3 handshake.
pub fn seal_sessions(
    builder: &mut SslContextBuilder,
    keys: &TicketKeys,
    lifetime: u32,
) -> Result<(), ErrorStack> {
    library::set_tickets(builder, 1);
    library::set_session_lifetime(builder, lifetime);
    library::seal_tickets(builder, keys)
}

/// No tickets: every connection begins with a full handshake.
pub fn no_sessions(builder: &mut SslContextBuilder) {
    builder.set_options(openssl::ssl::SslOptions::NO_TICKET);
    library::set_tickets(builder, 0);
}
