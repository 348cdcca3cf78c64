//! What the TLS sessions of a listener are bound to.

use std::time::Duration;

use openssl::sha::Sha256;

use crate::trust::ClientIdentity;

pub(super) type Digest = [u8; 32];

/// A session is resumed only by a listener with the same terms, on whichever node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTerms {
    policy: Digest,
    strangers: Digest,
    lifetime: i64,
}

impl SessionTerms {
    /// `policy`: everything that a full handshake asks for, besides whom it believes: that is judged anew. `strangers`:
    /// what a client without a certificate might have shown one for. `lifetime` counts from the full handshake.
    pub fn new<'a>(
        policy: impl IntoIterator<Item = &'a [u8]>,
        strangers: impl IntoIterator<Item = &'a [u8]>,
        lifetime: Duration,
    ) -> Self {
        Self {
            policy: digest(b"portcullis session policy", policy),
            strangers: digest(b"portcullis session without certificate", strangers),
            lifetime: lifetime.as_secs() as i64,
        }
    }

    /// Of a listener that hands out no tickets: nothing is ever fresh.
    pub fn none() -> Self {
        Self { policy: [0; 32], strangers: [0; 32], lifetime: -1 }
    }

    /// Also the session id context, which the TLS libraries compare themselves.
    pub fn policy(&self) -> &Digest {
        &self.policy
    }

    /// Seconds.
    pub(super) fn lifetime(&self) -> i64 {
        self.lifetime
    }

    /// Who vouches for the client, in which trust domain.
    pub(super) fn voucher<'a>(&'a self, client: Option<&'a ClientIdentity>) -> &'a Digest {
        client.map_or(&self.strangers, ClientIdentity::voucher)
    }
}

/// No two lists of parts have the same.
fn digest<'a>(purpose: &'a [u8], parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = Sha256::new();
    for part in std::iter::once(purpose).chain(parts) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_in_other_parts_are_other_terms() {
        let terms = |parts: &[&'static [u8]]| {
            SessionTerms::new(parts.iter().copied(), [], Duration::from_secs(1)).policy
        };
        assert_eq!(terms(&[b"ab", b"c"]), terms(&[b"ab", b"c"]));
        assert_ne!(terms(&[b"ab", b"c"]), terms(&[b"a", b"bc"]));
        assert_ne!(terms(&[b"ab"]), terms(&[b"ab", b""]));
    }
}
