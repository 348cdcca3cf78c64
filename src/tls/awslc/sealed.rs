//! A session ticket as bytes: what we know about a session, and the session itself, sealed with AES-256-GCM.
//!
//! `name (16) ‖ nonce (12) ‖ sealed { format (1) ‖ began (8) ‖ count (1) ‖ count × position (8) ‖ session } ‖ tag (16)`

use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};

use crate::UnixTime;
use crate::tls::ticket::TicketKeys;

const NAME: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
const FORMAT: u8 = 1;
/// A longer chain is not resumed: the client makes a full handshake.
const LONGEST_CHAIN: usize = 16;
const HEADER: usize = 1 + 8 + 1;

/// The most that sealing adds to a session.
pub(super) const OVERHEAD: usize = NAME + NONCE + HEADER + LONGEST_CHAIN * Position::SIZE + TAG;

/// Where one certificate of the chain lies in the encoded session, which holds each of them as it was presented. That
/// saves carrying the chain twice, or decoding the session to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    start: u32,
    len: u32,
}

impl Position {
    const SIZE: usize = 8;

    /// One for each certificate, in order; `None` if one is not there or they are too many.
    pub(super) fn of_all(chain: &[&[u8]], session: &[u8]) -> Option<Vec<Self>> {
        if chain.len() > LONGEST_CHAIN {
            return None;
        }
        let mut from = 0;
        let find = |certificate: &&[u8]| {
            let start = from + find(certificate, &session[from..])?;
            from = start + certificate.len();
            Some(Self { start: start as u32, len: certificate.len() as u32 })
        };
        chain.iter().map(find).collect()
    }

    fn encode(self) -> [u8; Self::SIZE] {
        (u64::from(self.start) << 32 | u64::from(self.len)).to_be_bytes()
    }

    fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let number = u64::from_be_bytes(bytes);
        Self { start: (number >> 32) as u32, len: number as u32 }
    }

    fn within(self, session: &[u8]) -> Option<&[u8]> {
        session.get(self.start as usize..)?.get(..self.len as usize)
    }
}

/// Where `certificate` stands in `session`. The end of a certificate is its signature, which occurs nowhere else; to look
/// for that is much cheaper than to look for the whole.
fn find(certificate: &[u8], session: &[u8]) -> Option<usize> {
    const END: usize = 16;
    let end = certificate.get(certificate.len().checked_sub(END)?..)?;
    memchr::memmem::find_iter(session, end)
        .filter_map(|at| (at + END).checked_sub(certificate.len()))
        .find(|start| session[*start..].starts_with(certificate))
}

/// Seals and opens tickets under one set of keys.
pub(super) struct Sealer {
    name: [u8; NAME],
    key: [u8; 32],
}

impl Sealer {
    pub(super) fn new(keys: &[u8; TicketKeys::SIZE]) -> Self {
        let (mut name, mut key) = ([0; NAME], [0; 32]);
        name.copy_from_slice(&keys[..NAME]);
        key.copy_from_slice(&keys[TicketKeys::SIZE - 32..]);
        Self { name, key }
    }

    /// `None` for the chain: one that cannot be found again. Such a ticket is one that nobody will honour.
    pub(super) fn seal(
        &self,
        began: UnixTime,
        chain: Option<&[Position]>,
        session: &[u8],
    ) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(OVERHEAD + session.len());
        plain.push(FORMAT);
        plain.extend(if chain.is_some() { began } else { UnixTime::MIN }.to_be_bytes());
        let chain = chain.unwrap_or_default();
        plain.push(chain.len() as u8);
        for position in chain {
            plain.extend(position.encode());
        }
        plain.extend(session);
        let mut nonce = [0; NONCE];
        openssl::rand::rand_bytes(&mut nonce).ok()?;
        let mut tag = [0; TAG];
        let sealed =
            encrypt_aead(Cipher::aes_256_gcm(), &self.key, Some(&nonce), &self.name, &plain, &mut tag)
                .ok()?;
        Some([self.name.as_slice(), &nonce, &sealed, &tag].concat())
    }

    /// `None` for anything that [`seal`](Self::seal) did not write under these keys.
    pub(super) fn open(&self, ticket: &[u8]) -> Option<Opened> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>()?;
        let (sealed, tag) = rest.split_last_chunk::<TAG>()?;
        if *name != self.name {
            return None;
        }
        let opened = decrypt_aead(Cipher::aes_256_gcm(), &self.key, Some(nonce), name, sealed, tag);
        let Ok(plain) = opened else {
            // Forged or damaged; the library's note of it is nobody's business but ours.
            let _ = openssl::error::ErrorStack::get();
            return None;
        };
        Opened::parse(plain)
    }
}

/// What was in a ticket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) began: UnixTime,
    chain: Vec<Position>,
    plain: Vec<u8>,
    /// Where in it the session begins.
    session: usize,
}

impl Opened {
    fn parse(plain: Vec<u8>) -> Option<Self> {
        let (&FORMAT, rest) = plain.split_first()? else { return None };
        let (began, rest) = rest.split_first_chunk::<8>()?;
        let (&count, mut rest) = rest.split_first()?;
        let mut chain = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (position, tail) = rest.split_first_chunk()?;
            chain.push(Position::decode(*position));
            rest = tail;
        }
        let (began, session) = (UnixTime::from_be_bytes(*began), plain.len() - rest.len());
        chain.iter().all(|position| position.within(rest).is_some()).then_some(())?;
        Some(Self { began, chain, plain, session })
    }

    /// The chain that the client had presented, leaf first; empty if it had none.
    pub(super) fn chain(&self) -> Vec<&[u8]> {
        let session = &self.plain[self.session..];
        self.chain.iter().filter_map(|position| position.within(session)).collect()
    }

    pub(super) fn into_session(mut self) -> Vec<u8> {
        self.plain.drain(..self.session);
        self.plain
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealer(fill: u8) -> Sealer {
        Sealer::new(&[fill; TicketKeys::SIZE])
    }

    #[test]
    fn the_chain_is_found_again_in_the_session() {
        let session = b"..a leaf of sixteen.. padding, of sixteen, ..an intermediate, too..";
        let chain: [&[u8]; 2] = [b"a leaf of sixteen", b"an intermediate, too"];
        let positions = Position::of_all(&chain, session);
        let opened = sealer(1).open(&sealer(1).seal(7, positions.as_deref(), session).unwrap()).unwrap();
        assert_eq!((opened.began, opened.chain()), (7, chain.to_vec()));
        assert_eq!(opened.into_session(), session);
    }

    #[test]
    fn a_chain_that_is_not_in_the_session_makes_a_ticket_of_no_worth() {
        let positions = Position::of_all(&[b"another leaf that is not there".as_slice()], b"session");
        assert_eq!(Position::of_all(&[b"short".as_slice()], b"short"), None);
        assert_eq!(positions, None);
        let opened = sealer(1).open(&sealer(1).seal(7, None, b"session").unwrap()).unwrap();
        assert_eq!(opened.began, UnixTime::MIN);
        assert_eq!(Position::of_all(&[b"s".as_slice(); LONGEST_CHAIN + 1], &[b's'; 99]), None);
    }

    #[test]
    fn a_ticket_of_other_keys_or_with_one_bit_changed_is_none() {
        let ticket = sealer(1).seal(7, Some(&[]), b"session").unwrap();
        assert!(ticket.len() <= OVERHEAD + b"session".len());
        assert_eq!(sealer(2).open(&ticket), None);
        for bit in 0..ticket.len() * 8 {
            let mut changed = ticket.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer(1).open(&changed), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(began in any::<i64>(), session in proptest::collection::vec(any::<u8>(), 0..500)) {
            let opened = sealer(3).open(&sealer(3).seal(began, Some(&[]), &session).unwrap()).unwrap();
            prop_assert_eq!(opened.began, began);
            prop_assert!(opened.chain().is_empty());
            prop_assert_eq!(opened.into_session(), session);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Opened::parse(bytes.clone());
            let _ = sealer(1).open(&bytes);
        }
    }
}
