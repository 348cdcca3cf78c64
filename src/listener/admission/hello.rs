//! What a ClientHello says about sessions, read without taking it off the socket.
//!
//! Only to order those that wait: whoever lies is found out by the TLS library, which reads it anew.

use super::queue::Offer;

/// More is not looked at. The extension that matters in TLS 1.3 is the last one, behind the keys, of which the
/// post-quantum one has 1,216 bytes.
pub(super) const MOST: usize = 4096;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;

/// From the first bytes that a client sent: one record (RFC 8446, sections 4.1.2 and 5.1). What is cut off, in more than
/// one record or malformed offers nothing.
pub(super) fn offer(bytes: &[u8]) -> Offer {
    if offers_session(bytes) == Some(true) { Offer::Session } else { Offer::Nothing }
}

fn offers_session(bytes: &[u8]) -> Option<bool> {
    let mut rest = Reader(bytes);
    if rest.take(1)? != [HANDSHAKE] {
        return None;
    }
    rest.take(4)?;
    if rest.take(1)? != [CLIENT_HELLO] {
        return None;
    }
    // Length, version, random.
    rest.take(3 + 2 + 32)?;
    let _session_id = rest.vector(1)?;
    let _cipher_suites = rest.vector(2)?;
    let _compression_methods = rest.vector(1)?;
    let mut extensions = Reader(rest.vector(2)?);
    while let Some(kind) = extensions.number(2) {
        let content = extensions.vector(2)?;
        if matches!(kind as u16, SESSION_TICKET | PRE_SHARED_KEY) && !content.is_empty() {
            return Some(true);
        }
    }
    Some(false)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Its length comes before it.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = self.number(width)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (kind, content) in extensions {
            list.extend_from_slice(&kind.to_be_bytes());
            list.extend_from_slice(&(content.len() as u16).to_be_bytes());
            list.extend_from_slice(content);
        }
        let mut body = [&[3, 3][..], &[7; 32], &[32], &[9; 32], &[0, 2, 0x13, 1], &[1, 0]].concat();
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        body.extend_from_slice(&list);
        let message = [&[CLIENT_HELLO, 0], &(body.len() as u16).to_be_bytes()[..], &body].concat();
        [&[HANDSHAKE, 3, 1], &(message.len() as u16).to_be_bytes()[..], &message].concat()
    }

    #[test]
    fn a_ticket_or_a_pre_shared_key_offers_a_session_and_nothing_else_does() {
        let keys = [0; 1216];
        for (extensions, expected) in [
            (&[][..], Offer::Nothing),
            (&[(SESSION_TICKET, &[][..]), (51, &keys)], Offer::Nothing),
            (&[(0, b"name"), (SESSION_TICKET, b"ticket")], Offer::Session),
            (&[(51, &keys), (PRE_SHARED_KEY, b"identity")], Offer::Session),
        ] {
            assert_eq!(offer(&hello(extensions)), expected, "{extensions:?}");
        }
    }

    #[test]
    fn what_is_cut_off_offers_nothing() {
        let whole = hello(&[(51, &[0; 64]), (PRE_SHARED_KEY, b"identity")]);
        for length in 0..whole.len() {
            assert_eq!(offer(&whole[..length]), Offer::Nothing, "{length}");
        }
        assert_eq!(offer(&whole), Offer::Session);
    }

    #[test]
    fn the_hello_of_a_real_client_is_read() {
        use openssl::ssl::{Ssl, SslContext, SslMethod};
        #[derive(Debug)]
        struct Sink(Vec<u8>);
        impl std::io::Read for Sink {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::WouldBlock.into())
            }
        }
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        let Err(openssl::ssl::HandshakeError::WouldBlock(begun)) =
            Ssl::new(&context).unwrap().connect(Sink(Vec::new()))
        else {
            panic!("nobody answered")
        };
        assert_eq!(offers_session(&begun.get_ref().0), Some(false));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, keep in 0_usize..60, flip: prop::sample::Index, to: u8) {
            offer(&bytes);
            let mut whole = hello(&[(0, b"name"), (PRE_SHARED_KEY, b"identity")]);
            let at = flip.index(whole.len());
            whole[at] = to;
            offer(&whole);
            whole.truncate(keep);
            whole.append(&mut bytes);
            offer(&whole);
        }
    }
}
