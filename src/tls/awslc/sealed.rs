//! A session ticket as bytes: the session itself and what we know about it, sealed.
//!
//! `name (16) ‖ nonce (12) ‖ sealed { session ‖ count × position (8) ‖ count (1) ‖ ticket data } ‖ tag (16)`
//!
//! The session stands first, and all happens in the one buffer that the library gives, so that nothing is copied twice.

use super::cipher::{NONCE, TAG};
use crate::telemetry::Declined;
use crate::tls::keys::{KeyRing, TicketKey};
use crate::tls::ticket::TicketData;

/// A longer chain is not resumed: the client makes a full handshake.
const LONGEST_CHAIN: usize = 16;
/// Of a chain that cannot be carried.
const NO_CHAIN: u8 = u8::MAX;

/// Where in a ticket the session begins.
pub(super) const START: usize = TicketKey::NAME + NONCE;

/// The most that sealing adds to a session.
pub(super) const OVERHEAD: usize = START + LONGEST_CHAIN * Position::SIZE + 1 + TicketData::LONGEST + TAG;

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

/// Makes a ticket of the session of `len` bytes that stands in `buffer` from [`START`] on; how long it is.
///
/// `None` for the chain: one that cannot be found again. Such a ticket is one that nobody will honour.
pub(super) fn seal(
    key: &TicketKey,
    buffer: &mut [u8],
    len: usize,
    chain: Option<&[Position]>,
    data: &TicketData<'_>,
) -> Option<usize> {
    let (name, rest) = buffer.split_first_chunk_mut()?;
    let (nonce, rest) = rest.split_first_chunk_mut()?;
    *name = key.name;
    openssl::rand::rand_bytes(nonce).ok()?;
    let free = rest.len().checked_sub(len)?;
    let mut tail = &mut rest[len..];
    write_tail(&mut tail, chain, data).ok()?;
    let len = len + free - tail.len();
    Some(START + key.cipher.seal(nonce, name, rest, len)?)
}

fn write_tail(
    out: &mut impl std::io::Write,
    chain: Option<&[Position]>,
    data: &TicketData<'_>,
) -> std::io::Result<()> {
    let positions = chain.unwrap_or_default();
    for position in positions {
        out.write_all(&position.encode())?;
    }
    out.write_all(&[chain.map_or(NO_CHAIN, |positions| positions.len() as u8)])?;
    data.write(out)
}

/// What stands in front of a ticket in the clear.
pub(super) struct Head {
    name: [u8; TicketKey::NAME],
    nonce: [u8; NONCE],
}

impl Head {
    /// With what follows it.
    pub(super) fn split(ticket: &[u8]) -> Option<(Self, &[u8])> {
        let (name, rest) = ticket.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        Some((Self { name: *name, nonce: *nonce }, rest))
    }

    /// Opens what followed it, in place. Nothing is looked at that [`seal`] did not write under one of `keys`.
    pub(super) fn open<'a>(&self, keys: &KeyRing, sealed: &'a mut [u8]) -> Result<Opened<'a>, Declined> {
        let key = keys.named(&self.name).ok_or(Declined::UnknownKey)?;
        let plain = key.cipher.open(&self.nonce, &self.name, sealed).ok_or(Declined::Malformed)?;
        Opened::parse(plain).ok_or(Declined::Malformed)
    }
}

/// What was in a ticket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened<'a> {
    /// The chain that the client had presented, leaf first; empty if it had none.
    pub(super) chain: Vec<&'a [u8]>,
    pub(super) data: TicketData<'a>,
    pub(super) session: &'a [u8],
}

impl<'a> Opened<'a> {
    fn parse(plain: &'a [u8]) -> Option<Self> {
        let (rest, data) = TicketData::split(plain)?;
        let (&count, rest) = rest.split_last()?;
        if usize::from(count) > LONGEST_CHAIN {
            return None;
        }
        let positions = rest.len().checked_sub(usize::from(count) * Position::SIZE)?;
        let (session, positions) = rest.split_at_checked(positions)?;
        let (positions, _) = positions.as_chunks();
        let chain = positions.iter().map(|position| Position::decode(*position).within(session));
        Some(Self { chain: chain.collect::<Option<_>>()?, data, session })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: TicketData<'_> =
        TicketData { began: 7, policy: &[1; 32], voucher: &[2; 32], server_name: b"a.test" };

    fn ring(fill: u8) -> KeyRing {
        let key = TicketKey::new(&[fill; TicketKey::SIZE]).unwrap();
        KeyRing::shared(vec![key], std::time::Instant::now(), 0)
    }

    fn sealed(fill: u8, session: &[u8], chain: Option<&[Position]>) -> Vec<u8> {
        let mut buffer = vec![0; START];
        buffer.extend(session);
        buffer.resize(session.len() + OVERHEAD, 0);
        let len = seal(ring(fill).sealing().unwrap(), &mut buffer, session.len(), chain, &DATA).unwrap();
        buffer.truncate(len);
        buffer
    }

    /// Chain and session, if it can be opened; what else was sealed is compared.
    fn opened(keys: &KeyRing, ticket: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), Declined> {
        let (head, rest) = Head::split(ticket).ok_or(Declined::Malformed)?;
        let mut rest = rest.to_vec();
        let opened = head.open(keys, &mut rest)?;
        assert_eq!(opened.data, DATA);
        Ok((opened.chain.iter().map(|der| der.to_vec()).collect(), opened.session.to_vec()))
    }

    #[test]
    fn the_chain_is_found_again_in_the_session() {
        let session = b"..a leaf of sixteen.. padding, of sixteen, ..an intermediate, too..";
        let chain: [&[u8]; 2] = [b"a leaf of sixteen", b"an intermediate, too"];
        let positions = Position::of_all(&chain, session);
        let ticket = sealed(1, session, positions.as_deref());
        let expected = chain.iter().map(|der| der.to_vec()).collect();
        assert_eq!(opened(&ring(1), &ticket), Ok((expected, session.to_vec())));
    }

    #[test]
    fn a_chain_that_is_not_in_the_session_makes_a_ticket_of_no_worth() {
        let positions = Position::of_all(&[b"another leaf that is not there".as_slice()], b"session");
        assert_eq!(Position::of_all(&[b"short".as_slice()], b"short"), None);
        assert_eq!(positions, None);
        assert_eq!(opened(&ring(1), &sealed(1, b"session", None)), Err(Declined::Malformed));
        assert_eq!(Position::of_all(&[b"s".as_slice(); LONGEST_CHAIN + 1], &[b's'; 99]), None);
    }

    #[test]
    fn a_ticket_that_does_not_fit_is_none() {
        let mut buffer = vec![0; START + 7 + 40];
        assert_eq!(seal(ring(1).sealing().unwrap(), &mut buffer, 7, Some(&[]), &DATA), None);
        assert_eq!(seal(ring(1).sealing().unwrap(), &mut buffer, 1000, Some(&[]), &DATA), None);
    }

    #[test]
    fn a_ticket_of_other_keys_or_with_one_bit_changed_or_cut_off_is_none() {
        let ticket = sealed(1, b"session", Some(&[]));
        assert!(ticket.len() <= OVERHEAD + b"session".len());
        assert_eq!(opened(&ring(2), &ticket), Err(Declined::UnknownKey));
        for bit in 0..ticket.len() * 8 {
            let mut changed = ticket.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&ring(1), &changed).is_err(), "bit {bit}");
        }
        for len in 0..ticket.len() {
            assert!(opened(&ring(1), &ticket[..len]).is_err(), "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(session in proptest::collection::vec(any::<u8>(), 0..500)) {
            let ticket = sealed(3, &session, Some(&[]));
            prop_assert_eq!(opened(&ring(3), &ticket), Ok((vec![], session)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Opened::parse(&bytes);
            prop_assert!(opened(&ring(1), &bytes).is_err());
            // Also behind the name of a key that is held.
            prop_assert!(opened(&ring(1), &[[1; TicketKey::NAME].as_slice(), &bytes].concat()).is_err());
        }
    }
}
